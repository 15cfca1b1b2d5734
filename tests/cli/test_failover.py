"""Goal: a forced failover breaks exactly the lock it showed to the user, and reports who took over, or that
it does not know. The epoch of an old store is raised over every mark there is.

Method: as test_handshake.py.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sidecar.clock import wall_ms
from sidecar.core.model import EpochRecord, Request, RequestState, Settings, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import (
    BackendError,
    Conflict,
    Failed,
    Interrupted,
    NotSent,
    OutcomeUnknown,
    Refused,
    TimedOut,
)
from sidecar.operate import failover as operation
from sidecar.operate import raising
from sidecar.operate.asking import Done, Not, Unsure
from sidecar.operate.desk import Desk, pause
from sidecar.operate.failover import Plan
from sidecar.operate.handover import judge_handover, judge_takeover
from tests.cli.stage import Stage, request
from tests.core import made

MINUTE_MS = 60_000
TTL_MS = 3_000


@pytest.fixture
def dead(stage: Stage) -> Stage:
    """node-a holds the lock, for ever as far as the test goes, and says nothing; node-b could take over."""
    stage.appear("node-b")
    stage.acquire("node-a")
    return stage


def plan(stage: Stage, to: str | None = None) -> Plan:
    return operation.plan(stage.desk(), stage.view(), to)


def failover(stage: Stage, what: Plan, timeout_ms: int = MINUTE_MS, desk: Desk | None = None) -> Done:
    return operation.failover(desk or stage.desk(), what, timeout_ms, stage.tell)


def take_over(stage: Stage, node: str = "node-b") -> None:
    """Play the old node, which proves its server dead, and the one that takes over."""
    broken = stage.await_view(lambda view: view.lock is not None and view.lock.state == "broken")
    assert broken.lock is not None
    assert broken.lock.by == "op@here"
    stage.await_request("confirmed")
    stage.release()
    stage.acquire(node)


@pytest.mark.parametrize("to", [None, "node-b"])
def test_done_is_who_has_taken_over(dead: Stage, to: str | None) -> None:
    what = plan(dead, to)
    with dead.acting(lambda: take_over(dead)):
        done = failover(dead, what)

    assert (done.node, done.epoch) == ("node-b", 2)
    assert done.without_active_ms is not None, "nobody was since the lock was broken"
    assert any("is broken" in line and "30.0 s" in line for line in dead.told)


def test_the_risks_name_who_is_active_and_when_it_was_seen(dead: Stage) -> None:
    text = " ".join(plan(dead).risks)

    assert "node-a is active at epoch 1, last seen " in text
    assert "30.0 s" in text


def test_bug_a_failover_did_not_say_which_confirmed_switchover_it_overtakes(dead: Stage) -> None:
    dead.write(request("switchover", "confirmed", to="node-b"))

    assert "what is under way is overtaken: switchover to node-b (id " in " ".join(plan(dead).risks)


@pytest.mark.parametrize(
    ("state", "age_ms", "healthy"),
    [
        ("running", 0, True),
        ("starting", 0, False),
        ("running", MINUTE_MS // 2, False),
        ("running", 1_440 * MINUTE_MS, True),  # by another clock: the store would not have it any more
    ],
)
def test_an_active_that_looks_healthy_is_better_asked(
    dead: Stage, state: str, age_ms: int, healthy: bool
) -> None:
    dead.appear("node-a", role="active", state=state, seen_at_unix_ms=wall_ms() - age_ms)

    text = " ".join(plan(dead).risks)

    assert ("node-a looks healthy: try `sidecar switchover` first" in text) is healthy
    assert ("its clock is not as this one's" in text) is (age_ms > MINUTE_MS)


def test_without_a_sign_of_the_old_active_its_ttl_is_waited_out(stage: Stage) -> None:
    stage.ttl_ms = TTL_MS
    stage.appear("node-b")
    stage.acquire("node-a")
    what = plan(stage)

    with stage.acting(lambda: (stage.await_request("confirmed"), stage.acquire("node-b"))):
        assert failover(stage, what).node == "node-b"


def test_the_lock_that_changed_hands_while_the_user_thought_is_not_broken(dead: Stage) -> None:
    what = plan(dead)
    dead.release()
    dead.acquire("node-b")

    with pytest.raises(Failed, match=r"changed hands meanwhile: node-b holds the lock at epoch 2"):
        failover(dead, what)

    assert dead.view().holder is not None


def test_bug_a_failover_overtook_a_confirmed_switchover_before_it_had_broken_anything(dead: Stage) -> None:
    confirmed = request("switchover", "confirmed")
    dead.write(confirmed)
    desk = dead.desk()

    class Watched(Interposed):
        def break_lock(self, epoch: Epoch, **how: object) -> None:
            assert dead.view().request == confirmed
            self._real.break_lock(epoch, **how)  # type: ignore[arg-type]

    with dead.acting(lambda: take_over_from_switchover(dead)):
        failover(dead, plan(dead), desk=replace(desk, backend=Watched(desk)))  # type: ignore[arg-type]


def take_over_from_switchover(stage: Stage) -> None:
    stage.await_view(lambda view: view.request is not None and view.request.kind == "failover")
    take_over(stage)


def test_bug_a_failover_that_came_about_was_left_as_abandoned(dead: Stage) -> None:
    """The active had waited for the break as long as it waits, and the break came all the same."""

    def abandon() -> None:
        asked = dead.await_request("confirmed")
        dead.write(replace(asked, state="abandoned", reason="the lock was not broken"))
        dead.release()
        dead.acquire("node-b")

    with dead.acting(abandon):
        failover(dead, plan(dead))

    left = dead.view().request
    assert left is not None
    assert (left.state, left.reason) == ("done", "node-b is active")


class Interposed:
    """A backend with something happening before or after the lock is broken."""

    def __init__(self, desk: Desk) -> None:
        self._real = desk.backend

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


class Meddling(Interposed):
    """A store in which *meddle* happens just before the first call of *name* arrives, or instead of it."""

    def __init__(self, desk: Desk, name: str, meddle: Callable[[], object], *, lost: bool = False) -> None:
        super().__init__(desk)
        self._name, self._meddle, self._lost = name, [meddle], lost

    def __getattr__(self, name: str) -> object:
        real = getattr(self._real, name)

        def call(*args: object, **how: object) -> object:
            if name != self._name or not self._meddle:
                return real(*args, **how)
            self._meddle.pop()()
            if self._lost:
                raise LOST
            return real(*args, **how)

        return call


def meddling(
    stage: Stage, name: str, meddle: Callable[[], object], *, lost: bool = False, desk: Desk | None = None
) -> Desk:
    desk = desk or stage.desk()
    return replace(desk, backend=Meddling(desk, name, meddle, lost=lost))  # type: ignore[arg-type]


@pytest.mark.parametrize("handed_over", [True, False])
def test_bug_a_failover_overtook_a_switchover_that_was_confirmed_as_it_began(
    dead: Stage, handed_over: bool
) -> None:
    """Its first note met the confirmation, and was written over it; then there was nothing to break."""
    dead.appear("node-c")
    dead.write(request("switchover", "accepted", to="node-b"))
    what, said = plan(dead, "node-c"), replace(dead.await_request("accepted"), state="confirmed")

    class Watched(Meddling):
        def break_lock(self, epoch: Epoch, **how: object) -> None:
            found = dead.view().request
            assert found == said
            if handed_over:
                dead.release()
            pressed.append(True)
            self._real.break_lock(epoch, **how)  # type: ignore[arg-type]

    pressed: list[bool] = []
    desk = dead.desk(lambda: bool(pressed))
    store = Watched(desk, "write", lambda: dead.answer("confirmed"))
    nothing = (Failed, "the lock changed hands meanwhile: .*; nothing was broken")
    ends, says = nothing if handed_over else (TimedOut, "the lock is broken and the failover goes on")
    with pytest.raises(ends, match=says):
        failover(dead, what, desk=replace(desk, backend=store))  # type: ignore[arg-type]

    found = dead.view().request
    assert found is not None
    assert (found.kind, found.state) == ("switchover" if handed_over else "failover", "confirmed")


def test_bug_a_break_that_may_have_been_was_told_as_done_and_overtook_a_switchover(dead: Stage) -> None:
    dead.appear("node-c")
    confirmed = request("switchover", "confirmed", to="node-b")
    dead.write(confirmed)
    desk = meddling(dead, "break_lock", dead.release, lost=True)
    desk = replace(desk, halted=lambda: any("may be broken" in line for line in dead.told))

    with pytest.raises(TimedOut, match="interrupted; the lock may be broken and the failover goes on"):
        failover(dead, plan(dead, "node-c"), desk=desk)

    assert dead.view().request == confirmed
    assert not any("is broken" in line for line in dead.told)
    assert any("the lock of node-a may be broken" in line for line in dead.told)


def test_bug_a_late_note_put_a_failover_that_was_done_back_to_confirmed(dead: Stage) -> None:
    def conclude() -> None:
        dead.release()
        dead.acquire("node-b")
        dead.answer("done", "node-b is active")

    broken: list[bool] = []

    class Watched(Meddling):
        def break_lock(self, epoch: Epoch, **how: object) -> None:
            self._real.break_lock(epoch, **how)  # type: ignore[arg-type]
            self._meddle, broken[:] = [conclude], [True]

    desk = dead.desk()
    store = Watched(desk, "write", lambda: None)
    done = failover(dead, plan(dead), desk=replace(desk, backend=store))  # type: ignore[arg-type]

    found = dead.view().request
    assert (broken, done.node) == ([True], "node-b")
    assert found is not None
    assert (found.state, found.reason) == ("done", "node-b is active")


def test_bug_ctrl_c_before_the_break_did_not_stop_it(dead: Stage) -> None:
    pressed: list[bool] = []
    desk = dead.desk(lambda: bool(pressed))
    what = plan(dead)

    with pytest.raises(Interrupted, match="the lock is not broken, nothing will happen"):
        failover(dead, what, desk=meddling(dead, "write", lambda: pressed.append(True), desk=desk))

    view = dead.view()
    assert view.holder is not None
    assert view.request is not None
    assert (view.request.state, view.request.reason) == ("abandoned", "interrupted")


def test_the_lock_that_changes_hands_at_the_last_moment_is_not_broken_either(dead: Stage) -> None:
    desk = dead.desk()

    class Late(Interposed):
        def break_lock(self, epoch: Epoch, **how: object) -> None:
            dead.release()
            dead.acquire("node-b")
            self._real.break_lock(epoch, **how)  # type: ignore[arg-type]

    with pytest.raises(Failed, match=r"changed hands meanwhile: node-b .*nothing was broken"):
        failover(dead, plan(dead), desk=replace(desk, backend=Late(desk)))  # type: ignore[arg-type]

    left = dead.view()
    assert left.request is not None
    assert left.request.state == "failed"
    assert left.holder is not None


@pytest.mark.parametrize("happens", [True, False])
def test_a_lost_answer_is_looked_up(dead: Stage, happens: bool) -> None:
    desk, what = dead.desk(), plan(dead)

    class Lossy(Interposed):
        lost = 0

        def break_lock(self, epoch: Epoch, **how: object) -> None:
            if self.lost or happens:
                self._real.break_lock(epoch, **how)  # type: ignore[arg-type]
            self.lost += 1
            if self.lost == 1:
                raise OutcomeUnknown("127.0.0.1:1: the answer was lost")

    with dead.acting(lambda: take_over(dead)):
        done = failover(dead, what, desk=replace(desk, backend=Lossy(desk)))  # type: ignore[arg-type]

    assert done.node == "node-b"


def test_nobody_seen_to_take_over_is_unknown(dead: Stage) -> None:
    with pytest.raises(TimedOut, match=r"nobody was seen to take over .*sidecar status"):
        failover(dead, plan(dead), timeout_ms=700)


@pytest.mark.parametrize(("taker", "says"), [("node-c", "not node-b"), ("node-a", "active again")])
def test_the_wrong_taker_is_a_failure(dead: Stage, taker: str, says: str) -> None:
    dead.appear("node-c")
    what = plan(dead, "node-b")

    with dead.acting(lambda: take_over(dead, taker)), pytest.raises(Failed, match=f"{taker} is .*{says}"):
        failover(dead, what)


def test_a_request_left_by_anybody_does_not_hold_a_failover_up(dead: Stage) -> None:
    dead.write(request(state="confirmed"))
    what = plan(dead)

    with dead.acting(lambda: take_over(dead)):
        assert failover(dead, what).node == "node-b"


@pytest.mark.parametrize("change", ["paused", "candidate gone"])
def test_bug_a_failover_was_judged_by_how_things_stood_before_the_user_was_asked(
    dead: Stage, change: str
) -> None:
    """An hour at the prompt: paused since, or the candidate has gone. The lock was broken all the same."""
    what = plan(dead, "node-b")
    if change == "paused":
        dead.write(Settings(paused=True, by="bob@there"))
    else:
        dead.backend.withdraw("node-b", "node-b-1", deadline=dead.soon)

    with pytest.raises(Refused, match="paused by bob@there" if change == "paused" else "node-b is not there"):
        failover(dead, what, timeout_ms=500)

    holder = dead.view().holder
    assert holder is not None
    assert (holder.node, dead.view().request) == ("node-a", None)


def test_bug_an_epoch_that_somebody_else_had_raised_meanwhile_was_raised_again(stage: Stage) -> None:
    """It cost another TTL without an active, for nothing."""
    stage.appear("node-b", mark=Epoch(7))
    what = raising.plan_raise(stage.view(), NO_EPOCH)
    stage.backend.raise_epoch(Epoch(7), ttl_ms=50, by="bob@there", deadline=stage.soon)
    stage.await_view(lambda view: view.lock is None)

    with pytest.raises(Refused, match="is not behind"):
        raising.raise_epoch(stage.desk(), what, 500, stage.tell)

    assert stage.view().lock is None


def test_no_active_no_failover(stage: Stage) -> None:
    stage.appear("node-b")

    with pytest.raises(Refused, match="nobody holds the lock"):
        plan(stage)


def test_a_lock_that_is_broken_already_is_waited_out(dead: Stage) -> None:
    dead.backend.break_lock(
        Epoch(1), to=None, by="bob@there", request=None, ttl_ms=60_000, deadline=dead.soon
    )

    with pytest.raises(Refused, match=r"the lock of node-a was broken by bob@there; it is free again"):
        plan(dead)


def test_paused_is_refused(dead: Stage) -> None:
    dead.write(Settings(paused=True, by="bob@there"))

    with pytest.raises(Refused, match="`sidecar resume` first"):
        plan(dead)


@pytest.mark.parametrize(
    ("to", "says"),
    [("node-x", "there are: node-a, node-b"), ("node-c", "not eligible"), ("node-a", "active already")],
)
def test_a_candidate_that_cannot_is_refused(dead: Stage, to: str, says: str) -> None:
    if to == "node-c":
        dead.appear("node-c", eligible=False, available=False)

    with pytest.raises(Refused, match=says):
        plan(dead, to)


def test_bug_what_a_newer_version_had_asked_for_kept_the_failover_out(dead: Stage) -> None:
    """A finished request of a kind that is not known here, after going back, was in the way for ever."""
    dead.garble("request", '{"v": 1, "kind": "drain", "state": "done"}')

    what = plan(dead)
    with dead.acting(lambda: take_over(dead)):
        done = failover(dead, what)

    assert "aggregate-sidecar/plant-7/request cannot be read: whatever is asked" in what.risks[-1]
    assert (done.node, done.epoch) == ("node-b", 2)


def test_what_a_newer_version_asks_for_after_the_question_is_not_replaced(dead: Stage) -> None:
    what = plan(dead)
    dead.garble("request")

    with pytest.raises(Failed, match=r"a request that cannot be read was made meanwhile; nothing was broken"):
        failover(dead, what, timeout_ms=500)

    assert "request" in dead.view().unreadable
    assert dead.view().holder is not None


def test_bug_an_active_of_a_newer_version_showed_no_sign_of_life(dead: Stage) -> None:
    dead.garble("nodes/node-a")

    text = " ".join(operation.plan(dead.desk(), dead.desk().read(), None).risks)

    assert "node-a is active at epoch 1, and says nothing that can be read here" in text


def test_a_lock_that_changed_hands_is_not_even_asked_for(dead: Stage) -> None:
    """A request that says so would only confuse whoever looks at it."""
    what = plan(dead)
    dead.release()
    dead.acquire("node-b")

    with pytest.raises(Failed, match="nothing was broken"):
        failover(dead, what)

    assert dead.view().request is None


def test_the_lock_that_changed_hands_in_between_is_not_broken(dead: Stage) -> None:
    """The user was shown the lock of node-a, and that of node-b is nobody's to break."""
    desk = dead.desk()

    class Between(Interposed):
        def write(self, value: Request, **how: object) -> int:
            version = self._real.write(value, **how)  # type: ignore[arg-type]
            if value.state == "asked":
                dead.release()
                dead.acquire("node-b")
            return version

    with pytest.raises(Failed, match=r"changed hands meanwhile: node-b .*nothing was broken"):
        failover(dead, plan(dead), desk=replace(desk, backend=Between(desk)))  # type: ignore[arg-type]

    assert dead.view().holder is not None


