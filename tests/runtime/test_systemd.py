"""What systemd hears of a sidecar: ready, status, signs of life of the deciding loop alone, reload, stop.

Method: a real datagram socket plays the manager; the shell is the real one, over a scripted store.
Not covered: what systemd makes of it (tests/system/test_installed.py, under a real one).
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any, cast

import pytest

from sidecar.clock import ManualClock
from sidecar.core import state as s
from sidecar.core.model import NodeRecord
from sidecar.core.outlook import describe
from sidecar.runtime.shell import Broken, Reload
from sidecar.runtime.systemd import AGAIN_MS, EVERY_MS, Manager
from tests.core.made import EPOCH, POLICY, serving
from tests.runtime.stubs import NOW, WITHIN_S, clock
from tests.runtime.test_shell import Stage

WATCHDOG_MS = 4_000
Told = list[str]


class Ear:
    """The manager's end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(WITHIN_S)
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(WATCHDOG_MS * 1_000), "HOME": "/root"}

    def hear(self) -> Told:
        return self.socket.recv(4096).decode().split("\n")

    def rest(self) -> list[Told]:
        """Return what was said and not heard yet."""
        self.socket.setblocking(False)
        found = []
        while True:
            try:
                found.append(self.hear())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ear]:
    name = f"@sidecar-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    made = Ear(name)
    yield made
    made.socket.close()


def record(phase: s.Phase, **memory: Any) -> NodeRecord:
    node = s.Node(phase, s.Memory(**memory))
    return describe(node, NOW, POLICY, enforcement="kernel", version="", unix_ms=0, server=None)


STANDBY = record(s.Standing(1, ready=True))


def test_the_variables_are_for_nobody_else(ear: Ear) -> None:
    environ = {**ear.environ, "WATCHDOG_PID": str(os.getpid())}
    Manager(environ, clock())

    assert environ == {"HOME": "/root"}


def test_it_is_ready_with_the_first_turn_and_says_what_it_is(ear: Ear) -> None:
    Manager(ear.environ, clock()).turned(STANDBY, stopping=False)

    assert sorted(ear.hear()) == ["READY=1", "STATUS=standby: Monitoring Master Server Status", "WATCHDOG=1"]


def test_the_status_has_epoch_and_lease_and_the_time_of_it(ear: Ear) -> None:
    Manager(ear.environ, clock()).turned(record(serving()), stopping=False)
    (status,) = (word for word in ear.hear() if word.startswith("STATUS="))

    text, _, at = status.rpartition(" at ")
    left = (serving().lease.deadline - NOW) / 1000
    assert text == f"STATUS=active, epoch {EPOCH}: Serving; lease {left:.1f} s left"
    assert len(at) == len("HH:MM:SS")


def test_an_error_text_cannot_speak_for_the_sidecar(ear: Ear) -> None:
    """The trouble of a failed server goes into the status, and it may say anything."""
    failed = record(s.Idle(), cool_until=NOW + 1_000, trouble="broken\nMAINPID=1\nWATCHDOG=trigger")
    Manager(ear.environ, clock()).turned(failed, stopping=False)

    assert "STATUS=standby: Cooling down: broken MAINPID=1 WATCHDOG=trigger" in ear.hear()


