"""What a node does about the request key, state by state.

Method: a view with the request in it, one `decide`, and what was answered or begun. Whether
commands and nodes understand each other is seen in `test_simulation`.
"""

from dataclasses import replace

import pytest

from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.model import NodeRecord, Request, RequestKind, RequestState, Settings
from sidecar.core.units import Epoch
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

B = other("b")


def hear(
    phase: s.Phase,
    asked: Request,
    *nodes: NodeRecord,
    memory: s.Memory = BUSY,
    paused: bool = False,
    after_ms: int = 0,
    policy: s.Policy = POLICY,
) -> s.Step:
    """Let *phase* see *asked*, and then time pass."""
    seen = s.Seen(view(lock(), nodes=nodes or (B,), request=asked, paused=paused))
    first = decide(s.Node(phase, memory), seen, NOW, policy)
    if after_ms == 0:
        return first
    return decide(first.node, s.Tick(), at(after_ms), policy)


def answers(after: s.Step) -> list[tuple[str, str | None]]:
    return [(a.request.state, a.request.reason) for a in after.actions if isinstance(a, s.Answer)]


# A pause that comes while a request is under way


def test_a_switchover_confirmed_after_the_pause_stops_nothing() -> None:
    """Else a healthy server would be stopped and, all nodes being paused, nobody would start another."""
    after = hear(serving(), request(state="confirmed"), paused=True)
    assert isinstance(after.node.phase, s.Serving)
    assert answers(after) == [("failed", "paused before it began; nothing was stopped")]


def test_a_handover_frees_no_node_that_is_paused_by_itself() -> None:
    """Only the nodes it names: the others may be in maintenance since long before."""
    policy = replace(POLICY, node="c", instance="c/1", priority=200)
    asked = request("failover", "confirmed", to=None)
    free = replace(view(nodes=(other("b"),), request=asked), settings=Settings(paused_nodes=("c",)))
    idle = s.Node(s.Idle(), s.Memory(mark=EPOCH, marked="a", spent=EPOCH))
    seen = decide(idle, s.Seen(free), NOW, policy)
    later = decide(seen.node, s.Tick(), at(20_000), policy)
    assert seen.actions == later.actions == ()


def test_a_restart_in_maintenance_that_fails_is_told_and_not_tried_for_ever() -> None:
    asked = request("restart", "confirmed", source="a", to=None)
    seen = s.Seen(view(lock(), nodes=(B,), request=asked, paused=True))
    memory = replace(BUSY, restart_request="r1", view=seen.view, request_since=NOW)
    failed = step(s.Starting(LEASE, 3, at(60_000)), s.ServerGone(3, 1), memory, after_ms=10)
    assert answers(failed) == [("failed", "server ended with status 1")]
    later = decide(failed.node, s.Tick(), at(4_000), POLICY)
    assert isinstance(later.node.phase, s.Waiting)
    assert [action for action in later.actions if isinstance(action, s.StartServer)] == []


@pytest.mark.parametrize("node", ["b", "a"])
def test_a_pause_does_not_leave_a_handover_half_done(node: str) -> None:
    """Released by a: b takes the lock all the same, or a again when b is not there."""
    policy = replace(POLICY, node=node, instance=f"{node}/1")
    asked = request(state="confirmed")
    seen = view(released="switchover to b", nodes=(other("b"),), request=asked, paused=True)
    idle = s.Node(s.Idle(), s.Memory(mark=EPOCH, marked="a", spent=EPOCH))
    freed = decide(idle, s.Seen(seen), NOW, policy)
    turn = freed if node == "b" else decide(freed.node, s.Tick(), at(10_000), policy)
    assert turn.actions == (s.Acquire(EPOCH),)
    granted = decide(turn.node, s.Granted(Epoch(EPOCH + 1), at(10_000), at(19_900)), at(10_000), policy)
    assert isinstance(granted.node.phase, s.Starting)


# Switchover, asked of the active


