"""Goal: switchover and restart say exactly what happened, and leave nothing behind that could happen later.

Method: the real operations on the real local backend; the other side is a script in a thread (stage.py).
The table of outcomes at the end is the judgement alone, over views made by hand.
Not covered: the core's own side of the handshake (tests/core), and stores over a network (tests/system).
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sidecar.clock import ManualClock
from sidecar.core.model import EpochRecord, LockRecord, NodeRecord, Request, RequestState, Settings, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import Failed, NotSent, OutcomeUnknown, Refused, TimedOut
from sidecar.operate import failover as operation
from sidecar.operate import handover
from sidecar.operate.asking import Asking, Done, Gap, Not, Unsure, new_request, refuse_second
from sidecar.operate.desk import Desk, Follower
from sidecar.operate.maintenance import pause_cluster
from sidecar.operate.overrides import set_override
from tests.cli.stage import Stage, request

MINUTE_MS = 60_000


@pytest.fixture
def two(stage: Stage) -> Stage:
    """node-a is active, node-b could be."""
    stage.appear("node-b")
    stage.acquire("node-a")
    return stage


def switchover(stage: Stage, to: str | None = None, timeout_ms: int = MINUTE_MS, **desk: object) -> Done:
    made: Desk = stage.desk(**desk)  # type: ignore[arg-type]
    return handover.switchover(made, to, timeout_ms, stage.tell)


@pytest.mark.parametrize("to", [None, "node-b"])
def test_done_is_who_is_active_at_which_epoch(two: Stage, to: str | None) -> None:
    with two.acting(lambda: two.obey("node-b")):
        done = switchover(two, to)

    assert (done.node, done.epoch) == ("node-b", 2)
    assert any("node-a hands over to node-b" in line for line in two.told)


def test_the_time_without_an_active_is_what_was_seen_of_it(two: Stage) -> None:
    clock = ManualClock()
    gap = Gap(replace(two.desk(), clock=clock))
    gap.see(seen("node-a", epoch=1))
    gap.see(seen(None))
    clock.advance(700)
    gap.see(seen("node-b", state="starting"))
    clock.advance(300)
    assert gap.length_ms is None
    gap.see(seen("node-b"))
    assert gap.length_ms == 1_000


def test_bug_the_last_words_of_a_node_that_had_lost_the_lock_counted_as_serving(two: Stage) -> None:
    """A frozen node's record stands in the store until its lease ends: 8 s were said where it was 35."""
    clock = ManualClock()
    gap = Gap(replace(two.desk(), clock=clock))
    frozen = seen("node-a", epoch=1)
    gap.see(frozen)
    gap.see(replace(frozen, lock=replace(LOCK, state="broken")))
    clock.advance(30_000)
    gap.see(replace(frozen, lock=None))
    gap.see(replace(frozen, lock=replace(LOCK, epoch=Epoch(2))))  # it is back, and shows what it was
    clock.advance(5_000)
    gap.see(seen("node-a", epoch=2))

    assert gap.length_ms == 35_000


def test_bug_a_time_without_an_active_that_had_begun_before_was_told_as_if_it_had_not(two: Stage) -> None:
    clock = ManualClock()
    gap = Gap(replace(two.desk(), clock=clock))
    gap.see(seen(None))
    clock.advance(6_000)
    gap.see(seen("node-b"))
    assert gap.length_ms is None, "since when is not known"

    gap.see(seen(None))
    clock.advance(700)
    gap.see(seen("node-b"))
    assert gap.length_ms == 700


def test_a_switchover_that_is_paused_meanwhile_is_done_when_it_was_concluded(two: Stage) -> None:
    """The new active shows that it is paused, perhaps never that it runs."""

    def play() -> None:
        two.accept("node-b")
        two.release()
        two.acquire("node-b", state="paused")
        two.answer("done", "node-b is active")

    with two.acting(play):
        done = switchover(two)

    assert (done.node, done.epoch) == ("node-b", 2)


