"""The store of the Compose cluster forms, and survives what the nodes above it are tested under.

Goal: when a test over containers fails, this file tells whether the store or the sidecar is to blame.
Method: three etcd containers, one fault each, the same write-and-read-back check after every one.
Without a Docker engine it is skipped (in CI it fails); tests/test_harness.py does the like natively.
"""

from collections.abc import Iterator
from subprocess import CalledProcessError

import pytest

from tests.harness.containers import Compose, need_engine
from tests.harness.process import wait_until

MEMBERS = ("etcd1", "etcd2", "etcd3")

pytestmark = pytest.mark.timeout(600)  # the first test may build the images


@pytest.fixture(scope="module")
def store() -> Iterator[Compose]:
    need_engine()
    with Compose.run(["etcd"], MEMBERS) as containers:
        containers.etcd_leader()
        yield containers


def others(member: str) -> list[str]:
    return [one for one in MEMBERS if one != member]


def serves(store: Compose, member: str, value: str) -> bool:
    """Tell whether *member* takes part: a write through it, read back linearizably."""
    try:
        store.etcdctl(member, "put", "check", value)
        return bool(store.etcdctl(member, "get", "check")["count"] == 1)
    except CalledProcessError:
        return False


def test_a_partitioned_leader_is_replaced_and_comes_back(store: Compose) -> None:
    old = store.etcd_leader()
    store.disconnect(old)
    new = store.etcd_leader(others(old))

    wait_until(lambda: serves(store, new, "without the old one"), f"{new} serves")
    assert not serves(store, old, "in the minority")

    store.connect(old)
    wait_until(lambda: serves(store, old, "together again"), f"{old} takes part again")


def test_a_paused_leader_is_replaced_and_comes_back(store: Compose) -> None:
    old = store.etcd_leader()
    store.pause(old)
    new = store.etcd_leader(others(old))

    wait_until(lambda: serves(store, new, "without the old one"), f"{new} serves")

    store.unpause(old)
    wait_until(lambda: serves(store, old, "together again"), f"{old} takes part again")


def test_a_killed_member_comes_back_with_its_data(store: Compose) -> None:
    victim = others(store.etcd_leader())[0]
    store.kill(victim)

    assert store.state(victim) == "exited"

    store.start(victim)
    wait_until(lambda: serves(store, victim, "together again"), f"{victim} takes part again")


def test_a_full_restart_keeps_what_was_written(store: Compose) -> None:
    store.etcdctl("etcd1", "put", "kept", "1")
    for member in MEMBERS:
        store.kill(member)
    for member in MEMBERS:
        store.start(member)
    leader = store.etcd_leader()

    assert store.etcdctl(leader, "get", "kept")["count"] == 1
