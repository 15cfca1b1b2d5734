"""How Consul is talked to: py-consul's API over a transport that keeps one total deadline per call.

This file and `_consul_client` are the only ones that touch the library. Its own transport (requests)
is left aside, by the opening it provides for that (`consul.base.HTTPClient`), for four reasons found
in 1.8.0: timeouts count per socket operation, so that a trickling answer outlives any of them; a call
under way cannot be ended; ``txn.put`` sends neither token nor datacenter; errors do not tell whether
the request had left.

Rules:
- Nothing is sent again by itself, except a read on a kept connection that died before it answered.
- A request is *sent* from its first byte on. Only a refused or failed connect, a deadline that passes before,
  or an answer that Consul gives before touching its state makes a write `NotSent`.
- The token goes into a header, never into a URL, and never into a message.

Not guaranteed: no HTTP proxy of the environment is used; a name server that hangs costs a
daemon thread until the resolver gives up.
"""

import http.client
import io
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from consul import base
from consul.exceptions import ConsulException, NotFound

from sidecar.clock import Clock, left_s
from sidecar.core.units import Instant
from sidecar.errors import BackendError, Denied, NotSent, OutcomeUnknown

BODY_MAX_BYTES = 32 * 1024 * 1024  # 1000 history entries are 0.5 MB; more is no answer of ours
IDLE_MAX = 4  # kept connections: renewals, a blocking query, publishing, one command
NEEDED = "consul.token_file has to name a token with write on the keys of the cluster"
DETAIL_MAX = 200  # characters of an error's body that go into a message


@dataclass(frozen=True, slots=True)
class Address:
    """Where the agent is and how it is trusted."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Rejected(Exception):
    """The transaction was rolled back; *failed* are the positions of the operations that did not fit."""

    def __init__(self, failed: tuple[int, ...], reason: str) -> None:
        super().__init__(reason)
        self.failed = failed


class _Failed(msgspec.Struct, rename="pascal"):
    op_index: int
    what: str = ""


class _RolledBack(msgspec.Struct, rename="pascal"):
    errors: list[_Failed] | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    deadline: Instant
    writes: bool


class _Timed(io.RawIOBase):
    """Reads a socket; each operation gets what is left of the call's deadline."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._left())
        return self._sock.recv_into(buffer)


