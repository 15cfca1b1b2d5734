"""A backend whose calls are told of: which, with what outcome, and how long it took."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from sidecar.clock import Clock
from sidecar.core.model import HistoryEntry, NodeRecord, Request, Settings, View
from sidecar.core.units import Epoch, Instant
from sidecar.errors import (
    BackendError,
    BadDocument,
    Conflict,
    Denied,
    EpochBehind,
    NotHolder,
    NotSent,
    OutcomeUnknown,
)
from sidecar.ports import Backend, BackendInfo, Grant, HeldBy, Hold

CallName = Literal[
    "info",
    "acquire",
    "renew",
    "release",
    "break_lock",
    "raise_epoch",
    "publish",
    "withdraw",
    "read",
    "await_change",
    "write",
    "append_history",
    "read_history",
]
CALLS: tuple[CallName, ...] = get_args(CallName)

OUTCOMES: dict[type[BackendError], str] = {
    NotSent: "not_sent",
    OutcomeUnknown: "outcome_unknown",
    Denied: "denied",
    BadDocument: "bad_document",
    EpochBehind: "epoch_behind",
    NotHolder: "not_holder",
    Conflict: "conflict",
}
ANSWERS = frozenset(("ok", "not_holder", "conflict"))
"""Outcomes that say something of the lock or a document, and nothing against the store."""
INTERNAL = "internal"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended."""

    name: CallName
    outcome: str  # ok, a value of OUTCOMES, or INTERNAL
    took_ms: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A view of the cluster, and when it came."""

    view: View
    at: Instant


class MeasuredBackend:
    """Passes every call on, as it is. *told* must return at once and never raise: calls wait for it."""

    def __init__(
        self, backend: Backend, clock: Clock, told: Callable[[Call | Shown | NodeRecord], None]
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._told = told

    def info(self, *, deadline: Instant) -> BackendInfo:
        """See `Backend`."""
        return self._do("info", lambda: self._backend.info(deadline=deadline))

    def acquire(
        self, node: str, instance: str, ttl_ms: int, *, floor: Epoch, deadline: Instant
    ) -> Grant | HeldBy:
        """See `Backend`."""
        return self._do(
            "acquire", lambda: self._backend.acquire(node, instance, ttl_ms, floor=floor, deadline=deadline)
        )

    def renew(self, hold: Hold, *, deadline: Instant) -> Grant:
        """See `Backend`."""
        return self._do("renew", lambda: self._backend.renew(hold, deadline=deadline))

    def release(self, hold: Hold, *, cause: str, deadline: Instant) -> None:
        """See `Backend`."""
        self._do("release", lambda: self._backend.release(hold, cause=cause, deadline=deadline))

    def break_lock(
        self, epoch: Epoch, *, to: str | None, by: str, request: str | None, ttl_ms: int, deadline: Instant
    ) -> None:
        """See `Backend`."""
        self._do(
            "break_lock",
            lambda: self._backend.break_lock(
                epoch, to=to, by=by, request=request, ttl_ms=ttl_ms, deadline=deadline
            ),
        )

    def raise_epoch(self, floor: Epoch, *, ttl_ms: int, by: str, deadline: Instant) -> Epoch:
        """See `Backend`."""
        return self._do(
            "raise_epoch", lambda: self._backend.raise_epoch(floor, ttl_ms=ttl_ms, by=by, deadline=deadline)
        )

    def publish(self, record: NodeRecord, *, ttl_ms: int, deadline: Instant) -> None:
        """See `Backend`. What this node says of itself is told as well."""
        self._told(record)
        self._do("publish", lambda: self._backend.publish(record, ttl_ms=ttl_ms, deadline=deadline))

    def withdraw(self, node: str, instance: str, *, deadline: Instant) -> None:
        """See `Backend`."""
        self._do("withdraw", lambda: self._backend.withdraw(node, instance, deadline=deadline))

    def read(self, *, deadline: Instant) -> View:
        """See `Backend`. The view is told as well."""
        view = self._do("read", lambda: self._backend.read(deadline=deadline))
        self._told(Shown(view, self._clock.now()))
        return view

    def await_change(self, revision: int, *, deadline: Instant) -> View | None:
        """See `Backend`. The view is told as well."""
        view = self._do("await_change", lambda: self._backend.await_change(revision, deadline=deadline))
        if view is not None:
            self._told(Shown(view, self._clock.now()))
        return view

    def write(
        self,
        value: Request | Settings,
        *,
        expected: int,
        hold: Hold | None = None,
        deadline: Instant,
    ) -> int:
        """See `Backend`."""
        return self._do(
            "write", lambda: self._backend.write(value, expected=expected, hold=hold, deadline=deadline)
        )

    def append_history(self, hold: Hold, entry: HistoryEntry, *, deadline: Instant) -> None:
        """See `Backend`."""
        self._do("append_history", lambda: self._backend.append_history(hold, entry, deadline=deadline))

    def read_history(self, limit: int, *, deadline: Instant) -> tuple[HistoryEntry, ...]:
        """See `Backend`."""
        return self._do("read_history", lambda: self._backend.read_history(limit, deadline=deadline))

    def close(self) -> None:
        """Free everything."""
        self._backend.close()

    def _do(self, name: CallName, call: Callable[[], T]) -> T:
        began_at, outcome = self._clock.now(), INTERNAL
        try:
            answer = call()
            outcome = "ok"
            return answer
        except BackendError as error:
            outcome = OUTCOMES.get(type(error), INTERNAL)
            raise
        finally:
            self._told(Call(name, outcome, self._clock.now() - began_at))
