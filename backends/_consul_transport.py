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

Not guaranteed: no HTTP proxy of the environment is used.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from consul import base
from consul.exceptions import ConsulException, NotFound

from backends._consul_connection import Address, Connection, Credentials, about_datacenter
from backends._rotation import TRY_MS, Rotation
from sidecar.clock import Clock, left_s
from sidecar.core.units import Instant
from sidecar.documents import prepared
from sidecar.errors import BackendError, ConfigError, Denied, NotSent, OutcomeUnknown
from sidecar.resolving import Place, Resolver, first

BODY_MAX_BYTES = 32 * 1024 * 1024  # 1000 history entries are 0.5 MB; more is no answer of ours
IDLE_MAX = 4  # kept connections: renewals, a blocking query, publishing, one command
TOKENS_KEPT = 8  # of those in use before, to be kept out of messages; a token may be replaced every minute
DETAIL_MAX = 200  # characters of an error's body that go into a message


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


class Transport(base.HTTPClient):  # type: ignore[misc]  # the library has no types
    """Carries py-consul's requests; ``until`` says how long and whether they change anything."""

    def __init__(
        self, address: Address, credentials: Credentials, datacenter: str | None, clock: Clock
    ) -> None:
        """Read the files that *credentials* names.

        Raises:
            ConfigError: One cannot be read or used; names the key.
        """
        super().__init__(address.host, address.port, address.scheme)
        self.address, self.closed = address, threading.Event()
        self._credentials, self._datacenter, self._clock = credentials, datacenter, clock
        self._rotation = Rotation(clock)
        self._token = credentials.token
        self._used_tokens: tuple[str | None, ...] = (credentials.token,)
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._open: set[socket.socket] = set()
        self._resolver = Resolver(address.host, address.port)
        self._silent: Any = None  # where a connection ended without an answer
        self._call = threading.local()
        if credentials.token_file is not None:
            self._rotation.add([credentials.token_file.path], self._take_token)
            self._take_token()
        if credentials.tls is not None:
            self._rotation.add(credentials.tls.paths, self._take_files)
            self._tls = credentials.tls.context()

    @property
    def token(self) -> str | None:
        """Return the token that the next request will have."""
        return self._token

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
        self._rotation.close()
        with self._lock:
            self.closed.set()
            open_now, self._idle = tuple(self._open), []
        for sock in open_now:
            with suppress(OSError):  # the plain method: SSLSocket's own takes the reader's state away
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self._resolver.give_up()

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
        self._rotation.start()
        token = self._token
        try:
            return self._send(call, method, path, target, body)
        except Denied:
            self._rotation.look(call.deadline)
            if self._token == token:
                raise
            return self._send(call, method, path, target, body)

    def _send(self, call: _Call, method: str, path: str, target: str, body: bytes) -> base.Response:
        while True:
            connection = self._connection(call)
            try:
                answer = self._exchange(connection, call, method, target, body)
            except _Unanswered:
                continue
            return self._judge(call, path, answer)

    def _exchange(
        self, connection: Connection, call: _Call, method: str, target: str, body: bytes
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
            if not answered:
                self._silent = connection.address
            died = connection.used and not answered and not isinstance(error, TimeoutError)
            if died and not call.writes and not self.closed.is_set():
                raise _Unanswered from error
            raise self._lost(call, error, connection) from error
        finally:
            self._put_back(connection, keep)

    def _judge(self, call: _Call, path: str, answer: base.Response) -> base.Response:
        """Return answers the library understands; raise what the others mean."""
        code, body = answer.code, answer.body
        if 200 <= code < 300 or (code == 404 and path.startswith(("/v1/kv/", "/v1/session/"))):
            return answer
        detail = f"{self.address}: {code} {self._plain(body)}{about_datacenter(body, self._datacenter)}"
        if code in (401, 403):
            raise Denied(f"{detail}: {self._needed()}")
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
            errors = msgspec.json.decode(body, type=prepared(_RolledBack)).errors or []
        except msgspec.MsgspecError:
            return NotSent(detail)
        if any("Permission denied" in e.what or "ACL not found" in e.what for e in errors):
            return Denied(f"{self.address}: permission denied: {self._needed()}")
        return Rejected(tuple(e.op_index for e in errors), self._plain("; ".join(e.what for e in errors)))

    def _needed(self) -> str:
        keys = f"consul.token_file has to name a token with write on key_prefix {self._credentials.prefix}"
        return f"{keys} and on sessions; the file is read again by itself"

    def _lost(self, call: _Call, error: Exception, connection: Connection) -> BackendError:
        what = "closed while a call was under way" if self.closed.is_set() else self._why(error)
        if connection.tls is not None and not connection.used:
            if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
                # TLS 1.3: the server's last word on the handshake comes after ours, and it did not agree
                return NotSent(f"{self.address}: {what}")
            if isinstance(error, ConnectionError | ssl.SSLEOFError) and self._credentials.tls is not None:
                what += f"; perhaps {self._credentials.tls.refused()}"
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
        if isinstance(error, ssl.SSLError) and self._credentials.tls is not None:
            told = self._credentials.tls.explain(str(error))
            if told is not None:
                return told
        return self._plain((isinstance(error, OSError) and error.strerror) or str(error) or repr(error))

    def _plain(self, text: str) -> str:
        """Return *text* as part of a one-line message without the secret."""
        line = " ".join(text.split())
        for token in filter(None, self._used_tokens):
            line = line.replace(token, "***")
        return line[:DETAIL_MAX]

    # Files replaced while we run.
    def _take_token(self) -> None:
        if self._credentials.token_file is not None:
            token = self._credentials.token_file.read()
            if not (token.isascii() and " " not in token):
                raise ConfigError("consul.token_file: a token is one word of printable ASCII")
            self._used_tokens = (*self._used_tokens, token)[-TOKENS_KEPT:]
            self._token = token

    def _take_files(self) -> None:
        """Connect with the files as they are now, and if Consul answers, never again with those before.

        Raises:
            ConfigError: They cannot be used.
            NotSent: Consul does not accept them, or does not answer.
        """
        assert self._credentials.tls is not None, "only called where there are files"
        tls = self._credentials.tls.context()
        call = _Call(Instant(self._clock.now() + TRY_MS), writes=False)
        try:
            connection = self._connect(self._left(call.deadline), tls)
        except OSError as error:
            raise NotSent(f"{self.address}: cannot connect: {self._why(error)}") from error
        self._exchange(connection, call, "GET", "/v1/status/leader", b"")
        self._tls = tls
        while (old := self._take()) is not None:
            self._put_back(old, keep=False)

    # Connections.
    def _connection(self, call: _Call) -> Connection:
        left = self._left(call.deadline)
        with self._lock:
            if self.closed.is_set():
                raise NotSent(f"{self.address}: this backend is closed")
        while (kept := self._take()) is not None:
            if not kept.stale() and kept.tls is self._tls:
                kept.left = left
                return kept
            self._put_back(kept, keep=False)
        try:
            return self._connect(left, self._tls)
        except OSError as error:
            raise NotSent(f"{self.address}: cannot connect: {self._why(error)}") from error

    def _take(self) -> Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _put_back(self, connection: Connection, keep: bool) -> None:
        connection.used = True
        with self._lock:
            keep = keep and connection.tls is self._tls
            if keep and not self.closed.is_set() and len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
            self._open.discard(connection.sock)
        connection.sock.close()

    def _left(self, deadline: Instant) -> Callable[[], float]:
        def left() -> float:
            rest = left_s(deadline, self._clock)
            if rest <= 0:
                raise TimeoutError("no answer in time")
            return rest

        return left

    def _connect(self, left: Callable[[], float], tls: ssl.SSLContext | None) -> Connection:
        def connect(place: Place, share_s: float) -> Connection:
            return Connection(self._open_socket(place, share_s, left, tls), place[1], left, tls)

        return first(_behind(self._silent, self._resolver.places(left)), left, connect)

    def _open_socket(
        self,
        place: Place,
        share_s: float,
        left: Callable[[], float],
        tls: ssl.SSLContext | None,
    ) -> socket.socket:
        sock = socket.socket(place[0], socket.SOCK_STREAM)
        try:
            self._own(sock)
            sock.settimeout(share_s)
            sock.connect(place[1])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is None:
                return sock
            sock.settimeout(min(share_s, left()))
            bare = sock
            sock = tls.wrap_socket(bare, server_hostname=self.address.host, do_handshake_on_connect=False)
            self._disown(bare)
            self._own(sock)  # before the handshake: close() ends that, too
            sock.do_handshake()
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


def _behind(silent: Any, places: Sequence[Place]) -> Sequence[Place]:
    """Return *places* so that *silent* comes last: a program that hangs still accepts connections."""
    found = [number for number, (_, address) in enumerate(places, 1) if address == silent]
    return [*places[found[0] :], *places[: found[0]]] if found else places


class _Unanswered(Exception):
    """A kept connection was dead; a read may go out on another."""
