"""A lane does its jobs one after the other, outlives one that raises, and finishes what is queued."""

import threading

from sidecar.runtime.lanes import Lane
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

    go_on.set()


def void(_value: object) -> None:
    """Ignore a result."""
