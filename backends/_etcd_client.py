"""Calls to an etcd cluster: several endpoints, one total deadline, errors that say what may have happened.

Rules
- The endpoint that worked last is asked first. While it is silent the next one is asked as well, and
  the first answer counts (a hedge), so one frozen member costs a fraction of the deadline. Every
  request is therefore one that may safely arrive twice; ``Answer.maybe`` says when an earlier copy may
  have been carried out.
- A request leaves only on a connection that has answered a ``Status`` before. What fails earlier is
  `NotSent` for certain; what fails later may have happened, unless etcd's code says that it refused.
- Decisions use codes, never texts. Texts are for people: the guesses in `Words` change nothing else.
- Going back: a linearizable answer never has a lower revision than one that was complete before it was
  asked. One that has, or that comes from another cluster id, is from a restored or foreign member. It
  counts only when all members that answer, a majority of the endpoints at least, say the same: then
  the store has been replaced.
"""

import queue
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from backends._etcd_channel import Channel, Endpoint, Material
from backends._etcd_rpc import LINEARIZABLE, pb
from backends._etcd_words import Words
from backends._grpc import grpc
from backends._rotation import TRY_MS, Rotation, SecretFile
from backends._tls import Files
from sidecar.clock import Clock, left_s
from sidecar.core.units import Instant
from sidecar.errors import BackendError, Denied, NotSent, OutcomeUnknown

HEDGE_MAX_MS = (
    400  # silence of an endpoint before the next is asked too; more costs lease when a member freezes
)
PATIENCE_MS = 600  # with a refusal, which may be up to two backoffs old (gRPC fails from memory meanwhile)
REASK_MS = (
    1_000  # etcd 3.4 forgets reads over a change of leader, and answers after 7 s (3.5: asks again itself)
)
PAUSE_MS = 100  # about, between rounds while a cluster has no leader; an election takes about 1 s
CONFIRM_MS = 1_000  # for all members to say whether the store was replaced
TOKEN_NEW_MS = 5_000
"""How long a token that got no answer yet is kept: at most one login in that time where nothing answers."""
REFUSED = frozenset(  # this member did nothing
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # no space; too many requests
        grpc.StatusCode.FAILED_PRECONDITION,  # from 3.6 on what a learner says of every call
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    )
)
CREDENTIALS = frozenset((grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT))
UNREACHED = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED))


class LeaseGone(Exception):
    """A definite answer: there is no such lease (any more)."""


class _TokenRefused(Exception):
    """The token, or having none, is not accepted; a new one may be."""

    maybe = False  # an earlier copy of the request may have been carried out


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and whether an earlier copy of the request may have been carried out before it."""

    body: Any
    maybe: bool


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach the cluster."""

    endpoints: tuple[str, ...]  # HOST:PORT
    tls: Files | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: SecretFile | None = None  # where it is, if it is not given


@dataclass(eq=False)
class _Attempt:
    """One endpoint's turn: connect if need be, then the request."""

    endpoint: Endpoint
    floor: int  # revision known when it was sent: an answer below it goes back
    sent: bool = False
    future: Any = None


