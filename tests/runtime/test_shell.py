"""The shell carries out what the core orders, nothing of an epoch that is over, and ends with a broken part.

Method: the real shell over a scripted store, with a server lane that only takes notes.
Not covered: decisions (tests/core), and the parts put together (tests/system).
"""

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from sidecar import events
from sidecar.core import state as s
from sidecar.core.model import HistoryEntry, Override, Settings
from sidecar.core.units import Epoch, Instant
from sidecar.errors import Conflict, NotHolder, NotSent, OutcomeUnknown
from sidecar.runtime.locking import Kept, LockLane, from_note
from sidecar.runtime.marks import MarkFile
from sidecar.runtime.serving import ServerLane
from sidecar.runtime.shell import STATS_EVERY_MS, Broken, Reload, Shell
from sidecar.runtime.systemd import Manager
from sidecar.runtime.turn import Turn
from tests.core.made import EPOCH, LEASE, POLICY, at, lock, request, serving, view
from tests.harness.process import wait_until
from tests.runtime.stubs import NOW, WITHIN_S, Inbox, Store, clock, hold, hooks_of

QUICK = replace(POLICY, renew_every_ms=200)  # a failed call is made again after 50 ms


class Servers:
    """A server lane that takes notes."""

    enforcement = "kernel"
    running: tuple[int, Instant] | None = None

    def server(self) -> tuple[int, Instant] | None:
        return self.running

    def __init__(self) -> None:
        self.orders: list[tuple[Any, ...]] = []

    def start(self, order: s.StartServer) -> None:
        self.orders.append(("start", order.run))

    def extend(self, run: int, deadline: int, note: str | None) -> None:
        self.orders.append(("extend", run, deadline, note))

    def keep(self, run: int, note: str | None) -> None:
        self.orders.append(("keep", run, note))

    def stop(self, run: int, kill_at: int) -> None:
        self.orders.append(("stop", run, kill_at))

    def kill(self, run: int) -> None:
        self.orders.append(("kill", run))


class Stage:
    """A node that serves at epoch 7."""

    def __init__(self, folder: Path, environ: dict[str, str] | None = None) -> None:
        self.store, self.inbox, self.servers = Store(), Inbox(), Servers()
        self.clock = clock()
        self.locks = LockLane(self.store.backend, clock(), self.inbox.put, lambda: 1_000)
        self.locks.adopt(hold(EPOCH))
        self.marks = MarkFile(folder, "plant-7")
        self.hooks = hooks_of()
        self.turns: list[tuple[Turn, int]] = []  # and how many orders the server lane had by then
        self.shell = Shell(
            s.Node(serving(), s.Memory(call="renew", mark=EPOCH, runs=3)),
            QUICK,
            cluster="plant-7",
            clock=self.clock,
            backend=self.store.backend,
            locks=self.locks,
            servers=cast(ServerLane, self.servers),
            marks=self.marks,
            inbox=self.inbox.queue,
            hooks=self.hooks,
            publish_soon=lambda: None,
            manager=Manager({} if environ is None else environ, clock()),
            turned=lambda turn: self.turns.append((turn, len(self.servers.orders))),
            api="http://10.0.0.1:8009",
        )

    def close(self) -> None:
        self.shell.close()
        self.hooks.close()
        self.locks.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def test_the_next_sidecar_is_told_at_once_that_the_server_is_ready(stage: Stage) -> None:
    stage.shell.node = s.Node(s.Starting(serving().lease, 3, at(60_000)), s.Memory(mark=EPOCH, runs=3))
    assert not from_note(str(stage.shell.note(EPOCH))).ready
    stage.inbox.put(s.ServerReady(3))
    stage.inbox.put(Broken("end of the test"))

    with pytest.raises(RuntimeError, match="end of the test"):
        stage.shell.run()

    assert [from_note(order[2]) for order in stage.servers.orders if order[:2] == ("keep", 3)] == [
        Kept("plant-7", hold(EPOCH), ready=True)
    ]


