"""What the contract tests do over and over, in their words."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from sidecar.clock import BootClock
from sidecar.core.model import HistoryEntry, NodeRecord, Request
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import NotSent
from sidecar.ports import Backend, Grant, HeldBy, Hold
from tests.contract.stores import soon

R = TypeVar("R")
CLOCK = BootClock()


def now() -> Instant:
    return CLOCK.now()


def take(backend: Backend, node: str, ttl_ms: int, floor: int = 0) -> Grant:
    """Acquire; anything but a grant fails the test."""
    answer = backend.acquire(node, f"{node}-1", ttl_ms, floor=Epoch(floor), deadline=soon())
    assert isinstance(answer, Grant), answer
    return answer


def refused(backend: Backend, node: str, ttl_ms: int) -> HeldBy:
    answer = backend.acquire(node, f"{node}-1", ttl_ms, floor=NO_EPOCH, deadline=soon())
    assert isinstance(answer, HeldBy), answer
    return answer


def give(backend: Backend, hold: Hold, cause: str = "test") -> None:
    backend.release(hold, cause=cause, deadline=soon())


def crack(backend: Backend, epoch: int, ttl_ms: int = 2_000, by: str = "operator") -> None:
    backend.break_lock(Epoch(epoch), to="b", by=by, request="r-1", ttl_ms=ttl_ms, deadline=soon())


def take_when_free(backend: Backend, node: str, ttl_ms: int, within_ms: int) -> tuple[Grant, Instant]:
    """Ask until the lock is had; return the grant and the last instant *before* the request that got it."""
    until = now() + within_ms
    while True:
        view = backend.read(deadline=soon())
        if not view.vacant:
            with suppress(NotSent):  # 50 ms may be over on a busy machine before it is asked
                backend.await_change(view.revision, deadline=Instant(now() + 50))
        asked_at = now()
        answer = backend.acquire(node, f"{node}-1", ttl_ms, floor=NO_EPOCH, deadline=soon())
        if isinstance(answer, Grant):
            return answer, asked_at
        assert now() < until, f"not free within {within_ms} ms: {answer}"


def node(name: str, instance: str = "1", message: str = "") -> NodeRecord:
    return NodeRecord(
        node=name,
        instance=f"{name}-{instance}",
        role="standby",
        state="monitoring",
        message=message,
        epoch=NO_EPOCH,
        mark=NO_EPOCH,
        enforcement="none",
        priority=100,
        eligible=True,
        available=True,
        failback=False,
        version="0.1.0",
        seen_at_unix_ms=0,
    )


def order(name: str = "r-1", reason: str | None = None) -> Request:
    return Request(name, "switchover", "asked", Epoch(1), "a", "b", "operator", 0, reason)


def entry(epoch: int) -> HistoryEntry:
    return HistoryEntry(Epoch(epoch), "a", None, "test", 0, None, None, None)


class Doing(Generic[R]):
    """A call on a thread of its own, with when it ended."""

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._outcome: R | BaseException
        self.ended_at = Instant(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self, within_s: float = 10) -> R:
        self._thread.join(within_s)
        assert not self._thread.is_alive(), "still going on"
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._outcome = self._call()
        except BaseException as error:
            self._outcome = error
        self.ended_at = now()


def every_call(backend: Backend, hold: Hold) -> dict[str, Callable[[Instant], Any]]:
    """Return each method of the protocol as a call that takes the deadline alone."""
    return {
        "info": lambda d: backend.info(deadline=d),
        "acquire": lambda d: backend.acquire("c", "c-1", hold.ttl_ms, floor=NO_EPOCH, deadline=d),
        "renew": lambda d: backend.renew(hold, deadline=d),
        "release": lambda d: backend.release(hold, cause="test", deadline=d),
        "break_lock": lambda d: backend.break_lock(
            hold.epoch, to=None, by="o", request=None, ttl_ms=hold.ttl_ms, deadline=d
        ),
        "raise_epoch": lambda d: backend.raise_epoch(Epoch(99), ttl_ms=hold.ttl_ms, by="o", deadline=d),
        "publish": lambda d: backend.publish(node("c"), ttl_ms=hold.ttl_ms, deadline=d),
        "withdraw": lambda d: backend.withdraw("c", "c-1", deadline=d),
        "read": lambda d: backend.read(deadline=d),
        "write": lambda d: backend.write(order(), expected=0, deadline=d),
        "append_history": lambda d: backend.append_history(hold, entry(hold.epoch), deadline=d),
        "read_history": lambda d: backend.read_history(10, deadline=d),
    }


WRITES = ("acquire", "renew", "release", "break_lock", "raise_epoch", "publish", "write", "append_history")