@pytest.mark.parametrize("to", [None, "b"])
def test_a_switchover_is_accepted_once_and_names_the_node(to: str | None) -> None:
    accepted = hear(serving(), request(to=to))
    assert accepted.actions == (s.Answer(request(state="accepted", to="b"), 5),)

    assert decide(accepted.node, s.Tick(), at(10), POLICY).actions == ()
    failed = decide(accepted.node, s.AnswerFailed(), at(10), POLICY)
    assert failed.actions == ()
    assert answers(decide(failed.node, s.Tick(), at(10 + POLICY.retry_ms), POLICY)) == [("accepted", None)]


@pytest.mark.parametrize(
    ("asked", "node", "paused", "reason"),
    [
        (request(), B, True, "automatic changes are paused; resume first"),
        (request(source="c"), B, False, "a is active, not c"),
        (request(to=None), other(available=False), False, "no other node is able to take over"),
        (request(to=None), other(state="failed"), False, "no other node is able to take over"),
        (
            request(),
            other(state="failed", message="port 5432 is in use"),
            False,
            "b is not able to take over now: port 5432 is in use",
        ),
        (request(to="a"), B, False, "a is active already"),
        (request(to="x"), B, False, "x is not there; see `sidecar status` for the nodes that are"),
        (
            request(),
            other(eligible=False),
            False,
            "b is not eligible (node_options.eligible, or `sidecar set`)",
        ),
        (
            request(),
            other(available=False, message="Cooling down"),
            False,
            "b is not able to take over now: Cooling down",
        ),
    ],
)
def test_a_switchover_is_refused_for_a_reason(
    asked: Request, node: NodeRecord, paused: bool, reason: str
) -> None:
    after = hear(serving(), asked, node, paused=paused)

    assert answers(after) == [("refused", reason)]
    assert after.node.phase == serving()


def test_a_switchover_that_is_not_confirmed_is_abandoned() -> None:
    lease = s.Serving(s.Lease(EPOCH, at(60_000)), 3)
    accepted = request(state="accepted")

    assert answers(hear(lease, accepted, after_ms=4_999)) == []
    assert answers(hear(lease, accepted, after_ms=5_000)) == [("abandoned", "the command did not confirm it")]


def test_a_confirmed_switchover_stops_the_server_and_gives_the_lock_back() -> None:
    confirmed = hear(serving(), request(state="confirmed"))
    assert confirmed.node.phase == s.Stopping(LEASE, 3, at(30_000), s.GiveUp("switchover to b"))

    idle = replace(confirmed.node.memory, call=None, call_at=at(60_000))
    gone = decide(s.Node(confirmed.node.phase, idle), s.ServerGone(3, 0), at(10), POLICY)
    assert gone.actions == (s.Release(EPOCH, "switchover to b"),)


@pytest.mark.parametrize("phase", [s.Starting(LEASE, 3, at(900)), s.Idle(), s.Standing(3)])
def test_only_a_serving_active_of_that_epoch_hears_a_switchover(phase: s.Phase) -> None:
    assert answers(hear(phase, request())) == []
    assert answers(hear(serving(), request(epoch=8))) == []
    assert answers(hear(serving(), request(state="done"))) == []


# Whoever is active afterwards concludes


@pytest.mark.parametrize(
    ("kind", "state", "source", "to", "outcome", "reason"),
    [
        ("switchover", "confirmed", "b", "a", "done", "a is active"),
        ("switchover", "confirmed", "b", None, "done", "a is active"),
        ("switchover", "confirmed", "a", "b", "rolled_back", "b: Cooling down"),
        ("switchover", "confirmed", "a", "x", "rolled_back", "x: it did not take over"),
        ("switchover", "confirmed", "b", "c", "failed", "a took over instead of c"),
        ("switchover", "asked", "b", "a", "abandoned", "a became active meanwhile"),
        ("switchover", "accepted", "b", "a", "abandoned", "a became active meanwhile"),
        ("failover", "asked", "b", None, "abandoned", "a became active meanwhile"),
        ("failover", "confirmed", "b", None, "done", "a is active"),
        ("failover", "confirmed", "a", None, "rolled_back", "nobody else took over"),
        ("failover", "confirmed", "b", "c", "failed", "a took over instead of c"),
    ],
)
def test_the_next_active_tells_what_became_of_it(
    kind: RequestKind, state: RequestState, source: str, to: str | None, outcome: str, reason: str
) -> None:
    asked = request(kind, state, epoch=6, source=source, to=to)

    assert answers(hear(serving(), asked, other(message="Cooling down"))) == [(outcome, reason)]
    assert answers(hear(s.Starting(LEASE, 3, at(900)), asked)) == []


