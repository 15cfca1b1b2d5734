"""The only module that reads a clock or sleeps."""

import random
import time
from typing import Protocol

from sidecar.core.units import Instant


class Clock(Protocol):
    """Tells the time on CLOCK_BOOTTIME."""

    def now(self) -> Instant:
        """Return the current instant, in ms."""
        ...


class BootClock:
    """Counts through suspend, which ``time.monotonic`` does not on Linux."""

    def now(self) -> Instant:
        """Return the current instant, in ms, rounded down."""
        return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000)


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, start_ms: int = 0) -> None:
        self._now_ms = start_ms

    def now(self) -> Instant:
        """Return the instant it was last moved to."""
        return Instant(self._now_ms)

    def advance(self, by_ms: int) -> None:
        """Move forward.

        Raises:
            ValueError: *by_ms* is negative.
        """
        if by_ms < 0:
            raise ValueError(f"time does not go back, got {by_ms}")
        self._now_ms += by_ms


class Backoff:
    """Pauses between tries that fail: each up to twice the last, and cut by up to half at random.

    Whatever takes a store away takes it from everybody in the same instant; what is drawn here
    keeps them from coming back in the same instant, too.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s, self._max_s = first_s, max_s
        self._pause_s = first_s

    def next_s(self) -> float:
        """Return how long to wait before the next try."""
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(self._max_s, self._pause_s * 2)
        return pause_s

    def reset(self) -> None:
        """Begin again with the first pause: a try has worked."""
        self._pause_s = self._first_s


def left_s(deadline: Instant, clock: Clock) -> float:
    """Return the seconds from now to *deadline*, at least 0, for calls that want a float timeout."""
    return max(0, deadline - clock.now()) / 1000


def monotonic_us() -> int:
    """Return CLOCK_MONOTONIC in µs, which systemd wants to hear and nobody here decides by."""
    return time.monotonic_ns() // 1_000


def wall_ms() -> int:
    """Return Unix time in ms, for people to read and never to decide by."""
    return time.time_ns() // 1_000_000
