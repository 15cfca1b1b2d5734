"""``sidecar exec``: a command under the lock, on each store; the witness judges.

Not covered: what `run` shares with it (test_nodes.py).
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sidecar.demo.cluster import CLOCK, FRESH_NS, until
from sidecar.standin import witness, worker_command
from tests.harness.stores import Consul, Etcd
from tests.system.clusters import STORES

QUICK = {"SIDECAR_SERVER__RESTARTS__BACKOFF": "100ms", "SIDECAR_SERVER__RESTARTS__BACKOFF_MAX": "500ms"}


class Competitors:
    """Two ``sidecar exec`` for one lock."""

    def __init__(self, url: str, cluster: str, folder: Path) -> None:
        self.witness = folder / "witness"
        self._folder = folder
        self._common = ["--backend", url, "--cluster", cluster, "--ttl", "2s"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str, *options: str, command: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        words = [sys.executable, "-P", "-m", "sidecar", "exec", *self._common, "--node", node, *options, "--"]
        with (self._folder / f"{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                [*words, *(command or worker_command(self.witness))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **QUICK},
            )
        return self.processes[node]

    def active(self, but: str | None = None) -> str | None:
        last = witness.last(self.witness)
        fresh = last is not None and witness.now_ns() - last.at_ns < FRESH_NS
        return last.node if last is not None and fresh and last.node != but else None

    def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def local(tmp_path: Path, namespace: str) -> Iterator[Competitors]:
    made = Competitors(f"local://{tmp_path}/store.db", namespace, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=STORES)
def competitors(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[Competitors]:
    url = f"local://{tmp_path}/store.db"
    if request.param != "local":
        store: Etcd | Consul = request.getfixturevalue(request.param)
        scheme = "etcd" if isinstance(store, Etcd) else "consul"
        host, port = store.host_port
        url = f"{scheme}://{host}:{port}"
    made = Competitors(url, namespace, tmp_path)
    yield made
    made.close()
    assert witness.verdict(witness.read(made.witness)) == []


def test_command_that_fails_goes_to_the_other_node(competitors: Competitors) -> None:
    crashing = worker_command(competitors.witness, "--crash-after-ms", "400")
    processes = [competitors.start(node, "--restarts", "0", command=crashing) for node in ("a", "b")]

    def nodes() -> set[str]:
        return {interval.node for interval in witness.active_intervals(witness.read(competitors.witness))}

    until("both to have been active in turn", lambda: nodes() == {"a", "b"}, 30_000)
    assert [process.poll() for process in processes] == [None, None], "both go on competing"


def test_end_of_the_holder_hands_over_at_once(competitors: Competitors) -> None:
    for node in ("a", "b"):
        competitors.start(node)
    first = until("one to be active", competitors.active, 30_000)
    asked_at = CLOCK.now()
    competitors.processes[first].terminate()
    until("the other to be active", lambda: competitors.active(first))
    assert competitors.processes[first].wait(10) == 0
    assert CLOCK.now() - asked_at < 10_000


def test_once_ends_with_the_status_of_the_command(local: Competitors) -> None:
    process = local.start("a", "--once", command=["sh", "-c", "echo epoch $SIDECAR_EPOCH; exit 7"])
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (7, b"epoch 1\n")


def test_once_that_is_stopped_says_whether_its_command_has_run(local: Competitors) -> None:
    holder = local.start("a", "--once")
    until("it to be active", local.active)
    waiting = local.start("b", "--once", command=["true"])
    log = local.witness.parent / "b.log"
    until("the other to compete", lambda: log.exists() and "started" in log.read_text())
    waiting.terminate()
    assert waiting.wait(20) == 1, "its command has never run"
    holder.terminate()
    assert holder.wait(20) == 143, "as its command, which SIGTERM ended"


def test_once_ends_with_1_when_the_lock_is_lost(etcd34: Etcd, tmp_path: Path, namespace: str) -> None:
    host, port = etcd34.host_port
    made = Competitors(f"etcd://{host}:{port}", namespace, tmp_path)
    try:
        process = made.start("a", "--once")
        until("it to be active", made.active)
        etcd34.freeze()
        assert process.wait(20) == 1
        until("nothing to be active any more", lambda: made.active() is None)
    finally:
        etcd34.thaw()
        made.close()


def test_command_that_is_not_there_is_one_line(local: Competitors) -> None:
    process = local.start("a", "--once", command=["/nowhere/at-all"])
    assert process.wait(20) == 2
    text = (local.witness.parent / "a.log").read_text()
    assert "/nowhere/at-all" in text
    assert "Traceback" not in text


def test_silent_reader_does_not_stop_the_command(local: Competitors) -> None:
    """Nobody reads our standard output here: the pipe is full after 64 KB, the command must go on."""
    shout = "i=0; while [ $i -lt 30000 ]; do echo 0123456789 0123456789; i=$((i+1)); done; exit 5"
    process = local.start("a", "--once", command=["sh", "-c", shout])
    assert process.wait(60) == 5
