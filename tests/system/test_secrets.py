"""Secrets are nowhere but where they were given.

Goal: no password, token or private key in what a running node and every command print and write, nor in what
is handed to other processes. Method: recognisable secrets are planted as file and as variable, a node runs on
a secured etcd or Consul with everything logged, is refused and serves, by commands and by its API; then a
search of all of it for their text. Not covered: the memory of the sidecar and a core dump of it, where they
have to be.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from sidecar.demo.cluster import Cluster, DemoNode, until
from tests.harness.certificates import replace
from tests.harness.process import free_port
from tests.harness.secured import CLUSTER, Secured, SecuredConsul, SecuredEtcd
from tests.harness.stores import ETCD35, Store

PLANTED = "planted-3b9f2c"
PASSWORD, WRONG, BY_VARIABLE, API = (f"{PLANTED}-{name}" for name in ("password", "wrong", "variable", "api"))
COMMANDS = (
    ("status", "-o", "json"),
    ("history", "-o", "yaml"),
    ("validate", "-o", "json"),
    ("doctor",),
    ("pause",),
    ("resume",),
    ("restart", "--yes"),
)
PAGES = ("/", "/status", "/history", "/timing", "/metrics", "/openapi.json", "/ready")

ANSWERS = dict.fromkeys(PAGES, "200") | {"a command": "200", "a command with a wrong token": "401"}


class Vault(NamedTuple):
    """A store that is secured, and the one secret of it that is given by a file."""

    secured: Secured
    store: Store
    backend: dict[str, Any]
    secret_file: Path
    secret: str
    refusal: str  # what is said of a wrong one


@contextmanager
def etcd(folder: Path) -> Iterator[Vault]:
    with SecuredEtcd.run(folder, ETCD35) as made:
        made.store.set_password("aggregate-sidecar", PASSWORD)
        backend = {"backend": "etcd", "etcd": made.options}
        yield Vault(made, made.store, backend, made.password_file, PASSWORD, "wrong user name or password")


@contextmanager
def consul(folder: Path) -> Iterator[Vault]:
    with SecuredConsul.run(folder) as made:
        backend = {"backend": "consul", "consul": made.options}
        token = made.token_file.read_text().strip()
        yield Vault(made, made.store, backend, made.token_file, token, "ACL not found")


@pytest.mark.parametrize("kind", [etcd, consul])
def test_secrets_are_nowhere_but_where_they_were_given(kind: Any, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with kind(store) as vault:
        everything = lived(vault, tmp_path / "node")

    log = everything["log"].decode()
    assert "every user of this machine may read it (mode 0644)" in log
    assert {"guard environ", "keeper environ", "server environ", "sidecar cmdline"} <= everything.keys()
    assert b"SIDECAR_NODE" in everything["server environ"], "the search looks at the right thing"
    answers = {path: text.split()[0].decode() for path, text in everything.items() if path in ANSWERS}
    assert answers == ANSWERS
    keys = vault.secured.client.key.read_text().splitlines()[1:-1]
    for secret in (PLANTED, vault.secret, *keys):
        assert [name for name, text in everything.items() if secret.encode() in text] == []


def lived(vault: Vault, folder: Path) -> dict[str, bytes]:
    """Let a node be refused and then serve; return all that it and its commands have shown and written."""
    folder.mkdir()
    seen, probe, api = folder / "probe-environment", folder / "probe", folder.parent / "api-token"
    probe.write_text(f"#!/bin/sh\nenv >> {seen}\n")
    probe.chmod(0o755)
    api.write_text(f"{API}\n")
    api.chmod(0o600)
    replace(vault.secret_file, f"{WRONG}\n".encode())
    vault.secret_file.chmod(0o644)
    listen = f"127.0.0.1:{free_port()}"
    settings = {
        "api": {"listen": listen, "token_file": str(api)},
        "log": {"level": "debug"},
        "server": {
            "probes": {"ready": {"tcp": [], "command": [str(probe)]}, "alive": {"command": [str(probe)]}}
        },
    }
    cluster = Cluster(
        folder / "cluster", vault.backend, cluster=CLUSTER, names=("node-a",), ttl="4s", settings=settings
    )
    node = cluster["node-a"]
    other = "ETCD__PASSWORD" if "consul" in vault.backend else "CONSUL__TOKEN"
    node.environment = {f"SIDECAR_{other}": BY_VARIABLE}
    told = []
    try:
        cluster.start()
        until("the wrong secret to be refused", lambda: vault.refusal in node.log.read_text())
        told.append(said(cluster, "status"))
        replace(vault.secret_file, f"{vault.secret}\n".encode())
        cluster.await_active()
        told += [said(cluster, *command) for command in COMMANDS]
        shown = {path: asked(f"http://{listen}{path}") for path in PAGES}
        shown["a command"] = asked(f"http://{listen}/pause", API)
        shown["a command with a wrong token"] = asked(f"http://{listen}/resume", WRONG)
        told.append(said(cluster, "status"))
        tree = processes(node)
        until("a probe", seen.exists)
    finally:
        cluster.stop()
        print(node.log.read_text()[-4_000:])  # pytest shows this where the test failed
    written = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    keys = vault.store.keys("/" if "etcd" in vault.backend else "")  # type: ignore[attr-defined]
    return (
        written
        | tree
        | shown
        | {"store": json.dumps(keys).encode(), "commands": "\n".join(told).encode()}
        | {"log": node.log.read_bytes()}
    )


def asked(url: str, token: str | None = None) -> bytes:
    """Return what is answered, headers and all; a POST where there is a *token*."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} if token else {}
    request = Request(url, data=b"{}" if token else None, headers=headers)
    try:
        with urlopen(request, timeout=20) as answer:
            return bytes(f"{answer.status} {answer.headers}".encode() + answer.read())
    except HTTPError as error:
        return bytes(f"{error.code} {error.headers}".encode() + error.read())


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
