"""Goal: the sidecar is replaced by another version under a running server; where the two do not understand
each other nobody is active twice, and nobody is stuck.

Method: another version is a copy of the tree with another number, more fields in what it says, and on demand
another protocol of the guard, or a guard that does not say its version. The sidecar before ends in order
(``--keep-server``) or by ``kill -9``. The witness tells whether the server went on. Not covered: documents of
another version in the store (tests/core, tests/contract).
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar import __version__
from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.demo.cluster import Cluster, DemoNode, until
from sidecar.errors import GuardError
from sidecar.guard import connect, wire
from sidecar.standin import witness
from tests.harness import guards
from tests.harness.guards import ROOT, Site
from tests.harness.versions import VERSION, another
from tests.system.clusters import running

CLOCK = BootClock()
ENDINGS = {"in order": signal.SIGTERM, "killed": signal.SIGKILL}
Environment = dict[str, str]


@contextmanager
def _pair(folder: Path, cluster: str, ttl: str, environment: Environment) -> Iterator[Cluster]:
    """Run two nodes that leave their servers to the next run; the witness judges at the end."""
    backend = {"backend": "local", "local": {"path": str(folder / "store.db")}}
    started = running(folder, backend, cluster, ttl=ttl, start=["--keep-server"], environment=environment)
    with started as made:
        standby = _other(made, made.await_active())
        until("the other to monitor", partial(_is, made, standby, role="standby", state="monitoring"))
        yield made


def _other(cluster: Cluster, name: str) -> str:
    return next(node for node in cluster.nodes if node != name)


def _is(cluster: Cluster, name: str, **wanted: str) -> bool:
    """Tell whether ``status`` shows that of a node."""
    nodes: list[dict[str, Any]] = cluster.status().get("nodes", [])
    return any(node["node"] == name and wanted.items() <= node.items() for node in nodes)


def _is_guarded_by(node: DemoNode, version: str) -> bool:
    found = connect.greeting(node.run_dir, Instant(CLOCK.now() + 5_000), CLOCK)
    return found is not None and found.version == version


def _server(node: DemoNode) -> int:
    return int(until("a server", node.server)[-1].pid)


def _replace(node: DemoNode, ending: str, environment: Environment) -> None:
    """End the sidecar alone, and start the other version of it."""
    assert node.process is not None
    node.process.send_signal(ENDINGS[ending])
    assert node.process.wait(10) == (0 if ending == "in order" else -signal.SIGKILL)
    node.environment = environment
    node.start("--keep-server")


def test_both_nodes_are_upgraded_and_back_and_the_active_server_does_not_notice(
    tmp_path: Path, namespace: str
) -> None:
    """The standby's is started anew, by a guard of the version that is installed."""
    new: Environment = {"PYTHONPATH": str(another(tmp_path))}
    with _pair(tmp_path, namespace, "8s", {}) as cluster:
        active = cluster.await_active()
        standby, node = cluster[_other(cluster, active)], cluster[active]
        before = _server(node), node.guard_pid()
        for ending, environment, version in (("in order", new, VERSION), ("killed", {}, __version__)):
            _replace(standby, ending, environment)
            well = partial(_is, cluster, standby.name, version=version, state="monitoring")
            until(f"the standby to be of version {version}", well)
            until(f"its guard to be of version {version}", partial(_is_guarded_by, standby, version))
            _replace(node, ending, environment)
            until(f"{active} to be of version {version}", partial(_is, cluster, active, version=version))
            assert (_server(node), node.guard_pid()) == before
        ended_ns = witness.now_ns()
        until("the active to go on", partial(_is, cluster, active, role="active", state="running"))
        until("its server to go on", lambda: cluster.records()[-1].at_ns > ended_ns)

        (interval,) = witness.active_intervals(cluster.records())
        assert (interval.node, interval.closed) == (active, False)
        assert interval.longest_silence_ns < 6_000_000_000, "a busy machine's, not a restart's"


@pytest.mark.parametrize(("ending", "newer"), [("in order", True), ("killed", False)], ids=str)
def test_another_protocol_costs_a_failover_and_never_two_actives(
    tmp_path: Path, namespace: str, ending: str, newer: bool
) -> None:
    """A newer sidecar at an older guard, or the other way round: the same parting, whoever is which."""
    changed = {"PYTHONPATH": str(another(tmp_path, protocol=True))}
    none: Environment = {}
    first, second = (none, changed) if newer else (changed, none)
    with _pair(tmp_path, namespace, "8s", first) as cluster:
        active = cluster.await_active()
        node, standby = cluster[active], cluster[_other(cluster, active)]
        pid, guard = _server(standby), standby.guard_pid()
        _replace(standby, ending, second)
        until("another guard", lambda: standby.guard_pid() not in (guard, None))
        until("its standby to monitor", partial(_is, cluster, standby.name, state="monitoring"))
        assert _server(standby) != pid
        assert len(witness.active_intervals(cluster.records())) == 1, "the active took no part in this"

        guard = node.guard_pid()
        _replace(node, ending, second)
        until("a second active", lambda: len(witness.active_intervals(cluster.records())) > 1)
        one, other = witness.active_intervals(cluster.records())
        assert one.node == active
        assert one.epoch < other.epoch
        left = _other(cluster, other.node)  # either may win: when the lock is free, both are there again
        until("the one that lost to monitor", partial(_is, cluster, left, role="standby", state="monitoring"))
        assert node.guard_pid() != guard
        assert node.process is not None
        assert node.process.poll() is None, "it is the very sidecar that met the strange guard"