def test_a_break_whose_answer_is_lost_with_the_store_is_unknown(dead: Stage) -> None:
    desk = dead.desk()

    class Gone(Interposed):
        gone = False

        def break_lock(self, epoch: Epoch, **how: object) -> None:
            self.gone = True
            raise OutcomeUnknown("127.0.0.1:1: the answer was lost")

    gone = Gone(desk)
    lost = replace(desk, backend=gone, halted=lambda: gone.gone)  # type: ignore[arg-type]

    with pytest.raises(TimedOut, match=r"unknown whether the lock is broken: .*sidecar status"):
        failover(dead, plan(dead), desk=lost)


def test_a_break_whose_effect_is_gone_already_is_waited_for(dead: Stage) -> None:
    """Broken, released by the old node and taken by the next, all before the answer could be asked for."""
    desk = dead.desk()

    class Fast(Interposed):
        asked = 0

        def break_lock(self, epoch: Epoch, **how: object) -> None:
            self.asked += 1
            self._real.break_lock(epoch, **how)  # type: ignore[arg-type]
            dead.release()
            dead.acquire("node-b")
            raise OutcomeUnknown("127.0.0.1:1: the answer was lost")

    done = failover(dead, plan(dead), desk=replace(desk, backend=Fast(desk)))  # type: ignore[arg-type]

    assert (done.node, done.epoch) == ("node-b", 2)


