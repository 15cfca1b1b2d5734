"""Clusters of real sidecars for system tests: where they keep their lock, and how they are made."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from sidecar.demo.cluster import Cluster, DemoNode
from sidecar.standin import witness
from tests.harness.process import free_port
from tests.harness.stores import Consul, Etcd, Store

STORES = ("local", "etcd34", "consul")


class ApiNode(DemoNode):
    """A node with an HTTP API on a port of its own."""

    port = 0
    api: Mapping[str, Any] = MappingProxyType({})  # more of the section

    def write_config(self) -> None:
        self.port = self.port or free_port()
        self.settings["api"] = {"listen": f"127.0.0.1:{self.port}", **self.api}
        super().write_config()


def section_of(store: Store) -> dict[str, Any]:
    """Return the part of a configuration that leads to *store*."""
    if isinstance(store, Etcd):
        return {"backend": "etcd", "etcd": {"endpoints": [store.url]}}
    assert isinstance(store, Consul)
    return {"backend": "consul", "consul": {"address": store.url}}


def backend_section(request: pytest.FixtureRequest, name: str, folder: Path) -> dict[str, Any]:
    """Return the part of a configuration that leads to the shared store called *name*."""
    if name == "local":
        return {"backend": "local", "local": {"path": str(folder / "store.db")}}
    return section_of(request.getfixturevalue(name))


@contextmanager
def running(
    folder: Path,
    backend: dict[str, Any],
    cluster: str,
    *,
    start: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[Cluster]:
    """Run a cluster of two nodes; show the logs where the test fails; the witness judges at the end.

    *start* are options of ``sidecar run``, *environment* is added to each node's, the rest is of `Cluster`.
    """
    options = {"names": ("node-a", "node-b"), "ttl": "2s", **options}
    made = Cluster(folder / "cluster", backend, cluster=cluster, **options)
    for node in made:
        node.environment = environment or node.environment
    try:
        made.start(*start)
        made.await_active()
        yield made
    finally:
        made.stop()
        for node in made:  # pytest shows this where the test failed
            print(f"--- {node.name}\n{node.log.read_text()[-4_000:]}")
    assert made.verdict() == []


def outlived(cluster: Cluster, name: str, for_ms: int) -> bool:
    """Tell whether the server of *name* is active, and has been for longer than that."""
    last = witness.active_intervals(cluster.records())[-1]
    return last.node == name and last.length_ms > for_ms
