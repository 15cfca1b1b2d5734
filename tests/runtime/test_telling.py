"""The one line per change of role says why, at which epoch, and how much of the lease was left.

Method: steps as the core makes them, told. Not covered: that the shell tells each of them (test_shell.py).
"""

import logging
from dataclasses import replace

import pytest

from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.model import View
from sidecar.core.outlook import describe
from sidecar.core.units import Epoch, Instant
from sidecar.events import RoleChanged
from sidecar.runtime.telling import level_of, role_change
from tests.core.made import BUSY, EPOCH, LEASE, MONITORING, NOW, at, grant, lock, serving, view

FREE = s.Memory(view=view(epoch=6, by="b"), vacant_since=NOW, sign_at=Instant(NOW - 9_000), call="acquire")
QUIT = s.Quit()


def told(
    phase: s.Phase, seen: s.Observation, memory: s.Memory = BUSY, after_ms: int = 0
) -> tuple[RoleChanged, int]:
    before = s.Node(phase, memory)
    now = at(after_ms)
    after = decide(before, seen, now, MONITORING).node
    record = describe(after, now, MONITORING, enforcement="kernel", version="", unix_ms=0, server=None)
    return role_change(before, after, seen, now, record), level_of(before, after, seen)


def test_taking_the_lock_tells_how_it_became_free_and_who_had_it() -> None:
    line, level = told(s.Standing(1, ready=True), grant(7, 0), FREE, after_ms=50)

    assert (line.before, line.after, line.cause) == ("standing", "promoting", "Granted")
    assert (line.why, line.previous) == ("lease expired", "b")
    assert (line.epoch, line.lease_left_ms) == (7, 9_850)
    assert level == logging.WARNING


def test_going_on_with_the_lock_tells_what_is_left_of_it() -> None:
    line, level = told(s.Starting(LEASE, 3, at(60_000)), s.ServerReady(3), after_ms=1_000)

    assert (line.after, line.why, line.previous) == ("serving", None, None)
    assert (line.epoch, line.lease_left_ms, line.message) == (7, 8_000, "Serving")
    assert level == logging.WARNING


@pytest.mark.parametrize(
    ("phase", "seen", "memory", "after", "why"),
    [
        (serving(), s.Lost(EPOCH), BUSY, "ending", "lost the lock"),
        (serving(), s.ServerSick(3, "hung"), BUSY, "stopping", "hung"),
        (serving(), s.ServerGone(3, 1), BUSY, "waiting", "server ended with status 1"),
        (serving(), s.StopAsked(), BUSY, "stopping", "stopped"),
        (
            s.Stopping(LEASE, 3, at(0), s.GiveUp("switchover to b")),
            s.ServerGone(3, 0),
            BUSY,
            "idle",
            "switchover to b",
        ),
        (
            s.Waiting(LEASE, at(5_000)),
            s.Lost(EPOCH),
            replace(BUSY, standby_at=at(9_999)),
            "idle",
            "lost, server proven dead",
        ),
    ],
)
def test_leaving_tells_why_and_of_which_lock_how_much_was_left(
    phase: s.Phase, seen: s.Observation, memory: s.Memory, after: str, why: str
) -> None:
    line, level = told(phase, seen, replace(memory, standby_at=at(9_999)), after_ms=500)

    assert (line.after, line.why) == (after, why)
    assert (line.epoch, line.lease_left_ms) == (7, 8_500)
    assert level == logging.WARNING


def test_a_lease_that_is_over_is_told_as_less_than_nothing() -> None:
    line, _ = told(serving(), s.Tick(), after_ms=9_100)

    assert (line.after, line.why) == ("ending", "the lease could not be renewed in time")
    assert (line.epoch, line.lease_left_ms) == (7, -100)


def test_the_end_of_a_lost_server_still_tells_of_which_epoch() -> None:
    line, level = told(
        s.Ending(3, at(9_000), owes=EPOCH), s.ServerGone(3, -9), replace(BUSY, standby_at=at(9_999))
    )

    assert (line.after, line.why, line.epoch) == ("idle", "lost, server proven dead", 7)
    assert line.lease_left_ms is None
    assert level == logging.INFO


def test_a_restart_that_was_asked_for_is_told_as_such() -> None:
    memory = replace(BUSY, trouble="of the store", restart_request="r1")
    stopping = s.Node(s.Stopping(LEASE, 3, at(0), s.Again(at(0))), memory)
    record = describe(stopping, at(0), MONITORING, enforcement="kernel", version="", unix_ms=0, server=None)

    line = role_change(s.Node(serving(), memory), stopping, s.Tick(), at(0), record)

    assert (line.after, line.why) == ("stopping", "restart asked for")


OTHERS: View = view(lock("b", 8), 8, by="b")


@pytest.mark.parametrize(
    ("phase", "seen", "memory", "after", "why", "level"),
    [
        (s.Idle(), s.Seen(OTHERS), s.Memory(), "standing", None, logging.INFO),
        (
            s.Standing(1),
            s.ServerGone(1, 3),
            s.Memory(view=OTHERS),
            "idle",
            "standby server ended with status 3",
            logging.INFO,
        ),
        (s.Standing(1), s.StopAsked(), s.Memory(view=OTHERS), "ending", "stopped", logging.INFO),
        (
            s.Standing(1),
            s.ServerActivated(1),
            s.Memory(view=OTHERS),
            "ending",
            "the standby server has activated itself; killing it",
            logging.WARNING,
        ),
        (s.Idle(), s.Tick(), s.Memory(view=OTHERS, quit=QUIT), "finished", None, logging.INFO),
    ],
)
def test_a_node_without_the_lock_tells_no_lease(
    phase: s.Phase, seen: s.Observation, memory: s.Memory, after: str, why: str | None, level: int
) -> None:
    line, told_at = told(phase, seen, memory)

    assert (line.after, line.why, line.epoch, line.lease_left_ms) == (after, why, Epoch(0), None)
    assert told_at == level
