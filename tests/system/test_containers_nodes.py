"""The whole Compose cluster: three etcd, three nodes, faults of whole machines and of the network.

Goal: never two servers active (the witness in the shared volume is the judge), somebody active again
after each fault, and no needless failover. Method: one fault per test on the node or store in charge.

Not covered: exact failover times (scripts/bench), and faults of single processes, which
tests/system/test_nodes.py has without containers. Needs a Docker engine; without one it is skipped,
in CI it fails.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest

from sidecar.standin import witness
from sidecar.standin.witness import Record
from tests.harness.containers import Compose, need_engine
from tests.harness.process import wait_until

MEMBERS = ("etcd1", "etcd2", "etcd3")
NODES = ("node-a", "node-b", "node-c")
WITNESS = "/var/lib/witness/witness"
TTL_S = 10  # the default, compose/config/sidecar.yml leaves it
SOON_S = 40.0  # generous: two cores carry six containers and perhaps another worker
THAWED_MS_MAX = 3_000.0  # measured: one or two ticks of 20 ms; the machine may be busy

# What a run wrote from a line on, where the test that froze it has judged that already.
_excused: dict[str, int] = {}

pytestmark = pytest.mark.timeout(900)  # the first test may build the images


@pytest.fixture(scope="module")
def plant() -> Iterator[Compose]:
    need_engine()
    with Compose.run(["etcd", "sidecar"], (*MEMBERS, *NODES)) as containers:
        try:
            settled(containers)
            yield containers
        except TimeoutError as error:
            error.add_note("\n".join(containers.logs(node) for node in NODES))
            raise


@pytest.fixture(autouse=True)
def _judge(plant: Compose, tmp_path: Path) -> Iterator[None]:
    """Start each test with the whole cluster at rest, and let the witness judge it at the end."""
    settled(plant)
    yield
    settled(plant)
    records = [r for r in written(plant, tmp_path) if r.line < _excused.get(r.run, r.line + 1)]
    assert not witness.verdict(records)


def status(plant: Compose, via: str) -> dict[str, Any]:
    """Return what `sidecar status` says inside *via*, and nothing when it cannot tell."""
    try:
        return dict(json.loads(plant.exec(via, "sidecar", "status", "-o", "json")))
    except CalledProcessError:
        return {}


def roles(plant: Compose, via: str) -> dict[str, tuple[str, str]]:
    """Return (role, state) of every node that *via* knows of."""
    return {n["node"]: (n["role"], n["state"]) for n in status(plant, via).get("nodes", [])}


def settled(plant: Compose) -> None:
    """Wait until one node runs as active and the two others watch it."""
    wanted = [("active", "running")] + [("standby", "monitoring")] * 2
    wait_until(lambda: sorted(roles(plant, "node-a").values()) == wanted, "one active, two watching", SOON_S)


def active(plant: Compose, via: str = "node-a") -> str:
    return str(status(plant, via)["active"])


def another(node: str) -> str:
    return next(one for one in NODES if one != node)


def written(plant: Compose, tmp_path: Path) -> list[Record]:
    """Return what the witness has recorded since the containers were started."""
    copy = tmp_path / "witness"
    copy.write_text(plant.exec("node-a", "cat", WITNESS))
    return witness.read(copy)


def writes(plant: Compose) -> bool:
    """Tell whether an active server writes to the shared database, as each does every 20 ms."""
    look = f"wc -c <{WITNESS}; sleep 1; wc -c <{WITNESS}"
    before, after = plant.exec("node-a", "sh", "-c", look).split()
    return before != after


def await_takeover(plant: Compose, old: str, epoch: int) -> None:
    """Wait until another node than *old* runs as active, in a later epoch."""

    def taken_over() -> bool:
        seen = status(plant, another(old))
        who = seen.get("active")
        running = any(n["node"] == who and n["state"] == "running" for n in seen.get("nodes", []))
        return who not in (None, old) and running and seen["epoch"] > epoch

    wait_until(taken_over, f"another node than {old} is active", SOON_S)


def test_the_kernel_enforces_the_deadline_inside_containers(plant: Compose) -> None:
    nodes = status(plant, "node-a")["nodes"]

    assert {node["enforcement"] for node in nodes} == {"kernel"}


@pytest.mark.parametrize(
    ("fault", "cure"),
    [("disconnect", "connect"), ("kill", "start"), ("stop", "start")],
)
def test_loss_of_the_active_node_is_taken_over(plant: Compose, fault: str, cure: str) -> None:
    before = status(plant, "node-a")
    old = before["active"]
    getattr(plant, fault)(old)
    try:
        await_takeover(plant, old, before["epoch"])
    finally:
        getattr(plant, cure)(old)


def test_a_frozen_node_dies_as_soon_as_it_is_thawed(plant: Compose, tmp_path: Path) -> None:
    """The one case the host cannot cover, here as `docker pause`: see docs/guarantees.md.

    A task that cgroup v1's freezer holds does not even take SIGKILL. The deadline passes, another node
    takes over, and what the kernel owes the old server it gets when it is thawed. Until then it may
    write a few lines: that is what the epoch in each of them is for.
    """
    before = status(plant, "node-a")
    old = before["active"]
    plant.pause(old)
    try:
        await_takeover(plant, old, before["epoch"])
    finally:
        plant.unpause(old)
    settled(plant)
    records = written(plant, tmp_path)
    new = next(r for r in records if r.kind == "open" and r.epoch > before["epoch"])
    late = [r for r in records if r.epoch == before["epoch"] and r.line > new.line]
    _excused.update({record.run: new.line for record in late})

    lived_ms = (late[-1].at_ns - late[0].at_ns) / 1e6 if late else 0.0
    assert lived_ms < THAWED_MS_MAX


def test_a_partition_of_the_store_leader_changes_nothing(plant: Compose) -> None:
    before = status(plant, "node-a")
    leader = plant.etcd_leader(MEMBERS)
    plant.disconnect(leader)
    plant.etcd_leader([member for member in MEMBERS if member != leader])
    plant.connect(leader)
    settled(plant)

    assert status(plant, "node-a")["epoch"] == before["epoch"]


def test_a_lost_store_stops_the_active_and_its_return_starts_one(plant: Compose) -> None:
    before = status(plant, "node-a")
    for member in MEMBERS:
        plant.pause(member)
    try:
        assert writes(plant), "the lease has not run out yet"
        wait_until(lambda: not writes(plant), "no server is active without a store", TTL_S + 5)
    finally:
        for member in MEMBERS:
            plant.unpause(member)
    settled(plant)

    assert status(plant, "node-a")["epoch"] > before["epoch"]


def test_a_switchover_between_containers(plant: Compose) -> None:
    to = another(active(plant))
    plant.exec("node-a", "sidecar", "switchover", "--to", to, "--yes")

    assert active(plant) == to
