"""CLOCK_BOOTTIME of one host: an origin of its own, a rate within 1 % of the store's."""

from sidecar.core.units import Instant
from tests.core.simulation.loop import Event, Loop


class Clock:
    def __init__(self, loop: Loop, origin: int, rate_permille: int) -> None:
        self.loop, self.origin, self.rate = loop, origin, rate_permille

    def now(self) -> Instant:
        return Instant(self.origin + self.loop.now * self.rate // 1000)

    def true(self, instant: int) -> int:
        """Return when this clock will show *instant*, in simulated time."""
        return -(-(instant - self.origin) * 1000 // self.rate)

    def after(self, delay_ms: int, event: Event) -> None:
        loop, rate = self.loop, self.rate
        shown = loop.now * rate // 1000 + delay_ms  # as `true` of `now`, without the calls
        loop.at(-(-shown * 1000 // rate), event)