def test_bug_a_paused_node_whose_server_never_ran_was_said_to_be_active() -> None:
    """The one before it had concluded the request, and was gone."""
    done = ended("done")

    assert handover.serves(seen("node-b", state="paused", epoch=2, request=done))
    assert not handover.serves(seen("node-b", state="paused", epoch=3, request=done))


def test_a_refusal_of_the_active_is_passed_on(two: Stage) -> None:
    def play() -> None:
        two.await_request("asked")
        two.answer("refused", "the moon is full")

    with two.acting(play), pytest.raises(Refused, match="node-a refuses: the moon is full"):
        switchover(two)


def test_an_active_that_does_not_answer_leaves_an_abandoned_request(stage: Stage) -> None:
    stage.ttl_ms = 4_000
    stage.appear("node-b")
    stage.acquire("node-a")

    with pytest.raises(
        Failed, match=r"node-a has not answered .* nothing will happen for it; see .*failover"
    ):
        switchover(stage, answer_within_ms=100)

    left = stage.view().request
    assert left is not None
    assert left.state == "abandoned"


def test_bug_an_active_whose_sidecar_is_dead_sent_the_operator_to_a_failover(two: Stage) -> None:
    two.vanish("node-a")

    with pytest.raises(
        Failed, match=r"nothing will happen for it; another node takes over when its lease ends"
    ):
        switchover(two, answer_within_ms=100)


def test_an_active_that_was_given_no_time_to_answer_is_not_said_to_be_dead(two: Stage) -> None:
    with pytest.raises(
        Failed, match=r"has not answered within .*; give it more time: an answer may take 30.0 s"
    ):
        switchover(two, timeout_ms=10)


@pytest.mark.parametrize("accepts", [False, True])
def test_the_time_limit_holds_for_the_answer_too(two: Stage, accepts: bool) -> None:
    """The active is asked when the time is nearly over: it has failed, and nothing is left to happen."""
    clock = ManualClock(two.clock.now())

    class Slow:
        """Lets the time limit pass before the request can be seen."""

        def __getattr__(self, name: str) -> object:
            return getattr(made.backend, name)

        def write(self, value: Request, *, expected: int, deadline: Instant) -> int:
            version = made.backend.write(value, expected=expected, deadline=two.soon)
            if value.state == "asked":
                if accepts:
                    two.answer("accepted", to="node-b")
                clock.advance(1_000)
            return version

        def read(self, *, deadline: Instant) -> View:
            return made.backend.read(deadline=two.soon)

    made = two.desk()
    desk = replace(made, backend=Slow(), clock=clock)  # type: ignore[arg-type]
    with pytest.raises(Failed, match="the request is withdrawn, nothing will happen"):
        handover.switchover(desk, None, 1_000, two.tell)

    left = two.view().request
    assert left is not None
    assert left.state == "abandoned"


def test_an_acceptance_at_the_last_moment_still_counts(stage: Stage) -> None:
    stage.ttl_ms = 4_000
    stage.appear("node-b")
    stage.acquire("node-a")
    made = stage.desk(answer_within_ms=100)

    class LateAcceptance:
        """Lets the active's acceptance overtake the withdrawal."""

        def __getattr__(self, name: str) -> object:
            return getattr(made.backend, name)

        def write(self, value: Request, **how: object) -> int:
            if value.state == "abandoned":
                stage.answer("accepted", to="node-b")
            return made.backend.write(value, **how)  # type: ignore[arg-type]

    def play() -> None:
        stage.await_request("confirmed")
        stage.acquire("node-b")
        stage.answer("done")

    desk = replace(made, backend=LateAcceptance())  # type: ignore[arg-type]
    with stage.acting(play):
        done = handover.switchover(desk, None, MINUTE_MS, stage.tell)

    assert done.node == "node-b"


