"""The ``consul`` section of the configuration, checked, as a client. Touches files, not the network."""

from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from backends._consul_client import Client
from backends._consul_connection import Address, Credentials
from backends._rotation import SecretFile
from backends._tls import Files
from backends.shared import known_options, text_option
from sidecar.clock import Clock
from sidecar.errors import ConfigError

DEFAULT = "http://127.0.0.1:8500"
PORT = 8500
# "token" is where a secret given by the environment ends up; a file never holds it.
OPTIONS = ("address", "token", "token_file", "datacenter", "ca_file", "cert_file", "key_file")


def client(options: Mapping[str, object], prefix: str, clock: Clock) -> Client:
    """Return the client that *options* describe, for the keys below *prefix*.

    Raises:
        ConfigError: An option is unknown, of the wrong type or unusable; names the key.
    """
    known_options("consul", options, OPTIONS)
    scheme, host, port = _address(text_option("consul", options, "address") or DEFAULT)
    files = {name: text_option("consul", options, name) for name in ("ca_file", "cert_file", "key_file")}
    if scheme == "http":
        for name, value in files.items():
            if value is not None:
                raise ConfigError(f"consul.{name}: useless without an https:// consul.address")
    token, path = text_option("consul", options, "token"), text_option("consul", options, "token_file")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError("consul.token: a token is one word of printable ASCII")
    credentials = Credentials(
        prefix,
        token,
        SecretFile("consul.token_file", path) if path is not None and token is None else None,
        Files.of("consul", files) if scheme == "https" else None,
    )
    return Client(
        Address(scheme, host, port), credentials, text_option("consul", options, "datacenter"), clock
    )


def _address(address: str) -> tuple[Literal["http", "https"], str, int]:
    wrong = "consul.address: expected http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or PORT
    except ValueError as error:
        raise ConfigError(f"{wrong}: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{wrong}, without a user; a token goes into consul.token_file")
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not host or extra:
        raise ConfigError(f"{wrong}, got {address!r}")
    return ("https" if parts.scheme == "https" else "http"), host, port
