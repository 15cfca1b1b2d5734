"""Where Consul is, what it is shown, and one connection to it, on which each operation has a deadline."""

import io
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from backends._rotation import SecretFile
from backends._tls import Files

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Address:
    """Where the agent is."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def about_datacenter(body: str, datacenter: str | None) -> str:
    """Return what to say besides an error's *body*, which does not name the datacenter it speaks of."""
    if datacenter is None:
        return ""
    if "Missing node registration" in body:
        return f': the token needs node_prefix "" read in {datacenter} (consul.datacenter), for its sessions'
    if "No path to datacenter" not in body:
        return ""
    return f": consul.datacenter is {datacenter}; `consul catalog datacenters` lists those that there are"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What Consul is shown and how it is trusted; *prefix*, of the keys, is for messages."""

    prefix: str
    token: str | None = field(default=None, repr=False)
    token_file: SecretFile | None = None  # where it is, if it is not given
    tls: Files | None = None  # None: no TLS


class _Timed(io.RawIOBase):
    """Reads a socket; each operation gets what is left of the call's deadline."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._left())
        return self._sock.recv_into(buffer)


class Connection:
    """One HTTP connection, used by one call at a time."""

    def __init__(
        self, sock: socket.socket, address: Any, left: Callable[[], float], tls: "ssl.SSLContext | None"
    ) -> None:
        self.sock, self.address, self.left, self.tls = sock, address, left, tls
        self.used = False  # it has carried a whole exchange already

    # The two methods http.client wants of a socket.
    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self.sock, lambda: self.left()), 65_536)

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(self.left())
        self.sock.sendall(data)

    def close(self) -> None:
        """Do nothing: `Transport` owns it."""

    def stale(self) -> bool:
        """Tell whether the peer has closed it, or sent what nobody asked for."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))
