"""The server lane: orders in their turn, one end for each run, nothing of ours in the server's environment.

Method: the real lane, guard and keeper, with a sleeping program as server.
Not covered: deadlines and trees (tests/system/test_guard*.py), AggreGate (tests/system/test_server_kinds.py).
"""

import json
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.clock import BootClock
from sidecar.core import state as s
from sidecar.core.model import Role
from sidecar.core.units import Epoch, Instant
from sidecar.errors import ServerError
from sidecar.guard import events as g
from sidecar.guard import wire
from sidecar.runtime.probing import Watching
from sidecar.runtime.serving import ServerLane, Serving
from sidecar.servers import CommandKind, Launch
from tests.harness.process import wait_until
from tests.runtime.stubs import WITHIN_S, Inbox, hooks_of

MARGIN_MS = 200
CLOCK = BootClock()
SLEEPER = ("/bin/sleep", "60")


def soon(ms: int = 30_000) -> Instant:
    return Instant(CLOCK.now() + ms)


class Kind(CommandKind):
    """A command whose preparation does what the test says."""

    def __init__(self, *command: str) -> None:
        super().__init__(command=command)
        self.preparing: Callable[[], object] = lambda: None
        self.roles: list[Role] = []
        self.ours: list[tuple[int, ...]] = []

    def prepare(self, role: Role, ours: Collection[int] = ()) -> Launch | None:
        self.preparing()
        self.roles.append(role)
        self.ours.append(tuple(ours))
        return super().prepare(role, ours)


class Stage:
    """A server lane in a run directory of its own."""

    def __init__(self, folder: Path, **hooks: Any) -> None:
        self.run_dir, self.inbox, self.broken, self.printed = folder / "run", Inbox(), Inbox(), Inbox()
        self.kind = Kind(*SLEEPER)
        self.hooks = hooks_of(lambda name, line: self.printed.put(("hook", f"{name}| {line}")), **hooks)
        self.lane = self.attach()

    def attach(self) -> ServerLane:
        serving = Serving("plant-7", "a", None, signal.SIGTERM, None, MARGIN_MS, self.run_dir, "auto")
        watching = Watching(None, None, 50, 50, 50, 50, 3)
        return ServerLane(
            self.kind,
            serving,
            CLOCK,
            post=self.inbox.put,
            note=lambda epoch: f"note of {epoch}",
            watching=lambda: watching,
            output=lambda stream, line: self.printed.put((stream, line)),
            broken=self.broken.put,
            hooks=self.hooks,
        )

    def start(self, run: int = 1, role: Role = "active", lives_ms: int = 30_000) -> s.StartServer:
        order = s.StartServer(run, role, Epoch(7), soon(lives_ms))
        self.lane.start(order)
        return order

    def hello(self) -> dict[str, Any]:
        """Return what the guard tells everybody who connects."""
        with wire.seqpacket() as sock:
            sock.settimeout(WITHIN_S)
            fd = wire.open_run_dir(str(self.run_dir))
            try:
                sock.connect(wire.address(fd))
            finally:
                os.close(fd)
            found: dict[str, Any] = json.loads(sock.recv(wire.FRAME_MAX))
            return found

    def close(self) -> None:
        for run in (0, 1, 2, 3):
            self.lane.kill(run)
        self.lane.close(kept=False)
        self.hooks.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's guard is not scheduled at once."""
    monkeypatch.setattr("sidecar.guard.follower.LAST_WORD_MS", 5_000)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    made.lane.begin(adopt=True)
    yield made
    made.close()


def test_a_run_is_ready_when_it_runs_and_gone_when_it_is_dead(stage: Stage) -> None:
    stage.start()
    assert stage.inbox.next() == s.ServerReady(1)
    assert stage.lane.server() is not None

    stage.lane.stop(1, soon())

    assert stage.inbox.next() == s.ServerGone(1, -signal.SIGTERM, "server was ended by SIGTERM")
    assert stage.lane.server() is None


def test_bug_something_was_kept_of_every_server_that_was_ever_started(stage: Stage) -> None:
    """Role and epoch of each run: not much, and for ever."""
    stage.kind._command = ("/bin/false",)
    before = sum(len(kept) for kept in vars(stage.lane).values() if isinstance(kept, dict))
    for run in range(1, 6):
        stage.start(run)
        stage.inbox.until(s.ServerGone)

    after = sum(len(kept) for kept in vars(stage.lane).values() if isinstance(kept, dict))
    assert after - before <= 1, "the deadline of the last one"


