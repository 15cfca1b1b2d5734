"""Goal: pause and resume change exactly what was asked, say when it is so already, and who has not heard.

Method: as test_handshake.py.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sidecar.core.model import Settings, View
from sidecar.core.units import Instant
from sidecar.errors import Failed, NotSent, OutcomeUnknown, Refused, TimedOut
from sidecar.operate import outcome
from sidecar.operate.desk import Desk, Follower
from sidecar.operate.maintenance import pause_cluster, resume_cluster
from sidecar.operate.settings import Changed, write
from sidecar.ports import Backend
from tests.cli.stage import Stage


@pytest.fixture
def two(stage: Stage) -> Stage:
    stage.appear("node-b")
    stage.acquire("node-a")
    return stage


def hear(stage: Stage, *nodes: str) -> None:
    """Play the nodes, which show what they have heard."""
    stage.await_view(lambda view: view.settings.by == "op@here")
    for node in nodes:
        stage.appear(node, state="paused" if stage.view().settings.holds_back(node) else "monitoring")


def test_the_cluster_is_paused_when_every_node_shows_it(two: Stage) -> None:
    with two.acting(lambda: hear(two, "node-a", "node-b")):
        found = pause_cluster(two.desk(), None)

    assert found == Changed(changed=True, notes=(), silent=())
    settings = two.view().settings
    assert (settings.paused, settings.by) == (True, "op@here")
    assert settings.at_unix_ms is not None


def test_a_node_that_has_not_heard_is_named(two: Stage) -> None:
    with two.acting(lambda: hear(two, "node-a")):
        assert pause_cluster(two.desk(), None, within_ms=3_000).silent == ("node-b",)


def test_one_node_is_paused(two: Stage) -> None:
    with two.acting(lambda: hear(two, "node-b")):
        found = pause_cluster(two.desk(), "node-b")

    assert found.silent == ()
    assert two.view().settings.paused_nodes == ("node-b",)


def test_pausing_again_is_no_error_and_changes_nothing(two: Stage) -> None:
    two.write(Settings(paused=True, by="bob@there"))
    two.appear("node-a", "node-b", state="paused")

    assert pause_cluster(two.desk(), None).changed is False
    assert two.view().settings.by == "bob@there"


def test_the_cluster_is_resumed_and_what_stays_paused_is_told(two: Stage) -> None:
    two.write(Settings(paused=True, paused_nodes=("node-b",), by="bob@there"))
    two.appear("node-a", "node-b", state="paused")

    with two.acting(lambda: hear(two, "node-a", "node-b")):
        found = resume_cluster(two.desk(), None)

    assert found.changed
    assert found.silent == ()
    assert "still paused: node-b" in found.notes[0]


def test_a_node_is_resumed_in_a_paused_cluster_and_that_is_told(two: Stage) -> None:
    two.write(Settings(paused=True, paused_nodes=("node-b",), by="bob@there"))

    found = resume_cluster(two.desk(), "node-b")

    assert two.view().settings.paused_nodes == ()
    assert "the whole cluster is paused still" in found.notes[0]


def test_a_node_that_is_gone_can_still_be_resumed(two: Stage) -> None:
    two.write(Settings(paused_nodes=("node-z",)))

    assert resume_cluster(two.desk(), "node-z").changed


@pytest.mark.parametrize(
    ("before", "node", "says"),
    [
        (Settings(), None, "the cluster is not paused"),
        (Settings(paused_nodes=("node-b",)), None, "only node-b is paused: .*resume --node node-b"),
        (Settings(), "node-b", "node-b is not paused"),
        (Settings(paused=True), "node-b", "the whole cluster is paused"),
        (Settings(), "node-x", "node-x is not there"),
    ],
)
def test_what_is_not_paused_cannot_be_resumed(
    two: Stage, before: Settings, node: str | None, says: str
) -> None:
    two.write(before)

    with pytest.raises(Refused, match=says):
        resume_cluster(two.desk(), node)


def test_bug_a_node_of_a_newer_version_counted_as_having_heard(two: Stage) -> None:
    two.garble("nodes/node-b")
    two.appear("node-a", state="paused")

    found = pause_cluster(two.desk(), None, within_ms=0)
    assert found.silent == ()
    assert found.notes == ("node-b says nothing that can be read here: whether it has heard is not known",)


def test_an_unknown_node_cannot_be_paused(two: Stage) -> None:
    with pytest.raises(Refused, match="node-x is not there; there are: node-a, node-b"):
        pause_cluster(two.desk(), "node-x")


@pytest.mark.parametrize("happens", [True, False])
def test_a_lost_answer_is_looked_up(two: Stage, happens: bool) -> None:
    desk = two.desk()

    class Lossy:
        lost = 0

        def __getattr__(self, name: str) -> object:
            return getattr(desk.backend, name)

        def write(self, value: Settings, *, expected: int, deadline: Instant) -> int:
            self.lost += 1
            if self.lost > 1 or happens:
                desk.backend.write(value, expected=expected, deadline=deadline)
            if self.lost == 1:
                raise OutcomeUnknown("127.0.0.1:1: the answer was lost")
            return 0

    two.write(Settings(paused=True))
    with two.acting(lambda: hear(two, "node-a", "node-b")):
        assert resume_cluster(replace(desk, backend=Lossy()), None).changed  # type: ignore[arg-type]

    assert two.view().settings.paused is False


class GoesAway:
    """A store that is gone as soon as it was written to; *answers*: it still says so."""

    def __init__(self, backend: Backend, *, answers: bool) -> None:
        self._backend, self._answers, self.gone = backend, answers, False

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def write(self, value: Settings, *, expected: int, deadline: Instant) -> int:
        version = self._backend.write(value, expected=expected, deadline=deadline)
        self.gone = True
        if not self._answers:
            raise OutcomeUnknown("127.0.0.1:1: the answer was lost")
        return version

    def read(self, *, deadline: Instant) -> View:
        if self.gone:
            raise NotSent("127.0.0.1:1: connection refused")
        return self._backend.read(deadline=deadline)


def with_store_that_goes_away(stage: Stage, *, answers: bool) -> Desk:
    """The user has had enough as soon as it is gone, so that no test waits."""
    desk = stage.desk()
    store = GoesAway(desk.backend, answers=answers)
    return replace(desk, backend=store, halted=lambda: store.gone)  # type: ignore[arg-type]


def test_bug_who_had_heard_was_called_deaf_by_a_command_that_could_not_look(two: Stage) -> None:
    found = pause_cluster(with_store_that_goes_away(two, answers=True), None)

    assert (found.changed, found.notes) == (True, ())
    says = "it is not known whether node-a, node-b heard of it: 127.0.0.1:1: connection refused"
    assert outcome.unheard(found) == f"{says}; see `sidecar status`"
    assert two.view().settings.paused


def test_who_has_not_heard_is_looked_up_at_the_end(two: Stage) -> None:
    """The wait is over before the news of it has come."""
    desk = two.desk()

    class Deaf:
        def __getattr__(self, name: str) -> object:
            return getattr(desk.backend, name)

        def await_change(self, revision: int, *, deadline: Instant) -> None:
            two.appear("node-a", "node-b", state="paused")

    found = pause_cluster(replace(desk, backend=Deaf()), None, within_ms=500)  # type: ignore[arg-type]
    assert found == Changed(changed=True, notes=(), silent=())


@pytest.mark.parametrize("change", [pause_cluster, resume_cluster])
def test_an_interruption_before_it_is_written_changes_nothing(
    two: Stage, change: Callable[[Desk, None], object]
) -> None:
    before = Settings(paused=change is resume_cluster)
    two.write(before)
    with pytest.raises(Failed, match="interrupted; nothing was changed"):
        change(two.desk(halted=lambda: True), None)

    assert two.view().settings == before


def test_what_may_be_written_is_said_to_be_unknown_when_the_store_goes_away(two: Stage) -> None:
    with pytest.raises(TimedOut, match="unknown whether it is written"):
        pause_cluster(with_store_that_goes_away(two, answers=False), None)


def test_two_pauses_at_once_are_both_kept(two: Stage) -> None:
    """Somebody else pauses node-a between our look and our write."""
    desk = two.desk()
    looks: list[View] = []

    def change(view: View) -> Settings:
        looks.append(view)
        if len(looks) == 1:
            two.write(Settings(paused_nodes=("node-a",)))
        return replace(view.settings, paused_nodes=(*view.settings.paused_nodes, "node-b"))

    write(desk, Follower(desk, desk.read()), change, "paused", "node-b")

    assert two.view().settings.paused_nodes == ("node-a", "node-b")


def test_resuming_one_node_leaves_the_others_paused(two: Stage) -> None:
    two.write(Settings(paused_nodes=("node-a", "node-b")))

    with two.acting(lambda: hear(two, "node-a")):
        assert resume_cluster(two.desk(), "node-a").changed

    assert two.view().settings.paused_nodes == ("node-b",)
