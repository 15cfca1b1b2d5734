"""Ask a server whether it serves: by TCP, by HTTP, or by a command.

One question, one answer, by a deadline, on the caller's thread; who asks how often and what three failures
mean is not decided here. A probe never raises for what the server does: that is its answer.

Not guaranteed: that a server which accepts a TCP connection works; use HTTP, or a command, where that
matters.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from sidecar import accepted
from sidecar.clock import BootClock, Clock, left_s
from sidecar.config.given import without_secrets
from sidecar.core.units import Instant
from sidecar.errors import ConfigError
from sidecar.resolving import Place, Resolver, first

HEAD_BYTES_MAX = 16 * 1024
"""Of an HTTP answer; the status line is all that is looked at."""
KILL_WAIT_S = 0.5
LOOK_S, LOOK_MAX_S = 0.001, 0.05
"""Between two looks whether a connection was accepted: the first is doubled up to the second."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer. *reason* says why not, in one line; empty when *ok*."""

    ok: bool
    reason: str = ""


OK = Finding(True)


class Probe(Protocol):
    """One question to a server."""

    def check(self, deadline: Instant) -> Finding:
        """Ask, and answer by *deadline*; too late is a no. Blocks, so give it a thread."""
        ...


def within(probe: Probe, timeout_ms: int, clock: Clock | None = None) -> Finding:
    """Ask *probe* for an answer in *timeout_ms* from now."""
    return probe.check(Instant((clock or BootClock()).now() + timeout_ms))


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A program accepts connections at every port, at the first of *hosts* where it does.

    *hosts* are numeric addresses: looking up a name has no deadline. Not *accepting*: a port that is open is
    enough, also that of a program which stands still. The kernel accepts for it until its backlog is full.
    """

    ports: Sequence[int]
    hosts: Sequence[str] = ("127.0.0.1",)
    accepting: bool = True
    clock: Clock = field(default_factory=BootClock, repr=False)

    def check(self, deadline: Instant) -> Finding:
        """Connect to one port after the other."""
        for port in self.ports:
            findings = []
            for host in self.hosts:
                findings.append(self._connects(host, port, deadline))
                if findings[-1].ok:
                    break
            else:
                return findings[0] if findings else Finding(False, f"port {port}: no address")
        return OK

    def _connects(self, host: str, port: int, deadline: Instant) -> Finding:
        where = f"{host}:{port}"
        try:
            timeout_s = max(left_s(deadline, self.clock), 0.001)
            with socket.create_connection((host, port), timeout_s) as connection:
                # A free port above 32767 may be picked as the source port too: Linux then connects the
                # socket with itself, and nobody listens.
                if connection.getsockname() == connection.getpeername():
                    return Finding(False, f"{where}: connection refused")
                if self.accepting and not self._accepted(connection, deadline):
                    return Finding(False, f"{where}: connected, but not accepted in time")
                return OK
        except TimeoutError:
            return Finding(False, f"{where}: no answer in time")
        except OSError as error:
            return Finding(False, f"{where}: {_said(error)}")

    def _accepted(self, connection: socket.socket, deadline: Instant) -> bool:
        look_s = LOOK_S
        while accepted.waits(connection):
            if (left := left_s(deadline, self.clock)) <= 0:
                return False
            time.sleep(min(look_s, left))
            look_s = min(2 * look_s, LOOK_MAX_S)
        return True


def _said(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """``GET`` *url* answers *status*.

    Certificates are not verified: an AggreGate Server signs its own, and this asks "does it work?" of
    a server that was started here, it does not trust it with anything.

    Raises:
        ConfigError: *url* is not an http or https address.
    """

    url: str
    status: int = 200
    clock: Clock = field(default_factory=BootClock, repr=False)
    _resolver: Resolver = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = self._parts()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        object.__setattr__(self, "_resolver", Resolver(parts.hostname or "", port))

    def check(self, deadline: Instant) -> Finding:
        """Connect, ask, and read as far as the status line."""
        parts = self._parts()
        try:
            with contextlib.ExitStack() as stack:
                stream = stack.enter_context(self._connection(deadline))
                if parts.scheme == "https":
                    stream.settimeout(self._left_s(deadline))
                    stream = stack.enter_context(_tls(stream, parts.hostname or ""))
                return self._ask(stream, parts, deadline)
        except TimeoutError:
            return Finding(False, f"{self.url}: no answer in time")
        except OSError as error:
            return Finding(False, f"{self.url}: {_said(error)}")

    def _connection(self, deadline: Instant) -> socket.socket:
        """Connect to the first of its addresses that answers, each in its share of the time."""

        def left() -> float:
            return self._left_s(deadline)

        return first(self._resolver.places(left), left, _connected)

    def _ask(self, stream: socket.socket, parts: SplitResult, deadline: Instant) -> Finding:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        request += "User-Agent: aggregate-sidecar\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        stream.settimeout(self._left_s(deadline))
        stream.sendall(request.encode())
        head = b""
        while b"\n" not in head and len(head) < HEAD_BYTES_MAX:
            stream.settimeout(self._left_s(deadline))
            if not (more := stream.recv(4096)):
                break
            head += more
        words = head.split(b"\n", 1)[0].split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            return Finding(False, f"{self.url}: no HTTP answer")
        if int(words[1]) != self.status:
            return Finding(False, f"{self.url}: status {int(words[1])}, expected {self.status}")
        return OK

    def _left_s(self, deadline: Instant) -> float:
        left = left_s(deadline, self.clock)
        if left <= 0:
            raise TimeoutError
        return left

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise ConfigError(f"http probe: not an http or https address: {self.url!r}")
        return parts


def _connected(place: Place, within_s: float) -> socket.socket:
    family, address = place
    stream = socket.socket(family, socket.SOCK_STREAM)
    try:
        stream.settimeout(within_s)
        stream.connect(address)
    except OSError:
        stream.close()
        raise
    return stream


def _tls(stream: socket.socket, host: str) -> socket.socket:
    import ssl  # 4 MB: only for those who probe by https

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(stream, server_hostname=host)


@dataclass(frozen=True, slots=True)
class CommandProbe:
    """A command exits with 0. It runs in a session of its own and is killed, with it, at the deadline.

    Its output goes nowhere. A daemon that it leaves behind in yet another session is not found.
    """

    argv: Sequence[str]
    cwd: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)  # added to ours
    clock: Clock = field(default_factory=BootClock, repr=False)

    def check(self, deadline: Instant) -> Finding:
        """Run it."""
        name = Path(self.argv[0]).name
        try:
            process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self.cwd,
                env=without_secrets(os.environ) | dict(self.environment),
                start_new_session=True,
            )
        except OSError as error:
            return Finding(False, f"{name}: cannot be started: {_said(error)}")
        try:
            status = process.wait(left_s(deadline, self.clock))
        except subprocess.TimeoutExpired:
            return Finding(False, f"{name}: not finished in time")
        finally:
            _end(process)
        if status == 0:
            return OK
        how = f"exit code {status}" if status > 0 else f"killed by signal {-status}"
        return Finding(False, f"{name}: {how}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Stuck in the kernel: Popen reaps it at a later start.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_WAIT_S)