@pytest.mark.parametrize("state", ["rolled_back", "failed", "abandoned"])
def test_what_did_not_come_about_is_a_failure_with_its_reason(two: Stage, state: RequestState) -> None:
    def play() -> None:
        two.accept("node-b")
        two.answer(state, "node-b: its disk is full")

    with two.acting(play), pytest.raises(Failed, match="its disk is full"):
        switchover(two)


def test_an_active_that_dies_after_the_confirmation_leaves_the_outcome_unknown(two: Stage) -> None:
    with (
        two.acting(lambda: two.accept("node-b")),
        pytest.raises(TimedOut, match=r"outcome unknown after .*sidecar status"),
    ):
        switchover(two, timeout_ms=5_000)


def test_done_is_not_said_before_the_new_active_was_seen_to_run(two: Stage) -> None:
    def play() -> None:
        two.accept("node-b")
        two.release()
        two.acquire("node-b", state="starting")
        two.answer("done")

    with two.acting(play), pytest.raises(TimedOut, match="node-b holds the lock at epoch 2"):
        switchover(two, timeout_ms=5_000)


def test_a_hand_over_that_nobody_concludes_is_done_when_it_was_seen(two: Stage) -> None:
    def play() -> None:
        two.accept("node-b")
        two.release()
        two.acquire("node-b")

    with two.acting(play):
        assert switchover(two, timeout_ms=5_000).node == "node-b"


def test_another_node_than_the_wanted_one_is_a_failure(two: Stage) -> None:
    two.appear("node-c")

    def play() -> None:
        two.accept()
        two.release()
        two.acquire("node-c")
        two.answer("done")

    with two.acting(play), pytest.raises(Failed, match="node-c is active at epoch 2, not node-b"):
        switchover(two, "node-b")


def test_a_command_that_is_overtaken_says_so(two: Stage) -> None:
    def play() -> None:
        two.await_request("asked")
        two.write(request(epoch=1))

    with two.acting(play), pytest.raises(Failed, match=r"overtaken by a switchover to node-b .*bob@there"):
        switchover(two)


@pytest.mark.parametrize("state", ["asked", "accepted", "done", "failed", "abandoned"])
def test_what_a_killed_command_left_is_overwritten(two: Stage, state: RequestState) -> None:
    two.write(request(state=state))

    def play() -> None:
        two.await_view(lambda view: view.request is not None and view.request.by == "op@here")
        two.obey("node-b")

    with two.acting(play):
        assert switchover(two).node == "node-b"


def test_a_confirmed_switchover_cannot_be_overtaken(two: Stage) -> None:
    two.write(request(state="confirmed"))

    with pytest.raises(
        Refused, match=r"switchover to node-b \(id f00df00d, by bob@there, confirmed\) is under way"
    ):
        switchover(two)


def test_a_confirmed_one_of_an_earlier_epoch_is_given_time_to_be_concluded(two: Stage) -> None:
    two.release()
    two.acquire("node-a")
    two.write(request(state="confirmed", epoch=1))

    def play() -> None:
        two.answer("rolled_back", "it did not start")
        two.await_view(lambda view: view.request is not None and view.request.by == "op@here")
        two.obey("node-b")

    with two.acting(play):
        assert switchover(two).epoch == 3


def test_an_interruption_before_the_confirmation_withdraws_the_request(two: Stage) -> None:
    enough: list[int] = []

    def play() -> None:
        two.await_request("asked")
        enough.append(1)
        two.await_request("abandoned")

    with two.acting(play), pytest.raises(Failed, match="withdrawn, nothing will happen"):
        switchover(two, halted=lambda: bool(enough))


def test_an_interruption_after_the_confirmation_does_not_claim_to_stop_it(two: Stage) -> None:
    enough: list[int] = []

    def play() -> None:
        two.accept("node-b")
        enough.append(1)

    with two.acting(play), pytest.raises(TimedOut, match="goes on without this command"):
        switchover(two, halted=lambda: bool(enough))