class Client:
    """An etcd cluster; any thread may call, several at once."""

    def __init__(self, login: Login, clock: Clock, prefix: str, probe: bytes) -> None:
        """Read the files that *login* names.

        Raises:
            ConfigError: One cannot be read or used; names the key.
        """
        self._probe = probe  # a key that the user may read
        self._words = Words(prefix, login.username, login.tls)
        self._password, self._rotation = login.password, Rotation(clock)
        material = None
        if login.password_file is not None:
            self._rotation.add([login.password_file.path], self._take_password)
            self._password = login.password_file.read()
        if login.tls is not None:
            self._rotation.add(login.tls.paths, self._take_files)
            material = Material.read(login.tls)
        self.endpoints = [Endpoint(address, material) for address in login.endpoints]
        self.generation = 0  # counts confirmed replacements of the store
        self.term = 0  # of raft, from the last linearizable answer
        self.checked_at = Instant(0)  # when the last linearizable answer came
        self.on_move: Callable[[], None] = lambda: None  # another endpoint is asked first from now on
        self._login, self._clock = login, clock
        self._state = threading.RLock()
        self._current = 0
        self._cluster_id: int | None = None
        self._revision = 0
        self._token: str | None = None
        self._token_at = Instant(0)  # when it was given
        self._token_proven = False  # a request with it was answered
        self._token_needed = login.username is not None
        self._calls: set[_Attempt] = set()
        self._closed = False

    @property
    def address(self) -> str:
        """Return all endpoints, for people."""
        return ",".join(endpoint.address for endpoint in self.endpoints)

    @property
    def current(self) -> Endpoint:
        """Return the endpoint that is asked first."""
        return self.endpoints[self._current]

    @property
    def closed(self) -> bool:
        return self._closed

    def call(self, method: str, request: Any, deadline: Instant, *, effect: bool) -> Answer:
        """Return etcd's answer.

        Args:
            method: A key of `UNARY`.
            request: Its message; must be safe to arrive twice.
            deadline: For everything: connecting, logging in, all endpoints.
            effect: Whether the caller's operation may have happened once this was sent.

        Raises:
            LeaseGone: The lease it names does not exist.
            NotSent, OutcomeUnknown, Denied: as their names say.
        """
        maybe = False
        for last in (False, True):
            try:
                metadata = self.metadata(deadline)
                answer = self._hedged(method, request, deadline, effect, metadata)
                return replace(answer, maybe=answer.maybe or maybe)
            except _TokenRefused as error:
                maybe = maybe or error.maybe
                if last or self._login.username is None:
                    raise (OutcomeUnknown if effect and maybe else Denied)(str(error)) from error
                with self._state:
                    self._token, self._token_needed = None, True
            except (NotSent, Denied) as error:
                if effect and maybe:
                    raise OutcomeUnknown(str(error)) from error
                raise
        raise AssertionError("unreachable")

    def metadata(self, deadline: Instant) -> list[tuple[str, str]]:
        """Return what goes with every request, after logging in if that is needed."""
        self._rotation.start()
        found = [("hasleader", "true")]  # a member that knows no leader says so at once
        if self._token_needed and self._token is None:
            self._log_in(deadline)
        if self._token is not None:
            found.append(("token", self._token))
        return found

    def close(self) -> None:
        self._rotation.close()
        with self._state:
            self._closed = True
            calls = list(self._calls)
        for attempt in calls:
            if attempt.future is not None:
                attempt.future.cancel()
        for endpoint in self.endpoints:
            endpoint.close()

    def _log_in(self, deadline: Instant) -> None:
        password = self._password
        try:
            answer = self._authenticate(password, deadline)
        except _TokenRefused as error:
            self._rotation.look(deadline)
            if self._password == password:
                raise self._wrong_password() from error
            try:
                answer = self._authenticate(self._password, deadline)
            except _TokenRefused as again:
                raise self._wrong_password() from again
        except _AuthDisabled:
            self._token_needed = False  # no users there: as with etcd's own client, go on without
            return
        with self._state:
            self._token, self._token_at, self._token_proven = answer.body.token, self._clock.now(), False

    def _authenticate(self, password: str | None, deadline: Instant) -> Answer:
        request = pb.AuthenticateRequest(name=self._login.username, password=password or "")
        return self._hedged("Authenticate", request, deadline, False, [])

    def _wrong_password(self) -> Denied:
        wrong = f"{self.address}: wrong user name or password for {self._login.username}"
        if self._login.password_file is None:
            return Denied(f"{wrong}: change SIDECAR_ETCD__PASSWORD and start again")
        return Denied(f"{wrong}: etcd.password_file {self._login.password_file.path} is read again by itself")

    def _doubt(self, metadata: list[tuple[str, str]]) -> None:
        """Log in again before the next request: one with this token was sent and never answered.

        A token names a raft index, and etcd lets a request with one wait until it has got there: for ever in
        a store that was restored or wiped. Source: etcd ``auth/simple_token.go`` (``isValidSimpleToken``).
        A token that is new is not doubted: a slow store must not be asked for one with every request.
        """
        with self._state:
            suspect = self._token_proven or self._clock.now() >= self._token_at + TOKEN_NEW_MS
            if suspect and self._token is not None and ("token", self._token) in metadata:
                self._token = None

    def beside(self, method: str, request: Any, deadline: Instant) -> Callable[[], Any]:
        """Send *request* to the current endpoint alone, if it is connected; return what tells its answer.

        That returns None when there is none *yet*: nobody waits for it.
        """
        endpoint = self.current
        try:
            metadata = self.metadata(deadline)
            future = endpoint.send(method, request, left_s(deadline, self._clock), metadata)
        except (ValueError, BackendError):
            return lambda: None

        def answer() -> Any:
            if not future.done():
                future.cancel()
                return None
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                body = future.result()
                return body if body.header.cluster_id == self._cluster_id else None
            return None

        return answer

    def ask_versions(self, deadline: Instant) -> str | None:
        """Ask every endpoint for its version; silence is no error. Return the one that leads, if it tells."""
        metadata, timeout_s = self.metadata(deadline), max(0.001, left_s(deadline, self._clock))
        asked = [
            (endpoint, endpoint.send("Status", pb.StatusRequest(), timeout_s, metadata))
            for endpoint in self.endpoints
        ]
        leader = None
        for endpoint, future in asked:
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                status = future.result()
                endpoint.version = str(status.version)
                leader = endpoint.address if status.leader == status.header.member_id else leader
        return leader

    # ---- files replaced while we run

    def _take_password(self) -> None:
        if self._login.password_file is not None:
            self._password = self._login.password_file.read()

    def _take_files(self) -> None:
        """Move each endpoint to a connection made with the files as they are now, if its member accepts them.

        Raises:
            ConfigError: They cannot be used.
            NotSent: A member does not accept them, or does not answer; it is asked as before.
        """
        if self._login.tls is None:
            return
        material = Material.read(self._login.tls)
        left = [e for e in self.endpoints if e.material != material]
        tried = [(endpoint, Channel(endpoint.address, material)) for endpoint in left]
        asked = [channel.method("Status").future(pb.StatusRequest(), TRY_MS / 1000) for _, channel in tried]
        refused: NotSent | None = None
        for (endpoint, channel), future in zip(tried, asked, strict=True):
            error = future.exception()
            if error is None or error.code() not in UNREACHED:
                endpoint.move(channel)
                if endpoint is self.current:
                    self.on_move()
            else:
                channel.close()
                refused = NotSent(f"{endpoint.address}: {self._words.plain(error)}")
        if refused is not None:
            raise refused

    # ---- one call over several endpoints

    def _hedged(
        self, method: str, request: Any, deadline: Instant, effect: bool, metadata: list[tuple[str, str]]
    ) -> Answer:
        done: queue.SimpleQueue[_Attempt] = queue.SimpleQueue()
        pending: set[_Attempt] = set()
        waiting = self._order()
        maybe, again, reason = False, False, "no time left before it was asked"
        next_at = round_at = paused_until = started_at = self._clock.now()
        try:
            while True:
                now = self._clock.now()
                if self._closed or now >= deadline:
                    break
                if waiting and now >= next_at:
                    share_ms = (deadline - now) // len(waiting)
                    next_at = Instant(now + min(share_ms, HEDGE_MAX_MS))
                    attempt = self._start(waiting.pop(0), method, request, deadline, metadata, done)
                    pending.add(attempt)
                    reason = self._words.foremost(reason, f"{attempt.endpoint.address}: no answer in time")
                    continue
                if not waiting:
                    if not pending and not again:
                        break
                    asked = [] if now - round_at >= REASK_MS else [attempt.endpoint for attempt in pending]
                    if again or not asked:
                        waiting = [endpoint for endpoint in self._order() if endpoint not in asked]
                        round_at, again = now, False
                        paused_until = Instant(now + random.randint(PAUSE_MS // 2, PAUSE_MS * 3 // 2))
                        next_at = paused_until
                until = next_at if waiting else Instant(round_at + REASK_MS)
                try:
                    attempt = done.get(timeout=left_s(min(until, deadline), self._clock) + 0.001)
                except queue.Empty:
                    continue
                error = attempt.future.exception() if not attempt.future.cancelled() else _Cancelled()
                if error is None and not attempt.sent:
                    self._connected(attempt, method, request, deadline, metadata, done)
                    continue
                self._over({attempt})
                pending.discard(attempt)
                if error is None:
                    body = attempt.future.result()
                    try:
                        self._accept(attempt, method, body, deadline)
                    except NotSent as refused:
                        raise (OutcomeUnknown(str(refused)) if effect else refused) from None
                    self._stick(attempt.endpoint)
                    self._token_proven = self._token_proven or ("token", self._token) in metadata
                    return Answer(body, maybe or any(other.sent for other in pending))
                said = f"{attempt.endpoint.address}: {self._words.plain(error)}"
                reason = self._words.foremost(reason, said)
                if attempt.sent:
                    verdict = _judge(method, error, said)
                    if isinstance(verdict, NotSent | _AuthDisabled) and (waiting or pending):
                        next_at = self._clock.now()  # another member may do it
                        continue
                    if verdict is not None:
                        elsewhere = maybe or any(other.sent for other in pending)
                        raise _doubted(verdict, said) if effect and elsewhere else verdict
                    maybe = True
                known_good = attempt.endpoint.version is not None  # an election, a restart
                again = again or known_good or self._clock.now() - started_at < PATIENCE_MS
                attempt.endpoint.connected = False
                next_at = max(self._clock.now(), paused_until)  # do not wait for the hedge: this one is over
        finally:
            for attempt in pending:
                attempt.future.cancel()
            self._over(pending)
        for attempt in pending:
            attempt.endpoint.connected = False
        if maybe or any(attempt.sent for attempt in pending):
            self._doubt(metadata)
        self._leave()
        if self._closed:
            reason = f"{self.address}: closed"
        if effect and (maybe or any(attempt.sent for attempt in pending)):
            raise OutcomeUnknown(reason)
        raise NotSent(reason)

    def _over(self, attempts: set[_Attempt]) -> None:
        """Forget them: `close` has nothing to cancel there, and each one keeps 4 KB of gRPC's."""
        with self._state:
            self._calls -= attempts

    def _order(self) -> list[Endpoint]:
        with self._state:
            return self.endpoints[self._current :] + self.endpoints[: self._current]

    def _start(
        self,
        endpoint: Endpoint,
        method: str,
        request: Any,
        deadline: Instant,
        metadata: list[tuple[str, str]],
        done: "queue.SimpleQueue[_Attempt]",
    ) -> _Attempt:
        attempt = _Attempt(endpoint, self._revision)
        with self._state:
            self._calls.add(attempt)
        if endpoint.connected:
            self._connected(attempt, method, request, deadline, metadata, done)
        else:
            self._send(attempt, "Status", pb.StatusRequest(), deadline, metadata, done)
        return attempt

    def _connected(
        self,
        attempt: _Attempt,
        method: str,
        request: Any,
        deadline: Instant,
        metadata: list[tuple[str, str]],
        done: "queue.SimpleQueue[_Attempt]",
    ) -> None:
        if attempt.future is not None:  # of the Status
            attempt.endpoint.version = str(attempt.future.result().version)
        attempt.endpoint.connected = True
        attempt.floor = self._revision
        attempt.sent = True
        self._send(attempt, method, request, deadline, metadata, done)

    def _send(
        self,
        attempt: _Attempt,
        method: str,
        request: Any,
        deadline: Instant,
        metadata: list[tuple[str, str]],
        done: "queue.SimpleQueue[_Attempt]",
    ) -> None:
        timeout_s = max(0.001, left_s(deadline, self._clock))
        try:
            attempt.future = attempt.endpoint.send(method, request, timeout_s, metadata)
        except ValueError as error:  # the channel was closed under us, before anything was sent
            raise NotSent(f"{attempt.endpoint.address}: closed") from error
        attempt.future.add_done_callback(lambda _: done.put(attempt))

    def _stick(self, endpoint: Endpoint) -> None:
        with self._state:
            index = self.endpoints.index(endpoint)
            moved, self._current = index != self._current, index
        if moved:
            self.on_move()

    def _leave(self) -> None:
        """Ask another endpoint first next time, where there is one: this one used up a whole deadline."""
        if len(self.endpoints) == 1:
            return  # to begin its watch again would only add to the load of a store that is slow
        with self._state:
            self._current = (self._current + 1) % len(self.endpoints)
        self.on_move()

    # ---- going back

    def _accept(self, attempt: _Attempt, method: str, body: Any, deadline: Instant) -> None:
        """Note where the store is, or refuse an answer that goes back.

        Raises:
            NotSent: It does, and the store was not replaced.
        """
        if method == "Authenticate":
            return
        header = body.header
        with self._state:
            same = self._cluster_id in (None, header.cluster_id)
            back = method in LINEARIZABLE and header.revision < attempt.floor
            if same and not back:
                self._cluster_id = header.cluster_id
                if method in LINEARIZABLE:
                    self._revision = max(self._revision, header.revision)
                    self.term = header.raft_term
                    self.checked_at = self._clock.now()
                return
            known = self._cluster_id, attempt.floor
        self._confirm(attempt.endpoint, known, deadline)

    def _confirm(self, suspect: Endpoint, known: tuple[int | None, int], deadline: Instant) -> None:
        heads = self._ask_all(Instant(min(deadline, self._clock.now() + CONFIRM_MS)))
        refused = f"{suspect.address}: answers from another or an older cluster; refused"
        alive = [e for e, head in heads if head.cluster_id == known[0] and head.revision >= known[1]]
        if alive:
            self._stick(alive[0])
            raise NotSent(refused)
        if len(heads) <= len(self.endpoints) // 2 or len({head.cluster_id for _, head in heads}) != 1:
            raise NotSent(refused)
        with self._state:
            if (
                self._cluster_id == known[0] and self._revision >= known[1]
            ):  # nobody else has done it meanwhile
                self._cluster_id = heads[0][1].cluster_id
                self._revision = min(head.revision for _, head in heads)
                self.term = 0
                self.generation += 1
        self.on_move()

    def _ask_all(self, deadline: Instant) -> list[tuple[Endpoint, Any]]:
        request = pb.RangeRequest(key=self._probe, count_only=True)  # linearizable
        metadata = self.metadata(deadline)
        timeout_s = left_s(deadline, self._clock)
        try:
            futures = [(e, e.send("Range", request, timeout_s, metadata)) for e in self.endpoints]
        except ValueError as error:
            raise NotSent(f"{self.address}: closed") from error
        heads = []
        for endpoint, future in futures:
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                heads.append((endpoint, future.result().header))
        return heads


class _Cancelled(Exception):
    """Ended by `Client.close`."""


class _AuthDisabled(Exception):
    """The cluster has no users."""


def _doubted(verdict: Exception, reason: str) -> Exception:
    """Return what a member's no means for a request that another member may yet carry out."""
    if isinstance(verdict, _TokenRefused):
        verdict.maybe = True
    return OutcomeUnknown(reason) if isinstance(verdict, NotSent | Denied) else verdict


def _judge(method: str, error: Any, reason: str) -> Exception | None:
    """Return what to raise for a request that was sent and failed; None: unknown, ask elsewhere."""
    code = error.code() if isinstance(error, grpc.RpcError) and hasattr(error, "code") else None
    if code in CREDENTIALS:
        return _TokenRefused(reason)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return Denied(reason)
    if code is grpc.StatusCode.NOT_FOUND:
        return LeaseGone(reason)
    if code is grpc.StatusCode.FAILED_PRECONDITION and method == "Authenticate":
        return _AuthDisabled()
    if code in REFUSED:
        return NotSent(reason)
    return None
