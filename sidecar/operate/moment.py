"""``--at``: when a command begins, on the wall clock, since that is what people agree on."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from sidecar.clock import wall_ms
from sidecar.config.durations import parse as parse_duration
from sidecar.errors import UsageError
from sidecar.operate.desk import pause

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
STEP_MS = 200
"""How late it may begin, and how soon an interruption is noticed."""
AHEAD_MAX = timedelta(days=30)


def parse(text: str, now_unix_ms: int) -> int:
    """Return the Unix time in ms that *text* stands for, seen from *now_unix_ms*.

    Args:
        text: ``HH:MM`` or ``HH:MM:SS`` (local, the next such), ISO 8601 with zone, or ``+DURATION``.
        now_unix_ms: The present.

    Raises:
        UsageError: It is none of these, or has passed.
    """
    text = text.strip()
    if text.startswith("+"):
        try:
            return now_unix_ms + parse_duration(text[1:])
        except ValueError as error:
            raise UsageError(f"--at {text}: {error}") from None
    now = datetime.fromtimestamp(now_unix_ms / 1000).astimezone()
    clock = _CLOCK.fullmatch(text)
    at = _next(clock, now, text) if clock else _iso(text)
    if at < now:
        raise UsageError(f"--at {text}: has passed, it is {now.isoformat(timespec='seconds')} now")
    if at - now > AHEAD_MAX:
        raise UsageError(f"--at {text}: is more than {AHEAD_MAX.days} days ahead")
    return int(at.timestamp() * 1000)


def _next(clock: re.Match[str], now: datetime, text: str) -> datetime:
    hour, minute, second = (int(part or 0) for part in clock.groups())
    local = now.replace(tzinfo=None, microsecond=0)  # civil time: a day need not have 24 hours
    try:
        at = local.replace(hour=hour, minute=minute, second=second)
    except ValueError:
        raise UsageError(f"--at {text}: no such time of day") from None
    if at.astimezone() < now:
        at += timedelta(days=1)
    if datetime.fromtimestamp(at.timestamp()) != at:
        raise UsageError(f"--at {text}: does not exist on {at.date()}, the clocks are put forward")
    return at.astimezone()


def _iso(text: str) -> datetime:
    forms = "HH:MM, +10m, or 2026-01-31T22:00:00+01:00"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--at {text}: is no time; write {forms}") from None
    if at.tzinfo is None:
        raise UsageError(f"--at {text}: has no zone; write {forms}")
    return at


def wait_until(at_unix_ms: int, halted: Callable[[], bool]) -> bool:
    """Return True at that time, as the wall clock is set then, or False when the user has had enough."""
    while (left_ms := at_unix_ms - wall_ms()) > 0:
        if halted():
            return False
        pause(min(left_ms, STEP_MS))
    return not halted()
