"""Goal: ``--at`` means what it says, or is refused."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from sidecar.errors import UsageError
from sidecar.operate.moment import parse, wait_until

NOON_UTC = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # needs no zone files
    time.tzset()
    yield
    monkeypatch.undo()
    os.environ.setdefault("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("+10m", "2026-03-28T12:10:00+00:00"),
        ("+1500ms", "2026-03-28T12:00:01.500+00:00"),
        ("13:30", "2026-03-28T12:30:00+00:00"),
        ("13:00:30", "2026-03-28T12:00:30+00:00"),
        ("12:59", "2026-03-29T10:59:00+00:00"),  # tomorrow, and that is an hour nearer
        ("2026-03-28T22:00:00Z", "2026-03-28T22:00:00+00:00"),
        ("2026-03-28T22:00+02:00", "2026-03-28T20:00:00+00:00"),
    ],
)
def test_when(text: str, at: str) -> None:
    assert parse(text, int(NOON_UTC.timestamp() * 1000)) == int(datetime.fromisoformat(at).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("02:30", "does not exist on 2026-03-29"),  # summer time begins
        ("25:00", "no such time of day"),
        ("tomorrow", "is no time"),
        ("", "is no time"),
        ("+10", "add a unit"),
        ("+40d", "at most 30d"),
        ("2026-03-28T22:00:00", "has no zone"),
        ("2026-03-28T11:00:00Z", "has passed"),
        ("2027-03-28T11:00:00Z", "30 days ahead"),
    ],
)
def test_never(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(text, int(NOON_UTC.timestamp() * 1000))


def test_waiting_ends_at_the_time_or_at_once_when_interrupted() -> None:
    now = int(time.time() * 1000)

    assert wait_until(now + 50, lambda: False)
    assert time.time() * 1000 >= now + 50
    assert not wait_until(now + 3_600_000, lambda: True)