class Failing(Interposed):
    """A store in which some calls fail; the user has had enough at the first that does."""

    def __init__(self, desk: Desk, **failures: BackendError) -> None:
        super().__init__(desk)
        self._failures, self.failed = failures, 0

    def __getattr__(self, name: str) -> object:
        return self._fail(name) if name in self._failures else super().__getattr__(name)

    def _fail(self, name: str) -> Callable[..., object]:
        def fail(*_args: object, **_how: object) -> object:
            self.failed += 1
            raise self._failures[name]

        return fail


def failing(stage: Stage, **failures: BackendError) -> Desk:
    desk = stage.desk()
    store = Failing(desk, **failures)
    return replace(desk, backend=store, halted=lambda: store.failed > 0)  # type: ignore[arg-type]


REFUSED = NotSent("127.0.0.1:1: connection refused")
LOST = OutcomeUnknown("127.0.0.1:1: the answer was lost")


def test_a_failover_that_cannot_be_announced_breaks_nothing(dead: Stage) -> None:
    with pytest.raises(NotSent, match="connection refused"):
        failover(dead, plan(dead), desk=failing(dead, write=REFUSED))

    assert dead.view().holder is not None


def test_a_store_that_is_lost_before_the_break_leaves_the_lock(dead: Stage) -> None:
    with pytest.raises(NotSent, match="connection refused; the lock is not broken"):
        failover(dead, plan(dead), desk=failing(dead, break_lock=REFUSED))

    assert dead.view().holder is not None