def test_the_guard_is_told_all_of_the_order(stage: Stage) -> None:
    order = stage.start()
    stage.inbox.next()

    run = stage.hello()["run"]

    assert (run["role"], run["epoch"], run["note"]) == ("active", 7, "note of 7")
    assert (run["deadline_ms"], run["kill_margin_ms"]) == (order.deadline, MARGIN_MS)


def test_what_we_have_started_ourselves_is_no_second_server_in_either_role(stage: Stage) -> None:
    stage.start()
    stage.inbox.next()

    assert stage.kind.roles == ["standby", "active"]
    assert stage.kind.ours == [(os.getpid(),)] * 2


def test_a_server_sees_its_role_and_nothing_of_our_own(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_ETCD__PASSWORD", "hush")
    monkeypatch.setenv("OTHERS", "stay")
    stage.kind._command = ("/bin/sh", "-c", "env | grep -E '^(SIDECAR|OTHERS)' | sort")

    stage.start()
    stage.inbox.until(s.ServerGone)

    lines = [line for _, line in stage.printed.rest() if not line.startswith("SIDECAR_GUARD_TOKEN")]
    assert lines == [
        "OTHERS=stay",
        "SIDECAR_CLUSTER=plant-7",
        "SIDECAR_EPOCH=7",
        "SIDECAR_NODE=a",
        "SIDECAR_ROLE=active",
    ]


def test_a_renewal_while_the_server_is_prepared_counts(stage: Stage) -> None:
    """Else a server whose preparation outlasts the deadline of before is refused as too late."""
    go_on = threading.Event()
    stage.kind.preparing = lambda: go_on.wait(WITHIN_S)
    order = stage.start(lives_ms=300)

    later = Instant(order.deadline + 30_000)
    stage.lane.extend(1, later, None)
    wait_until(lambda: CLOCK.now() > order.deadline, "the deadline of before")
    go_on.set()

    assert stage.inbox.next() == s.ServerReady(1)
    assert stage.hello()["run"]["deadline_ms"] == later


@pytest.mark.parametrize("order", ["stop", "kill"])
def test_bug_a_server_was_started_that_had_been_stopped_while_it_was_prepared(
    stage: Stage, order: str
) -> None:
    """Found by seed 17083726: on a disk that hung for 15 s, under a lock that was lost meanwhile."""
    go_on = threading.Event()
    stage.kind.preparing = lambda: go_on.wait(WITHIN_S)
    stage.start()
    if order == "stop":
        stage.lane.stop(1, CLOCK.now())
    else:
        stage.lane.kill(1)
    go_on.set()

    assert stage.inbox.next() == s.ServerGone(1, None, "stopped before it was started")
    assert stage.inbox.rest() == []
    assert stage.lane.server() is None


def test_a_late_start_is_the_end_of_its_run(stage: Stage) -> None:
    stage.start(lives_ms=MARGIN_MS)

    gone = stage.inbox.next()

    assert (gone.run, gone.status) == (1, None)
    assert "too late" in gone.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ServerError("no server.xml"), "no server.xml"),
        (FileNotFoundError(2, "No such file", "/x"), "/x: No such"),
    ],
    ids=repr,
)
def test_a_server_that_cannot_be_prepared_is_gone(stage: Stage, error: Exception, reason: str) -> None:
    def fails() -> None:
        raise error

    stage.kind.preparing = fails
    stage.start()

    gone = stage.inbox.next()

    assert (gone.run, gone.status) == (1, None)
    assert reason in gone.reason
    assert stage.broken.rest() == []


def test_an_unexpected_exception_at_a_start_is_told_as_broken(stage: Stage) -> None:
    """Whether the server was started is not known then: it must not be taken for gone."""

    def fails() -> None:
        raise ZeroDivisionError("x")

    stage.kind.preparing = fails
    stage.start()

    assert "ZeroDivisionError" in stage.broken.next()
    assert stage.inbox.rest() == []


def test_a_guard_client_that_broke_is_told_as_broken(stage: Stage) -> None:
    stage.lane._on_event(g.ClientBroken())

    assert stage.broken.next() == "guard client"


def test_orders_for_a_run_that_is_gone_touch_nobody_else(stage: Stage) -> None:
    stage.start(1)
    stage.inbox.next()
    stage.lane.kill(1)
    assert stage.inbox.next() == s.ServerGone(1, -signal.SIGKILL, "")
    stage.start(2)
    assert stage.inbox.next() == s.ServerReady(2)
    pid = stage.hello()["run"]["server_pid"]

    stage.lane.kill(1)
    stage.lane.stop(1, soon(0))
    stage.lane.extend(2, soon(60_000), None)  # behind them in the lane

    deadline = soon(50_000)
    while stage.hello()["run"]["deadline_ms"] < deadline:
        assert CLOCK.now() < deadline
    assert stage.hello()["run"]["server_pid"] == pid
    assert stage.inbox.rest() == []


