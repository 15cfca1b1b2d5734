"""A store that answers as the test tells it, and an inbox that is waited on with a deadline."""

import json
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, cast

from sidecar.clock import ManualClock
from sidecar.config import from_text
from sidecar.core import state as s
from sidecar.core.units import Epoch, Instant
from sidecar.ports import Backend, Grant, Hold
from sidecar.runtime.hooks import Hooks, Place

WITHIN_S = 30.0
NOW = Instant(1_000_000)


class Store:
    """Every call is kept in ``asked`` as its name and arguments, and answered by what was scripted for it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers: dict[str, list[Any]] = {}
        self._news = threading.Condition()

    def script(self, call: str, *answers: Any) -> None:
        """Answer *call* so: an exception is raised, a function is called. The last one stands for ever."""
        self._answers[call] = list(answers)

    def calls(self, *names: str) -> list[dict[str, Any]]:
        """Return the arguments of the calls named so, in their order."""
        with self._news:
            return [given for name, given in self.asked if name in names]

    def await_calls(self, name: str, count: int) -> list[dict[str, Any]]:
        """Wait for so many calls."""
        with self._news:
            enough = self._news.wait_for(lambda: sum(n == name for n, _ in self.asked) >= count, WITHIN_S)
        assert enough, f"not {count} times {name}: {self.asked}"
        return self.calls(name)

    @property
    def backend(self) -> Backend:
        return cast(Backend, self)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self._answers:
            raise AttributeError(name)

        def call(*args: Any, **given: Any) -> Any:
            with self._news:
                self.asked.append((name, {"args": args, **given}))
                self._news.notify_all()
                answers = self._answers[name]
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **given) if callable(answer) else answer

        return call


class Inbox:
    """What the shell's queue is for the parts that post to it."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self.put = self.queue.put

    def next(self) -> Any:
        """Return the next observation; fail when there is none in time."""
        return self.queue.get(timeout=WITHIN_S)

    def rest(self) -> list[Any]:
        """Return what has come and was not looked at."""
        found = []
        while True:
            try:
                found.append(self.queue.get_nowait())
            except Empty:
                return found

    def until(self, kind: type[s.Observation]) -> list[Any]:
        """Return what comes, up to the first of *kind*."""
        found = [self.next()]
        while not isinstance(found[-1], kind):
            found.append(self.next())
        return found


def hooks_of(output: Callable[[str, str], None] = print, /, **configured: Any) -> Hooks:
    """Return the hooks of a node that has these in its configuration."""
    text = f"cluster: plant-7\nnode: a\nbackend: local\nhooks: {json.dumps(configured)}\n"
    config = from_text(text, {}, source="test")
    return Hooks(lambda: config.hooks, Place("plant-7", "a", "/"), output)


def clock() -> ManualClock:
    return ManualClock(NOW)


def hold(epoch: int = 7) -> Hold:
    return Hold("a", "a-1", Epoch(epoch), 10_000, "cookie")


def grant(epoch: int = 7, sent_at: int = NOW) -> Grant:
    return Grant(hold(epoch), Instant(sent_at), 10_000)
