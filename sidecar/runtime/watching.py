"""The watcher and the publisher: what this node sees of the cluster, and what it shows of itself."""

import random
import threading
from collections.abc import Callable

from sidecar.clock import Backoff, Clock
from sidecar.core.model import NodeRecord, View
from sidecar.core.units import Instant
from sidecar.errors import BackendError
from sidecar.events import LOG
from sidecar.ports import Backend
from sidecar.runtime.lanes import JOIN_WITHIN_S, Health

LONG_POLL_MS = 30_000
SETTLE_S = 0.03  # a takeover changes a node's record several times; the lock's own calls go first
RETRY_FIRST_S, RETRY_MAX_S = 0.05, 1.0
PUBLISH_PARTS = 3  # of a TTL between two publishings at most, as C12 asks: two may fail before it expires


class Watcher:
    """Posts every view the backend shows, from a thread of its own, for as long as it lives."""

    def __init__(
        self, backend: Backend, clock: Clock, post: Callable[[View], None], read_timeout_ms: int
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._post = post
        self._read_timeout_ms = read_timeout_ms
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; the call under way ends when the backend is closed."""
        self._closing.set()

    def join(self) -> None:
        """Wait for the thread, after the backend is closed."""
        self._thread.join(JOIN_WITHIN_S)

    def _watch(self) -> None:
        health, backoff = Health("watch"), Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        view: View | None = None
        while not self._closing.is_set():
            try:
                view = self._next(view)
                health.well()
                backoff.reset()
                continue
            except BackendError as error:
                if not self._closing.is_set():
                    health.ill(error)
            except Exception:  # outermost frame of the thread
                LOG.exception("internal_error")
            view = None
            self._closing.wait(backoff.next_s())

    def _next(self, view: View | None) -> View:
        now = self._clock.now()
        if view is None:
            seen: View | None = self._backend.read(deadline=Instant(now + self._read_timeout_ms))
        else:
            seen = self._backend.await_change(view.revision, deadline=Instant(now + LONG_POLL_MS))
        if seen is None:
            assert view is not None
            return view
        self._post(seen)
        return seen


def publish_pause_s(ttl_ms: int) -> float:
    """Return the time to the next publishing, drawn anew each time: nodes started together drift apart."""
    return ttl_ms / 1000 / PUBLISH_PARTS * random.uniform(0.8, 1.0)


class Publisher:
    """Publishes this node's record when it changes, and often enough that it does not expire."""

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        describe: Callable[[], NodeRecord],
        ttl_ms: int,
        request_timeout_ms: int,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._describe = describe
        self._ttl_ms = ttl_ms
        self._timeout_ms = request_timeout_ms
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="publish", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """Publish soon."""
        self._changed.set()

    def close(self) -> None:
        """Stop publishing; the call under way ends first."""
        self._closing.set()
        self._changed.set()
        self._thread.join(JOIN_WITHIN_S)

    def _publish(self) -> None:
        health = Health("publish")
        while True:
            self._changed.clear()  # before looking: what is set meanwhile ends the wait
            if self._closing.is_set():
                return
            try:
                deadline = Instant(self._clock.now() + self._timeout_ms)
                self._backend.publish(self._describe(), ttl_ms=self._ttl_ms, deadline=deadline)
                health.well()
            except BackendError as error:
                health.ill(error)
            except Exception:  # outermost frame of the thread
                LOG.exception("internal_error")
            if self._changed.wait(publish_pause_s(self._ttl_ms)):
                self._closing.wait(SETTLE_S)
