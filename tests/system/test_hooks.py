"""Hooks in whole nodes, and the examples of docs/hooks against the real thing.

Method: real sidecars and servers; the address moves between network namespaces, Consul and HAProxy are real.
Not covered: each way in which a hook can end (tests/runtime/test_hooks.py).
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from sidecar.demo.cluster import Cluster, until
from tests.harness.lan import ADDRESS, Lan
from tests.harness.process import Process, free_port, wait_until
from tests.harness.stores import Consul
from tests.harness.tools import ROOT, libraries, need
from tests.system.clusters import running

EXAMPLES = ROOT / "docs" / "hooks"
JOURNAL = """
import os, pathlib, sys, time
now = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
folder, hook, node = pathlib.Path(sys.argv[1]), sys.argv[2], os.environ["SIDECAR_NODE"]
begun = now()
print("hello from", hook)
if hook == "after_stop":
    time.sleep(0.3)
refuses = hook == "before_active" and (folder / f"veto-{node}").exists()
with (folder / "journal").open("a") as file:
    print(hook, node, os.environ["SIDECAR_EPOCH"], begun, now(), file=file)
sys.exit(refuses)
"""
HOOKS = ("before_active", "on_active", "after_stop", "on_standby")


# In a cluster


class Journal:
    """What the hooks of a cluster have written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        argv = [sys.executable, "-c", JOURNAL, str(folder)]
        self.settings = {"hooks": {hook: [*argv, hook] for hook in HOOKS}}

    def lines(self) -> list[tuple[str, str, int, int, int]]:
        file = self.folder / "journal"
        rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [(hook, node, int(epoch), int(begun), int(over)) for hook, node, epoch, begun, over in rows]

    def find(self, hook: str, node: str, epoch: int) -> tuple[int, int]:
        """Wait for a line; return when it began and was over."""

        def found() -> list[tuple[int, int]]:
            return [line[3:] for line in self.lines() if line[:3] == (hook, node, epoch)]

        times: list[tuple[int, int]] = until(f"{hook} of {node} at {epoch}", found)
        return times[-1]


def test_hooks_of_a_switchover_and_of_one_that_is_refused(tmp_path: Path, namespace: str) -> None:
    journal = Journal(tmp_path)
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    settings = journal.settings | {"server": {"restarts": {"backoff_max": "60s"}}}
    with running(tmp_path, backend, namespace, ttl="8s", settings=settings) as cluster:
        first = cluster.await_active()
        second = next(node.name for node in cluster if node.name != first)
        journal.find("on_active", first, 1)
        journal.find("on_standby", second, 0)
        until("the other able to take over", lambda: available(cluster, second))
        assert cluster.sidecar("switchover", "--to", second, "--yes").returncode == 0
        asked, _ = journal.find("before_active", second, 2)
        _, cleared = journal.find("after_stop", first, 1)
        assert cleared <= asked, "the lock was released before after_stop was over"
        journal.find("on_active", second, 2)
        journal.find("on_standby", first, 0)

        (tmp_path / f"veto-{first}").touch()
        until("the former able to take over", lambda: available(cluster, first))
        refused = cluster.sidecar("switchover", "--to", first, "--yes")
        assert refused.returncode == 1, refused
        assert "before_active refused: exit 1" in refused.stderr
        journal.find("after_stop", first, 3)
        journal.find("on_active", second, 4)
        newest = json.loads(cluster.sidecar("history", "-o", "json").stdout)[0]
        assert (newest["to"], newest["cause"]) == (second, "before_active refused: exit 1")
        until(
            f"{first} is told", lambda: ("on_standby", first) in {line[:2] for line in journal.lines()[-3:]}
        )

        log = cluster[first].log.read_text()
        assert "hook before_active| hello from before_active" in log
        assert 'hook_failed hook=before_active epoch=3 status=1 outcome="exit 1"' in log
    assert journal.lines()[-1][:3] == ("after_stop", second, 4), (
        "nothing runs after it at the end of a sidecar"
    )


def available(cluster: Cluster, name: str) -> bool:
    nodes = {node["node"]: node for node in cluster.status().get("nodes", ())}
    return name in nodes and nodes[name]["state"] == "monitoring"


# virtual-ip

UP, DOWN = ([str(EXAMPLES / "virtual-ip"), verb, f"{ADDRESS}/24", "eth0"] for verb in ("up", "down"))


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    with Lan.run(tmp_path) as lan:
        yield lan


def test_a_virtual_address_moves_with_the_active(lan: Lan) -> None:
    hooks = {"on_active": UP, "after_stop": DOWN, "on_standby": DOWN}
    a, b = (lan.add_node(name, {"hooks": hooks}) for name in "ab")
    a.start()
    until("a answers at the address", lambda: lan.answers() == "a")
    b.start()
    until("b is standby", lambda: "virtual-ip" in b.log.read_text() or "is down" in b.log.read_text())

    switching = lan.switchover("b")
    both = False
    while lan.answers() != "b":
        both = both or lan.holders() == "ab"
        assert switching.poll() in (None, 0)
    assert switching.wait(20) == 0
    assert not both
    assert lan.holders() == "b"
    assert lan.neighbour() == lan.hardware("b"), "gratuitous ARP has replaced what was known before"

    b.crash()  # nobody is left there to take the address away
    assert "b" in lan.holders()
    b.start()
    until("what the crash left behind is cleared", lambda: "b" not in lan.holders())
    lan.stop()
    assert lan.holders() == "", "after_stop takes it away at the end of a sidecar"