def answer_to(stage: Stage, *outcomes: object) -> list[events.Event]:
    """Answer a switchover as often as there are *outcomes* of the write; return what was told of its end."""
    told: list[events.Event] = []
    done = replace(request("switchover", to="b"), state="done")
    stage.store.script("write", *outcomes)
    with events.listening(told.append):
        for _ in outcomes:
            stage.shell._answer(s.Answer(done, 5), EPOCH)
    return [event for event in told if isinstance(event, events.RequestEnded)]


def test_bug_the_end_of_a_request_was_told_that_was_not_written(stage: Stage) -> None:
    assert answer_to(stage, NotSent("x"), NotSent("x")) == []
    assert stage.inbox.next() == s.AnswerFailed()


@pytest.mark.parametrize(
    "outcomes", [(NotSent("x"), None), (OutcomeUnknown("x"), None), (None, Conflict("x"))]
)
def test_bug_the_end_of_a_request_was_told_again_at_each_attempt(
    stage: Stage, outcomes: tuple[object, ...]
) -> None:
    assert len(answer_to(stage, *outcomes)) == 1


def test_a_broken_part_ends_the_shell(stage: Stage) -> None:
    stage.inbox.put(Broken("guard client"))

    with pytest.raises(RuntimeError, match="guard client"):
        stage.shell.run()

    assert stage.servers.orders == [], "the server is left to the guard"


def test_an_exception_while_deciding_ends_the_shell(stage: Stage) -> None:
    stage.inbox.put("no observation")

    with pytest.raises(AssertionError):
        stage.shell.run()


def test_a_turn_is_told_when_its_orders_are_given(stage: Stage) -> None:
    """Else the API would believe a lease that the guard has not been told of."""
    stage.inbox.put(s.StopAsked())
    stage.inbox.put(Broken("end of the test"))

    with pytest.raises(RuntimeError):
        stage.shell.run()

    (first, _), (last, orders) = stage.turns
    assert isinstance(first.node.phase, s.Serving)
    assert (last.node, last.policy, last.at) == (stage.shell.node, QUICK, clock().now())
    assert isinstance(last.node.phase, s.Stopping)
    assert orders == 1


def test_a_reload_counts_from_the_next_decision_on(stage: Stage) -> None:
    stage.inbox.put(Reload(lambda policy: replace(policy, priority=1)))
    stage.inbox.put(Broken("end of the test"))

    with pytest.raises(RuntimeError):
        stage.shell.run()

    assert stage.shell.policy.priority == 1


def test_what_was_set_counts_before_the_configuration_through_a_reload(stage: Stage) -> None:
    found = replace(view(lock("a")), settings=Settings(overrides=(Override("a", eligible=False),)))
    stage.inbox.put(s.Seen(found))
    stage.inbox.put(Reload(lambda policy: replace(policy, priority=1, eligible=policy.eligible)))
    stage.inbox.put(Broken("end of the test"))

    with pytest.raises(RuntimeError):
        stage.shell.run()

    assert (stage.shell.policy.priority, stage.shell.policy.eligible) == (1, False)
    stage.shell._settled(s.Seen(view(lock("a"))))
    assert (stage.shell.policy.priority, stage.shell.policy.eligible) == (1, True)


@pytest.mark.parametrize(
    ("key", "settings", "meanwhile"),
    [
        (
            "settings",
            Settings(),
            "none was read since this start: nothing counts as set or paused",
        ),
        ("settings", Settings(paused=True), "the last good one counts"),
        ("lock", Settings(), "it counts as held"),
    ],
)
def test_bug_a_last_good_one_counted_where_none_was_ever_read(
    stage: Stage, key: str, settings: Settings, meanwhile: str
) -> None:
    told: list[events.Event] = []
    stage.inbox.put(s.Seen(replace(view(lock()), settings=settings, unreadable=(key,))))
    stage.inbox.put(Broken("end of the test"))
    with events.listening(told.append), pytest.raises(RuntimeError, match="end of the test"):
        stage.shell.run()
    said = [event.text for event in told if isinstance(event, events.Raised)]
    assert f"the key {key} holds no document known here; {meanwhile}" in said


