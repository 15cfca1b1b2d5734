"""Goal: each task of docs/operations.md is done by the command that stands there, which ends with the status
that the page and docs/cli.md promise; and so do those that are refused, fail or cannot know.

Method: one cluster on a real etcd; the commands are taken from the page and typed on a terminal, as they
stand (NODE: the one that is meant), with the answer to what they ask. What they have done is looked at in the
status, and the witness judges at the end. The tests go on one after the other, as an operator would.

Not covered: the rows with `systemctl` (tests/system/test_installed.py, on a machine with systemd).
"""

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest

from sidecar.cli import main
from sidecar.cli.options import Command
from sidecar.core.model import View
from sidecar.core.units import Instant
from sidecar.demo.cluster import CLOCK, Cluster, DemoNode, until
from sidecar.plugins import load_backend
from sidecar.ports import BackendSettings
from tests.harness.stores import Etcd
from tests.harness.tools import ETCD34, ROOT
from tests.system.clusters import running, section_of

PAGE = (ROOT / "docs" / "operations.md").read_text()
TASKS = [
    (task, command)
    for task, cell in re.findall(r"^\| ([^|]+) \| (`[^|]+) \|$", PAGE.partition("\n## ")[0], re.MULTILINE)
    for command in re.findall(r"`(sidecar [^`]+)`", cell)
]
WITHIN_S = 40


class Plant:
    """A cluster and who looks after it, on the machine of *here*."""

    def __init__(self, cluster: Cluster, etcd: Etcd) -> None:
        self.cluster, self.etcd = cluster, etcd
        self.typed: set[str] = set()
        settings = BackendSettings("plant-7", {"endpoints": [etcd.url]})
        self._backend = load_backend("etcd")(settings, CLOCK)

    def type(self, command: str, answer: str = "", *, here: str = "node-a", **put: str) -> "Done":
        """Type a command on a terminal; *answer* is what is typed when it asks."""
        self.typed.add(command)
        words = [put.get(word, word) for word in shlex.split(command)][1:]
        with self._terminal(here, words) as (process, keyboard):
            os.write(keyboard, answer.encode() + b"\n" if answer else b"")
            out, err = process.communicate(timeout=WITHIN_S)
        return Done(process.returncode, out, err)

    def type_and_interrupt(self, command: str, seen: str) -> "Done":
        """Type one that goes on until Ctrl-C, which comes when a line says *seen*."""
        self.typed.add(command)
        with self._terminal("node-a", shlex.split(command)[1:]) as (process, _):
            assert process.stdout is not None
            said = ""
            while not re.search(seen, said):
                line = process.stdout.readline()
                assert line, said
                said += line
            process.send_signal(2)
            out, err = process.communicate(timeout=WITHIN_S)
        return Done(process.returncode, said + out, err)

    @contextmanager
    def _terminal(self, here: str, words: list[str]) -> Iterator[tuple["subprocess.Popen[str]", int]]:
        ours, theirs = pty.openpty()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sidecar", *words],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean | {"SIDECAR_CONFIG": str(self.cluster[here].config)},
        )
        try:
            yield process, ours
        finally:
            process.kill()
            process.communicate()
            os.close(ours)
            os.close(theirs)

    def view(self) -> View:
        """Return what the store holds."""
        return self._backend.read(deadline=Instant(CLOCK.now() + 5_000))

    def active(self) -> tuple[str, int]:
        """Return who has the lock, and its epoch."""
        holder = self.view().holder
        assert holder is not None
        return holder.node, int(holder.epoch)

    def settle(self) -> tuple[str, str]:
        """Wait for an active that serves and a standby that could; return their names."""

        def settled() -> tuple[str, str] | None:
            nodes = {(one.role, one.state): one.node for one in self.view().nodes}
            pair = nodes.get(("active", "running"), ""), nodes.get(("standby", "monitoring"), "")
            return pair if all(pair) and pair[0] == self.cluster.serving() else None

        active, standby = until("an active that serves and a standby that could", settled, 30_000)
        return active, standby

    def close(self) -> None:
        self._backend.close()


class Done:
    """How a command has ended."""

    def __init__(self, exit_status: int, out: str, err: str) -> None:
        self.exit_status, self.out, self.err = exit_status, out, err

    def __repr__(self) -> str:
        return f"exit {self.exit_status}\n{self.out}\n{self.err}"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("operations")
    with (
        Etcd.run(folder / "etcd", ETCD34) as etcd,
        running(folder, section_of(etcd), "plant-7", ttl="8s") as cluster,
    ):
        plant = Plant(cluster, etcd)
        try:
            yield plant
        finally:
            plant.close()


def command(task: str) -> str:
    """Return the one command that the page gives for *task*."""
    (found,) = (text for told, text in TASKS if told.startswith(task))
    return str(found)


def ends_with(done: Done, exit_status: int) -> None:
    """Check the exit status, and the form that docs/cli.md promises: one line for an error, no traceback."""
    assert done.exit_status == exit_status, done
    assert "Traceback" not in done.err
    # behind a question, since the end of its line is the terminal's
    assert done.err.count("sidecar: error: ") == (1 if exit_status in (1, 2, 3, 4, 5) else 0), done


def test_the_status_says_who_is_active(plant: Plant) -> None:
    active, _ = plant.settle()
    done = plant.type(command("see who is active"))

    ends_with(done, 0)
    assert done.out.startswith(f"cluster plant-7 on etcd: {active} is active, epoch 1\n")