class Silent(Interposed):
    """A store that answers nothing any more from the first or after the first call of *name* on."""

    def __init__(self, desk: Desk, name: str, *, after: bool) -> None:
        super().__init__(desk)
        self._clock, self._name, self._after, self._silent = desk.clock, name, after, False

    def __getattr__(self, name: str) -> object:
        def call(*args: object, deadline: Instant, **how: object) -> object:
            self._silent = self._silent or (name == self._name and not self._after)
            if not self._silent:
                self._silent = name == self._name
                return getattr(self._real, name)(*args, deadline=deadline, **how)
            if self._clock.now() >= deadline:
                raise NotSent("127.0.0.1:1: no time left")
            pause(deadline - self._clock.now())
            raise LOST

        return call


@pytest.mark.parametrize(
    ("name", "after", "ends", "says"),
    [
        ("read", False, OutcomeUnknown, "the answer was lost"),
        ("write", True, NotSent, "no time left; the lock is not broken"),
        ("break_lock", False, TimedOut, "unknown whether the lock is broken"),
        (
            "break_lock",
            True,
            TimedOut,
            r"nobody was seen to take over within 1.0 s \(the backend does not answer: .*the answer was lost",
        ),
    ],
)
def test_bug_a_failover_outlasted_its_time_limit_where_the_store_fell_silent(
    dead: Stage, name: str, after: bool, ends: type[Exception], says: str
) -> None:
    desk, what = dead.desk(), plan(dead)
    silent = Silent(desk, name, after=after)
    began = dead.clock.now()

    with pytest.raises(ends, match=says):
        failover(dead, what, 1_000, desk=replace(desk, backend=silent))  # type: ignore[arg-type]

    assert dead.clock.now() - began < 4_500


