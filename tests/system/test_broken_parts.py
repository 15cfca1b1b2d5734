"""A sidecar that cannot go on ends, with a status that says so, and takes nobody's server along.

Method: real sidecars on the embedded store. What is broken: the file that proves a death, somebody's backend,
the run directory. Not covered: broken stores (tests/contract, test_nodes.py).
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.demo.cluster import Cluster, DemoNode, until
from sidecar.guard import record
from tests.harness.process import ahead
from tests.harness.witness import one_active_at_a_time
from tests.system.clusters import running

TTL = "30s"
"""A sidecar may take long to start on a busy machine, and has to find the server before its deadline."""


@pytest.fixture
def alone(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[Cluster]:
    """One node that is active; *param* are settings over the usual ones."""
    settings: dict[str, Any] = getattr(request, "param", {})
    store = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    with running(tmp_path, store, namespace, names=("node-a",), ttl=TTL, settings=settings) as made:
        yield made


def ended(node: DemoNode) -> int:
    """Wait for the end of the sidecar; return its exit status."""
    assert node.process is not None
    return node.process.wait(15)


@pytest.mark.parametrize("alone", [{"guard": {"enforcement": "process"}}], indirect=True)
def test_guard_and_keeper_die_beside_a_record_that_cannot_be_read(alone: Cluster) -> None:
    """What the sidecar knows of its server proves the end, and another one starts."""
    node = alone["node-a"]
    (node.run_dir / record.NAME).write_text("{")
    before = node.server()
    guard, keeper, *_ = node.tree()

    for process in (guard, keeper):
        os.kill(process.pid, signal.SIGKILL)

    until("another server", lambda: (found := node.server()) and found[-1].pid != before[-1].pid)
    assert alone.await_active() == "node-a"


UNPROVEN = """
from sidecar.guard import proof
def broken(run_dir, found):
    raise proof.GuardError("injected")
proof.tree_is_empty = broken
"""


def test_a_sidecar_whose_guard_client_broke_ends_with_1(tmp_path: Path, namespace: str) -> None:
    """Guard and keeper die, and the end of the tree cannot be proven.

    Without that end nobody would ever tell this sidecar that its server is gone: it would wait for ever.
    """
    plug_in = tmp_path / "plug-in"
    plug_in.mkdir()
    (plug_in / "sitecustomize.py").write_text(UNPROVEN)
    store = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    settings = {"guard": {"enforcement": "process"}}
    with running(
        tmp_path,
        store,
        namespace,
        names=("node-a",),
        ttl=TTL,
        settings=settings,
        environment={"PYTHONPATH": ahead(plug_in)},
    ) as made:
        node = made["node-a"]
        left = node.server()
        guard, keeper, *_ = node.tree()
        for process in (guard, keeper):
            os.kill(process.pid, signal.SIGKILL)

        assert ended(node) == 1
        for process in left:  # nobody is there any more who would
            with suppress(psutil.NoSuchProcess):
                process.kill()


PLUG_IN = """
from backends.local import LocalBackend
from pathlib import Path
class Broken(LocalBackend):
    def await_change(self, revision, *, deadline):
        if Path({trigger!r}).exists():
            return "no view"
        return super().await_change(revision, deadline=min(deadline, self._clock.now() + 100))
def connect(settings, clock):
    return Broken(Path({store!r}), "x/" + settings.cluster + "/", clock)
"""


def test_an_unexpected_end_leaves_the_server_to_the_guard_and_the_next_sidecar(
    tmp_path: Path, namespace: str
) -> None:
    """Somebody's backend answers what no decision can be made of: the sidecar ends, its server stays."""
    trigger = tmp_path / "trigger"
    plug_in = tmp_path / "plug-in" / "broken-1.0.dist-info"
    plug_in.mkdir(parents=True)
    (plug_in / "entry_points.txt").write_text("[aggregate_sidecar.backends]\nbroken = broken:connect\n")
    code = PLUG_IN.format(trigger=str(trigger), store=str(tmp_path / "store.db"))
    (plug_in.parent / "broken.py").write_text(code)
    made = Cluster(tmp_path / "c", {"backend": "broken"}, names=("node-a",), cluster=namespace, ttl=TTL)
    node = made["node-a"]
    node.environment = {"PYTHONPATH": ahead(plug_in.parent)}
    try:
        made.start()
        made.await_active()
        before = node.server()

        trigger.touch()
        assert ended(node) == 1
        trigger.unlink()

        assert all(process.is_running() for process in before)
        node.start()
        until("the server to be taken over", lambda: "adopted=True" in node.log.read_text())
        assert all(process.is_running() for process in before)
        assert made.await_active() == "node-a"
    finally:
        made.stop()
        print(node.log.read_text()[-4_000:])
    one_active_at_a_time(made.witness)


def test_the_server_of_another_cluster_is_refused_and_left_alone(alone: Cluster, tmp_path: Path) -> None:
    node = alone["node-a"]
    assert node.process is not None
    node.process.kill()  # the guard keeps the server until the deadline
    node.process.wait()
    before = node.server()
    other = DemoNode("node-a", tmp_path / "other", {**node.settings, "cluster": "another"})
    other.folder.mkdir()
    other.start()

    assert ended(other) == 4
    assert "runs the server of node-a in" in other.log.read_text()
    assert "renamed? stop the sidecar under the old name" in other.log.read_text()
    assert all(process.is_running() for process in before)

    node.start()  # the right one takes it over again, before its deadline
    assert node.process is not None
    until("the server to be taken over", lambda: "adopted=True" in node.log.read_text())
    assert alone.await_active() == "node-a"
