"""The only module that reads a clock or sleeps."""

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


def left_s(deadline: Instant, clock: Clock) -> float:
    """Return the seconds from now to *deadline*, at least 0, for calls that want a float timeout."""
    return max(0, deadline - clock.now()) / 1000


def wall_ms() -> int:
    """Return Unix time in ms, for people to read and never to decide by."""
    return time.time_ns() // 1_000_000