def test_a_break_that_came_too_late_and_a_store_that_is_lost_then(dead: Stage) -> None:
    """Nothing was broken: that is certain, though nobody can tell any more who has the lock."""
    desk = dead.desk()

    class Late(Interposed):
        gone = False

        def break_lock(self, epoch: Epoch, **how: object) -> None:
            dead.release()
            self.gone = True
            self._real.break_lock(epoch, **how)  # type: ignore[arg-type]

        def read(self, **how: object) -> View:
            if self.gone:
                raise REFUSED
            return self._real.read(**how)  # type: ignore[arg-type]

    store = Late(desk)
    late = replace(desk, backend=store, halted=lambda: store.gone)  # type: ignore[arg-type]
    with pytest.raises(Failed, match="nothing was broken"):
        failover(dead, plan(dead), desk=late)


def test_a_failover_whose_later_notes_cannot_be_written_goes_on(dead: Stage) -> None:
    desk = dead.desk()

    class Mute(Interposed):
        def write(self, value: Request, **how: object) -> int:
            if value.state != "asked":
                raise REFUSED
            return self._real.write(value, **how)  # type: ignore[arg-type]

    def play() -> None:
        dead.await_view(lambda view: view.lock is not None and view.lock.state == "broken")
        dead.release()
        dead.acquire("node-b")

    with dead.acting(play):
        done = failover(dead, plan(dead), desk=replace(desk, backend=Mute(desk)))  # type: ignore[arg-type]

    assert (done.node, done.epoch) == ("node-b", 2)


