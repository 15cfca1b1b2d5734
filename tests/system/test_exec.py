"""``sidecar exec``: a command under the lock, on each store; the witness judges.

Not covered: what `run` shares with it (test_nodes.py).
"""

import array
import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from sidecar.demo.cluster import CLOCK, FRESH_NS, until
from sidecar.standin import witness, worker_command
from tests.harness.process import ahead, inheriting
from tests.harness.stores import Consul, Etcd
from tests.system.clusters import STORES

QUICK = {"SIDECAR_SERVER__RESTARTS__BACKOFF": "100ms", "SIDECAR_SERVER__RESTARTS__BACKOFF_MAX": "500ms"}
TTL_MS = 2_000


class Competitors:
    """Two ``sidecar exec`` for one lock."""

    def __init__(self, url: str, cluster: str, folder: Path) -> None:
        self.witness = folder / "witness"
        self._folder = folder
        self._common = ["--backend", url, "--cluster", cluster, "--ttl", f"{TTL_MS}ms"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        node: str,
        *options: str,
        command: Sequence[str] = (),
        stdout: int | IO[bytes] = subprocess.PIPE,
        before: Sequence[str] = (),
    ) -> "subprocess.Popen[bytes]":
        words = [
            *before,
            sys.executable,
            "-P",
            "-m",
            "sidecar",
            "exec",
            *self._common,
            "--node",
            node,
            *options,
            "--",
        ]
        with (self._folder / f"{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                [*words, *(command or worker_command(self.witness))],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
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


@pytest.mark.parametrize("kept", [False, True])
def test_bug_a_terminal_that_was_gone_did_not_end_it(local: Competitors, kept: bool) -> None:
    """It kept lock and command, and nobody knew."""
    with inheriting(signal.SIGHUP, signal.SIG_IGN if kept else signal.SIG_DFL):
        process = local.start("a")
    until("it to be active", local.active)
    process.send_signal(signal.SIGHUP)
    if kept:
        other = local.start("b")
        until("the other to compete", lambda: "started" in (local.witness.parent / "b.log").read_text())
        until("it to be active still", lambda: local.active() == "a")
        assert (process.poll(), other.poll()) == (None, None)
    else:
        assert process.wait(20) == 0
        assert "cause=Released" in (local.witness.parent / "a.log").read_text()


HOLD = """
import os, sys, time
class Hold:  # before it supervises
    def find_spec(self, name, path=None, target=None):
        if name == "sidecar.runtime.main":
            open(os.environ["TMPDIR"] + "/held", "w").close()
            time.sleep(60)
sys.meta_path.insert(0, Hold())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("once", [True, False])
def test_bug_a_signal_as_it_began_left_its_folder_behind(
    local: Competitors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, once: bool
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOLD)
    monkeypatch.setenv("PYTHONPATH", ahead(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with inheriting(signal.SIGHUP, signal.SIG_DFL):
        process = local.start("a", *["--once"] * once)
    until("its folder", lambda: (tmp_path / "held").exists() and list(tmp_path.glob("sidecar-exec-*")))
    process.send_signal(number)

    assert process.wait(20) == int(once)
    assert list(tmp_path.glob("sidecar-exec-*")) == []


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


# What the command prints.


@pytest.mark.parametrize("into", ["a pipe", "a file"])
def test_bug_exec_lost_and_changed_what_its_command_printed(
    local: Competitors, tmp_path: Path, into: str
) -> None:
    printed = (
        b"".join(b"%d\n" % number for number in range(200_000)) + os.urandom(1 << 20) + b"no end of line"
    )
    (tmp_path / "printed").write_bytes(printed)
    command = ["cat", str(tmp_path / "printed")]
    if into == "a pipe":
        process = local.start("a", "--once", command=command)
        out, _ = process.communicate(timeout=30)
    else:
        with (tmp_path / "out").open("wb") as file:
            process = local.start("a", "--once", command=command, stdout=file)
        assert process.wait(30) == 0
        out = (tmp_path / "out").read_bytes()
    assert process.returncode == 0
    assert out == printed


def test_a_command_on_a_terminal_is_on_a_terminal(local: Competitors) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb") as terminal, os.fdopen(ours, "rb", buffering=0) as screen:
        process = local.start("a", "--once", command=["sh", "-c", "test -t 1 && echo yes"], stdout=terminal)
        assert process.wait(30) == 0
        assert screen.read(80) == b"yes\r\n"


def test_a_reader_that_takes_nothing_holds_up_the_command_alone(local: Competitors) -> None:
    """As where there is no exec: the pipe is full, the command waits, and is ended when exec is told to."""
    process = local.start("a", "--once", command=["sh", "-c", "while :; do echo 0123456789 0123456789; done"])
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    until("the pipe to be full", lambda: _waiting(pipe) > 60_000, 20_000)
    ended_at = CLOCK.now() + 2 * TTL_MS
    until("two leases to have passed", lambda: CLOCK.now() > ended_at or process.poll() is not None)
    assert process.poll() is None
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM


def _waiting(pipe: int) -> int:
    """Return how much is in a pipe."""
    found = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return found[0]


def test_where_exec_has_no_stdout_its_command_gets_no_file_of_ours(
    local: Competitors, tmp_path: Path
) -> None:
    """Its number would be that of the next file that exec opens: of the store, say."""
    look = f"import os; print(os.readlink('/proc/self/fd/1'), file=open('{tmp_path}/what', 'w')); print('x')"
    command = [sys.executable, "-c", look]
    process = local.start("a", "--once", command=command, before=("sh", "-c", 'exec "$@" >&-', "sh"))
    process.wait(30)
    assert (tmp_path / "what").read_text() == "/dev/null\n"


def test_a_command_that_is_taken_over_keeps_its_output(local: Competitors, tmp_path: Path) -> None:
    state = ["--ttl", "60s", "--state-dir", str(tmp_path / "state")]  # a busy machine starts slowly
    go = tmp_path / "go"
    command = ["sh", "-c", f"echo begun; while [ ! -e {go} ]; do sleep 0.01; done; echo ended"]
    with (tmp_path / "out").open("wb") as file:
        first = local.start("a", "--once", *state, command=command, stdout=file)
    until("its command to run", lambda: (tmp_path / "out").read_text() == "begun\n", 20_000)
    first.kill()
    first.wait()
    second = local.start("a", "--once", *state, command=command)
    until("it to be taken over", lambda: "adopted=True" in (tmp_path / "a.log").read_text(), 20_000)
    go.touch()
    out, _ = second.communicate(timeout=30)
    assert (second.returncode, out) == (0, b"")
    assert (tmp_path / "out").read_text() == "begun\nended\n"
