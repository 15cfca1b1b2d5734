"""Addresses of stores and probes: ``scheme://host:port``, nothing hidden in them."""

import os
import re
from typing import NamedTuple

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>\[[^\]/?#]*\]|[^:/?#\[\]]*)(?P<port>:[^/?#]*)?(?P<rest>.*)",
    re.ASCII,
)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9.])?", re.ASCII)
_DIGITS = re.compile(r"\d{1,5}", re.ASCII)


class Address(NamedTuple):
    """Where something listens. *host* is without brackets, *rest* is path and query."""

    scheme: str
    host: str
    port: int | None
    rest: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.rest}"


def of_api(listen: str, *, encrypted: bool) -> str:
    """Return where others find the API that listens at *listen*: by the host's name, if at every address."""
    found = parse(f"http://{listen}", schemes=("http",))
    every = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound to
    host = os.uname().nodename if found.host in every else found.host
    return str(found._replace(scheme="https" if encrypted else "http", host=host))


def parse(text: str, *, schemes: tuple[str, ...], port: int | None = None, path: bool = False) -> Address:
    """Take *text* apart.

    Args:
        text: The address.
        schemes: What may stand before ``://``; the first is the one to suggest.
        port: What to suggest where none is given; None: a port may be left out.
        path: Whether something may follow the port.

    Raises:
        ValueError: One line: what is wrong and what would help. Never shows a password.
    """
    example = f"{schemes[0]}://HOST" + (f":{port}" if port else "")
    if "@" in text:
        raise ValueError("user and password do not belong into an address; give them by file or environment")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text[:80]!r} holds a character that no address has")
    found = _URL.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:80]!r} has no scheme; write it as {example}")
    scheme = found["scheme"].lower()
    if scheme not in schemes:
        raise ValueError(f"{text[:80]!r} must start with {' or '.join(f'{s}://' for s in schemes)}")
    host = _host(found["host"], text, example)
    if not path and found["rest"] not in ("", "/"):
        raise ValueError(f"{text[:80]!r} must end after the port")
    number = _port(found["port"], text, port, example)
    return Address(scheme, host, number, found["rest"] if path else "")


def _host(host: str, text: str, example: str) -> str:
    if not host or host == "[]":
        raise ValueError(f"{text[:80]!r} has no host; write it as {example}")
    if not host.startswith("["):
        if not _HOST.fullmatch(host) or ".." in host:
            raise ValueError(f"{text[:80]!r}: {host[:60]!r} is not a host name")
        return host
    import ipaddress  # 5 ms, and hardly anybody writes brackets

    try:
        return str(ipaddress.IPv6Address(host[1:-1]))
    except ValueError:
        raise ValueError(f"{text[:80]!r}: {host[:60]!r} is not an IPv6 address") from None


def _port(port: str | None, text: str, usual: int | None, example: str) -> int | None:
    if port is None:
        if usual is not None:
            raise ValueError(f"{text[:80]!r} has no port; write it as {example}")
        return None
    if not _DIGITS.fullmatch(port[1:]) or not 1 <= int(port[1:]) <= 65_535:
        hint = "; put an IPv6 address in brackets" if port.count(":") > 1 else ""
        raise ValueError(f"{text[:80]!r}: the port must be 1 to 65535, got {port[1:][:20]!r}{hint}")
    return int(port[1:])
