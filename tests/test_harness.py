"""The harness keeps its promises: stores serve when it says so, faults do what their verbs say.

Not covered: containers (tests/system/test_containers_etcd.py).
"""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.process import unavailable, wait_until
from tests.harness.proxy import Proxy
from tests.harness.stores import (
    ETCD34,
    ETCD35,
    Consul,
    Etcd,
    EtcdCluster,
    Store,
    Tls,
    acl,
    heal_all,
    tool,
)

MakeProxy = Callable[[Store], Proxy]


@pytest.fixture(params=["etcd34", "etcd35", "consul"])
def store(request: pytest.FixtureRequest) -> Etcd | Consul:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Etcd | Consul)
    return found


def test_a_store_keeps_its_data_through_kill_and_restart(store: Etcd | Consul, namespace: str) -> None:
    store.put(f"{namespace}/a", "1")
    store.kill()
    store.restart()

    assert store.keys(f"{namespace}/") == {f"{namespace}/a": "1"}


def test_a_frozen_store_does_not_answer_and_a_thawed_one_does(store: Etcd | Consul) -> None:
    store.freeze()
    with socket.create_connection(store.host_port, 0.2) as line:
        line.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            line.recv(1)
    store.heal()

    assert store.ready()


def test_every_store_that_runs_is_healed(tmp_path: Path) -> None:
    with Etcd.run(tmp_path) as own:
        own.freeze()
        heal_all()
        assert own.ready()
        own.kill()
        heal_all()
        assert own.ready()
    heal_all()
    assert not own.process.running()


def test_wipe_loses_everything(store: Etcd | Consul, namespace: str) -> None:
    store.put(f"{namespace}/a", "1")
    store.wipe()

    assert store.get(f"{namespace}/a") is None


@pytest.mark.parametrize("version", [ETCD34, ETCD35])
def test_etcd_with_tls_and_users(tmp_path: Path, version: str) -> None:
    with Etcd.run(tmp_path, version, tls=Tls.make(tmp_path / "tls")) as etcd:
        etcd.enable_auth("operator")
        etcd.put("a", "1")

        assert etcd.get("a") == "1"


def test_consul_with_tls_and_tokens(tmp_path: Path) -> None:
    with Consul.run(tmp_path, tls=Tls.make(tmp_path / "tls"), extra=acl()) as consul:
        consul.put("a", "1")

        assert consul.get("a") == "1"


def test_a_cluster_survives_the_loss_of_its_leader(etcd_cluster: EtcdCluster) -> None:
    old = etcd_cluster.leader()
    etcd_cluster.kill(old)
    new = etcd_cluster.leader()
    etcd_cluster.members[new].put("a", "1")
    etcd_cluster.restart(old)

    assert new != old
    assert etcd_cluster.members[old].get("a") == "1"


def test_a_cluster_hands_leadership_over(etcd_cluster: EtcdCluster) -> None:
    to = etcd_cluster.followers()[0]
    etcd_cluster.move_leader(to)

    assert etcd_cluster.leader() == to


def test_a_cluster_elects_around_a_frozen_leader(etcd_cluster: EtcdCluster) -> None:
    old = etcd_cluster.leader()
    etcd_cluster.freeze(old)

    assert etcd_cluster.leader() != old


def talk(proxy: Proxy, timeout_s: float = 20.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout_s)


def ask(line: socket.socket, key: str, value: str = "") -> str:
    """Do one PUT (or GET, without a value) over a connection that stays open."""
    method = "PUT" if value else "GET"
    head = f"{method} /v1/kv/{key}?raw HTTP/1.1\r\nHost: x\r\nContent-Length: {len(value)}"
    line.sendall(f"{head}\r\n\r\n{value}".encode())
    return line.recv(65_536).decode()


def test_proxy_loses_replies_but_not_requests(proxy: MakeProxy, consul: Consul, namespace: str) -> None:
    between = proxy(consul)
    with talk(between) as line:
        assert "200 OK" in ask(line, namespace, "1")
        line.settimeout(0.3)
        between.drop_replies()
        with pytest.raises(TimeoutError):
            ask(line, namespace, "2")
        wait_until(lambda: consul.get(namespace) == "2", "the write arrives")
        between.heal()

        line.settimeout(20)
        with suppress(ConnectionResetError):
            assert line.recv(1) == b""


def test_proxy_loses_replies_from_the_request_on_that_was_named(
    proxy: MakeProxy, consul: Consul, namespace: str
) -> None:
    between = proxy(consul)
    between.drop_replies(after=b"second")
    with talk(between) as line:
        assert "200 OK" in ask(line, namespace, "first")
        line.settimeout(0.3)
        for value in ("second", "third"):
            with pytest.raises(TimeoutError):
                ask(line, namespace, value)
    wait_until(lambda: consul.get(namespace) == "third", "the writes arrive")


def test_proxy_holds_bytes_in_a_black_hole_and_delivers_them_late(
    proxy: MakeProxy, consul: Consul, namespace: str
) -> None:
    between = proxy(consul)
    with talk(between) as line, talk(between):
        ask(line, namespace, "1")
        line.settimeout(0.3)
        between.blackhole()
        with pytest.raises(TimeoutError):
            ask(line, namespace, "2")
        assert consul.get(namespace) == "1"
        between.heal()
        wait_until(lambda: consul.get(namespace) == "2", "the late write arrives")


def test_proxy_refuses_and_accepts_again(proxy: MakeProxy, consul: Consul, namespace: str) -> None:
    between = proxy(consul)
    with talk(between) as line:
        ask(line, namespace, "1")
        between.refuse()
        with suppress(ConnectionResetError):
            assert line.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            talk(between)
        between.heal()
    with talk(between) as line:
        assert "200 OK" in ask(line, namespace)


def test_proxy_cuts_and_delays(proxy: MakeProxy, consul: Consul, namespace: str) -> None:
    between = proxy(consul)
    with talk(between) as line:
        ask(line, namespace, "1")
        between.cut()
        with suppress(ConnectionResetError):
            assert line.recv(1) == b""
    between.delay(100)
    with talk(between) as line:
        before = time.monotonic()
        ask(line, namespace)

        assert time.monotonic() - before >= 0.2


@pytest.mark.parametrize("name", ["etcd-3.4", "etcdctl-3.4", "etcd-3.5", "etcdctl-3.5", "consul"])
def test_scripts_setup_brings_the_tool(name: str) -> None:
    if tool(name) is None:
        unavailable(name)
