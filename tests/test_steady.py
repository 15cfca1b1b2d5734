"""Goal: ``./scripts/soak --steady`` tells what grows from what has only begun.

Method: samples by hand. Not covered: a whole run, which takes minutes.
"""

from tests.system.soak.steady import EVERY_S, Sample, grows, growth

LONG = range(120)
"""Samples: twenty minutes."""


def taken(at: int, *, memory_kb: float = 30_000.0, threads: float = 14.0, fds: float = 20.0) -> Sample:
    return Sample(at * EVERY_S, 40_000.0, memory_kb, threads, fds, at * EVERY_S * 0.02)


def test_what_stays_as_it_is_does_not_grow() -> None:
    found = growth([taken(at, memory_kb=30_000 + at % 5, threads=14 + at % 2) for at in LONG])

    assert not grows(found)
    assert (found["pss_mb"], found["fds"], found["cpu_percent"]) == (40.0, 20, 2.0)


def test_what_settles_in_the_beginning_does_not_grow() -> None:
    settled = len(LONG) // 2
    assert not grows(growth([taken(at, memory_kb=30_000 + 500 * min(at, settled)) for at in LONG]))


def test_a_single_step_is_no_growth() -> None:
    assert not grows(growth([taken(at, memory_kb=30_000 + 900 * (at > 75)) for at in LONG]))


def test_what_grows_is_told_by_its_rate() -> None:
    leak = growth([taken(at, memory_kb=30_000 + at * EVERY_S) for at in LONG])

    assert grows(leak)
    assert leak["memory_kb_per_hour"] == 3_600
    assert grows(growth([taken(at, threads=14 + at // 10) for at in LONG]))
    assert grows(growth([taken(at, fds=20 + at // 10) for at in LONG]))
