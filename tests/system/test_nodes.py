"""Whole nodes under faults: real sidecars, guards, stand-in servers and stores.

Goal: somebody else takes over when the active is gone, never before its server is dead, and nothing
changes where nothing has to. Method: faults by signals to known pids; the witness, which `running` asks
at the end of every test, judges overlap. Not covered here: networks (test_containers_etcd.py), the guard
alone (test_guard*.py).
"""

import json
import os
import signal
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from sidecar.demo.cluster import CLOCK, Cluster, DemoNode, free_ports, until
from sidecar.standin import set_faults, witness
from tests.harness.standin import edit
from tests.harness.stores import Consul, Etcd, Store
from tests.system.clusters import STORES, backend_section, outlived, running, section_of

TTL_MS = 2_000
PATIENT_TTL_MS = 8_000


@pytest.fixture(params=STORES)
def pair(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[Cluster]:
    """Two nodes on each store in turn, one active."""
    with running(tmp_path, backend_section(request, request.param, tmp_path), namespace) as cluster:
        yield cluster


@pytest.fixture
def local_pair(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[Cluster]:
    """Two nodes on the embedded store, one active, with a lease that outlasts a busy machine's pauses."""
    backend = backend_section(request, "local", tmp_path)
    with running(tmp_path, backend, namespace, ttl=f"{PATIENT_TTL_MS}ms") as cluster:
        yield cluster


@pytest.fixture(params=STORES)
def patient_pair(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[Cluster]:
    """Two nodes with a lease that outlasts the start of a sidecar on a busy machine."""
    backend = backend_section(request, request.param, tmp_path)
    with running(tmp_path, backend, namespace, ttl=f"{PATIENT_TTL_MS}ms") as cluster:
        yield cluster


@pytest.fixture(params=["etcd34", "consul"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def server_pid(node: DemoNode) -> int:
    """Return the pid of the server that writes the witness."""
    found = until("a server", node.server)
    return int(found[-1].pid)


def epochs(cluster: Cluster) -> list[int]:
    """Return the epochs of the active servers in the order in which they opened."""
    return [interval.epoch for interval in witness.active_intervals(cluster.records())]


def monitoring(node: DemoNode) -> bool:
    """Tell whether the node's standby server shows its splash text after the last start of the sidecar."""
    text = node.log.read_text()
    return "Monitoring Master Server Status" in text.rsplit("info started", 1)[-1]


def test_crash_of_the_active_node(pair: Cluster) -> None:
    before = pair.await_active()
    pair[before].crash()
    after = pair.await_active(before)

    pair[before].start()
    until("the crashed node to monitor", lambda: monitoring(pair[before]))
    assert pair.await_active() == after


def test_stopping_the_active_hands_over_at_once(patient_pair: Cluster) -> None:
    before = patient_pair.await_active()
    asked_at = CLOCK.now()

    assert patient_pair[before].terminate() == 0

    patient_pair.await_active(before)
    assert CLOCK.now() - asked_at < PATIENT_TTL_MS, "handed over by release, not by expiry"


def test_frozen_sidecar_loses_its_server_in_time(pair: Cluster) -> None:
    before = pair.await_active()
    pair[before].freeze_sidecar()
    after = pair.await_active(before)
    said = pair[before].log.read_text().count("Monitoring")

    pair[before].thaw()
    until("the frozen node to monitor again", lambda: pair[before].log.read_text().count("Monitoring") > said)
    assert pair.await_active() == after


def test_frozen_node_loses_its_server_in_time(pair: Cluster) -> None:
    before = pair.await_active()
    pid = server_pid(pair[before])
    pair[before].freeze()
    pair.await_active(before)
    assert not _runs(pid)

    pair[before].thaw()


def test_restarted_sidecar_adopts_the_running_server(patient_pair: Cluster) -> None:
    before = patient_pair.await_active()
    pid = server_pid(patient_pair[before])
    process = patient_pair[before].process
    assert process is not None
    process.kill()
    process.wait()
    patient_pair[before].start()
    until("adoption", lambda: _serves_adopted(patient_pair[before]))

    until(
        "the old lease to be over",
        lambda: outlived(patient_pair, before, PATIENT_TTL_MS),
        4 * PATIENT_TTL_MS,
    )
    assert server_pid(patient_pair[before]) == pid
    assert len(set(epochs(patient_pair))) == 1


def _serves_adopted(node: DemoNode) -> bool:
    """Tell whether it serves with the server that it found, by what it knew or by what it has asked since."""
    _, found, after = node.log.read_text().rpartition("adopted=True")
    return bool(found) and ("phase=serving" in after or "after=serving" in after)


@pytest.mark.parametrize("client_port", ["nonsense", "other"])
def test_bug_an_edit_of_server_xml_ended_the_server_at_the_next_start_of_the_sidecar(
    client_port: str, tmp_path: Path, namespace: str
) -> None:
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    settings = {"server": {"probes": {"alive": {"every": "100ms", "timeout": "1s", "failures": 2}}}}
    with running(tmp_path, backend, namespace, ttl=f"{PATIENT_TTL_MS}ms", settings=settings) as cluster:
        before = cluster.await_active()
        node, pid = cluster[before], server_pid(cluster[before])
        assert node.process is not None
        node.process.kill()
        node.process.wait()
        edit(
            node.home / "server.xml",
            clientPort=str(free_ports(1)[0]) if client_port == "other" else client_port,
        )
        node.start()
        until("adoption", lambda: "adopted=True" in node.log.read_text())
        if client_port == "nonsense":
            said = "clientPort: not a port: 'nonsense': give a number; the server that runs goes on"
            until("an alarm", lambda: said in node.log.read_text())
        until("its own server", lambda: _serves_adopted(node), 25_000)
        for_ms = int(witness.active_intervals(cluster.records())[-1].length_ms) + 1_000
        until("more of them", lambda: outlived(cluster, before, for_ms))
        assert server_pid(node) == pid
        assert len(set(epochs(cluster))) == 1


def test_bug_a_port_that_was_changed_between_two_starts_was_not_asked(tmp_path: Path, namespace: str) -> None:
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    settings = {"server": {"standby": "stopped"}}
    with running(tmp_path, backend, namespace, ttl=f"{PATIENT_TTL_MS}ms", settings=settings) as cluster:
        before = cluster.await_active()
        other = next(name for name in cluster.nodes if name != before)
        until("a candidate", lambda: _able(cluster))
        port = free_ports(1)[0]
        edit(cluster[other].home / "server.xml", clientPort=str(port))
        done = cluster.sidecar("switchover", "--yes")
        assert done.returncode == 0, done.stderr
        socket.create_connection(("127.0.0.1", port), 5).close()


@pytest.mark.parametrize("patient_pair", ["local"], indirect=True)
def test_keep_server_leaves_it_to_the_next_run(patient_pair: Cluster) -> None:
    before = patient_pair.await_active()
    node = patient_pair[before]
    node.terminate()
    other = patient_pair.await_active(before)
    patient_pair[other].terminate()
    node.start("--keep-server")
    patient_pair.await_active(other)
    pid = server_pid(node)

    assert node.process is not None
    node.process.terminate()
    assert node.process.wait(10) == 0
    assert psutil.pid_exists(pid)
    node.start()
    until("adoption", lambda: "adopted=True" in node.log.read_text())
    assert server_pid(node) == pid


@pytest.mark.parametrize("patient_pair", ["local"], indirect=True)
def test_restarted_sidecar_adopts_a_server_whose_launcher_is_gone(patient_pair: Cluster) -> None:
    """As a launcher that daemonises leaves it; that server must not look like a second supervisor's."""
    before = patient_pair.await_active()
    node = patient_pair[before]
    node.terminate()
    launcher = node.home / "ag_server_console"
    launcher.write_text(launcher.read_text().replace('"$@"', '"$@" &').replace("exit $?", "exit 0"))
    other = patient_pair.await_active(before)
    patient_pair[other].terminate()
    node.start()
    patient_pair.await_active(other)
    pid = server_pid(node)

    assert node.process is not None
    node.process.kill()
    node.process.wait()
    node.start()
    until("adoption", lambda: _serves_adopted(node))
    assert server_pid(node) == pid
    patient_pair[other].start()


def test_bug_a_server_that_hung_as_the_sidecar_was_restarted_had_the_whole_start_timeout(
    tmp_path: Path, namespace: str
) -> None:
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    alive = {"every": "100ms", "timeout": "1s", "failures": 2}
    settings = {"server": {"start_timeout": "10m", "probes": {"alive": alive}}}
    with running(tmp_path, backend, namespace, ttl=f"{PATIENT_TTL_MS}ms", settings=settings) as cluster:
        before = cluster.await_active()
        node, pid = cluster[before], server_pid(cluster[before])
        until("readiness", lambda: "after=serving" in node.log.read_text())
        assert node.process is not None
        node.process.send_signal(signal.SIGUSR1)
        assert node.process.wait(10) == 0
        os.kill(pid, signal.SIGSTOP)
        node.start()

        until("its end", lambda: not _runs(pid), 4 * PATIENT_TTL_MS)
        cluster.await_active()


def test_a_stopped_standby_is_left_with_a_role_that_does_no_harm(tmp_path: Path, namespace: str) -> None:
    """Else whatever starts it outside the lock, an init script at boot, makes a second active."""
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    settings = {"server": {"standby": "stopped"}}
    with running(tmp_path, backend, namespace, ttl=f"{PATIENT_TTL_MS}ms", settings=settings) as cluster:

        def role(name: str) -> int:
            text = (cluster[name].home / "server.xml").read_text()
            return int(text.partition("<clusterRole>")[2].partition("<")[0])

        before = cluster.await_active()
        other = next(name for name in cluster.nodes if name != before)
        until("the roles in the files", lambda: (role(before), role(other)) == (1, 2))
        until("a candidate", lambda: _able(cluster))
        done = cluster.sidecar("switchover", "--yes")
        assert done.returncode == 0, done.stderr
        until("the roles in the files", lambda: (role(before), role(other)) == (2, 1))


def _able(cluster: Cluster) -> bool:
    nodes = json.loads(cluster.sidecar("status", "-o", "json").stdout)["nodes"]
    return any(node["available"] for node in nodes)


def test_history_tells_each_change_by_its_cause(patient_pair: Cluster) -> None:
    """Whether the watch or the answer of the store comes first."""
    pair = patient_pair  # an expiry in between would be told as well
    names = [pair.await_active()]
    for _ in range(4):
        until("a candidate", lambda: _able(pair))
        done = pair.sidecar("switchover", "--yes")
        assert done.returncode == 0, done.stderr
        names.append(pair.await_active(names[-1]))

    def told() -> bool:
        entries = json.loads(pair.sidecar("history", "-n", "4", "-o", "json").stdout)
        found = [(e["from"], e["to"], e["cause"]) for e in reversed(entries)]
        return found == [(a, b, f"switchover to {b}") for a, b in pairwise(names)]

    until("the history to tell it", told)


def test_crashed_server_is_restarted_in_place(local_pair: Cluster) -> None:
    before = local_pair.await_active()
    pid = server_pid(local_pair[before])
    os.kill(pid, signal.SIGKILL)
    until("another run of the server", lambda: len(epochs(local_pair)) == 2)

    assert local_pair.await_active() == before
    assert len(set(epochs(local_pair))) == 1


def test_server_that_keeps_crashing_goes_to_the_other_node(tmp_path: Path, namespace: str) -> None:
    settings = {"server": {"restarts": {"attempts": 1}}}
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    with running(tmp_path, backend, namespace, settings=settings) as cluster:
        before = cluster.await_active()
        other = next(name for name in cluster.nodes if name != before)
        until("the other to monitor", lambda: monitoring(cluster[other]))
        set_faults(cluster[before].home, start_fails=True)
        os.kill(server_pid(cluster[before]), signal.SIGKILL)
        assert cluster.await_active(before) == other


@pytest.mark.parametrize("victim", ["guard", "keeper"])
def test_server_dies_with_guard_or_keeper(local_pair: Cluster, victim: str) -> None:
    before = local_pair.await_active()
    pid = server_pid(local_pair[before])
    tree = local_pair[before].tree()
    tree[0 if victim == "guard" else 1].kill()

    until("the server to die", lambda: not _runs(pid))
    until("somebody to be active again", lambda: len(epochs(local_pair)) >= 2 and local_pair.serving())


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_server_deaf_to_sigterm_is_killed(local_pair: Cluster) -> None:
    before = local_pair.await_active()
    set_faults(local_pair[before].home, deaf_to_sigterm=True)
    pid = server_pid(local_pair[before])

    assert local_pair[before].terminate() == 0

    assert not _runs(pid)
    local_pair.await_active(before)


def test_daemon_that_escaped_dies_too(local_pair: Cluster) -> None:
    before = local_pair.await_active()
    other = next(name for name in local_pair.nodes if name != before)
    set_faults(local_pair[other].home, escape=True)
    local_pair[before].terminate()
    local_pair.await_active(before)
    local_pair[before].start()
    until("the first to monitor again", lambda: monitoring(local_pair[before]))

    assert local_pair[other].terminate() == 0
    local_pair.await_active(other)  # the verdict at the end includes the daemon's lines


def test_standby_that_activates_itself_is_killed(tmp_path: Path, namespace: str) -> None:
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    settings = {"server": {"probes": {"alive": {"every": "100ms"}}}}
    made = Cluster(
        tmp_path / "c", backend, names=("node-a", "node-b"), ttl="2s", settings=settings, cluster=namespace
    )
    try:
        made.start()
        before = made.await_active()
        other = next(node for node in made if node.name != before)
        until("the other to monitor", lambda: monitoring(other))
        set_faults(other.home, self_activate=True)
        until("the alarm", lambda: "activated itself" in other.log.read_text())
        set_faults(other.home)
        until("its standby to run again", lambda: other.log.read_text().count("Monitoring Master") >= 2)
        rogue = [one for one in witness.active_intervals(made.records()) if one.node == other.name]
        assert rogue, "the witness saw it"
        last = rogue[-1].last_ns
        until("nothing more of it", lambda: witness.now_ns() - last > 500_000_000)
        assert [one for one in witness.active_intervals(made.records()) if one.node == other.name][
            -1
        ].last_ns == last
    finally:
        made.stop()


def test_backend_frozen_inside_the_lease_changes_nothing(
    store: Etcd | Consul, tmp_path: Path, namespace: str
) -> None:
    with running(tmp_path, section_of(store), namespace, ttl="10s") as cluster:
        before = cluster.await_active()
        store.freeze()
        frozen_at = CLOCK.now()
        until("2 s to pass", lambda: CLOCK.now() - frozen_at > 2_000)
        store.thaw()
        until("a lease's time to pass", lambda: CLOCK.now() - frozen_at > 11_000)
        assert cluster.await_active() == before
        assert len(epochs(cluster)) == 1


def test_backend_frozen_beyond_the_lease_stops_the_active_and_somebody_comes_back(
    store: Etcd | Consul, tmp_path: Path, namespace: str
) -> None:
    with running(tmp_path, section_of(store), namespace) as cluster:
        cluster.await_active()
        store.freeze()
        until("nobody to be active", lambda: cluster.serving() is None)
        store.thaw()
        cluster.await_active()


def test_wiped_store_is_refused(tmp_path: Path, namespace: str) -> None:
    with Etcd.run(tmp_path / "etcd") as etcd, running(tmp_path, section_of(etcd), namespace) as cluster:
        before = cluster.await_active()
        cluster[before].terminate()
        cluster.await_active(before)  # epoch 2 is known to the survivor
        etcd.wipe()
        until("nobody to be active", lambda: cluster.serving() is None)
        wiped_at = CLOCK.now()
        until("three leases to pass", lambda: CLOCK.now() - wiped_at > 3 * TTL_MS)
        assert cluster.serving() is None, "epoch 1 must not be believed again"
        status = cluster.status()
        assert "wiped or restored" in status["nodes"][0]["message"]

        done = cluster.sidecar("failover", "--raise-epoch", "--yes")
        assert done.returncode == 0, done.stderr
        cluster.await_active()
        assert epochs(cluster)[-1] > 2


def test_second_sidecar_of_a_node_is_refused(local_pair: Cluster) -> None:
    before = local_pair.await_active()
    done = local_pair[before]
    first = done.process
    done.start()
    assert done.process is not None
    assert done.process.wait(10) == 4
    done.process = first
    assert "another sidecar" in done.log.read_text()
    assert local_pair.await_active() == before


def test_nodes_with_other_boottimes(etcd34: Etcd, tmp_path: Path, namespace: str) -> None:
    """No BOOTTIME value means anything on another node: each has its own origin here."""
    made = Cluster(
        tmp_path / "c", section_of(etcd34), names=("node-a", "node-b"), ttl="2s", cluster=namespace
    )
    for number, node in enumerate(made):
        node.prefix = (
            "unshare",
            "--time",
            "--fork",
            "--kill-child=KILL",
            f"--boottime={100_000 * (number + 1)}",
        )
    try:
        made.start()
        before = made.await_active()
        made[before].crash()
        made.await_active(before)
        assert made.verdict() == []
    finally:
        made.stop()