def test_bug_a_note_of_a_later_version_asked_for_a_key_to_be_restored(tmp_path: Path, namespace: str) -> None:
    """There is none; what there is to be done is to wait, or to go back."""
    later: Environment = {"PYTHONPATH": str(another(tmp_path, documents=True))}
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    more: dict[str, Any] = {"start": ["--keep-server"], "environment": later}
    alone = running(tmp_path, backend, namespace, names=("node-a",), ttl="30s", **more)
    with alone as cluster:
        node = cluster[cluster.await_active()]
        server = _server(node)
        _replace(node, "in order", {})
        assert node.process is not None

        assert node.process.wait(20) == 4
        said = node.log.read_text().splitlines()[-1]
        assert "cannot read; its server ends at its deadline: then start again" in said
        assert "restore" not in said

        node.environment = later
        node.start("--keep-server")
        until("the server to be taken over", lambda: "adopted=True" in node.log.read_text())
        assert _server(node) == server


# The guard alone.


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site whose first guard is of a version with another protocol."""
    with guards.site("kernel", unprivileged=os.geteuid() != 0) as one:
        one.tree = another(tmp_path, protocol=True)
        yield one


def _attach(site: Site, within_ms: int) -> connect.Connection:
    spawn = connect.Spawn(site.run_dir, "auto", site.python, 1_000)
    return connect.attach_or_spawn(spawn, Instant(CLOCK.now() + within_ms), CLOCK)


def test_a_strange_guard_keeps_its_active_server_and_leaves_with_it(site: Site) -> None:
    sidecar = site.sidecar()
    deadline = sidecar.start("polite", lives_ms=60_000)
    sidecar.wait("Started")
    site.beating("root")
    guard, server = site.one(site.guard_pid()), site.processes()
    sidecar.kill()

    with pytest.raises(GuardError, match=r"speaks protocol 2, not 1, and its server still runs"):
        _attach(site, 3_000)

    with site.connect() as sock:
        run = wire.decode(sock.recv(wire.FRAME_MAX))["run"]
    assert isinstance(run, dict)
    assert (run["deadline_ms"], run["state"]) == (deadline, "running")
    assert not server.dead()
    server.send(signal.SIGKILL)
    assert guard.dead(5_000), "nothing holds it any more"
    _attach(site, 5_000).close()


@pytest.mark.parametrize("role", ["active", "standby"])
def test_an_upgrade_is_told_before_that_an_active_server_cannot_be_taken_over(site: Site, role: str) -> None:
    ask = [site.python, "-m", "sidecar.guard.compatible", str(site.run_dir)]
    environment = {"PYTHONPATH": f"{ROOT}"}

    def asked() -> tuple[int, str]:
        done = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False, timeout=20)
        return done.returncode, done.stdout + done.stderr

    assert asked() == (0, ""), "there is nothing"
    sidecar = site.sidecar()
    assert asked() == (0, ""), "no server runs"
    sidecar.start("polite", lives_ms=60_000, role=role)
    sidecar.wait("Started")
    status, says = asked()
    assert status == (4 if role == "active" else 0)
    assert ("speaks protocol 2, and" in says) is (role == "active")
    assert not site.processes().dead(), "it was asked, and not touched"


def test_a_strange_guard_is_ended_with_its_standby(site: Site) -> None:
    found = _attach_to_standby(site)

    assert found.state["run"] is None
    found.close()


def _attach_to_standby(site: Site) -> connect.Connection:
    """Attach to a guard whose standby has to go, and see that it is gone by then."""
    sidecar = site.sidecar()
    sidecar.start("deaf", "daemon", lives_ms=60_000, role="standby")
    sidecar.wait("Started")
    site.beating("root", "daemon")
    tree = site.processes(with_guard=True)
    sidecar.kill()

    found = _attach(site, 5_000)

    assert tree.dead(), "proven before another guard was started"
    return found


def test_a_strange_guard_without_a_server_makes_room_at_once(site: Site) -> None:
    sidecar = site.sidecar()
    guard = site.one(site.guard_pid())
    sidecar.kill()

    _attach(site, 5_000).close()

    assert guard.dead()


# The guard alone, of another version that speaks the same.


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Site]:
    """A site whose first guard is of another version."""
    with guards.site("kernel", unprivileged=os.geteuid() != 0) as one:
        one.tree = another(tmp_path)
        yield one


def test_bug_an_idle_guard_went_on_for_ever_after_an_upgrade(upgraded: Site) -> None:
    sidecar = upgraded.sidecar()
    guard = upgraded.one(upgraded.guard_pid())
    sidecar.kill()

    found = _attach(upgraded, 5_000)

    assert guard.dead()
    assert found.state["version"] == __version__
    found.close()


def test_a_guard_that_does_not_say_its_version_is_of_another(site: Site, tmp_path: Path) -> None:
    site.tree = another(tmp_path / "older", silent=True)
    sidecar = site.sidecar()
    guard = site.one(site.guard_pid())
    sidecar.kill()

    _attach(site, 5_000).close()

    assert guard.dead()


def test_bug_the_guard_of_a_standby_went_on_for_ever_after_an_upgrade(upgraded: Site) -> None:
    found = _attach_to_standby(upgraded)

    assert (found.state["run"], found.state["version"]) == (None, __version__)
    found.close()


def test_the_guard_of_an_active_is_kept_whatever_version_it_is_of(upgraded: Site) -> None:
    sidecar = upgraded.sidecar()
    sidecar.start("polite", lives_ms=60_000)
    sidecar.wait("Started")
    upgraded.beating("root")
    tree = upgraded.processes(with_guard=True)
    sidecar.kill()

    found = _attach(upgraded, 5_000)

    assert not tree.dead()
    assert found.state["version"] == VERSION
    found.close()
    tree.send(signal.SIGKILL)
