"""Goal: somebody writes nonsense into the keys of a cluster that runs: its active stays as long as that is
safe, and every command says in one line what it cannot read.

Method: real sidecars on each store; every key gets several kinds of garbage, the lock last. The witness
judges. Not covered: nonsense by thousands (tests/core/test_garbage.py).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sidecar.demo.cluster import CLOCK, Cluster, until
from sidecar.standin import witness
from tests.contract.stores import ConsulStore, EtcdStore, LocalStore, Store
from tests.system.clusters import STORES, backend_section, running

TTL_MS = 4_000
GARBAGE = ("", "\0\x07", "{", '{"v": 99}', '{"v": 1, "epoch": -1, "node": 7}', "[" * 5_000)
READING: tuple[Sequence[str], ...] = (("status",), ("history",))
CHANGING: tuple[Sequence[str], ...] = (
    ("switchover", "--yes", "--timeout", "2s"),
    ("pause",),
    ("resume",),
    ("restart", "--yes", "--timeout", "2s"),
)


@pytest.fixture(params=STORES)
def scene(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[tuple[Cluster, Store]]:
    """A cluster, and a way to write behind its back."""
    backend = backend_section(request, request.param, tmp_path)
    store: Store = LocalStore(tmp_path / "store.db")
    if request.param == "consul":
        store = ConsulStore(request.getfixturevalue("consul"))
    elif request.param != "local":
        store = EtcdStore(request.getfixturevalue(request.param))
    with running(tmp_path, backend, namespace, ttl=f"{TTL_MS}ms") as cluster:
        yield cluster, store


def _epochs(cluster: Cluster) -> list[int]:
    return [one.epoch for one in witness.active_intervals(cluster.records())]


def _cleanly(cluster: Cluster, *words: str) -> int:
    """Run a command; return its status, after failing the test where it says more than it should."""
    done = cluster.sidecar(*words)
    said = done.stdout + done.stderr
    assert "internal error" not in said, said
    assert "Traceback" not in said, said
    if done.returncode:
        assert done.stderr.splitlines()[-1].startswith("sidecar: error: "), said
    return done.returncode


def test_nonsense_in_the_store_stops_nobody_until_it_is_in_the_lock(
    scene: tuple[Cluster, Store], namespace: str
) -> None:
    cluster, store = scene
    before = cluster.await_active()
    keys = ("epoch", "request", "settings", f"nodes/{before}", "nodes/node-x", "history/1", "lockx")
    began_at = CLOCK.now()
    for text in GARBAGE:
        for key in keys:
            store.put(namespace, key, text)
    for words in READING:
        assert _cleanly(cluster, *words) == 0
    until("two leases to pass", lambda: CLOCK.now() - began_at > 2 * TTL_MS)
    assert cluster.await_active() == before
    assert len(_epochs(cluster)) == 1
    assert _cleanly(cluster, *CHANGING[0]) == 4, "it may be paused, and nobody can read whether it is"

    store.put(namespace, "lock", "{")
    until("nobody to be active", lambda: cluster.serving() is None)
    ended_at = CLOCK.now()
    for words in (*READING, *CHANGING):
        _cleanly(cluster, *words)
    until("two leases to pass", lambda: CLOCK.now() - ended_at > 2 * TTL_MS)
    assert cluster.serving() is None, "both wait for somebody who can say what stood there"
    assert len(_epochs(cluster)) == 1
    for node in cluster:
        assert "internal" not in node.log.read_text()


@pytest.mark.parametrize("scene", ["consul"], indirect=True)
def test_an_unreadable_epoch_and_a_holder_that_is_gone_are_mended_by_raising_it(
    scene: tuple[Cluster, Store], namespace: str
) -> None:
    """On Consul, where only who watches sees a holder go, the command refused for ever: it did not watch."""
    cluster, store = scene
    before = cluster.await_active()
    store.put(namespace, "epoch", "{")
    cluster[before].crash()
    until("the epoch to be raised", lambda: _cleanly(cluster, "failover", "--raise-epoch", "--yes") == 0)
    cluster.await_active(before)
    assert _epochs(cluster)[-1] > 1
