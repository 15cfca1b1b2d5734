"""Every phase meets every observation, and what comes of it was decided on purpose.

Method: a table that was read line by line, from one typical state of each phase (the lease is
fresh, nothing else is due). ``Phase: Order, Order`` is what follows; ``=`` means that nothing does.
Then Hypothesis looks for any state that raises, does not come to rest, or breaks its promises.
Not covered: whether what was decided is wise where nodes meet (`test_simulation`).
"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import state as s
from sidecar.core.advance import advance
from sidecar.core.decide import decide
from sidecar.core.outlook import describe, wake_at
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from tests.core.made import EPOCH, LEASE, MONITORING, NOW, POLICY, at, grant, lock, other, request, view

WITHOUT = s.Memory(view=view(lock("b"), by="b"), mark=EPOCH, call="acquire", runs=3, call_at=at(900))
WITH = replace(WITHOUT, view=view(lock()), marked="a", call="renew")

PHASES: dict[str, s.Node] = {
    "Idle": s.Node(s.Idle(), WITHOUT),
    "Standing": s.Node(s.Standing(3, ready=True), WITHOUT),
    "Ending": s.Node(s.Ending(3, at(3_000), EPOCH), replace(WITH, spent=EPOCH)),
    "Promoting": s.Node(s.Promoting(LEASE, 3, at(3_000)), WITH),
    "Starting": s.Node(s.Starting(LEASE, 3, at(60_000)), WITH),
    "Serving": s.Node(s.Serving(LEASE, 3), WITH),
    "Waiting": s.Node(s.Waiting(LEASE, at(1_000)), WITH),
    "Stopping": s.Node(s.Stopping(LEASE, 3, at(3_000), s.Again(at(1_000))), WITH),
    "Finished": s.Node(s.Finished(0), WITHOUT),
}
OBSERVATIONS: dict[str, s.Observation] = {
    "Tick": s.Tick(),
    "Seen": s.Seen(view(lock("a", state="broken"))),
    "Granted": grant(),
    "Granted anew": grant(8),
    "Taken": s.Taken(Epoch(6), "b"),
    "Lost": s.Lost(EPOCH),
    "Released": s.Released(EPOCH),
    "CallFailed": s.CallFailed("down"),
    "ServerReady": s.ServerReady(3),
    "ServerSick": s.ServerSick(3, "hangs"),
    "ServerActivated": s.ServerActivated(3),
    "ServerGone": s.ServerGone(3, 1),
    "ServerGone before": s.ServerGone(2, 1),
    "Cleared": s.Cleared(2),
    "StopAsked": s.StopAsked(),
    "StopAsked, kept": s.StopAsked(keep_server=True),
    "AnswerFailed": s.AnswerFailed(),
}
TABLE: dict[str, dict[str, str]] = {
    "Idle": {
        "Tick": "=",
        "Seen": "Idle: SaveMark",
        "Granted": "Starting: StartServer",
        "Granted anew": "Starting: SaveMark, StartServer",
        "Taken": "=",
        "Lost": "=",
        "Released": "=",
        "CallFailed": "=",
        "ServerReady": "=",
        "ServerSick": "=",
        "ServerActivated": "=",
        "ServerGone": "=",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "=",
        "StopAsked, kept": "=",
        "AnswerFailed": "=",
    },
    "Standing": {
        "Tick": "=",
        "Seen": "Standing: SaveMark",
        "Granted": "Promoting: StopServer",
        "Granted anew": "Promoting: SaveMark, StopServer",
        "Taken": "=",
        "Lost": "=",
        "Released": "=",
        "CallFailed": "=",
        "ServerReady": "=",
        "ServerSick": "=",
        "ServerActivated": "Ending: Alarm, KillServer",
        "ServerGone": "Idle",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "Ending: StopServer",
        "StopAsked, kept": "=",
        "AnswerFailed": "=",
    },
    "Ending": {
        "Tick": "=",
        "Seen": "=",
        "Granted": "=",
        "Granted anew": "Ending: SaveMark",
        "Taken": "=",
        "Lost": "=",
        "Released": "=",
        "CallFailed": "=",
        "ServerReady": "=",
        "ServerSick": "=",
        "ServerActivated": "Ending: Alarm, KillServer",
        "ServerGone": "Idle",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "=",
        "StopAsked, kept": "=",
        "AnswerFailed": "=",
    },
    "Promoting": {
        "Tick": "=",
        "Seen": "Ending: StopServer",
        "Granted": "=",
        "Granted anew": "Ending: SaveMark, StopServer",
        "Taken": "=",
        "Lost": "Ending: StopServer",
        "Released": "Promoting: Renew",
        "CallFailed": "=",
        "ServerReady": "=",
        "ServerSick": "=",
        "ServerActivated": "Promoting: Alarm, KillServer",
        "ServerGone": "Starting: StartServer",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "Stopping: StopServer",
        "StopAsked, kept": "Stopping: StopServer",
        "AnswerFailed": "=",
    },
    "Starting": {
        "Tick": "=",
        "Seen": "Ending: StopServer",
        "Granted": "Starting: ExtendServer",
        "Granted anew": "Ending: SaveMark, StopServer",
        "Taken": "=",
        "Lost": "Ending: StopServer",
        "Released": "Starting: Renew",
        "CallFailed": "=",
        "ServerReady": "Serving",
        "ServerSick": "=",
        "ServerActivated": "=",
        "ServerGone": "Waiting",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "Stopping: StopServer",
        "StopAsked, kept": "Finished: Exit",
        "AnswerFailed": "=",
    },
    "Serving": {
        "Tick": "=",
        "Seen": "Ending: StopServer",
        "Granted": "Serving: ExtendServer",
        "Granted anew": "Ending: SaveMark, StopServer",
        "Taken": "=",
        "Lost": "Ending: StopServer",
        "Released": "Serving: Renew",
        "CallFailed": "=",
        "ServerReady": "=",
        "ServerSick": "Stopping: StopServer",
        "ServerActivated": "=",
        "ServerGone": "Waiting",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "Stopping: StopServer",
        "StopAsked, kept": "Finished: Exit",
        "AnswerFailed": "=",
    },
    "Waiting": {
        "Tick": "=",
        "Seen": "Idle",
        "Granted": "=",
        "Granted anew": "Idle: SaveMark",
        "Taken": "=",
        "Lost": "Idle: Release",
        "Released": "Waiting: Renew",
        "CallFailed": "=",
        "ServerReady": "=",
        "ServerSick": "=",
        "ServerActivated": "=",
        "ServerGone": "=",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "Idle",
        "StopAsked, kept": "Idle",
        "AnswerFailed": "=",
    },
    "Stopping": {
        "Tick": "=",
        "Seen": "Ending: StopServer",
        "Granted": "Stopping: ExtendServer",
        "Granted anew": "Ending: SaveMark, StopServer",
        "Taken": "=",
        "Lost": "Ending: StopServer",
        "Released": "Stopping: Renew",
        "CallFailed": "=",
        "ServerReady": "=",
        "ServerSick": "=",
        "ServerActivated": "Stopping: Alarm, KillServer",
        "ServerGone": "Waiting",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "Stopping: StopServer",
        "StopAsked, kept": "Stopping: StopServer",
        "AnswerFailed": "=",
    },
    "Finished": {
        "Tick": "=",
        "Seen": "=",
        "Granted": "=",
        "Granted anew": "=",
        "Taken": "=",
        "Lost": "=",
        "Released": "=",
        "CallFailed": "=",
        "ServerReady": "=",
        "ServerSick": "=",
        "ServerActivated": "=",
        "ServerGone": "=",
        "ServerGone before": "=",
        "Cleared": "=",
        "StopAsked": "=",
        "StopAsked, kept": "=",
        "AnswerFailed": "=",
    },
}


def after(phase: str, seen: str) -> s.Step:
    return decide(PHASES[phase], OBSERVATIONS[seen], NOW, POLICY)


def said(step: s.Step) -> str:
    orders = ", ".join(type(action).__name__ for action in step.actions)
    return f"{type(step.node.phase).__name__}: {orders}" if orders else type(step.node.phase).__name__


@pytest.mark.parametrize("seen", OBSERVATIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_cell(phase: str, seen: str) -> None:
    expected = TABLE[phase][seen]

    assert said(after(phase, seen)) == (phase if expected == "=" else expected)


def test_the_table_is_complete() -> None:
    kinds = {type(seen) for seen in OBSERVATIONS.values()}

    assert kinds == set(s.Observation.__args__)
    assert {type(node.phase) for node in PHASES.values()} == set(s.Phase.__args__)
    assert all(set(row) == set(OBSERVATIONS) for row in TABLE.values())


# Any state at all

INSTANTS = st.integers(-20_000, 70_000).map(at)
EPOCHS = st.sampled_from((NO_EPOCH, Epoch(6), EPOCH, Epoch(8)))
RUNS = st.sampled_from((2, 3))
LEASES = st.builds(s.Lease, st.sampled_from((EPOCH, Epoch(8))), INSTANTS)
AFTER = st.one_of(st.builds(s.Again, INSTANTS), st.builds(s.GiveUp, st.just("cause")))
ANY_PHASE: st.SearchStrategy[s.Phase] = st.one_of(
    st.just(s.Idle()),
    st.builds(s.Standing, RUNS, st.booleans()),
    st.builds(s.Ending, RUNS, INSTANTS, EPOCHS),
    st.builds(s.Promoting, LEASES, RUNS, INSTANTS, st.integers(0, 6)),
    st.builds(s.Starting, LEASES, RUNS, INSTANTS),
    st.builds(s.Serving, LEASES, RUNS),
    st.builds(s.Waiting, LEASES, INSTANTS),
    st.builds(s.Stopping, LEASES, RUNS, INSTANTS, AFTER, st.integers(0, 6)),
    st.just(s.Finished(0)),
)
REQUESTS = st.one_of(
    st.none(),
    st.builds(
        request,
        st.sampled_from(("switchover", "failover", "restart")),
        st.sampled_from(("asked", "accepted", "confirmed", "done", "abandoned")),
        epoch=st.sampled_from((6, 7, 8)),
        source=st.sampled_from(("a", "b")),
        to=st.sampled_from(("a", "b", None)),
    ),
)
LOCKS = st.one_of(
    st.none(),
    st.builds(
        lock,
        st.sampled_from(("a", "b")),
        st.sampled_from((6, 7, 8)),
        state=st.sampled_from(("held", "held", "broken")),
    ),
)
OTHERS = st.sampled_from(((), (other(),), (other(priority=200, failback=True), other("c", state="failed"))))
VIEWS = st.builds(
    view,
    LOCKS,
    st.sampled_from((6, 7, 8)),
    by=st.sampled_from(("a", "b", None)),
    released=st.sampled_from((None, "stopped")),
    nodes=OTHERS,
    request=REQUESTS,
    paused=st.booleans(),
    expired=st.booleans(),
)
OWED = st.one_of(st.none(), st.builds(s.Owed, EPOCHS, st.just("cause"), INSTANTS))
ANY_MEMORY = st.builds(
    s.Memory,
    view=st.one_of(st.none(), VIEWS),
    vacant_since=st.one_of(st.none(), INSTANTS),
    mark=EPOCHS,
    spent=EPOCHS,
    owed=OWED,
    call=st.sampled_from((None, "acquire", "renew", "release")),
    call_at=INSTANTS,
    runs=st.just(3),
    failures=st.lists(INSTANTS, max_size=3).map(tuple),
    cool_until=INSTANTS,
    standby_at=INSTANTS,
    quit=st.sampled_from((None, None, s.Quit(), s.Quit(keep_server=True))),
    request_since=INSTANTS,
    restart_request=st.sampled_from((None, "r1")),
    better=st.one_of(st.none(), st.tuples(st.just("b"), INSTANTS)),
    answered=st.sampled_from((None, ("r1", "accepted"))),
    clearing=st.sampled_from((None, None, 2)),
)
ANY_SEEN = st.one_of(st.sampled_from(list(OBSERVATIONS.values())), VIEWS.map(s.Seen))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(ANY_PHASE, ANY_MEMORY, ANY_SEEN, st.sampled_from((POLICY, MONITORING, replace(POLICY, once=True))))
def test_any_state_is_decided_comes_to_rest_and_keeps_its_word(
    phase: s.Phase, memory: s.Memory, seen: s.Observation, policy: s.Policy
) -> None:
    if not isinstance(phase, s.Idle | s.Standing):
        memory = replace(memory, owed=None)  # "only Idle, Standing and Waiting may owe"
    node, actions = decide(s.Node(phase, memory), seen, NOW, policy)

    assert advance(node, NOW, policy) == s.Step(node)
    assert NOW < wake_at(node, NOW, policy) <= Instant(NOW + 1_000)
    assert describe(node, NOW, policy, enforcement="kernel", version="", unix_ms=0, server=None)
    assert node.memory.mark >= memory.mark
    assert node.memory.spent >= memory.spent
    _orders_agree(phase, node, seen, actions)


def _orders_agree(phase: s.Phase, node: s.Node, seen: s.Observation, actions: tuple[s.Action, ...]) -> None:
    calls = [a for a in actions if isinstance(a, s.Acquire | s.Renew | s.Release)]
    assert len(calls) <= 1
    gone = seen.run if isinstance(seen, s.ServerGone) else None
    has_tree = not isinstance(phase, s.Idle | s.Waiting | s.Finished) and phase.run != gone
    starts = [a for a in actions if isinstance(a, s.StartServer)]
    assert not (starts and has_tree), "a server is started while a tree may live"
    if any(isinstance(a, s.Release) for a in actions):
        assert isinstance(node.phase, s.Idle | s.Standing | s.Ending), "released while something may run"
        assert node.memory.clearing is None, "released before after_stop is over"
    for start in starts:
        if start.role == "active":
            lease = getattr(node.phase, "lease", None)
            assert lease == s.Lease(start.epoch, start.deadline) or isinstance(node.phase, s.Ending)
