"""Goal: the API of a real sidecar says what is so, and stops saying it in time.

Method: two nodes with stand-in servers on a real etcd that can be frozen; what the API says is compared with
the command line, the processes and the witness. The tests share one cluster and run in their order.
Not covered: each answer by itself and the bounds (tests/api), floods (scripts/bench api).
"""

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.cluster import CLOCK, Cluster, DemoNode, until
from sidecar.standin import set_faults, witness
from tests.harness.certificates import Authority, replace
from tests.harness.stores import Etcd, unique
from tests.system.clusters import ApiNode, outlived, running, section_of

TOKEN = "correct-horse"
TTL_MS = 6_000
PATIENT_TTL_MS = 20_000  # a sidecar starts again within it, also on a machine that is busy
WITHIN_S = 40


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with Etcd.run(tmp_path_factory.mktemp("etcd")) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(etcd: Etcd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, each with an API on a port of its own, given by the environment."""
    folder = tmp_path_factory.mktemp("api")
    options: dict[str, Any] = {"ttl": f"{TTL_MS}ms", "node_type": ApiNode}
    environment = {"SIDECAR_API__TOKEN": TOKEN}
    with running(folder, section_of(etcd), unique("api"), environment=environment, **options) as made:
        yield made


def ask(node: DemoNode, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    """Return status and JSON; (0, None) where nobody listens yet."""
    assert isinstance(node, ApiNode)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with closing(http.client.HTTPConnection("127.0.0.1", node.port, timeout=WITHIN_S)) as connection:
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        except ConnectionRefusedError:
            return 0, None
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def both(cluster: Cluster) -> tuple[DemoNode, DemoNode]:
    """Return the active and the other one, both settled."""

    def settled() -> tuple[DemoNode, DemoNode] | None:
        for active, other in permutations(cluster):
            if ask(active, "/active")[0] == 200 and ask(other, "/ready")[0] == 200:
                return active, other
        return None

    found: tuple[DemoNode, DemoNode] = until("one to serve, one to be ready", settled, WITHIN_S * 1_000)
    return found


def test_each_node_knows_its_role(cluster: Cluster) -> None:
    active, standby = both(cluster)

    assert [ask(active, path)[0] for path in ("/active", "/standby", "/live", "/ready")] == [
        200,
        503,
        200,
        200,
    ]
    assert [ask(standby, path)[0] for path in ("/active", "/standby", "/live", "/ready")] == [
        503,
        200,
        200,
        200,
    ]


def test_status_and_history_are_those_of_the_commands(cluster: Cluster) -> None:
    _, standby = both(cluster)
    until("the history", lambda: ask(standby, "/history")[1], WITHIN_S * 1_000)
    by_command = cluster.status()
    _, by_http = ask(standby, "/status")

    assert {name: by_http[name] for name in ("cluster", "backend", "active", "epoch", "paused")} == {
        name: by_command[name] for name in ("cluster", "backend", "active", "epoch", "paused")
    }
    assert [node.keys() for node in by_http["nodes"]] == [node.keys() for node in by_command["nodes"]]
    assert {node["node"]: node["api"] for node in by_command["nodes"]} == {
        node.name: f"http://127.0.0.1:{node.port}"  # type: ignore[attr-defined]
        for node in cluster
    }
    assert ask(standby, "/history")[1] == json.loads(cluster.sidecar("history", "-o", "json").stdout)


def test_a_switchover_by_http(cluster: Cluster) -> None:
    active, standby = both(cluster)
    status, answer = ask(active, "/switchover", "POST", {"to": standby.name, "timeout": "30s"})

    assert (status, answer["outcome"], answer["node"]) == (200, "done", standby.name), answer
    assert cluster.await_active(active.name) == standby.name
    assert both(cluster)[0] is standby
    until("the new entry", lambda: ask(active, "/history")[1][0]["to"] == standby.name, WITHIN_S * 1_000)


def test_active_ends_at_the_deadline_while_the_server_is_still_being_stopped(
    cluster: Cluster, etcd: Etcd
) -> None:
    """The store stands still, and the server is deaf: the answer changes before the guard has to kill."""
    active, _ = both(cluster)
    set_faults(active.home, deaf_to_sigterm=True)
    etcd.freeze()
    try:
        frozen_at = CLOCK.now()
        until("the answer to change", lambda: ask(active, "/active")[0] == 503, WITHIN_S * 1_000)
        answered_at = CLOCK.now()
        assert answered_at - frozen_at < TTL_MS, "it came in time"
        pids = {process.pid for process in active.server()}
        assert pids, "its server still lives"
        status, found = ask(active, "/status")
        assert status == 200, "a stuck store holds up nothing"
        assert found["view_age_s"] > 0
        until(
            "the guard to have killed it",  # a standby may have been started in its place since
            lambda: pids.isdisjoint(process.pid for process in active.server()),
            WITHIN_S * 1_000,
        )
        until("the store's silence to show", lambda: ask(active, "/ready")[0] == 503, WITHIN_S * 1_000)
        assert ask(active, "/live")[0] == 200
    finally:
        set_faults(active.home)
        etcd.thaw()
    both(cluster)


@pytest.mark.parametrize("trouble", ["port", "certificate", "missing certificate", "token"])
def test_bug_what_was_wrong_with_the_api_ended_a_server_that_was_well(
    trouble: str, tmp_path: Path, namespace: str
) -> None:
    """Between two lives of the sidecar; it ended with 2 at each start, until nobody had renewed the lease."""
    backend = {"backend": "local", "local": {"path": str(tmp_path / "store.db")}}
    options: dict[str, Any] = {"ttl": f"{PATIENT_TTL_MS}ms", "node_type": ApiNode}
    with running(tmp_path, backend, namespace, **options) as cluster, ExitStack() as stack:
        node = cluster[cluster.await_active()]
        assert isinstance(node, ApiNode)
        assert node.process is not None
        until("the active to answer", lambda: ask(node, "/active")[0] == 200)
        pids = {process.pid for process in node.server()}
        tls, token = Authority().issue(tmp_path / "tls"), tmp_path / "token"  # before the lease counts
        node.process.kill()
        node.process.wait()
        cert = tmp_path / "cert.pem"
        match trouble:
            case "port":
                taken = stack.enter_context(socket.create_server(("127.0.0.1", node.port)))
                said = "address already in use"
            case "token":
                node.api, said = {"token_file": str(token)}, f"api.token_file: {token}: no such file"
            case _:
                node.api, said = (
                    {"tls_cert_file": str(cert), "tls_key_file": str(tls.key)},
                    "api.tls_cert_file",
                )
                if trouble == "certificate":
                    cert.write_text("garbage\n")
        node.start()
        until("an alarm", lambda: said in node.log.read_text())
        for_ms = int(witness.active_intervals(cluster.records())[-1].length_ms) + PATIENT_TTL_MS
        until("the old lease to be over", lambda: outlived(cluster, node.name, for_ms), 4 * PATIENT_TTL_MS)
        assert pids == {process.pid for process in node.server()}
        assert node.process.poll() is None

        if trouble == "token":
            assert ask(node, "/active")[0] == 200
            assert ask(node, "/pause", "POST")[0] == 403
        elif trouble == "port":
            taken.close()
            until("the API", lambda: ask(node, "/active")[0] == 200, WITHIN_S * 1_000)
        else:
            replace(cert, tls.cert.read_bytes())
            until("the API", lambda: "api: begins at https://" in node.log.read_text(), WITHIN_S * 1_000)


def test_a_port_that_is_taken_is_an_error_at_the_start(cluster: Cluster) -> None:
    active, _ = both(cluster)
    assert isinstance(active, ApiNode)
    text = active.config.read_text()
    rival = Path(active.folder, "rival.yml")
    rival.write_text(text.replace(str(active.run_dir), f"{active.run_dir}2"))
    command = [sys.executable, "-P", "-m", "sidecar", "run", "-c", str(rival)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 2
    assert re.fullmatch(
        rf"sidecar: error: api\.listen: 127\.0\.0\.1:{active.port}: .*address already in use.*\n",
        ended.stderr,
    ), ended.stderr