def test_the_orders_go_where_they_belong(stage: Stage) -> None:
    stage.store.script("renew", NotSent("x"))
    stage.store.script("release", None)

    for action in (
        s.ExtendServer(3, at(5_000)),
        s.StopServer(3, at(6_000)),
        s.KillServer(3),
        s.Renew(EPOCH),
        s.Release(EPOCH, "test"),
    ):
        stage.shell._carry_out(action)

    extend, stop, kill = stage.servers.orders
    assert extend[:3] == ("extend", 3, at(5_000))
    assert from_note(extend[3]) == Kept("plant-7", hold(EPOCH), ready=True), "for the next sidecar"
    assert (stop, kill) == (("stop", 3, at(6_000)), ("kill", 3))
    assert stage.inbox.next() == s.CallFailed("x")
    assert stage.inbox.next() == s.Released(EPOCH)


def test_an_older_store_is_an_alarm(stage: Stage) -> None:
    told: list[events.Event] = []
    stage.shell.node = s.Node(s.Idle(), replace(stage.shell.node.memory, call=None))
    stage.inbox.put(s.Seen(view(epoch=3)))
    stage.inbox.put(Broken("end of the test"))

    with events.listening(told.append), pytest.raises(RuntimeError):
        stage.shell.run()

    alarms = [one.text for one in told if isinstance(one, events.Raised)]
    assert any("the store's epoch 3 is behind 7" in text for text in alarms)


def test_the_mark_is_kept_on_disk(stage: Stage) -> None:
    stage.shell._carry_out(s.SaveMark(s.Mark(Epoch(9), "b")))
    done = threading.Event()
    stage.shell._files.put(done.set)  # behind it
    assert done.wait(WITHIN_S)

    assert stage.marks.load() == (9, "b")


