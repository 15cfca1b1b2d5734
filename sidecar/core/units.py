"""Units, and the one lease calculation on which mutual exclusion rests."""

from typing import NewType

Instant = NewType("Instant", int)
"""Milliseconds on CLOCK_BOOTTIME: of this host and this boot, meaningless on any other."""

Epoch = NewType("Epoch", int)
"""Fencing token: grows by at least one with every acquisition, for ever."""

NO_EPOCH = Epoch(0)

DRIFT_PERMILLE = 10
"""How much slower than the backend's clock ours may run, in 1/1000. NTP slews by at most 0.5;
1 % also covers a badly disciplined virtual machine. More costs lease time: ttl × this."""


def usable_ms(ttl_ms: int) -> int:
    """Return how long a lease of *ttl_ms* may be trusted on this host's clock (99 % of it)."""
    return ttl_ms - -(-ttl_ms * DRIFT_PERMILLE // 1000)  # slack rounded up: err towards "lost"


def silence_ms(ttl_ms: int) -> int:
    """Return how long a holder must be silent, on the observer's clock, before it is gone (101 %)."""
    return ttl_ms + -(-ttl_ms * DRIFT_PERMILLE // 1000)


def lease_deadline(sent_at: Instant, granted_ttl_ms: int) -> Instant:
    """Return the instant after which a server under this lease must not run.

    The count starts when the request *left*: the backend starts its own count later, when the
    request arrives, so ours ends first. Counting from the reply would turn that round.

    Args:
        sent_at: Read just before the request was written.
        granted_ttl_ms: What the backend granted, which may be more or less than was asked for.

    Raises:
        ValueError: *granted_ttl_ms* is not positive.
    """
    if granted_ttl_ms <= 0:
        raise ValueError(f"granted_ttl_ms must be positive, got {granted_ttl_ms}")
    return Instant(sent_at + usable_ms(granted_ttl_ms))
