"""The deadline ends every server, whatever is stopped or killed, and its end is proven.

Method: real guards, as root and as another user, in both enforcements. A server beats into a witness
file from its first process and from a daemon that escaped by a double fork; their deaths are read
from pidfds opened while they lived. Each scenario is one fault.

Not covered: enforcement ``process`` with the keeper *and* the guard stopped for ever by somebody who
stops them again; hosts that refuse namespaces (that is tried in a container by the system tests).
"""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.guard import record
from sidecar.guard.tree import Cgroup
from tests.harness import guards
from tests.harness.guards import LEASE, LIVES_MS, MARGIN_MS, Sidecar, Site, Tree, now_ms
from tests.harness.process import unavailable, wait_until
from tests.harness.tools import ROOT

MODES = {
    "kernel-root": ("kernel", False),
    "kernel-user": ("kernel", True),
    "process-root": ("process", False),
    "process-user": ("process", True),
}
DIES_WITHIN_MS = 10_000
"""What is dead too late shows in the witness, by which the server itself tells how long it has lived."""
SERVER = ("deaf", "daemon")
TREE = 3
"""Keeper, first process, daemon."""


@pytest.fixture(params=MODES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    enforcement, unprivileged = MODES[request.param]
    with guards.site(enforcement, unprivileged=unprivileged) as one:
        yield one


def test_at_the_deadline_all_of_it_dies(site: Site) -> None:
    sidecar, deadline, tree = _serving(site, **LEASE)
    assert sidecar.wait("Started")["server_pid"] in tree.pidfds

    exited = sidecar.wait("Exited")

    assert tree.dead(), "said dead before it was"
    assert site.last_life() < deadline
    ends = ((-signal.SIGKILL, "deadline"), (None, "guard"))  # a slow machine lets the kernel do it
    assert (exited["status"], exited["killed_by"]) in ends
    assert exited["at"] >= deadline - MARGIN_MS, "killed before its time"


@pytest.mark.parametrize("frozen", ["guard", "guard and sidecar", "everything"])
def test_a_stopped_guard_does_not_save_its_server(site: Site, frozen: str) -> None:
    sidecar, deadline, tree = _serving(site, **LEASE)
    guard = site.one(site.guard_pid())

    if frozen == "everything":
        tree.send(signal.SIGSTOP)
    if frozen != "guard":
        sidecar.freeze()
    guard.send(signal.SIGSTOP)

    assert tree.dead(DIES_WITHIN_MS)
    assert site.last_life() < deadline
    sidecar.thaw()
    exited = sidecar.wait("Exited")
    assert (exited["status"], exited["killed_by"]) == (None, "guard")
    sidecar.wait("GuardLost")


def test_the_server_dies_with_a_killed_guard(site: Site) -> None:
    sidecar, _, tree = _serving(site, lives_ms=60_000)

    site.one(site.guard_pid()).send(signal.SIGKILL)
    exited = sidecar.wait("Exited")

    assert tree.dead(), "said dead before it was"
    assert exited["killed_by"] == "guard"
    sidecar.wait("GuardLost")
    sidecar.order("respawn")
    sidecar.wait("respawned")
    sidecar.start("polite", run="r2")
    sidecar.wait("Started", run="r2")
    assert sidecar.count("Exited") == 1


def test_the_server_dies_with_a_killed_keeper(site: Site) -> None:
    sidecar, _, tree = _serving(site, lives_ms=60_000)

    site.one(_keeper(site)).send(signal.SIGKILL)
    sidecar.wait("Exited", status=-9, killed_by=None)

    assert tree.dead(), "said dead before it was"
    sidecar.start("polite", run="r2")
    sidecar.wait("Started", run="r2")


def test_guard_and_keeper_killed_at_once_leave_nothing_behind(site: Site) -> None:
    sidecar, _, tree = _serving(site, lives_ms=60_000)
    keeper, guard = site.one(_keeper(site)), site.one(site.guard_pid())

    keeper.send(signal.SIGSTOP)
    guard.send(signal.SIGSTOP)
    keeper.send(signal.SIGKILL)
    guard.send(signal.SIGKILL)
    sidecar.wait("Exited", killed_by="guard")

    assert tree.dead(), "said dead before it was"


def test_guard_and_sidecar_killed_and_a_new_sidecar_waits_for_the_proof(site: Site) -> None:
    old = site.sidecar()
    old.start(*SERVER, lives_ms=60_000)
    old.wait("Started")
    site.beating("root", "daemon")
    tree = site.processes(least=TREE)

    old.kill()
    site.one(site.guard_pid()).send(signal.SIGKILL)
    new = site.sidecar()

    assert new.wait("attached")["adopted"] is None
    assert tree.dead(), "a new guard before the old tree was dead"


def test_bug_a_tree_outlived_its_stopped_guard_that_had_not_read_a_word_of_the_keeper(site: Site) -> None:
    """The keeper failed at ECONNRESET, and nobody was left to end what the launcher had left behind."""
    go = site.folder / "go"
    sidecar = site.sidecar()
    waits = f"run=while [ ! -e {go} ]; do sleep 0.01; done"
    deadline = sidecar.start("daemon", waits, "exit=0", **LEASE)
    launcher = site.one(sidecar.wait("Started")["server_pid"])
    site.beating("daemon")
    tree = site.processes(least=TREE)

    keeper = site.one(_keeper(site))
    sidecar.freeze()
    site.one(site.guard_pid()).send(signal.SIGSTOP)
    go.touch()
    assert launcher.dead(DIES_WITHIN_MS), "the keeper tells so, and the guard does not hear"

    assert tree.dead(DIES_WITHIN_MS)
    assert site.last_life() < deadline
    if site.enforcement == "process":
        assert keeper.dead(DIES_WITHIN_MS)
        assert "Traceback" not in (site.run_dir / "guard.log").read_text(), "it has not failed"


def test_bug_a_server_outlived_a_guard_that_sigkill_did_not_reach(site: Site) -> None:
    """One that waits for a disk. Stopped here, and without the kernel's timer: the same for its server."""
    site.tree = _without_kernel_timer(site)
    sidecar, deadline, tree = _serving(site, **LEASE)
    later = deadline + MARGIN_MS
    for at in (later - 1, later):
        sidecar.order("extend", run="r1", deadline_at=at)
    wait_until(lambda: site.deadline() == later, "the guard has extended, and once more: all of the first")

    guard = site.one(site.guard_pid())
    guard.send(signal.SIGSTOP)

    assert tree.dead(LIVES_MS + DIES_WITHIN_MS)
    assert guard.alive()
    assert deadline < site.last_life() < later
    if site.enforcement == "process":  # else the end of the namespace is proof
        guard.send(signal.SIGKILL)
    sidecar.wait("Exited")


def test_bug_a_keeper_that_was_stopped_started_a_server_after_its_guard_had_died(site: Site) -> None:
    sidecar = site.sidecar()
    guard = site.one(site.guard_pid())
    tree = site.processes(least=2)
    keeper = site.one(next(iter(tree.pidfds)))  # below it is what is to be the server
    keeper.send(signal.SIGSTOP)
    deadline = sidecar.start(argv=["/bin/touch", str(site.witness)], **LEASE)
    sidecar.order("extend", run="r1", deadline_at=deadline + 1)
    wait_until(lambda: site.deadline() == deadline + 1, "the guard has said go, and more")

    guard.send(signal.SIGSTOP)

    assert guard.dead(DIES_WITHIN_MS)
    keeper.send(signal.SIGCONT)
    assert tree.dead(DIES_WITHIN_MS)
    assert not site.witness.exists(), "it has never run"


@pytest.mark.parametrize("damaged", [False, True])
def test_bug_without_its_record_a_tree_was_taken_for_dead(site: Site, damaged: bool) -> None:
    sidecar, _, tree = _serving(site, lives_ms=60_000)
    keeper, guard = site.one(_keeper(site)), site.one(site.guard_pid())
    if damaged:
        (site.run_dir / record.NAME).write_text("{")
    else:
        (site.run_dir / record.NAME).unlink()

    guard.send(signal.SIGSTOP)
    keeper.send(signal.SIGKILL)
    guard.send(signal.SIGKILL)
    sidecar.wait("Exited", killed_by="guard")

    assert tree.dead(), "said dead before it was"


def test_a_new_sidecar_finds_the_server_of_a_killed_one(site: Site) -> None:
    old = site.sidecar()
    deadline = old.start("deaf", lives_ms=4000, note={"key": ["value", 1]})
    server_pid = old.wait("Started")["server_pid"]
    site.beating("root")

    old.kill()
    new = site.sidecar()

    adopted = new.wait("attached")["adopted"]
    assert adopted["server_pid"] == server_pid
    assert adopted["note"] == {"key": ["value", 1]}
    assert (adopted["run"], adopted["role"], adopted["epoch"]) == ("r1", "active", 7)
    assert (adopted["deadline_at"], adopted["stopping"]) == (deadline, False)
    tree = site.processes(least=2)
    new.order("extend", run="r1", deadline_at=deadline + 60_000)
    wait_until(lambda: site.last_life() > deadline, "life after the old deadline")
    assert tree.alive()
    new.order("kill", run="r1")
    exited = new.wait("Exited")
    assert (exited["status"], exited["killed_by"]) == (-9, "order")
    assert tree.dead()


def test_nothing_happens_to_the_server_of_a_killed_sidecar_until_the_deadline(site: Site) -> None:
    sidecar, deadline, tree = _serving(site, **LEASE)

    sidecar.kill()

    assert tree.dead(DIES_WITHIN_MS)
    assert deadline - MARGIN_MS <= now_ms()
    assert site.last_life() < deadline
    new = site.sidecar()
    new.wait("Exited", run="r1", killed_by="deadline")


def test_a_polite_server_stops_by_itself(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start("polite=3", lives_ms=60_000)
    sidecar.wait("Started")
    site.beating("root")

    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)

    exited = sidecar.wait("Exited")
    assert (exited["status"], exited["killed_by"]) == (3, None)


def test_a_deaf_server_is_killed_at_the_instant_of_the_order(site: Site) -> None:
    sidecar, _, tree = _serving(site, lives_ms=60_000)

    kill_at = now_ms() + 300
    sidecar.order("stop", run="r1", kill_at=kill_at)

    exited = sidecar.wait("Exited", status=-9, killed_by="order")
    assert tree.dead()
    assert kill_at <= exited["at"] < kill_at + 10_000, "not at the deadline, a minute later"


def test_a_stop_kills_no_later_than_the_deadline(site: Site) -> None:
    sidecar = site.sidecar()
    deadline = sidecar.start("deaf", **LEASE)
    sidecar.wait("Started")
    site.beating("root")
    sidecar.order("stop", run="r1", kill_at=deadline + 60_000)

    sidecar.wait("Exited", killed_by="deadline")
    assert site.last_life() < deadline


def test_a_launcher_may_leave_its_server_behind(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start("daemon", "exit=0", lives_ms=60_000)
    sidecar.wait("Started")
    site.beating("daemon")
    wait_until(lambda: len(site.processes().pidfds) == 2, "the launcher's end")
    tree = site.processes(least=2)
    assert sidecar.count("Exited") == 0

    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)  # reaches the daemon all the same

    exited = sidecar.wait("Exited")
    assert (exited["status"], exited["killed_by"]) == (0, None)
    assert tree.dead()


def test_half_a_server_is_killed(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start("daemon", "exit=7", lives_ms=60_000)
    exited = sidecar.wait("Exited")
    assert (exited["status"], exited["killed_by"]) == (7, None)
    last = site.last_life()
    assert last <= exited["at"]


def test_a_stop_waits_for_what_outlives_the_launcher(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start("child=0.3", "polite=9", lives_ms=60_000)
    sidecar.wait("Started")
    site.beating("root", "child")

    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)

    assert sidecar.wait("Exited")["status"] == 9
    assert [word for word, _ in site.lives()].count("bye") == 2, "the child had no time to leave"


def test_bug_a_server_in_a_session_of_its_own_was_not_asked_to_stop(site: Site) -> None:
    """It was killed at the end of the stop's time, without having saved anything."""
    sidecar = site.sidecar()
    sidecar.start("session=0", "child=1", "slow=0.3", lives_ms=60_000)
    sidecar.wait("Started")
    site.beating("root", "child", "session")

    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)

    exited = sidecar.wait("Exited")
    assert (exited["status"], exited["killed_by"]) == (0, None)
    words = [word for word, _ in site.lives()]
    assert (words.count("term"), words.count("bye")) == (3, 3), "each of them is told, and once"


def test_the_last_word_on_exit_codes_is_the_first_process(site: Site) -> None:
    sidecar = site.sidecar()
    for run, status in (("a", 0), ("b", 5)):
        sidecar.start("say=x", f"run=exit {status}", run=run, argv=["/bin/sh", "-c", f"exit {status}"])
        assert sidecar.wait("Exited", run=run)["status"] == status


def test_the_deadline_is_on_boottime_and_on_no_other_clock(site: Site) -> None:
    """In a time namespace in which CLOCK_BOOTTIME, and it alone, is a million seconds ahead."""
    if site.uid is not None or os.geteuid() != 0:
        pytest.skip("needs root in the namespace")
    ahead_ms = 1_000_000_000
    site.before = ("unshare", "--time", "--boottime", "1000000", "--fork", "--")
    sidecar = site.sidecar()
    if not sidecar.events:
        unavailable("time namespaces")
    for frozen in (False, True):
        deadline = sidecar.start(
            *SERVER, run=str(frozen), lives_ms=LIVES_MS + ahead_ms, kill_margin_ms=MARGIN_MS
        )
        sidecar.wait("Started", run=str(frozen))
        tree = site.processes(least=TREE)
        if frozen:
            site.one(site.guard_pid()).send(signal.SIGSTOP)
        assert tree.dead(DIES_WITHIN_MS)
        assert site.last_life() < deadline
        assert sidecar.wait("Exited", run=str(frozen))["at"] >= deadline - MARGIN_MS


def _serving(site: Site, **terms: Any) -> tuple[Sidecar, int, Tree]:
    """Start a server; return its sidecar, its deadline and its tree, once all of that lives."""
    sidecar = site.sidecar()
    deadline = sidecar.start(*SERVER, **terms)
    sidecar.wait("Started")
    site.beating("root", "daemon")
    return sidecar, deadline, site.processes(least=TREE)


def _without_kernel_timer(site: Site) -> Path:
    """Return a copy of the program whose guard the kernel does not kill."""
    made = site.folder / "other"
    shutil.copytree(ROOT / "sidecar", made / "sidecar", ignore=shutil.ignore_patterns("__pycache__"))
    path = made / "sidecar" / "guard" / "kernel.py"
    text, line = path.read_text(), '        _check(result, "timer_settime")\n'
    start = text.index("        result = self._settime(")
    path.write_text(text[:start] + "        del spec\n" + text[text.index(line, start) + len(line) :])
    return made


def _keeper(site: Site) -> int:
    found = record.read(str(site.run_dir))
    assert found
    return int(str(found["keeper_pid"]))


@pytest.mark.parametrize("end", ["in order", "killed idle", "killed with its server"])
def test_bug_every_guard_left_a_cgroup_behind(end: str) -> None:
    """The empty one of the keeper made in advance, in the kernel's memory until the next boot."""
    with guards.site("process", unprivileged=False) as site:
        sidecar = site.sidecar(idle_exit_ms=200)
        guard = site.guard_pid()
        possible = Cgroup.make(f"sidecar-test-{os.getpid()}")
        if possible is None:
            unavailable("needs a cgroup (v2) of its own")
        possible.remove()
        wait_until(lambda: _cgroups(guard), "that of the keeper made in advance")
        if end == "killed with its server":
            sidecar.start(*SERVER, lives_ms=30_000)
            sidecar.wait("Started")
        if end != "in order":
            os.kill(guard, signal.SIGKILL)
        sidecar.leave()

        wait_until(lambda: not _cgroups(guard), "its cgroups are gone")


def _cgroups(guard: int) -> list[Path]:
    return [found for found in Path("/sys/fs/cgroup").rglob(f"sidecar-{guard}-*") if found.is_dir()]