class _Connection:
    """One HTTP connection, used by one call at a time."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self.sock, self.left = sock, left
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


class Transport(base.HTTPClient):  # type: ignore[misc]  # the library has no types
    """Carries py-consul's requests; ``until`` says how long and whether they change anything."""

    def __init__(self, address: Address, token: str | None, datacenter: str | None, clock: Clock) -> None:
        super().__init__(address.host, address.port, address.scheme)
        self.address, self.closed = address, threading.Event()
        self._token, self._datacenter, self._clock = token, datacenter, clock
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._open: set[socket.socket] = set()
        self._resolving: _Resolution | None = None
        self._call = threading.local()

    @contextmanager
    def until(self, deadline: Instant, *, writes: bool) -> Iterator[None]:
        """Make the library's calls of this thread end by *deadline*; map what the library raises."""
        self._call.now = _Call(deadline, writes)
        try:
            yield
        except NotFound:
            raise
        except (ConsulException, ValueError, TypeError, LookupError, AttributeError) as error:
            # The library takes an answer apart without looking; msgspec's errors are ValueErrors.
            kind = OutcomeUnknown if writes else NotSent
            raise kind(f"{self.address}: not an answer of Consul ({self._plain(str(error))})") from error
        finally:
            self._call.now = None

    # What the library calls.
    def get(
        self, callback: Any, path: str, params: Any = None, headers: Any = None, raw: bool = False
    ) -> Any:
        return callback(self._request("GET", path, params, b""))

    def put(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:
        body = data.encode() if isinstance(data, str) else data
        return callback(self._request("PUT", path, params, body))

    def delete(
        self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        return callback(self._request("DELETE", path, params, b""))

    def post(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:
        raise NotImplementedError("nothing here is a POST")

    def close(self) -> None:
        """End every call under way and every one to come."""
        with self._lock:
            self.closed.set()
            open_now, self._idle = tuple(self._open), []
        for sock in open_now:
            with suppress(OSError):  # the plain method: SSLSocket's own takes the reader's state away
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        if self._resolving is not None:
            self._resolving.done.set()

    def _request(self, method: str, path: str, params: Any, body: bytes) -> base.Response:
        call: _Call = self._call.now
        if self._clock.now() >= call.deadline:
            raise NotSent(f"{self.address}: no time left before it was asked")
        params = list(params or ())
        if self._datacenter and all(name != "dc" for name, _ in params):
            params.append(("dc", self._datacenter))
        if path == "/v1/txn" and not call.writes:
            params.append(("consistent", "1"))
        target = self.uri(path, params)[len(self.base_uri) :]
        while True:
            connection = self._connection(call)
            try:
                answer = self._exchange(connection, call, method, target, body)
            except _Unanswered:
                continue
            return self._judge(call, path, answer)

    def _exchange(
        self, connection: _Connection, call: _Call, method: str, target: str, body: bytes
    ) -> base.Response:
        """Send one request and read its answer."""
        wire = http.client.HTTPConnection(self.address.host, self.address.port)
        wire.sock = connection
        headers = {"X-Consul-Token": self._token} if self._token else {}
        if method != "GET":
            headers["Content-Type"] = "application/json"
        keep, answered = False, False
        try:
            wire.request(method, target, body or None, headers)
            with wire.getresponse() as response:
                answered = True
                content = response.read(BODY_MAX_BYTES + 1)
                if len(content) > BODY_MAX_BYTES:
                    raise http.client.HTTPException(f"more than {BODY_MAX_BYTES} bytes")
                keep = not response.will_close
            return base.Response(response.status, response.headers, content.decode())
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
            died = connection.used and not answered and not isinstance(error, TimeoutError)
            if died and not call.writes and not self.closed.is_set():
                raise _Unanswered from error
            raise self._lost(call, error) from error
        finally:
            self._put_back(connection, keep)

    def _judge(self, call: _Call, path: str, answer: base.Response) -> base.Response:
        """Return answers the library understands; raise what the others mean."""
        code, body = answer.code, answer.body
        if 200 <= code < 300 or (code == 404 and path.startswith(("/v1/kv/", "/v1/session/"))):
            return answer
        detail = f"{self.address}: {code} {self._plain(body)}"
        if code in (401, 403):
            raise Denied(f"{detail}: {NEEDED}")
        if code == 404:
            raise NotSent(f"{detail}: is that Consul's HTTP API?")
        if code == 409:
            raise self._rejected(detail, body)
        # "No leader errors are always safe to retry since no state could have been changed."
        # Source: hashicorp/consul agent/consul/rpc.go, canRetry. Consul gives no code to tell it by.
        harmless = 400 <= code < 500 or (code == 500 and body.strip().endswith("No cluster leader"))
        if call.writes and not harmless:
            raise OutcomeUnknown(detail)
        raise NotSent(detail)

    def _rejected(self, detail: str, body: str) -> Exception:
        """Return what a rolled-back transaction means; Consul reports missing rights this way too."""
        try:
            errors = msgspec.json.decode(body, type=_RolledBack).errors or []
        except msgspec.MsgspecError:
            return NotSent(detail)
        if any("Permission denied" in e.what or "ACL not found" in e.what for e in errors):
            return Denied(f"{self.address}: permission denied: {NEEDED}")
        return Rejected(tuple(e.op_index for e in errors), self._plain("; ".join(e.what for e in errors)))

    def _lost(self, call: _Call, error: Exception) -> BackendError:
        what = "closed while a call was under way" if self.closed.is_set() else self._why(error)
        kind = OutcomeUnknown if call.writes else NotSent
        return kind(f"{self.address}: {what}")

    def _why(self, error: Exception) -> str:
        """Return for people what went wrong on the way, and a guess at what would help."""
        if isinstance(error, TimeoutError):
            return "no answer in time"
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return "no TLS there: use http://, or the port that has it"
        if isinstance(error, ConnectionRefusedError):
            return "connection refused: is Consul running there?"
        return self._plain((isinstance(error, OSError) and error.strerror) or str(error) or repr(error))

    def _plain(self, text: str) -> str:
        """Return *text* as part of a one-line message without the secret."""
        line = " ".join(text.split())
        if self._token:
            line = line.replace(self._token, "***")
        return line[:DETAIL_MAX]

    # Connections.
    def _connection(self, call: _Call) -> _Connection:
        def left() -> float:
            rest = left_s(call.deadline, self._clock)
            if rest <= 0:
                raise TimeoutError("no answer in time")
            return rest

        with self._lock:
            if self.closed.is_set():
                raise NotSent(f"{self.address}: this backend is closed")
        while (kept := self._take()) is not None:
            if not kept.stale():
                kept.left = left
                return kept
            self._put_back(kept, keep=False)
        try:
            return _Connection(self._connect(left), left)
        except OSError as error:
            raise NotSent(f"{self.address}: cannot connect: {self._why(error)}") from error

    def _take(self) -> _Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _put_back(self, connection: _Connection, keep: bool) -> None:
        connection.used = True
        with self._lock:
            if keep and not self.closed.is_set() and len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
            self._open.discard(connection.sock)
        connection.sock.close()

    def _connect(self, left: Callable[[], float]) -> socket.socket:
        addresses = self._resolve(left)
        for position, (family, address) in enumerate(addresses):
            share = left() / (len(addresses) - position)
            try:
                return self._open_socket(family, address, share, left)
            except OSError:
                if position == len(addresses) - 1:
                    raise
        raise OSError(f"no address for {self.address.host}")

    def _open_socket(
        self, family: int, address: Any, share_s: float, left: Callable[[], float]
    ) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._own(sock)
            sock.settimeout(share_s)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.address.tls is None:
                return sock
            sock.settimeout(left())
            bare = sock
            sock = self.address.tls.wrap_socket(bare, server_hostname=self.address.host)
            self._own(sock)
            self._disown(bare)
        except BaseException:
            self._disown(sock)
            sock.close()
            raise
        return sock

    def _own(self, sock: socket.socket) -> None:
        with self._lock:
            if self.closed.is_set():
                raise OSError("this backend is closed")
            self._open.add(sock)

    def _disown(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.discard(sock)

    def _resolve(self, left: Callable[[], float]) -> Sequence[tuple[int, Any]]:
        """Look the host up on another thread: getaddrinfo knows no timeout."""
        host, port = self.address.host, self.address.port
        with suppress(ValueError):
            version = ipaddress.ip_address(host).version
            return [(socket.AF_INET6 if version == 6 else socket.AF_INET, (host, port))]
        with self._lock:
            if self._resolving is None or self._resolving.done.is_set():
                self._resolving = _Resolution(host, port)
            flight = self._resolving
        flight.done.wait(left())
        return flight.result()


class _Unanswered(Exception):
    """A kept connection was dead; a read may go out on another."""


class _Resolution:
    """One look-up of a host name, shared by all calls that need it meanwhile."""

    def __init__(self, host: str, port: int) -> None:
        self.done = threading.Event()
        self._host, self._port = host, port
        self._found: Sequence[tuple[int, Any]] = ()
        self._error: OSError | None = None
        threading.Thread(target=self._run, name="consul-resolve", daemon=True).start()

    def result(self) -> Sequence[tuple[int, Any]]:
        if self._error is not None:
            raise self._error
        if not self._found:
            raise TimeoutError(f"name server: no answer in time for {self._host}")
        return self._found

    def _run(self) -> None:
        try:
            answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._found = [(family, address) for family, _, _, _, address in answers]
        except OSError as error:
            self._error = error
        except UnicodeError as error:
            self._error = OSError(f"not a host name ({error})")
        finally:
            self.done.set()
