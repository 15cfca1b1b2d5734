"""Until when a run may live. Pure: instants go in, instants come out.

    now            kill_at = deadline - kill_margin     kernel_at          deadline
     |--------------------------|----------------------------|-----------------|
     extensions are accepted     the guard kills the tree     the kernel kills the guard,
                                                              and with it the tree

A stop order can only bring ``kill_at`` forward, an extension can only move the deadline back.
"""


class Terms:
    """The deadline of one run and the two instants derived from it, all in ms on CLOCK_BOOTTIME."""

    def __init__(self, deadline_ms: int, kill_margin_ms: int) -> None:
        self.deadline_ms = deadline_ms
        self.kill_margin_ms = kill_margin_ms
        self.stop_at_ms: int | None = None

    @property
    def deadline_kill_ms(self) -> int:
        """When the guard kills because of the deadline."""
        return self.deadline_ms - self.kill_margin_ms

    @property
    def kill_ms(self) -> int:
        """When the guard kills, for whichever reason comes first."""
        if self.stop_at_ms is None:
            return self.deadline_kill_ms
        return min(self.stop_at_ms, self.deadline_kill_ms)

    @property
    def kernel_ms(self) -> int:
        """When the kernel kills the guard; half a margin before the deadline, rounded down."""
        return self.deadline_ms - (self.kill_margin_ms + 1) // 2

    def too_late(self, now_ms: int) -> bool:
        """Tell whether the instant of the kill has come: nothing may be started or extended."""
        return now_ms >= self.kill_ms

    def extend(self, deadline_ms: int) -> None:
        """Move the deadline to *deadline_ms* unless it is later already."""
        self.deadline_ms = max(self.deadline_ms, deadline_ms)

    def stop(self, kill_at_ms: int) -> None:
        """Kill at *kill_at_ms* at the latest."""
        if self.stop_at_ms is None or kill_at_ms < self.stop_at_ms:
            self.stop_at_ms = kill_at_ms

    def reason(self) -> str:
        """Tell what a kill at ``kill_ms`` is due to: ``order`` or ``deadline``."""
        by_order = self.stop_at_ms is not None and self.stop_at_ms < self.deadline_kill_ms
        return "order" if by_order else "deadline"
