"""Secrets are nowhere but where they were given.

Goal: no password, token or private key in what a running node and every command print and write, nor in what
is handed to other processes. Method: recognisable secrets are planted as file and as variable, a node runs on
a secured etcd with everything logged, is refused and serves; then a search of all of it for their text. Not
covered: the memory of the sidecar and a core dump of it, where they have to be.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.demo.cluster import Cluster, DemoNode, until
from tests.harness.certificates import replace
from tests.harness.secured import CLUSTER, SecuredEtcd
from tests.harness.stores import ETCD35

PLANTED = "planted-3b9f2c"
PASSWORD, WRONG, BY_VARIABLE = (f"{PLANTED}-{name}" for name in ("password", "wrong", "variable"))
COMMANDS = (
    ("status", "-o", "json"),
    ("history", "-o", "yaml"),
    ("validate", "-o", "json"),
    ("pause",),
    ("resume",),
    ("restart", "--yes"),
)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredEtcd]:
    with SecuredEtcd.run(tmp_path_factory.mktemp("secrets"), ETCD35) as vault:
        vault.store.set_password("aggregate-sidecar", PASSWORD)
        replace(vault.password_file, f"{WRONG}\n".encode())
        vault.password_file.chmod(0o644)
        yield vault


def test_secrets_are_nowhere_but_where_they_were_given(etcd: SecuredEtcd, tmp_path: Path) -> None:
    seen, probe = tmp_path / "probe-environment", tmp_path / "probe"
    probe.write_text(f"#!/bin/sh\nenv >> {seen}\n")
    probe.chmod(0o755)
    settings = {
        "log": {"level": "debug"},
        "server": {
            "probes": {"ready": {"tcp": [], "command": [str(probe)]}, "alive": {"command": [str(probe)]}}
        },
    }
    backend = {"backend": "etcd", "etcd": etcd.options}
    by_variable = {"SIDECAR_CONSUL__TOKEN": BY_VARIABLE}
    names = ("node-a",)
    cluster = Cluster(
        tmp_path / "cluster", backend, cluster=CLUSTER, names=names, ttl="4s", settings=settings
    )
    node = cluster["node-a"]
    node.environment = by_variable
    told = []
    try:
        cluster.start()
        until(
            "the wrong password to be refused", lambda: "wrong user name or password" in node.log.read_text()
        )
        told.append(said(cluster, "status"))
        replace(etcd.password_file, f"{PASSWORD}\n".encode())
        cluster.await_active()
        told += [said(cluster, *command) for command in COMMANDS]
        tree = processes(node)
        until("a probe", seen.exists)
    finally:
        cluster.stop()
        print(node.log.read_text()[-4_000:])  # pytest shows this where the test failed
    written = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    store = "\n".join(f"{key}: {value}" for key, value in etcd.store.keys("/").items())
    everything = written | tree | {"store": store.encode(), "commands": "\n".join(told).encode()}

    assert "every user of this machine may read it (mode 0644)" in node.log.read_text()
    assert {"guard environ", "keeper environ", "server environ", "sidecar cmdline"} <= tree.keys()
    assert b"SIDECAR_NODE" in tree["server environ"], "the search looks at the right thing"
    keys = etcd.client.key.read_text().splitlines()[1:-1]
    for secret in (PLANTED, *keys):
        assert [name for name, text in everything.items() if secret.encode() in text] == []


def said(cluster: Cluster, *command: str) -> str:
    done = cluster.sidecar(*command)
    return f"{command}: {done.stdout}{done.stderr}"


def processes(node: DemoNode) -> dict[str, bytes]:
    """Return command line and environment of each, but for the sidecar's own environment."""
    found = {}
    for part in ("sidecar", "guard", "keeper", "server"):
        for process in node.part(part):
            for name in ("cmdline", "environ")[: 1 if part == "sidecar" else 2]:
                found[f"{part} {name}"] = Path(f"/proc/{process.pid}/{name}").read_bytes()
    return found