def test_a_server_is_started_again_after_its_guard_was_lost(stage: Stage) -> None:
    stage.start(1)
    stage.inbox.next()
    os.kill(stage.hello()["guard_pid"], signal.SIGKILL)
    assert stage.inbox.until(s.ServerGone)[-1].run == 1

    stage.start(2)

    assert stage.inbox.next() == s.ServerReady(2)


def test_the_next_sidecar_goes_on_with_the_run_as_number_0(stage: Stage) -> None:
    order = stage.start(1)
    stage.inbox.next()
    stage.lane.close(kept=True)

    stage.lane = stage.attach()
    stage.lane.begin(adopt=True)

    found = stage.lane.adopted
    assert found is not None
    assert (found.role, found.epoch, found.deadline_at, found.note) == (
        "active",
        7,
        order.deadline,
        "note of 7",
    )
    assert stage.inbox.next() == s.ServerReady(0)
    stage.lane.kill(0)
    assert stage.inbox.next() == s.ServerGone(0, -signal.SIGKILL, "")


def test_bug_a_server_that_nobody_could_ask_was_ended_by_the_sidecar_that_found_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server.xml had a value that the version before had taken."""

    def watching() -> Watching:
        raise ServerError("no server.xml")

    said: list[str] = []
    monkeypatch.setattr("sidecar.runtime.serving.emit", lambda event: said.append(str(event)))
    stage.start()
    stage.inbox.next()
    stage.lane.close(kept=True)
    stage.lane = stage.attach()
    stage.lane._watching = watching
    stage.lane.begin(adopt=True)

    assert stage.inbox.next() == s.ServerReady(0)
    assert any("cannot probe the server: no server.xml" in text for text in said)


def test_what_happens_between_attaching_and_beginning_is_told(stage: Stage) -> None:
    stage.start(1)
    stage.inbox.next()
    pid = stage.hello()["run"]["server_pid"]
    stage.lane.close(kept=True)
    stage.lane = stage.attach()
    os.kill(pid, signal.SIGKILL)
    while stage.hello()["run"] is not None:  # its end is on its way to the new lane
        assert stage.inbox.rest() == []

    stage.lane.begin(adopt=True)

    killed = s.ServerGone(0, -signal.SIGKILL, "server was ended by SIGKILL")
    assert stage.inbox.until(s.ServerGone)[-1] == killed


def test_what_comes_while_the_early_events_are_told_waits_behind_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, late = (g.GuardLost(reason) for reason in ("first", "second", "late"))
    told: list[g.GuardEvent] = []
    other = threading.Thread(target=lambda: stage.lane._on_event(late))

    def take_in(event: g.GuardEvent) -> None:
        told.append(event)
        if event is first:
            other.start()
            other.join(0.2)  # it cannot end before we do

    monkeypatch.setattr(stage.lane, "_take_in", take_in)
    stage.lane._early = [first, second]
    stage.lane.begin(adopt=False)
    other.join(WITHIN_S)

    assert told == [first, second, late]


def test_bug_a_guard_that_was_lost_while_it_was_greeted_was_never_replaced(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []
    monkeypatch.setattr("sidecar.runtime.serving.emit", lambda event: lost.append(str(event)))
    respawn = stage.lane._guard.respawn

    def respawn_and_lose() -> None:
        monkeypatch.setattr(stage.lane._guard, "respawn", respawn)
        respawn()
        before = len(lost)
        os.kill(stage.hello()["guard_pid"], signal.SIGKILL)
        wait_until(lambda: any("guard lost" in text for text in lost[before:]), "the loss to be told")

    monkeypatch.setattr(stage.lane._guard, "respawn", respawn_and_lose)
    os.kill(stage.hello()["guard_pid"], signal.SIGKILL)
    wait_until(lambda: any("guard lost" in text for text in lost), "the loss to be told")
    stage.start(1)
    assert stage.inbox.next() == s.ServerGone(1, None, "the guard is lost")

    stage.start(2)

    assert stage.inbox.next() == s.ServerReady(2)


def test_bug_who_looked_for_the_server_met_one_that_was_just_gone(stage: Stage) -> None:
    stage.start()
    stage.inbox.next()
    looking = iter(stage.lane._pids.values())  # as the publisher does, on its own thread

    stage.lane.kill(1)
    stage.inbox.until(s.ServerGone)

    assert next(looking) is not None
