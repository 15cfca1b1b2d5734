"""Simulated time in ms (the store's, which counts as the true one), and messages that travel."""

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from random import Random

from greenlet import getcurrent

from sidecar.core.state import Seen

Event = Callable[[], object]
STORY_LINES = 1_000


class Violation(AssertionError):
    """A property does not hold."""


class Loop:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.hub = getcurrent()  # where threads give way to
        self.now = 0
        self.counts: Counter[str] = Counter()
        self.cells: Counter[tuple[str, str]] = Counter()
        self._events: list[tuple[int, int, Event]] = []
        self.at_end: list[Event] = []
        self._order = 0
        self._story: deque[tuple[int, str, object]] = deque(maxlen=STORY_LINES)
        self._failure: Violation | None = None

    def after(self, delay_ms: int, event: Event) -> None:
        self.at(self.now + delay_ms, event)

    def at(self, when_ms: int, event: Event) -> None:
        self._order = order = self._order + 1
        heapq.heappush(self._events, (when_ms if when_ms > self.now else self.now, order, event))

    def run(self, until_ms: int) -> None:
        events = self._events
        pop = heapq.heappop
        while events and events[0][0] <= until_ms:
            self.now, _, event = pop(events)
            event()
            if self._failure is not None:
                raise self._failure
        self.now = until_ms

    def end(self) -> None:
        """Let go of everything."""
        self._events.clear()
        while self.at_end:
            self.at_end.pop()()

    def fail(self, violation: Violation) -> Violation:
        """End the run with *violation* as soon as control is back, whoever may swallow exceptions."""
        self._failure = self._failure or violation
        return violation

    def tell(self, who: str, what: object) -> None:
        self._story.append((self.now, who, what))

    def story(self) -> str:
        return "\n".join(f"{at:>7} {who:<8} {told(what)}" for at, who, what in self._story)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability


def told(what: object) -> str:
    """Return a part of a line of the story, as short as it can be."""
    match what:
        case tuple():
            return " ".join(told(item) for item in what)
        case Seen(view):
            lock, request = view.lock, view.request
            held = f"{lock.state} by {lock.node} at {lock.epoch}" if lock is not None else "free"
            asked = f", {request.kind} {request.id[-8:]} {request.state}" if request is not None else ""
            able = ",".join(record.node for record in view.nodes if record.available)
            expired = " EXPIRED" * view.lock_expired
            return f"Seen({held}{expired}, epoch {view.epoch.epoch}, able {able or 'nobody'}{asked})"
        case _ if is_dataclass(what):
            shown = ", ".join(f"{f.name}={told(getattr(what, f.name))}" for f in fields(what))
            return f"{type(what).__name__}({shown})"
        case _:
            return str(what)


class Network:
    """Mostly quick, sometimes awful: all awful would elect nobody."""

    def __init__(self, loop: Loop, ttl_ms: int, harshness: float) -> None:
        self.loop = loop
        self.ttl_ms = ttl_ms
        self.harshness = harshness  # 0: a good day, 1: a bad one
        self.next_ms: int | None = None  # how long the next message travels, when that is arranged

    def trip(self) -> int | None:
        """Return how long a message travels; None: for ever."""
        if self.next_ms is not None:
            arranged, self.next_ms = self.next_ms, None
            return arranged
        random, luck = self.loop.random, self.loop.random.random()
        if luck >= 0.3 * self.harshness:
            return random.randint(0, 4)
        if luck >= 0.08 * self.harshness:
            return random.randint(5, 120)
        if luck >= 0.03 * self.harshness:
            return random.randint(100, self.ttl_ms // 4)
        if luck >= 0.01 * self.harshness:
            return None
        return random.randint(self.ttl_ms // 8, self.ttl_ms * 5 // 2)