def test_it_speaks_on_a_change_and_twice_in_a_watchdogs_period(ear: Ear) -> None:
    time = clock()
    manager = Manager(ear.environ, time)
    due_at = manager.turned(STANDBY, stopping=False)
    assert due_at == NOW + WATCHDOG_MS // 2
    ear.hear()

    time.advance(WATCHDOG_MS // 2 - 1)
    assert manager.turned(STANDBY, stopping=False) == due_at
    assert ear.rest() == []

    manager.turned(record(serving()), stopping=False)
    assert len(ear.rest()) == 1, "another role"

    time.advance(WATCHDOG_MS // 2)
    manager.turned(record(serving()), stopping=False)
    assert len(ear.rest()) == 1, "the same, but it is time"


@pytest.mark.parametrize(
    ("changed", "every_ms"),
    [
        ({"WATCHDOG_PID": str(os.getpid())}, WATCHDOG_MS // 2),
        ({"WATCHDOG_PID": "1"}, EVERY_MS),  # another process's
        ({"WATCHDOG_USEC": "soon"}, EVERY_MS),
        ({"WATCHDOG_USEC": ""}, EVERY_MS),
    ],
    ids=["our own", "of another process", "no number", "none"],
)
def test_the_watchdogs_period_is_its_own(ear: Ear, changed: dict[str, str], every_ms: int) -> None:
    manager = Manager(ear.environ | changed, clock())

    assert manager.turned(STANDBY, stopping=False) == NOW + every_ms


def test_bug_a_watchdog_of_no_time_made_the_loop_spin(ear: Ear) -> None:
    """sd_watchdog_enabled(3) takes 0 for no watchdog; the loop turned a thousand times a second."""
    manager = Manager(ear.environ | {"WATCHDOG_USEC": "0"}, clock())

    assert manager.turned(STANDBY, stopping=False) == NOW + EVERY_MS


def test_a_manager_that_does_not_listen_stops_nobody(ear: Ear) -> None:
    """Its queue is full: what was to be said is said again, and by nobody waited for."""
    manager, time = Manager(ear.environ, ManualClock(NOW)), 0
    while manager.turned(STANDBY, stopping=bool(time % 2)) > NOW + AGAIN_MS:
        time += 1
        assert time < 100_000, "the queue has an end"
    ear.rest()

    manager.turned(STANDBY, stopping=bool(time % 2))
    assert len(ear.rest()) == 1, "said again, although nothing has changed and no time has passed"


def test_without_systemd_nothing_is_said() -> None:
    manager = Manager({}, clock())
    manager.reloading()

    assert manager.turned(STANDBY, stopping=False) > NOW


def test_a_systemd_that_is_gone_stops_nobody(ear: Ear) -> None:
    ear.socket.close()
    manager = Manager(ear.environ, clock())
    manager.reloading()

    assert manager.turned(STANDBY, stopping=False) == NOW + AGAIN_MS


# The shell.


@pytest.fixture
def stage(tmp_path: Path, ear: Ear) -> Iterator[Stage]:
    made = Stage(tmp_path, ear.environ)
    yield made
    made.close()


def _run(stage: Stage, *seen: object) -> None:
    for one in (*seen, Broken("end of the test")):
        stage.inbox.put(one)
    with pytest.raises(RuntimeError, match="end of the test"):
        stage.shell.run()


def test_a_reload_is_told_before_and_after(stage: Stage, ear: Ear) -> None:
    _run(stage, Reload(lambda policy: policy))
    first, reloading, done = ear.rest()

    assert "READY=1" in first
    assert (reloading[0], reloading[1].partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
    assert "READY=1" in done


def test_a_stop_is_told_and_time_asked_for_as_long_as_it_lasts(stage: Stage, ear: Ear) -> None:
    _run(stage, s.StopAsked())
    first, stopping = ear.rest()

    assert "STOPPING=1" not in first
    assert {"STOPPING=1", "WATCHDOG=1"} <= set(stopping)
    assert any(word.startswith("EXTEND_TIMEOUT_USEC=") for word in stopping)
    assert "READY=1" not in stopping


class Patience:
    """An inbox in which nothing comes, for a while."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    def get(self, timeout: float) -> object:
        self.waits_s.append(timeout)
        if len(self.waits_s) < 2:
            raise Empty
        return Broken("end of the test")


def test_the_loop_turns_in_time_for_a_short_watchdog(tmp_path: Path, ear: Ear) -> None:
    stage = Stage(tmp_path, ear.environ | {"WATCHDOG_USEC": "200000"})
    patience = Patience()
    stage.shell._inbox = cast(Any, patience)
    with pytest.raises(RuntimeError, match="end of the test"):
        stage.shell.run()
    stage.close()

    assert patience.waits_s[0] == 0.1