def test_watch_goes_on_until_it_is_interrupted(plant: Plant) -> None:
    done = plant.type_and_interrupt(command("watch it live"), "node-a")

    ends_with(done, 130)


def test_a_switchover_hands_over_or_is_refused(plant: Plant) -> None:
    active, standby = plant.settle()
    text = command("hand over to another node")

    ends_with(plant.type(text, "n", NODE=standby), 1)
    assert plant.active() == (active, 1), "I said no"
    ends_with(plant.type(text, NODE="node-z"), 4)
    ends_with(plant.type(text, NODE=active), 4)
    ends_with(plant.type(text, "y", NODE=standby), 0)
    assert plant.active() == (standby, 2)


def test_the_history_says_why(plant: Plant) -> None:
    done = plant.type(command("find out why"))

    ends_with(done, 0)
    assert re.search(r"^.* 2 +node-. +node-. .*switchover", done.out, re.MULTILINE), done


def test_a_restart_keeps_the_lock(plant: Plant) -> None:
    active, _ = plant.settle()
    before = {process.pid for process in plant.cluster[active].server()}
    done = plant.type(command("restart the server"), here=active)

    ends_with(done, 0)
    assert not before & {process.pid for process in plant.cluster[active].server()}
    assert plant.active() == (active, 2)
    ends_with(plant.type("sidecar restart node-z"), 4)


def test_maintenance_begins_and_ends(plant: Plant) -> None:
    _, standby = plant.settle()
    pause, resume = (text for task, text in TASKS if task.startswith("maintenance"))

    ends_with(plant.type(resume), 4)
    ends_with(plant.type(pause), 0)
    assert plant.view().settings.paused
    ends_with(plant.type(pause), 0)
    ends_with(plant.type(f"sidecar switchover --to {standby} --yes"), 4)
    ends_with(plant.type(resume), 0)
    assert not plant.view().settings.paused


def test_a_node_is_kept_out_of_the_choice(plant: Plant) -> None:
    _, standby = plant.settle()
    ends_with(plant.type(command("keep one node out"), NODE=standby), 0)

    assert {one.node: one.eligible for one in plant.view().nodes}[standby] is False
    ends_with(plant.type("sidecar switchover --yes"), 4)
    ends_with(plant.type("sidecar set node-z eligible false"), 4)
    ends_with(plant.type(f"sidecar unset {standby} eligible"), 0)
    ends_with(plant.type(f"sidecar unset {standby} eligible"), 4)


def test_a_changed_configuration_is_checked(plant: Plant) -> None:
    text = command("check a changed configuration")
    config = plant.cluster["node-a"].config
    good = config.read_text()

    ends_with(plant.type(text), 0)
    config.write_text(good + "colour: red\n")
    ends_with(plant.type(text), 2)
    config.write_text(good)


def test_the_doctor_finds_no_error_where_all_is_well(plant: Plant) -> None:
    active, _ = plant.settle()
    done = plant.type(command("look at this machine"), here=active)

    ends_with(done, 0)
    assert "held by our server" in done.out


def frozen(plant: Plant) -> tuple[DemoNode, str]:
    """Freeze the active with all its processes, as a machine that hangs; return it, and the other's name."""
    active, standby = plant.settle()
    plant.cluster[active].freeze()
    return plant.cluster[active], standby


def begin_again(node: DemoNode) -> None:
    node.crash()
    node.start()


def test_a_failover_takes_over_from_an_active_that_does_not_answer(plant: Plant) -> None:
    text = command("take over from an active")
    ends_with(plant.type(text, "n"), 1)
    active, standby = frozen(plant)
    ends_with(plant.type(text, "y", here=standby), 0)

    assert plant.active()[0] == standby
    begin_again(active)


def test_one_that_has_no_time_to_see_it_says_that_it_does_not_know(plant: Plant) -> None:
    active, standby = frozen(plant)
    ends_with(plant.type("sidecar failover --yes --timeout 200ms", here=standby), 5)

    until("the lock that it broke is taken", lambda: plant.cluster.serving() == standby, 20_000)
    begin_again(active)


def test_after_the_store_was_wiped_the_epoch_is_raised(plant: Plant) -> None:
    text = command("go on after the store")
    plant.settle()
    ends_with(plant.type(text, "y"), 4)
    _, epoch = plant.active()

    plant.etcd.stop()
    ends_with(plant.type("sidecar status"), 3)
    plant.etcd.wipe()  # and it runs again

    def refuses() -> bool:
        messages = [one.message for one in plant.view().nodes]
        return len(messages) == 2 and all("was wiped or restored" in text for text in messages)

    until("the nodes refuse an older store", refuses, 30_000)
    alarm = "no node that has seen that becomes active"
    logs = [plant.cluster[name].log for name in ("node-a", "node-b")]
    until("each log says so once", lambda: [one.read_text().count(alarm) for one in logs] == [1, 1], 5_000)
    ends_with(plant.type(text, "y"), 0)
    plant.settle()
    assert plant.active()[1] > epoch


def test_every_task_was_done(plant: Plant) -> None:
    assert len(TASKS) >= 12
    assert {text for _, text in TASKS} <= plant.typed


def test_the_statuses_of_the_page_are_those_of_the_commands() -> None:
    assert re.search(r"0 done, 1 tried and failed, 4 refused .*?5 unknown", PAGE, re.DOTALL)
    for name in ("switchover", "failover", "restart"):
        found = main.get_command(click.Context(main), name)
        assert isinstance(found, Command)
        assert {0, 1, 4, 5} <= set(found.exits)
        assert found.exits[4].startswith("refused")
        assert "unknown" in found.exits[5]