class Lossy:
    """A backend whose answer to the write of one state is lost, after or before it was carried out."""

    def __init__(self, desk: Desk, state: RequestState, *, happens: bool) -> None:
        self._real, self._state, self._happens = desk.backend, state, happens
        self.lost = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def write(self, value: Request, *, expected: int, deadline: Instant) -> int:
        if value.state != self._state or self.lost:
            return self._real.write(value, expected=expected, deadline=deadline)
        self.lost += 1
        if self._happens:
            self._real.write(value, expected=expected, deadline=deadline)
        raise OutcomeUnknown("127.0.0.1:1: the answer was lost")


@pytest.mark.parametrize("happens", [True, False])
@pytest.mark.parametrize("state", ["asked", "confirmed"])
def test_a_lost_answer_is_looked_up_and_never_assumed(two: Stage, state: RequestState, happens: bool) -> None:
    desk = two.desk()
    lossy = Lossy(desk, state, happens=happens)

    with two.acting(lambda: two.obey("node-b")):
        desk = replace(desk, backend=lossy)  # type: ignore[arg-type]
        done = handover.switchover(desk, None, MINUTE_MS, two.tell)

    assert (done.node, done.epoch, lossy.lost) == ("node-b", 2, 1)


class Gone:
    """A backend that cannot be reached any more once a state was asked to be written."""

    def __init__(self, desk: Desk, state: RequestState, *, after: bool) -> None:
        self._real, self._state, self._after = desk.backend, state, after
        self.gone = False

    def __getattr__(self, name: str) -> object:
        return self._refuse if self.gone and name != "close" else getattr(self._real, name)

    def _refuse(self, *_args: object, **_how: object) -> object:
        raise NotSent("127.0.0.1:1: connection refused")

    def write(self, value: Request, *, expected: int, deadline: Instant) -> int:
        if value.state != self._state or self.gone:
            if self.gone:
                raise NotSent("127.0.0.1:1: connection refused")
            return self._real.write(value, expected=expected, deadline=deadline)
        self.gone = True
        if self._after:
            return self._real.write(value, expected=expected, deadline=deadline)
        raise NotSent("127.0.0.1:1: connection refused")


def test_a_store_that_is_lost_before_the_confirmation_means_that_nothing_happens(two: Stage) -> None:
    desk = two.desk()
    gone = Gone(desk, "confirmed", after=False)

    def play() -> None:
        two.await_request("asked")
        two.answer("accepted", to="node-b")

    with two.acting(play), pytest.raises(NotSent, match=r"connection refused; .*nothing will happen"):
        handover.switchover(replace(desk, backend=gone), None, 6_000, two.tell)  # type: ignore[arg-type]


def test_a_store_that_is_lost_after_the_confirmation_is_waited_for_then_the_outcome_is_unknown(
    two: Stage,
) -> None:
    desk = two.desk()
    gone = Gone(desk, "confirmed", after=True)

    with (
        two.acting(lambda: two.accept("node-b")),
        pytest.raises(TimedOut, match=r"outcome unknown .*connection refused"),
    ):
        handover.switchover(replace(desk, backend=gone), None, 6_000, two.tell)  # type: ignore[arg-type]

    assert any("still trying" in line for line in two.told)


def _stop(stage: Stage) -> None:
    stage.release()


def _pause(stage: Stage) -> None:
    stage.write(Settings(paused=True, by="bob@there"))


def _break(stage: Stage) -> None:
    assert stage.hold is not None
    epoch = stage.hold.epoch
    stage.backend.break_lock(epoch, to=None, by="bob@there", request=None, ttl_ms=60_000, deadline=stage.soon)


