"""Goal: `/active` is never yes when the guard may have killed, and every no says why.

Method: the pure answers, phase by phase and instant by instant; what they are made from, on a clock of the
test's own.
Not covered: HTTP (test_served.py), whether the turns are true (tests/system/test_api.py).
"""

from dataclasses import dataclass, field, replace

import pytest

from sidecar.api import answers
from sidecar.api.memory import Memory
from sidecar.clock import ManualClock
from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.model import View
from sidecar.core.outlook import VIEW_LAG_MS
from sidecar.core.units import Epoch, Instant
from sidecar.runtime.turn import Turn
from tests.core.made import BUSY, EPOCH, LEASE, MONITORING, NOW, POLICY, at, other, serving, view

KILL_AT = LEASE.kill_at(POLICY)
IDLE_MEMORY = s.Memory(view=view(), mark=EPOCH)

HOLDING = (
    s.Promoting(LEASE, 3, at(3_000)),
    s.Starting(LEASE, 3, at(60_000)),
    s.Waiting(LEASE, at(1_000)),
    s.Stopping(LEASE, 3, at(3_000), s.GiveUp("x")),
)
NOT_STANDBY = (*HOLDING, serving(), s.Ending(3, at(3_000), EPOCH), s.Finished(0))


def turn(phase: s.Phase, memory: s.Memory = BUSY, policy: s.Policy = POLICY) -> Turn:
    return Turn(s.Node(phase, memory), policy, NOW)


def alive(_run: s.Run) -> bool:
    return True


def dead(_run: s.Run) -> bool:
    return False


def test_active_until_the_instant_at_which_the_guard_kills() -> None:
    """However long the loop has not turned: the lease alone counts."""
    told = turn(serving())

    assert answers.why_not_active(told, alive, NOW) is None
    assert answers.why_not_active(told, alive, Instant(KILL_AT - 1)) is None
    assert "lease" in str(answers.why_not_active(told, alive, KILL_AT))


def test_a_server_known_to_be_dead_is_not_active() -> None:
    assert answers.why_not_active(turn(serving()), dead, NOW) == "the server is dead"


@pytest.mark.parametrize("phase", [s.Idle(), s.Standing(3), *HOLDING, *NOT_STANDBY[-2:]], ids=repr)
def test_only_a_node_that_serves_is_active(phase: s.Phase) -> None:
    assert answers.why_not_active(turn(phase), alive, NOW)


@pytest.mark.parametrize("phase", NOT_STANDBY, ids=repr)
def test_a_node_with_the_lock_or_an_active_server_is_not_standby(phase: s.Phase) -> None:
    assert answers.why_not_standby(turn(phase), NOW)


@pytest.mark.parametrize("phase", [s.Idle(), s.Standing(3), s.Standing(3, ready=True)], ids=repr)
def test_a_node_without_the_lock_is_standby_while_its_loop_turns(phase: s.Phase) -> None:
    assert answers.why_not_standby(turn(phase, IDLE_MEMORY), NOW) is None
    assert answers.why_not_standby(turn(phase, IDLE_MEMORY), at(answers.LIVE_WITHIN_MS))
    assert answers.why_not_standby(turn(phase, replace(IDLE_MEMORY, quit=s.Quit())), NOW)


def test_live_while_the_loop_turns() -> None:
    told = turn(s.Idle())

    assert answers.why_not_live(told, at(answers.LIVE_WITHIN_MS - 1)) is None
    assert "5.0 s" in str(answers.why_not_live(told, at(answers.LIVE_WITHIN_MS)))


def test_nothing_is_yes_before_the_first_turn() -> None:
    assert answers.why_not_active(None, alive, NOW)
    assert answers.why_not_standby(None, NOW)
    assert answers.why_not_live(None, NOW)
    assert answers.why_not_ready(None, alive, 0, NOW)


READY = turn(s.Standing(3, ready=True), IDLE_MEMORY, MONITORING)


def test_ready_is_who_serves_or_could_take_over() -> None:
    assert answers.why_not_ready(turn(serving()), alive, None, NOW) is None
    assert answers.why_not_ready(READY, alive, 0, NOW) is None


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (turn(s.Starting(LEASE, 3, at(60_000))), "Starting"),
        (READY._replace(policy=replace(MONITORING, eligible=False)), "not eligible"),
        (turn(s.Standing(3), IDLE_MEMORY, MONITORING), "Starting the standby"),
        (turn(s.Idle(), replace(IDLE_MEMORY, view=view(paused=True))), "Paused"),
        (turn(s.Idle(), replace(IDLE_MEMORY, cool_until=at(1_000), trouble="x")), "Cooling down"),
    ],
    ids=["starting", "not eligible", "standby starts", "paused", "cooling down"],
)
def test_who_could_not_is_not_ready(told: Turn, says: str) -> None:
    assert says in str(answers.why_not_ready(told, alive, 0, NOW))


@pytest.mark.parametrize("age_ms", [None, POLICY.ttl_ms + 1])
def test_a_standby_that_does_not_see_the_store_is_not_ready(age_ms: int | None) -> None:
    assert "the store" in str(answers.why_not_ready(READY, alive, age_ms, NOW))


# What is remembered.


@dataclass
class Remembered:
    """A node whose loop turns when the test says so."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    node: s.Node = field(default_factory=lambda: s.Node(s.Idle(), s.Memory(mark=EPOCH)))

    def __post_init__(self) -> None:
        self.memory = Memory(self.clock, "plant-7", "local", "a", "http://a:8008")

    def turn(self, shown: View) -> None:
        now = self.clock.now()
        seen = s.Tick() if shown is self.node.memory.view else s.Seen(shown)
        self.node = decide(self.node, seen, now, POLICY).node
        self.memory.take(Turn(self.node, POLICY, now))


def test_the_view_grows_old_although_the_loop_turns() -> None:
    node, shown = Remembered(), view()
    assert node.memory.view_age_ms is None

    for _ in range(3):
        node.turn(shown)
        node.clock.advance(1_000)

    assert node.memory.view_age_ms == 3_000


def test_the_words_of_another_node_grow_old_although_the_store_shows_something_new() -> None:
    node, words = Remembered(), other("b")
    node.turn(view(nodes=(words,)))
    node.clock.advance(3_000)
    node.turn(view(nodes=(words, other("c"))))

    found = node.memory.status()["nodes"]
    assert isinstance(found, list)
    ages_s = {one["node"]: one["last_seen_s"] for one in found}
    assert ages_s["b"] >= 3.0
    assert ages_s["c"] < 3.0


@pytest.mark.parametrize(("ago_ms", "older"), [(0, False), (VIEW_LAG_MS, True)])
def test_bug_a_node_that_had_just_got_the_lock_said_that_the_store_was_wiped(
    ago_ms: int, older: bool
) -> None:
    """At ordinary takeovers, with the advice to raise the epoch, until the view showed its grant."""
    memory = s.Memory(mark=Epoch(8), mark_at=Instant(NOW - ago_ms))
    node = Remembered(node=s.Node(s.Idle(), memory))
    node.turn(view(epoch=7))

    assert ("the store's epoch 7 is behind 8, seen by a" in str(node.memory.status()["notices"])) is older