def test_bug_a_mark_that_could_not_be_kept_was_never_tried_again(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk was full at the change, and the operator had made room since."""
    monkeypatch.setattr("sidecar.runtime.shell.KEEP_AGAIN_S", 0.01)
    refused = threading.Event()
    save = MarkFile.save

    def full(marks: MarkFile, mark: s.Mark) -> bool:
        done = refused.is_set() and save(marks, mark)
        refused.set()
        return done

    monkeypatch.setattr(MarkFile, "save", full)
    stage.shell._carry_out(s.SaveMark(s.Mark(Epoch(9), "b")))

    wait_until(lambda: stage.marks.load() == (9, "b"), "it is kept")


# Requests.


def test_an_answer_is_written_under_the_hold_and_over_what_was_seen(stage: Stage) -> None:
    stage.store.script("write", 6)
    answered = request(state="accepted")

    stage.shell._carry_out(s.Answer(answered, expected=5))

    (given,) = stage.store.await_calls("write", 1)
    assert (given["args"], given["expected"], given["hold"]) == ((answered,), 5, hold(EPOCH))


@pytest.mark.parametrize("error", [NotSent("x"), OutcomeUnknown("x"), NotHolder("x")], ids=repr)
def test_an_answer_that_failed_is_told_so_that_it_is_given_again(stage: Stage, error: Exception) -> None:
    stage.store.script("write", error)

    stage.shell._carry_out(s.Answer(request(state="done"), expected=5))

    assert stage.inbox.next() == s.AnswerFailed()


def test_an_answer_that_somebody_overtook_is_not_given_again(stage: Stage) -> None:
    stage.store.script("write", Conflict("x"))

    stage.shell._carry_out(s.Answer(request(state="done"), expected=5))

    stage.store.await_calls("write", 1)
    stage.shell.close()  # does what is queued
    assert stage.inbox.rest() == []


# The history.

CHANGE = s.RecordChange(EPOCH, s.Change("b", "lease expired", 9_000, 40, at(0)), 800)


def test_a_change_is_written_until_it_is(stage: Stage) -> None:
    stage.store.script("append_history", NotSent("x"), OutcomeUnknown("x"), None)

    stage.shell._carry_out(CHANGE)

    entry: HistoryEntry
    given = stage.store.await_calls("append_history", 3)[2]
    used, entry = given["args"]
    assert used == hold(EPOCH)
    assert (entry.epoch, entry.node, entry.previous, entry.cause) == (7, "a", "b", "lease expired")
    assert (entry.detect_ms, entry.lock_ms, entry.start_ms) == (9_000, 40, 800)


def test_a_change_that_will_never_be_taken_is_given_up(stage: Stage) -> None:
    stage.store.script("append_history", NotHolder("x"))
    done = threading.Event()

    stage.shell._carry_out(CHANGE)

    stage.store.await_calls("append_history", 1)
    stage.shell._desk.put(done.set)
    assert done.wait(WITHIN_S)
    assert len(stage.store.calls("append_history")) == 1


def test_a_change_of_an_epoch_that_is_over_is_not_written(stage: Stage) -> None:
    stage.shell.node = stage.shell.node._replace(phase=serving_at(8))
    stage.store.script("append_history", None)
    done = threading.Event()

    stage.shell._carry_out(CHANGE)

    stage.shell._desk.put(done.set)
    assert done.wait(WITHIN_S)
    assert stage.store.calls("append_history") == []


def serving_at(epoch: int) -> s.Serving:
    return s.Serving(replace(LEASE, epoch=Epoch(epoch)), 3)


def test_the_end_of_the_sidecar_does_not_wait_for_the_history(stage: Stage) -> None:
    stage.store.script("append_history", NotSent("x"))
    stage.shell._carry_out(CHANGE)
    stage.store.await_calls("append_history", 2)

    stage.shell.close()

    stage.shell._desk._thread.join(WITHIN_S)
    assert not stage.shell._desk._thread.is_alive()


# What it says of its server.


def test_bug_the_processor_time_of_a_server_was_that_of_its_launcher(stage: Stage) -> None:
    with subprocess.Popen(
        ["sh", "-c", "while :; do :; done & echo $!; wait"], stdout=subprocess.PIPE
    ) as launcher:
        assert launcher.stdout is not None
        worker = psutil.Process(int(launcher.stdout.readline()))
        try:
            stage.servers.running = (launcher.pid, NOW)
            first = stage.shell.record().server
            burnt_s = worker.cpu_times().user
            wait_until(lambda: worker.cpu_times().user >= burnt_s + 0.1, "the worker to burn 100 ms")
            stage.clock.advance(STATS_EVERY_MS)
            second = stage.shell.record().server
        finally:
            worker.kill()

    assert first is not None
    assert second is not None
    assert first.cpu_percent == 0.0
    assert second.cpu_percent >= 0.5
    assert second.uptime_s == 15.0


def test_bug_a_young_server_was_shown_as_it_began_for_a_quarter_of_a_minute(stage: Stage) -> None:
    stage.servers.running = (os.getpid(), NOW)

    def shown(after_ms: int) -> tuple[float, int]:
        """Return the age that is told, and how old what else is told is."""
        stage.clock.advance(NOW + after_ms - stage.clock.now())
        found = stage.shell.record().server
        assert found is not None
        return found.uptime_s, stage.clock.now() - stage.shell._stats[0]

    assert [shown(ms) for ms in (0, 900, 1_000, 1_900, 2_000)] == [
        (0.0, 0),
        (0.9, 900),
        (1.0, 0),
        (1.9, 900),
        (2.0, 0),
    ]
    assert [shown(ms) for ms in (60_000, 74_000, 75_000)] == [(60.0, 0), (74.0, 14_000), (75.0, 0)]
