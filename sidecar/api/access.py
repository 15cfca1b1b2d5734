"""Who may give commands: who knows the token, over a connection that keeps it secret.

401: the token is missing or wrong, another one would do. 403: no token would do.
"""

import hmac
import ipaddress
from hashlib import sha256
from typing import NamedTuple

from sidecar.config import Secret


class Denial(NamedTuple):
    """Why a command is not even looked at."""

    status: int
    message: str
    challenge: str | None = None  # of a 401


NO_TOKEN = Denial(
    403, "commands are off: no token is configured; give api.token_file or SIDECAR_API__TOKEN, then reload"
)
IN_THE_CLEAR = Denial(
    403,
    "commands over plain HTTP are taken from this machine alone: give api.tls_cert_file and "
    "api.tls_key_file, or api.plain_http_commands where the network keeps secrets; a token that was sent "
    "just now was readable on the way",
)
MISSING = Denial(401, "a command needs the header `Authorization: Bearer TOKEN`", "Bearer")
WRONG = Denial(401, "this is not the token", 'Bearer error="invalid_token"')


class Access:
    """Judges the requests that are commands."""

    def __init__(self, token: Secret | None, *, encrypted: bool, plain_too: bool) -> None:
        self.token = token
        self._any_address = encrypted or plain_too

    def denial(self, authorization: str | None, own_address: str | None) -> Denial | None:
        """Return why not; None: go on.

        Args:
            authorization: The header.
            own_address: The address the client has connected to. One of the loopback is out of the reach
                of every other machine.
        """
        if self.token is None:
            return NO_TOKEN
        if not self._any_address and not _is_loopback(own_address):
            return IN_THE_CLEAR
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            return MISSING
        return None if _same(given.strip(), self.token.reveal()) else WRONG


def _same(given: str, token: str) -> bool:
    """Compare in a time that tells nothing about *token*, its length neither."""
    digests = (sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, token))
    return hmac.compare_digest(*digests)


def _is_loopback(address: str | None) -> bool:
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