# ---- the epoch of an old store


@pytest.mark.parametrize(("error", "ends"), [(REFUSED, NotSent), (LOST, TimedOut)])
def test_a_store_that_is_lost_while_the_epoch_is_raised(
    stage: Stage, error: BackendError, ends: type[Exception]
) -> None:
    stage.appear("node-a", mark=Epoch(17), state="failed")
    what = raising.plan_raise(stage.view(), own_mark=NO_EPOCH)

    with pytest.raises(ends):
        raising.raise_epoch(failing(stage, raise_epoch=error), what, MINUTE_MS, stage.tell)


def test_the_epoch_is_raised_over_every_mark_of_others(stage: Stage) -> None:
    stage.appear("node-a", mark=Epoch(17), state="failed")

    assert raising.plan_raise(stage.view(), own_mark=Epoch(3)).floor == 17


def test_the_epoch_is_raised_over_the_mark_of_a_node_whose_record_cannot_be_read(stage: Stage) -> None:
    what = raising.plan_raise(replace(stage.view(), mark_unreadable=Epoch(30)), own_mark=Epoch(3))

    assert what.floor == 30
    assert "a node whose record cannot be read has seen 30" in what.risks[0]


def test_the_epoch_is_raised_over_every_mark(stage: Stage) -> None:
    stage.ttl_ms = TTL_MS
    stage.appear("node-a", mark=Epoch(17), state="failed")
    stage.appear("node-b", mark=Epoch(9))
    what = raising.plan_raise(stage.view(), own_mark=Epoch(21))
    assert what.floor == 21

    def play() -> None:
        stage.await_view(lambda view: view.epoch.epoch >= 21)
        stage.acquire("node-b")

    with stage.acting(play):
        done = raising.raise_epoch(stage.desk(), what, MINUTE_MS, stage.tell)

    assert (done.node, done.epoch) == ("node-b", 21 + raising.UNSEEN + 1)
    assert done.without_active_ms is None, "nobody was active before, since when is not known here"


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda s: s.acquire("node-a"), "node-a holds the lock at epoch 1; stop its sidecar first"),
        (lambda s: s.appear("node-a", mark=NO_EPOCH), "the store's epoch 0 is not behind"),
    ],
)
def test_an_epoch_that_need_not_be_raised_is_refused(stage: Stage, prepare: object, says: str) -> None:
    assert callable(prepare)
    prepare(stage)

    with pytest.raises(Refused, match=says):
        raising.plan_raise(stage.view(), NO_EPOCH)


