"""The cluster's keys as a watch keeps them: one stream, never a gap, and a check that it still lives.

A thread reads all keys, then follows the stream from the next revision on; whatever breaks the stream
(compaction, a member without leader, a move to another endpoint) makes it begin again with a read. A
stream on a member that froze says nothing for ever: so whoever waits makes sure every `CHECK_MS`, with a
TTL over 10 s every tenth of it, that some linearizable answer has come. While there is no stream the thread
reads, and nobody else: a store that comes back is asked once by each node. A stream that always ends at once
(of a user who may read the keys and not the whole prefix; by a proxy) is begun about once a second.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backends._etcd_client import Client
from backends._etcd_rpc import DELETE, after, pb
from backends._grpc import grpc
from backends._worker import join
from backends.shared import HISTORY
from sidecar.clock import Backoff, Clock
from sidecar.core.units import Instant
from sidecar.errors import BackendError, NotSent

CHECK_MS = 1_000  # silence after which the keys are read; a frozen member delays a wake-up by up to this
LOAD_MS = 2_000
CHECKS_PER_TTL = 10  # at most, where the TTL is long: reads of idle nodes are most of what etcd has to do
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 1.0
LASTED_MS = 1_000  # a stream that ended sooner is not begun again without a pause


@dataclass(frozen=True, slots=True)
class Key:
    """A key's value with what etcd says of it."""

    value: bytes
    mod: int
    create: int
    lease: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys of the cluster but its history, at one revision of one generation of the store."""

    keys: Mapping[str, Key]
    revision: int
    generation: int

    def newer_than(self, other: "Snapshot") -> bool:
        return (self.generation, self.revision) > (other.generation, other.revision)


class Watcher:
    """Keeps the newest `Snapshot`; its thread starts with the first `wait`."""

    def __init__(
        self, client: Client, prefix: bytes, load: Callable[[Instant], Snapshot], clock: Clock
    ) -> None:
        self._client, self._prefix, self._load, self._clock = client, prefix, load, clock
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._latest = Snapshot({}, 0, -1)
        self._error: BackendError | None = None  # why nothing is known since then
        self._stream: Any = None
        self._following = False  # else the thread is about to read: nobody else has to
        self._check_ms = CHECK_MS
        self._backoff = Backoff(PAUSE_FIRST_S, PAUSE_MAX_S)
        self._thread: threading.Thread | None = None
        client.on_move = self.restart

    def wait(self, news: Callable[[Snapshot], bool], deadline: Instant) -> Snapshot | None:
        """Return the first snapshot that is *news*, None when there was none until *deadline*.

        Raises:
            NotSent: The store could not be followed, so that there may have been one.
        """
        self._start()
        while True:
            check_at = self._next_check()
            wait_ms = max(1, min(deadline, check_at) - self._clock.now())
            with self._changed:
                self._changed.wait_for(lambda: self._closed.is_set() or news(self._latest), wait_ms / 1000)
                if self._closed.is_set():
                    raise NotSent(f"{self._client.address}: closed")
                if news(self._latest):
                    return self._latest
                error = self._error
            if self._clock.now() >= deadline:
                if error is not None or self._latest.generation < 0:
                    raise NotSent(str(error or f"{self._client.address}: no answer in time"))
                return None
            if self._clock.now() >= check_at and self._following:
                self._check(deadline)

    def pace(self, ttl_ms: int) -> None:
        """Check a silent stream the more seldom the longer the TTL."""
        self._check_ms = max(CHECK_MS, ttl_ms // CHECKS_PER_TTL)

    @property
    def latest(self) -> Snapshot:
        """Return the newest snapshot; before the first there is one of generation -1, without keys."""
        with self._changed:
            return self._latest

    def offer(self, snapshot: Snapshot) -> None:
        """Take a snapshot that somebody read, if it is newer."""
        with self._changed:
            self._error = None
            if snapshot.newer_than(self._latest):
                self._latest = snapshot
                self._changed.notify_all()

    def restart(self) -> None:
        """Begin again, on the endpoint that is asked first now."""
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def close(self) -> None:
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self.restart()

    def join(self, within_s: float) -> None:
        if self._thread is not None:
            join(self._thread, within_s)

    def _start(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="etcd-watch", daemon=True)
                self._thread.start()

    def _next_check(self) -> Instant:
        now = self._clock.now()
        silent_since = max(self._client.checked_at, now - self._check_ms) if self._following else now
        return Instant(silent_since + self._check_ms)

    def _check(self, deadline: Instant) -> None:
        try:
            self.offer(self._load(Instant(min(deadline, self._clock.now() + CHECK_MS))))
        except BackendError as error:
            with self._changed:
                self._error = error
            self._closed.wait(PAUSE_FIRST_S)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                snapshot = self._load(Instant(self._clock.now() + LOAD_MS))
                self.offer(snapshot)
                began = self._clock.now()
                try:
                    self._follow(snapshot)
                finally:
                    self._rest(began)
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel is closed
                self._lost(
                    NotSent(f"{self._client.address}: watch ended ({type(error).__name__})"), known=True
                )
            except BackendError as error:
                self._lost(error, known=False)
            except Exception as error:  # the outermost frame: nobody may wait for a thread that is gone
                self._lost(NotSent(f"{self._client.address}: watch failed ({error!r})"), known=False)

    def _lost(self, error: BackendError, *, known: bool) -> None:
        """Note the *error*; *known*: the next thing is a read, so only its failure counts."""
        if not known:
            with self._changed:
                self._error = error
            self._closed.wait(self._backoff.next_s())

    def _rest(self, began: Instant) -> None:
        """Pause, unless the stream of *began* has lasted for a while."""
        if self._clock.now() - began >= LASTED_MS:
            self._backoff.reset()
        else:
            self._closed.wait(self._backoff.next_s())

    def _follow(self, start: Snapshot) -> None:
        endpoint = self._client.current
        create = pb.WatchCreateRequest(
            key=self._prefix, range_end=after(self._prefix), start_revision=start.revision + 1
        )
        metadata = self._client.metadata(Instant(self._clock.now() + LOAD_MS))
        self._stream = endpoint.watch(pb.WatchRequest(create_request=create), metadata)
        try:
            if self._client.current is not endpoint or self._closed.is_set():
                return
            self._following = True
            for answer in self._stream:
                if answer.canceled or self._client.generation != start.generation:
                    return
                if answer.events:
                    self._apply(answer, start.generation)
        finally:
            self._following = False
            _end(self._stream)

    def _apply(self, answer: Any, generation: int) -> None:
        with self._changed:
            latest = self._latest
            if latest.generation != generation:
                return
            keys, revision = dict(latest.keys), latest.revision
            for event in answer.events:
                kv = event.kv
                if kv.mod_revision <= latest.revision:
                    continue  # in a snapshot that was offered meanwhile
                revision = max(revision, kv.mod_revision)
                name = kv.key[len(self._prefix) :].decode(errors="replace")
                if name.startswith(HISTORY):
                    continue  # not in what `load` reads either
                if event.type == DELETE:
                    keys.pop(name, None)
                else:
                    keys[name] = Key(kv.value, kv.mod_revision, kv.create_revision, kv.lease)
            if revision > latest.revision:
                self._latest = Snapshot(keys, revision, generation)
                self._changed.notify_all()


def _end(stream: Any) -> None:
    """Cancel *stream* and take its last events, without which gRPC keeps the call for ever, 16 KB each.

    By private names, for want of others (grpcio 1.85); a version without them leaks again, and works.
    """
    stream.cancel()
    with suppress(AttributeError):
        while stream._state.due:  # noqa: SLF001
            stream._consume_next_event()  # noqa: SLF001