@pytest.mark.parametrize(("by", "outcome"), [("r1", "done"), ("another", "abandoned")])
def test_a_failover_that_is_only_asked_has_begun_when_the_lock_was_broken_for_it(
    by: str, outcome: str
) -> None:
    """The command may have been killed in between."""
    asked = request("failover", "asked", epoch=6, source="b", to=None)
    broken = lock("b", 6, state="broken", by="op@here", request=by)

    heard = hear(serving(), replace(asked, id="r1"), memory=replace(BUSY, broken=broken))

    assert [state for state, _ in answers(heard)] == [outcome]


def test_a_failover_whose_lock_was_never_broken_is_abandoned() -> None:
    lease = s.Serving(s.Lease(EPOCH, at(60_000)), 3)
    asked = request("failover", "asked", to=None)

    assert answers(hear(lease, asked)) == []
    assert answers(hear(lease, asked, after_ms=5_000)) == [("abandoned", "the lock was not broken")]


# Restart in place


@pytest.mark.parametrize("phase", [serving(), s.Waiting(LEASE, at(900)), s.Standing(3)])
def test_a_restart_is_accepted_where_a_server_runs(phase: s.Phase) -> None:
    assert answers(hear(phase, request("restart"))) == [("accepted", None)]
    assert answers(hear(phase, request("restart", source="b"))) == []


def test_a_restart_is_refused_where_none_runs_and_abandoned_when_not_confirmed() -> None:
    refused = [("refused", "no server runs there to be restarted")]
    assert answers(hear(s.Idle(), request("restart"))) == refused
    assert answers(hear(s.Idle(), request("restart", "confirmed"))) == [("failed", refused[0][1])]
    late = hear(s.Standing(3), request("restart", "accepted"), after_ms=5_000)
    assert answers(late) == [("abandoned", "the command did not confirm it")]


def test_a_restart_stops_and_starts_under_the_same_epoch_even_while_paused() -> None:
    asked = request("restart", "confirmed")
    stopping = hear(serving(), asked, paused=True)
    assert stopping.node.phase == s.Stopping(LEASE, 3, at(30_000), s.Again(NOW))

    gone = decide(stopping.node, s.ServerGone(3, 0), at(100), POLICY)
    assert gone.actions == (s.StartServer(4, "active", EPOCH, LEASE.deadline),)
    ready = decide(gone.node, s.ServerReady(4), at(200), POLICY)
    assert answers(ready) == [("done", None)]
    over = decide(ready.node, s.Seen(view(lock(), request=replace(asked, state="done"))), at(300), POLICY)
    assert over.node.memory.restart_request is None


def test_a_restart_of_a_waiting_node_starts_at_once_and_waits_for_a_starting_one() -> None:
    asked = request("restart", "confirmed")

    assert isinstance(hear(s.Waiting(LEASE, at(900)), asked).node.phase, s.Starting)
    starting = s.Starting(LEASE, 3, at(900))
    assert hear(starting, asked).node.phase == starting


def test_a_restart_of_a_standby_ends_with_the_next_one_ready() -> None:
    ending = hear(s.Standing(3), request("restart", "confirmed"), policy=MONITORING)
    assert ending.node.phase == s.Ending(3, at(30_000))

    memory = replace(ending.node.memory, view=view(lock("b"), request=request("restart", "confirmed")))
    gone = decide(s.Node(ending.node.phase, memory), s.ServerGone(3, 0), at(100), MONITORING)
    assert gone.node.phase == s.Standing(4)
    assert answers(decide(gone.node, s.ServerReady(4), at(200), MONITORING)) == [("done", None)]


