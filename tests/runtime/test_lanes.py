"""A lane does its jobs one after the other, outlives one that raises, and finishes what is queued."""

import threading

from sidecar import events
from sidecar.errors import NotSent
from sidecar.runtime.lanes import REASONS_MAX, Health, Lane
from tests.runtime.stubs import WITHIN_S


def test_a_lane_does_what_is_queued_in_order_and_ends() -> None:
    lane, go_on, done = Lane("test"), threading.Event(), list[int]()
    lane.put(lambda: void(go_on.wait(WITHIN_S)))
    for number in range(100):
        lane.put(lambda number=number: done.append(number))  # type: ignore[misc]
    threading.Timer(0.05, go_on.set).start()

    lane.close(WITHIN_S)

    assert done == list(range(100))
    assert not lane._thread.is_alive()


def test_a_lane_outlives_a_job_that_raises() -> None:
    lane, done = Lane("test"), threading.Event()

    def fails() -> None:
        raise ZeroDivisionError("x")

    lane.put(fails)
    lane.put(done.set)

    assert done.wait(WITHIN_S)
    lane.close()


def test_a_job_that_hangs_does_not_hold_the_end_up() -> None:
    lane, go_on = Lane("test"), threading.Event()
    lane.put(lambda: void(go_on.wait(WITHIN_S)))

    lane.close(within_s=0.05)

    assert lane._thread.is_alive(), "it was not waited for"
    go_on.set()


def test_bug_an_outage_of_several_endpoints_was_a_line_of_the_log_for_each_call() -> None:
    """Each endpoint fails in its own words: 90,000 lines a day, and nothing else was left of ``/events``."""
    health, told = Health("publish"), list[events.Event]()

    with events.listening(told.append):
        for number in range(100):
            health.ill(NotSent(("a: refused", "b: refused", "c: no leader")[number % 3]))
        health.well()
        health.ill(NotSent("a: refused"))
        for number in range(100):
            health.ill(NotSent(f"a: not for {number} s"))

    troubles = [event.reason for event in told if isinstance(event, events.BackendTrouble)]
    assert troubles[:4] == ["a: refused", "b: refused", "c: no leader", "a: refused"]
    assert len(troubles) == 3 + REASONS_MAX
    assert [event.failed_calls for event in told if isinstance(event, events.BackendWell)] == [100]


def void(_value: object) -> None:
    """Ignore a result."""