def test_an_unreadable_epoch_may_be_raised_to_what_is_known(stage: Stage) -> None:
    view = replace(stage.view(), unreadable=("epoch",), epoch=EpochRecord())

    assert raising.plan_raise(view, Epoch(0)).floor == 0


# ---- bugs that were found, most of them by the simulation


def judged(
    request_state: RequestState, holder: str, epoch: int, *, ours: bool = True, to: str = "b"
) -> tuple[View, Request]:
    """Return what is seen when *holder* serves at *epoch*, after a to b was asked at epoch 7."""
    asked = made.request(state=request_state, to=to)
    serving = made.other(holder, role="active", state="running", epoch=Epoch(epoch), available=False)
    latest = asked if ours else replace(asked, id="r2", state="asked", epoch=Epoch(epoch))
    return made.view(made.lock(holder, epoch), epoch, nodes=(serving,), request=latest), asked


def test_bug_a_switchover_that_did_not_last_was_called_one_that_did_not_come_about() -> None:
    verdict = judge_handover(*judged("done", "c", 9), False)

    assert isinstance(verdict, Not)
    assert "b had taken over, and did not last: c is active since, at epoch 9" in verdict.reason


def test_bug_a_switchover_that_was_overtaken_before_it_was_seen_was_called_failed() -> None:
    view, asked = judged("confirmed", "c", 9, ours=False)
    assert isinstance(judge_handover(view, asked, False), Unsure)

    first, asked = judged("confirmed", "c", 8, ours=False)
    assert isinstance(judge_handover(first, asked, False), Not)  # nobody can have been in between