def test_a_restart_that_brought_nothing_back_has_failed() -> None:
    asked = view(lock("b"), request=request("restart", "confirmed"))
    memory = replace(BUSY, view=asked, restart_request="r1", cool_until=at(9), trouble="no licence")

    assert answers(step(s.Idle(), s.Tick(), memory)) == [("failed", "no licence")]
    assert answers(step(s.Idle(), s.Tick(), replace(memory, trouble=None))) == [
        ("failed", "the server did not start")
    ]


def test_bug_a_restart_during_a_cool_down_was_said_to_have_failed_as_the_server_before_had() -> None:
    asked = view(lock("b"), request=request("restart", "confirmed"))
    memory = replace(BUSY, view=asked, restart_request="r1", request_since=NOW, trouble="no licence")
    cooling = replace(memory, failures=(at(-1),), cool_until=at(9_000))

    started = decide(s.Node(s.Idle(), cooling), s.Tick(), NOW, MONITORING)
    assert [type(order) for order in started.actions] == [s.StartServer]
    assert answers(decide(started.node, s.ServerReady(4), at(200), MONITORING)) == [("done", None)]
    failed = s.Node(s.Idle(), replace(cooling, failures=(at(0),)))
    assert answers(decide(failed, s.Tick(), NOW, MONITORING)) == [("failed", "no licence")]


def test_a_restart_of_an_epoch_that_is_over_still_counts_for_the_node() -> None:
    assert answers(hear(serving(), request("restart", epoch=Epoch(5)))) == [("accepted", None)]


def test_bug_an_answer_that_a_restored_store_has_not_got_was_never_given_again() -> None:
    """The store was replaced before its answer was seen: what it shows is what it showed before."""
    asked = request("failover", "confirmed", source="b", to="a", epoch=EPOCH - 1)
    seen = s.Seen(view(lock(), nodes=(B,), request=asked))
    phase = replace(serving(), lease=replace(LEASE, deadline=at(10 * POLICY.ttl_ms)))
    first = decide(s.Node(phase, BUSY), seen, NOW, POLICY)
    soon = decide(first.node, seen, at(POLICY.ttl_ms - 1), POLICY)
    later = decide(soon.node, seen, at(POLICY.ttl_ms), POLICY)

    assert answers(first) == answers(later) == [("done", "a is active")]
    assert answers(soon) == []


def test_bug_a_request_that_a_restored_store_has_back_was_answered() -> None:
    """The store forgot the epoch of this active: what it holds was concluded before the restore."""
    memory = replace(BUSY, mark=EPOCH)
    old = s.Seen(view(lock("b", EPOCH - 1), EPOCH - 1, request=request(state="accepted", epoch=EPOCH - 1)))

    first = decide(s.Node(serving(), memory), old, NOW, POLICY)
    later = decide(first.node, s.Tick(), at(POLICY.confirm_within_ms + 1), POLICY)

    assert answers(first) + answers(later) == []


@pytest.mark.parametrize("unreadable", [(), ("request",)])
def test_bug_a_request_of_a_newer_version_was_overwritten_by_the_answer_to_the_one_before(
    unreadable: tuple[str, ...],
) -> None:
    accepted = view(lock(), nodes=(B,), request=request(state="accepted"))
    lease = s.Serving(s.Lease(EPOCH, at(60_000)), 3)
    first = decide(s.Node(lease, BUSY), s.Seen(accepted), NOW, POLICY)
    newer = decide(first.node, s.Seen(replace(accepted, unreadable=unreadable)), at(1), POLICY)
    later = decide(newer.node, s.Tick(), at(5_000), POLICY)

    assert [state for state, _ in answers(later)] == ([] if unreadable else ["abandoned"])
