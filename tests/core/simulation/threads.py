"""Threads of simulated programs: greenlets that give way only where a real thread would wait.

What the program's modules know as ``threading``, ``SimpleQueue`` and so on is put in their place by
`tests.core.simulation.stage`. A `Process` can be frozen (SIGSTOP) and killed: a frozen one gets everything
late and in order, a killed one never runs again.
"""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty
from typing import Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from tests.core.simulation.clock import Clock
from tests.core.simulation.loop import Loop

T = TypeVar("T")
SLOW = 0.1  # share of wake-ups for which the scheduler takes its time
SLOW_MAX_MS = 10


class Strand(greenlet):
    """One thread. It waits by switching to the loop, which resumes it with what it waited for."""

    def __init__(self, process: "Process", run: Callable[[], object]) -> None:
        super().__init__(lambda _first: run(), process.hub)  # not the strand that happens to start it
        self.process = process
        self.ticket = 0  # of the present wait: a second wake-up for it does nothing

    def wait(self, timeout_ms: int | None) -> object:
        """Give way until `wake` is called, or return None after *timeout_ms* of the process's clock."""
        process = self.process
        if not process.alive:
            raise GreenletExit
        self.ticket += 1
        mine = self.ticket
        if timeout_ms is not None:
            process.clock.after(timeout_ms, partial(self._resume, mine, None))
        value: object = process.hub.switch()
        if not process.alive:
            raise GreenletExit
        return value

    def wake(self, value: object = True) -> None:
        """End the present wait."""
        loop = self.process.loop
        slow_ms = loop.random.randint(1, SLOW_MAX_MS) if loop.random.random() < SLOW else 0
        loop.at(loop.now + slow_ms, partial(self._resume, self.ticket, value))

    def _resume(self, ticket: int, value: object) -> None:
        process = self.process
        if ticket != self.ticket or not process.alive or self.dead:
            return
        if process.loop.now < process.frozen_until:
            process.stalled.append(lambda: self._resume(ticket, value))
            return
        self.ticket += 1
        self.switch(value)


class Process:
    """A program on a host: its threads live, stand still and die together."""

    def __init__(self, loop: Loop, clock: Clock, name: str) -> None:
        self.loop, self.clock, self.name = loop, clock, name
        self.hub = loop.hub
        self.alive = True
        self.born_at = loop.now
        self.frozen_until = 0
        self.stalled: deque[Callable[[], None]] = deque()
        self.strands: list[Strand] = []
        self.names = 0  # given out by the simulated ``uuid``
        loop.at_end.append(self.end)

    @property
    def frozen(self) -> bool:
        return self.loop.now < self.frozen_until

    def spawn(self, run: Callable[[], object]) -> Strand:
        strand = Strand(self, run)
        self.strands.append(strand)
        self.loop.after(0, lambda: strand._resume(0, None))
        return strand

    def freeze(self, until: int) -> None:
        self.frozen_until = max(self.frozen_until, until)
        self.loop.at(self.frozen_until, self.thaw)

    def thaw(self) -> None:
        while self.alive and not self.frozen and self.stalled:
            self.stalled.popleft()()

    def kill(self) -> None:
        """End it at once, wherever its threads are; what they would still say is not heard."""
        if self.alive:
            self.alive = False
            self.loop.after(0, self._reap)

    def end(self) -> None:
        """End it when the run is over: a thread that waits for ever would keep everything it knows alive."""
        self.alive = False
        self._reap()

    def _reap(self) -> None:
        for strand in self.strands:
            if strand and not strand.dead:
                strand.throw(GreenletExit)


def current() -> Strand:
    strand = getcurrent()
    assert isinstance(strand, Strand), "only threads of a simulated process wait"
    return strand


def in_ms(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(min(seconds, 1e6) * 1000)


class Event:
    """As `threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Strand] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for strand in self._waiting:
            strand.wake()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            strand = current()
            self._waiting.append(strand)
            try:
                strand.wait(in_ms(timeout))
            finally:
                self._waiting.remove(strand)
        return self._set


class SimpleQueue(Generic[T]):
    """As `queue.SimpleQueue`, with one reader."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._reader: Strand | None = None

    def put(self, item: T) -> None:
        self._items.append(item)
        if self._reader is not None:
            self._reader.wake()

    def get(self, timeout: float | None = None) -> T:
        if not self._items:
            self._reader = strand = current()
            try:
                while not self._items:
                    if strand.wait(in_ms(timeout)) is None and not self._items:
                        raise Empty
            finally:
                self._reader = None
        return self._items.popleft()


class Thread:
    """As `threading.Thread`."""

    def __init__(self, target: Callable[[], None], name: str = "", daemon: bool = False) -> None:
        self._target = target
        self._ended = Event()

    def start(self) -> None:
        current().process.spawn(self._run)

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def _run(self) -> None:
        self._target()
        self._ended.set()