def test_bug_an_address_with_another_prefix_was_not_seen(lan: Lan) -> None:
    lan.plug("a")

    def run(argv: list[str]) -> int:
        return subprocess.run([*lan.inside("a"), *argv], check=False, stdout=subprocess.DEVNULL).returncode

    lan.ip("a", f"addr add {ADDRESS}/24 dev eth0", f"addr add {ADDRESS}/32 dev eth0")
    for _ in range(2):
        assert run(DOWN) == 0
        assert lan.holders() == ""
    lan.ip("a", f"addr add {ADDRESS}/32 dev eth0")
    assert run(UP) == 0
    assert lan.ip("a", "addr show dev eth0").count(f" {ADDRESS}/") == 1, "no second one beside it"


# The other examples


def example(name: str, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run an example as a hook would."""
    return subprocess.run(
        [str(EXAMPLES / name), *words],
        env={**os.environ, "SIDECAR_NODE": "a", "SIDECAR_EPOCH": "7", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_consul_finds_the_active_as_long_as_it_is_registered(consul: Consul) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):

        def passing() -> list[tuple[int, dict[str, str]]]:
            found = json.loads(consul.call("GET", "/v1/health/service/plant-7?passing"))
            return [(one["Service"]["Port"], one["Service"]["Meta"]) for one in found]

        for _ in range(2):
            done = example("consul-dns", "register", "plant-7", str(port), CONSUL_HTTP_ADDR=consul.url)
            assert done.returncode == 0, done
        wait_until(lambda: passing() == [(port, {"node": "a", "epoch": "7"})], "the catalog has it")
        for _ in range(2):
            done = example("consul-dns", "deregister", "plant-7", CONSUL_HTTP_ADDR=consul.url)
            assert done.returncode == 0, done
        wait_until(lambda: not passing(), "the catalog has it no more")


def test_consul_dns_says_what_is_wrong() -> None:
    gone = example("consul-dns", "register", "x", "1", CONSUL_HTTP_ADDR=f"127.0.0.1:{free_port()}")
    bad = example("consul-dns", "register", "x", "port")

    assert (gone.returncode, "Connection refused" in gone.stderr) == (1, True)
    assert (bad.returncode, bad.stderr.startswith("usage: ")) == (1, True)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """HAProxy before two servers that are disabled: its port, and its runtime API."""
    program = need("haproxy")
    port, api = free_port(), str(tmp_path / "admin.sock")
    servers = "\n".join(f"  server {name} 127.0.0.1:{free_port()} disabled" for name in ("a", "b"))
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"global\n  stats socket {api} mode 600 level admin\n"
        "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n"
        f"frontend clients\n  bind 127.0.0.1:{port}\n  default_backend plant\nbackend plant\n{servers}\n"
    )
    process = Process("haproxy", [program, "-db", "-f", config], tmp_path / "haproxy.log", libraries())
    process.start()
    try:
        process.wait_ready(lambda: Path(api).exists())
        yield port, api
    finally:
        process.stop()


def test_haproxy_sends_clients_where_it_is_told(haproxy: tuple[int, str], tmp_path: Path) -> None:
    port, api = haproxy
    config = (tmp_path / "haproxy.cfg").read_text()
    own = {name: int(config.split(f"server {name} 127.0.0.1:")[1].split()[0]) for name in ("a", "b")}

    def reached() -> str:
        with socket.create_connection(("127.0.0.1", port), 5) as client, suppress(OSError):
            return client.recv(10).decode()
        return ""

    with ExitStack() as stack:
        for name, number in own.items():
            stack.enter_context(greeter(name, number))
        assert reached() == ""
        for name, other in (("a", "b"), ("b", "a")):
            for _ in range(2):
                assert example("haproxy", "maint", f"plant/{other}", api).returncode == 0
                assert example("haproxy", "ready", f"plant/{name}", api).returncode == 0
            assert reached() == name
        assert example("haproxy", "drain", "plant/b", api).returncode == 0
        assert reached() == ""


def test_haproxy_says_what_is_wrong_and_tells_the_others(haproxy: tuple[int, str], tmp_path: Path) -> None:
    _, api = haproxy
    gone = example("haproxy", "ready", "plant/a", str(tmp_path / "none"), api)
    unknown = example("haproxy", "ready", "plant/z", api)

    assert (gone.returncode, f"plant/a is ready at {api}" in gone.stdout) == (1, True)
    assert (unknown.returncode, "no server z" in unknown.stderr) == (1, True)


class greeter:  # noqa: N801 - used as a function
    """A server that says its name to each client."""

    def __init__(self, name: str, port: int) -> None:
        code = f"import socket\nwith socket.create_server(('127.0.0.1', {port})) as s:\n print(flush=True)\n"
        code += f" while True:\n  with s.accept()[0] as c: c.sendall({name!r}.encode())"
        self._process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()
