"""What hooks do to decisions: a start that is refused, a release that waits for ``after_stop``.

Method: as `test_decide`. Not covered: when which hook is run (tests/runtime/test_hooks.py), real ones
(tests/system/test_hooks.py).
"""

from dataclasses import replace

import pytest

from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.outlook import describe
from tests.core.made import (
    BUSY,
    EPOCH,
    LEASE,
    MONITORING,
    NOW,
    POLICY,
    at,
    lock,
    other,
    request,
    serving,
    step,
    view,
)

STARTING = s.Starting(LEASE, 3, at(60_000))
REFUSED = "before_active refused: exit 1"
VETO = s.ServerGone(3, None, REFUSED, vetoed=True)
WITH_OTHER = replace(BUSY, view=view(lock(), nodes=(other(),)))
DEAD = s.ServerGone(3, 1, "crashed", clearing=True)


def said(node: s.Node, policy: s.Policy = POLICY, after_ms: int = 0) -> tuple[str, str, bool]:
    record = describe(node, at(after_ms), policy, enforcement="kernel", version="0", unix_ms=0, server=None)
    return record.state, record.message, record.available


# A veto


def test_a_start_that_is_refused_goes_to_another_node_at_once() -> None:
    after = step(STARTING, VETO, replace(WITH_OTHER, call=None))

    assert after.node.phase == s.Idle()
    assert after.actions == (s.Release(EPOCH, REFUSED),)
    assert after.node.memory.cool_until == at(POLICY.backoff_max_ms)
    assert said(after.node) == ("failed", f"Cooling down: {REFUSED}", False)


def test_a_start_that_is_refused_is_tried_again_later_where_nobody_else_would() -> None:
    after = step(STARTING, VETO)

    assert after.node.phase == s.Waiting(LEASE, at(POLICY.backoff_max_ms))
    assert said(after.node)[1] == f"Restarting in place: {REFUSED}"


def test_a_candidate_that_refuses_hands_back() -> None:
    asked = request(state="confirmed", source="b", to="a", epoch=6)
    after = step(STARTING, VETO, replace(WITH_OTHER, view=view(lock(), nodes=(other(),), request=asked)))

    assert after.node.phase == s.Idle()


def test_in_maintenance_a_refusal_does_not_cost_the_lock() -> None:
    paused = replace(WITH_OTHER, view=view(lock(), nodes=(other(),), paused=True))

    assert isinstance(step(STARTING, VETO, paused).node.phase, s.Waiting)


def test_a_refusal_that_comes_while_it_is_stopped_changes_nothing_about_that() -> None:
    stopping = s.Stopping(LEASE, 3, at(3_000), s.GiveUp("switchover to b"))
    after = step(stopping, VETO, replace(WITH_OTHER, call=None))

    assert after.actions == (s.Release(EPOCH, "switchover to b"),)


# after_stop


@pytest.mark.parametrize(
    "phase", [serving(), STARTING, s.Stopping(LEASE, 3, at(3_000), s.GiveUp("switchover to b"))]
)
def test_the_lock_is_released_when_after_stop_is_over(phase: s.Phase) -> None:
    memory = replace(WITH_OTHER, call=None, call_at=at(500), failures=(NOW, NOW))
    gone = step(phase, DEAD, memory)
    waits = decide(gone.node, s.Tick(), at(1_000), POLICY)
    over = decide(waits.node, s.Cleared(3), at(2_000), POLICY)

    assert isinstance(gone.node.phase, s.Idle)
    assert (gone.actions, waits.actions) == ((), ())
    assert said(waits.node) == ("stopping", "The server is down, after_stop runs", False)
    assert [type(action) for action in over.actions] == [s.Release]


def test_after_stop_holds_the_lock_for_as_long_as_the_lease_at_most() -> None:
    gone = step(s.Stopping(LEASE, 3, at(3_000), s.GiveUp("stopped")), DEAD)
    late = decide(gone.node, s.Tick(), LEASE.deadline, POLICY)

    assert late.node.memory.owed is None
    assert late.actions == ()


def test_what_a_lost_lock_owes_waits_for_after_stop_too() -> None:
    gone = step(s.Ending(3, at(3_000), EPOCH), DEAD, replace(BUSY, call=None))
    over = decide(gone.node, s.Cleared(3), at(500), POLICY)

    assert gone.actions == ()
    assert over.actions == (s.Release(EPOCH, "lost, server proven dead"),)


def test_the_end_of_another_after_stop_is_none() -> None:
    gone = step(s.Stopping(LEASE, 3, at(3_000), s.GiveUp("stopped")), DEAD, replace(BUSY, call=None))

    assert decide(gone.node, s.Cleared(2), at(500), POLICY).actions == ()


def test_a_restart_in_place_waits_for_after_stop() -> None:
    gone = step(s.Stopping(LEASE, 3, at(3_000), s.Again(NOW)), DEAD)
    over = decide(gone.node, s.Cleared(3), at(1_000), POLICY)

    assert gone.node.phase == s.Waiting(LEASE, NOW)
    assert [type(action) for action in over.actions] == [s.StartServer]


def test_a_restart_that_was_asked_for_waits_for_after_stop() -> None:
    asked = request("restart", "confirmed")
    memory = replace(BUSY, view=view(lock(), request=asked), clearing=3)
    waits = step(s.Waiting(LEASE, at(60_000)), s.Tick(), memory)
    over = decide(waits.node, s.Cleared(3), at(1_000), POLICY)

    assert waits.actions == ()
    assert [type(action) for action in over.actions] == [s.StartServer]


def test_nobody_campaigns_stands_by_or_leaves_before_after_stop_is_over() -> None:
    free = view(epoch=7, by="b")
    idle = s.Node(s.Idle(), s.Memory(view=free, vacant_since=NOW, mark=EPOCH, runs=3, clearing=3))
    later = at(MONITORING.ttl_ms * 2)
    quitting = s.Node(s.Idle(), replace(idle.memory, quit=s.Quit()))

    assert decide(idle, s.Tick(), later, MONITORING).actions == ()
    assert [type(a) for a in decide(idle, s.Cleared(3), NOW, MONITORING).actions] == [s.Acquire]
    assert decide(quitting, s.Tick(), NOW, POLICY).actions == ()
    assert [type(a) for a in decide(quitting, s.Cleared(3), NOW, POLICY).actions] == [s.Exit]
