"""Where an operation finds the cluster, and how it looks at it: within bounded time, through outages."""

import os
import pwd
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sidecar.clock import BootClock, Clock
from sidecar.core.model import View
from sidecar.core.units import Instant
from sidecar.errors import BackendError
from sidecar.operate import words
from sidecar.plugins import load_backend
from sidecar.ports import Backend

if TYPE_CHECKING:
    from sidecar.config import Config

READ_WITHIN_MS = 5_000
"""Total time for the first look. More keeps a script waiting for a store that is down."""
RETRY_WITHIN_MS = 2_000
"""How long a refusal that comes at once is tried again: the election of a store's leader takes 1 s."""
ANSWER_WITHIN_MS = 5_000
"""How long a node has to accept, or its lease's TTL if that is longer. A healthy one needs a round trip."""
LOOK_MS = 1_000
"""Length of one wait for news: how soon an interruption is noticed."""
CHECK_AFTER_MS = 3_000
"""After so long without news the store is asked whether it is still there."""
PAUSE_MS = 200
"""Between a failed call and the next."""


def operator() -> str:
    """Return who gives this command, as ``user@host``, for the records."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return f"{user}@{os.uname().nodename}"


@dataclass(frozen=True, slots=True)
class Desk:
    """An open backend and what an operation has to know besides. ``with`` closes the backend."""

    backend: Backend
    clock: Clock
    cluster: str
    store: str  # the backend's name, for people
    node: str  # this machine's node; it need not run
    ttl_ms: int  # as configured here: used where the lock does not tell its own
    by: str = field(default_factory=operator)
    answer_within_ms: int = ANSWER_WITHIN_MS
    halted: Callable[[], bool] = lambda: False  # has the user had enough?
    pid: int = field(default_factory=os.getpid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.backend.close()

    def after(self, ms: int) -> Instant:
        """Return the instant *ms* from now."""
        return Instant(self.clock.now() + ms)

    def key(self, name: str) -> str:
        """Return what the store calls a key of this cluster, for whoever has to look at it there."""
        return words.stored_key(self.store, self.cluster, name)

    def read(self, by: Instant | None = None) -> View:
        """Return the cluster as it is now.

        Raises:
            BackendError: It could not be read within `READ_WITHIN_MS`, or until *by*.
        """
        until = self.after(READ_WITHIN_MS)
        until = until if by is None else min(until, by)
        again_until = min(until, self.after(RETRY_WITHIN_MS))
        while True:
            try:
                return self.backend.read(deadline=until)
            except BackendError as error:
                if not error.retry or self.halted() or self.clock.now() >= again_until:
                    raise
            pause(PAUSE_MS)


def open_desk(config: "Config") -> Desk:
    """Return where operations find the cluster, with a backend of its own; to be used in a ``with``.

    Raises:
        ConfigError: The backend is not installed, or an option of it is wrong.
    """
    clock = BootClock()
    return Desk(
        backend=load_backend(config.backend)(config.backend_settings(), clock),
        clock=clock,
        cluster=config.cluster,
        store=config.backend,
        node=config.node,
        ttl_ms=config.lock.ttl_ms,
    )


def pause(ms: int) -> None:
    """Let *ms* pass."""
    threading.Event().wait(ms / 1000)


class Follower:
    """The newest view of a cluster. An outage of the store is ridden out and told by ``trouble``."""

    def __init__(self, desk: Desk, view: View) -> None:
        self.view = view
        self.trouble: BackendError | None = None
        self._desk = desk
        self._heard_at = desk.clock.now()

    @property
    def age_ms(self) -> int:
        """How long ago the store has last shown, or confirmed, the view."""
        return self._desk.clock.now() - self._heard_at

    def newer(self, until: Instant) -> bool:
        """Wait for a newer view; False at *until*, when the user has had enough, or at a new ``trouble``."""
        while not self._desk.halted() and self._desk.clock.now() < until:
            before = self.trouble
            if self._look(until):
                return True
            if self.trouble is not None and before is None:
                return False
        return False

    def refresh(self, until: Instant) -> None:
        """Read what the store holds now, trying until *until*.

        Raises:
            BackendError: It could not be read in time, or the user has had enough.
        """
        while True:
            try:
                self.view = self._desk.backend.read(deadline=until)
            except BackendError as error:
                self.trouble = error
                if not error.retry or self._desk.halted() or self._desk.clock.now() >= until:
                    raise
                pause(PAUSE_MS)
            else:
                self._heard()
                return

    def _look(self, until: Instant) -> bool:
        revision = self.view.revision
        try:
            if self.trouble is not None or self._desk.clock.now() >= self._heard_at + CHECK_AFTER_MS:
                asked_until = max(until, self._desk.after(LOOK_MS))  # less says nothing of the store
                self.view = self._desk.backend.read(deadline=min(asked_until, self._desk.after(2 * LOOK_MS)))
                self._heard()
            else:
                deadline = min(until, self._desk.after(LOOK_MS))
                found = self._desk.backend.await_change(revision, deadline=deadline)
                if found is not None:
                    self.view = found
                    self._heard()
        except BackendError as error:
            self.trouble = error
            pause(PAUSE_MS)
        return self.view.revision != revision

    def _heard(self) -> None:
        self.trouble = None
        self._heard_at = self._desk.clock.now()