def test_bug_a_switchover_that_nobody_had_concluded_was_called_failed_and_came_about_later() -> None:
    """Rolled back, but the answer could not be written; the candidate went first the next time: done."""
    view, asked = judged("confirmed", "a", 8)

    assert judge_handover(view, asked, False) is None
    verdict = judge_handover(view, asked, True)
    assert isinstance(verdict, Unsure)
    assert "a is active at epoch 8, not b" in verdict.reason


def test_bug_a_failover_that_did_not_last_was_called_one_that_did_not_come_about() -> None:
    assert isinstance(judge_takeover(*judged("confirmed", "c", 9)), Unsure)
    assert isinstance(judge_takeover(*judged("confirmed", "c", 8)), Not)


def test_bug_a_raise_whose_answer_was_lost_was_called_not_done(stage: Stage) -> None:
    stage.ttl_ms = TTL_MS
    stage.appear("node-a", mark=Epoch(17), state="failed")
    desk, what = stage.desk(), raising.plan_raise(stage.view(), NO_EPOCH)

    class Lossy(Interposed):
        def raise_epoch(self, floor: Epoch, **how: object) -> Epoch:
            if stage.view().lock is None:
                self._real.raise_epoch(floor, **how)  # type: ignore[arg-type]
                raise LOST
            raise Conflict("lock: taken by somebody else since")

    with pytest.raises(TimedOut, match="unknown whether the epoch is raised"):
        raising.raise_epoch(replace(desk, backend=Lossy(desk)), what, MINUTE_MS, stage.tell)  # type: ignore[arg-type]


def test_bug_a_break_was_called_not_done_when_the_store_went_away_after_it(dead: Stage) -> None:
    desk, what = dead.desk(), plan(dead)

    class Leaving(Interposed):
        tries = 0

        def break_lock(self, epoch: Epoch, **how: object) -> None:
            self.tries += 1
            self._real.break_lock(epoch, **how)  # type: ignore[arg-type]
            raise LOST

        def read(self, **how: object) -> View:
            if self.tries > 1:
                raise REFUSED
            return self._real.read(**how)  # type: ignore[arg-type]

    store = Leaving(desk)
    leaving = replace(desk, backend=store, halted=lambda: store.tries > 1)  # type: ignore[arg-type]
    with pytest.raises(TimedOut, match="unknown whether the lock is broken"):
        failover(dead, what, desk=leaving)


def test_bug_a_failover_was_called_not_done_when_its_last_note_met_another_and_the_store_went_away(
    dead: Stage,
) -> None:
    desk, what = dead.desk(), plan(dead)

    class Leaving(Interposed):
        broken = noted = False

        def break_lock(self, epoch: Epoch, **how: object) -> None:
            self._real.break_lock(epoch, **how)  # type: ignore[arg-type]
            self.broken = True

        def write(self, value: object, **how: object) -> int:
            if self.broken:
                self.noted = True
                raise Conflict("request: somebody else was quicker")
            return self._real.write(value, **how)  # type: ignore[arg-type]

        def read(self, **how: object) -> View:
            if self.noted:
                raise REFUSED
            return self._real.read(**how)  # type: ignore[arg-type]

    with pytest.raises(TimedOut, match="nobody was seen to take over"):
        failover(dead, what, 700, replace(desk, backend=Leaving(desk)))  # type: ignore[arg-type]


def test_bug_the_lock_of_somebody_who_is_gone_kept_the_epoch_of_a_restored_store(stage: Stage) -> None:
    stage.ttl_ms = TTL_MS
    stage.appear("node-b", mark=Epoch(17), state="failed")
    stage.acquire("node-a")
    held = stage.view()
    assert held.holder is not None

    free = raising.await_free(stage.desk(), held, NO_EPOCH, stage.tell)

    assert free.vacant
    assert raising.plan_raise(free, NO_EPOCH).floor == 17
    assert any("watching for 6.0 s whether it is still renewed" in line for line in stage.told)