@pytest.mark.parametrize(
    ("before", "to", "says"),
    [
        (_stop, None, "nobody is active"),
        (_break, None, "broken by bob@there"),
        (_pause, None, r"paused by bob@there; `sidecar resume` first"),
        (lambda s: s.write(Settings(paused_nodes=("node-a",))), None, "resume --node node-a"),
        (lambda s: s.write(Settings(paused_nodes=("node-b",))), "node-b", "resume --node node-b"),
        (lambda s: None, "node-a", "node-a is active already"),
        (lambda s: None, "node-x", "node-x is not there; there are: node-a, node-b"),
        (lambda s: s.appear("node-b", eligible=False, available=False), "node-b", "not eligible"),
        (lambda s: s.appear("node-b", available=False, message="Cooling down"), "node-b", "Cooling down"),
        (lambda s: s.appear("node-b", available=False, message="Cooling down"), None, "Cooling down"),
        (
            lambda s: s.appear("node-b", state="failed", message="port 9 is taken"),
            "node-b",
            "port 9 is taken",
        ),
        (lambda s: s.appear("node-b", state="failed", message="port 9 is taken"), None, "port 9 is taken"),
        (lambda s: s.show("node-a", "starting", "Starting"), None, "wait until it runs"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    two: Stage, before: Callable[[Stage], None], to: str | None, says: str
) -> None:
    before(two)

    with pytest.raises(Refused, match=says):
        switchover(two, to)

    assert two.view().request is None


@pytest.mark.parametrize(
    "command",
    [
        lambda s: switchover(s, "node-b"),
        lambda s: operation.plan(s.desk(), s.desk().read(), "node-b"),
        lambda s: handover.restart(s.desk(), "node-b", MINUTE_MS, s.tell),
        lambda s: pause_cluster(s.desk(), "node-b"),
        lambda s: set_override(s.desk(), "node-b", "priority", 7),
    ],
    ids=["switchover", "failover", "restart", "pause", "set"],
)
def test_bug_a_node_of_a_newer_version_was_said_not_to_be_there(
    two: Stage, command: Callable[[Stage], object]
) -> None:
    two.garble("nodes/node-b")

    with pytest.raises(Refused, match="node-b is there, but what it says cannot be read here"):
        command(two)

    assert two.view().request is None


def test_bug_an_active_of_a_newer_version_was_said_to_be_dead(two: Stage) -> None:
    two.garble("nodes/node-a")

    with pytest.raises(Failed, match=r"has not answered within .* and says nothing that can be read here"):
        switchover(two, timeout_ms=300)
    two.garble("nodes/node-b")
    with pytest.raises(Refused, match=r"\(node-b says nothing that can be read here\)"):
        switchover(two)


def test_a_restart_of_a_node_of_a_newer_version_is_not_overtaken(two: Stage) -> None:
    two.garble("nodes/node-b")
    two.write(request("restart", "confirmed", source="node-b", to=None))

    with pytest.raises(Refused, match=r"a restart of node-b .* is under way"):
        handover.restart(two.desk(), "node-a", MINUTE_MS, two.tell)


@pytest.mark.parametrize(("store", "slash"), [("etcd", "/"), ("local", "")])
@pytest.mark.parametrize("key", ["request", "settings"])
def test_a_key_that_stands_in_the_way_is_named_in_full(two: Stage, store: str, slash: str, key: str) -> None:
    two.garble(key)
    desk = replace(two.desk(), store=store)

    with pytest.raises(Refused, match=f"the key {slash}aggregate-sidecar/plant-7/{key} cannot be read"):
        handover.switchover(desk, None, MINUTE_MS, two.tell)


def test_a_request_is_of_the_epoch_that_was_seen(two: Stage) -> None:
    two.release()
    two.acquire("node-a")
    asked: list[Request] = []

    def play() -> None:
        asked.append(two.await_request("asked"))
        two.answer("refused", "no")

    with two.acting(play), pytest.raises(Refused):
        switchover(two)

    assert [(request.epoch, request.source) for request in asked] == [(2, "node-a")]


def test_of_two_commands_at_once_one_is_refused(two: Stage) -> None:
    """The other one was confirmed between our look and our write."""
    desk = two.desk()
    looks: list[View] = []

    def make(view: View) -> Request:
        looks.append(view)
        refuse_second(desk, view)
        if len(looks) == 1:
            two.write(request(state="confirmed"))
        return new_request(desk, view, "switchover", "node-a", "node-b")

    with pytest.raises(Refused, match="is under way"):
        Asking.place(desk, Follower(desk, desk.read()), make, two.tell)

    left = two.view().request
    assert left is not None
    assert (left.by, left.state) == ("bob@there", "confirmed")


def test_a_confirmation_whose_answer_is_lost_with_the_store_is_unknown(two: Stage) -> None:
    desk = two.desk()

    class LostForEver(Gone):
        def write(self, value: Request, *, expected: int, deadline: Instant) -> int:
            version = super().write(value, expected=expected, deadline=deadline)
            if self.gone:
                raise OutcomeUnknown("127.0.0.1:1: the answer was lost")
            return version

    gone = LostForEver(desk, "confirmed", after=True)
    lost = replace(desk, backend=gone, halted=lambda: gone.gone)  # type: ignore[arg-type]

    with (
        two.acting(lambda: two.accept("node-b")),
        pytest.raises(TimedOut, match=r"unknown whether it has begun: .*sidecar status"),
    ):
        handover.switchover(lost, None, MINUTE_MS, two.tell)


@pytest.mark.parametrize("state", ["done", "failed", "rolled_back"])
def test_a_request_that_somebody_ended_before_it_began_is_a_failure(two: Stage, state: RequestState) -> None:
    def play() -> None:
        two.await_request("asked")
        two.answer(state, "ended by hand")

    with two.acting(play), pytest.raises(Failed, match="not done: ended by hand"):
        switchover(two)


def test_an_active_that_takes_its_acceptance_back_ends_it(two: Stage) -> None:
    """Between its acceptance and the confirmation, which must not be written over that."""
    desk = two.desk()

    class TakenBack:
        def __getattr__(self, name: str) -> object:
            return getattr(desk.backend, name)

        def write(self, value: Request, **how: object) -> int:
            if value.state == "confirmed":
                two.answer("abandoned", "the server has failed meanwhile")
            return desk.backend.write(value, **how)  # type: ignore[arg-type]

    def play() -> None:
        two.await_request("asked")
        two.answer("accepted", to="node-b")

    taken_back = replace(desk, backend=TakenBack())  # type: ignore[arg-type]
    with two.acting(play), pytest.raises(Failed, match="not done: the server has failed meanwhile"):
        handover.switchover(taken_back, None, MINUTE_MS, two.tell)


# ---- restart


def restart(stage: Stage, node: str = "node-a", timeout_ms: int = MINUTE_MS) -> Done:
    return handover.restart(stage.desk(), node, timeout_ms, stage.tell)


def test_a_restart_is_done_when_the_server_runs_again(two: Stage) -> None:
    def play() -> None:
        two.accept()
        two.show("node-a", "stopping")
        two.await_view(lambda view: (a := view.node("node-a")) is not None and a.state == "stopping")
        two.show("node-a")
        two.answer("done")

    with two.acting(play):
        assert restart(two).node == "node-a"


@pytest.mark.parametrize(
    ("state", "done"),
    [("running", True), ("paused", True), ("stopping", False), ("starting", False), ("failed", False)],
)
def test_a_restart_is_done_when_the_server_runs_and_not_before(state: str, done: bool) -> None:
    asked = request("restart", "done", source="node-a", to=None)

    verdict = handover.judge_restart(seen("node-a", state=state, request=asked), asked, False)

    assert isinstance(verdict, Done) is done


def test_a_standby_is_restarted_without_a_gap(two: Stage) -> None:
    def play() -> None:
        two.accept()
        two.answer("done")

    with two.acting(play):
        done = restart(two, "node-b")

    assert (done.node, done.without_active_ms) == ("node-b", None)


def test_a_restart_that_fails_says_why(two: Stage) -> None:
    def play() -> None:
        two.accept()
        two.answer("failed", "exit status 3")

    with two.acting(play), pytest.raises(Failed, match="restart: exit status 3"):
        restart(two)


def test_a_restart_of_nobody_is_refused(two: Stage) -> None:
    with pytest.raises(Refused, match="node-x is not there"):
        restart(two, "node-x")


def test_a_restart_waits_for_the_one_under_way(two: Stage) -> None:
    two.write(request("restart", "confirmed", source="node-b", to=None))

    with pytest.raises(Refused, match="restart of node-b"):
        restart(two)


def test_a_confirmed_restart_of_a_node_that_is_gone_holds_nobody_up(two: Stage) -> None:
    two.write(request("restart", "confirmed", source="node-z", to=None))

    def play() -> None:
        two.await_view(lambda view: view.request is not None and view.request.by == "op@here")
        two.accept()
        two.answer("done")

    with two.acting(play):
        assert restart(two, "node-b").node == "node-b"


# ---- the judgement alone

ASKED = request(state="confirmed", epoch=1)


LOCK = LockRecord("node-a", "node-a-1", Epoch(1), 1_000)


def seen(
    holder: str | None = None,
    epoch: int = 2,
    state: str = "running",
    role: str = "active",
    request: Request | None = ASKED,
) -> View:
    lock = LockRecord(holder, f"{holder}-1", Epoch(epoch), 1_000) if holder else None
    record = NodeRecord(
        node=holder or "node-a",
        instance="i",
        role=role if holder else "standby",  # type: ignore[arg-type]
        state=state,  # type: ignore[arg-type]
        message="m",
        epoch=Epoch(epoch) if holder else NO_EPOCH,
        mark=Epoch(epoch),
        enforcement="kernel",
        priority=1,
        eligible=True,
        available=False,
        failback=False,
        version="0",
        seen_at_unix_ms=0,
    )
    return View(1, lock, epoch=EpochRecord(Epoch(epoch)), nodes=(record,), request=request)


def ended(state: RequestState) -> Request:
    return replace(ASKED, state=state, reason="r")


OTHERS = request(id="beef" * 8)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize(
    ("view", "early", "late"),
    [
        # the request has ended badly: that is certain, whoever is active
        (seen("node-b", request=ended("rolled_back")), Not, Not),
        (seen("node-b", request=ended("failed")), Not, Not),
        (seen("node-b", request=ended("abandoned")), Not, Not),
        # nobody, or still the old one
        (seen(None), None, None),
        (seen("node-a", epoch=1), None, None),
        (seen("node-a", epoch=1, request=ended("done")), None, None),
        # the new one holds the lock, but does not serve yet, or has not said so
        (seen("node-b", state="starting", request=ended("done")), None, None),
        (seen("node-b", role="standby", request=ended("done")), None, None),
        # it serves
        (seen("node-b"), None, Done),
        (seen("node-b", request=ended("done")), Done, Done),
        (seen("node-b", request=OTHERS), Done, Done),
        (seen("node-b", request=None), Done, Done),
        # another one serves
        (seen("node-c"), None, Unsure),  # the request still stands: node-b goes first at the next vacancy
        (seen("node-c", request=OTHERS), Not, Not),
        (seen("node-c", request=ended("done")), Not, Not),
        (seen("node-a", epoch=2, request=OTHERS), Not, Not),
    ],
)
def test_the_truth_about_a_switchover(view: View, early: type | None, late: type | None, over: bool) -> None:
    mine = view.request if view.request is not None and view.request.id == ASKED.id else ASKED
    verdict = handover.judge_handover(view, mine, over)

    expected = late if over else early
    assert verdict is None if expected is None else isinstance(verdict, expected)


def test_a_server_of_an_earlier_epoch_is_not_the_one_that_took_over() -> None:
    """The record of a node that has just taken the lock again may still be the one of before."""
    view = seen("node-b", epoch=2, request=ended("done"))
    stale = replace(view, nodes=(replace(view.nodes[0], epoch=Epoch(1)),))

    assert handover.judge_handover(view, ended("done"), True) is not None
    assert handover.judge_handover(stale, ended("done"), True) is None
