"""``./scripts/demo``: succeeds, and leaves no process behind, whatever it is ended with."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sidecar.demo.cluster import DemoNode, until

INTERRUPTED = 130
WRITER = """
import sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("PRAGMA journal_mode = WAL")
while True:
    store.execute("BEGIN IMMEDIATE")
    print("inside", flush=True)
    time.sleep(0.3)
    store.execute("COMMIT")
    time.sleep(0.3)
"""
DEMO = [sys.executable, "-P", "-m", "sidecar", "demo", "--script"]


def of_demo(mark: str) -> list[int]:
    """Return the pids of all processes whose temporary folder is *mark*."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if mark in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_script_succeeds_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "never two active at once" in done.stdout
    until("every process to be gone", lambda: not of_demo(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_ended_by_a_signal_leaves_no_process(tmp_path: Path, number: int, group: bool) -> None:
    process = subprocess.Popen(
        DEMO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    until("a guard of it", lambda: any("guard.py" in " ".join(_words(pid)) for pid in of_demo(str(tmp_path))))
    os.killpg(process.pid, number) if group else process.send_signal(number)
    status = process.wait(30)
    until("every process to be gone", lambda: not of_demo(str(tmp_path)))
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
        return
    assert status == INTERRUPTED, "it went on to its end"
    assert list(tmp_path.iterdir()) == []


def _words(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def test_bug_a_sidecar_was_frozen_within_a_transaction_and_kept_all_others_out(tmp_path: Path) -> None:
    """Seldom by chance: the demo and its tests then waited for a successor until they gave up."""
    store = tmp_path / "store.db"
    node = DemoNode("node-a", tmp_path, {"paths": {"run": str(tmp_path)}})
    node.process = subprocess.Popen([sys.executable, "-c", WRITER, str(store)], stdout=subprocess.PIPE)
    try:
        assert node.process.stdout is not None
        assert node.process.stdout.readline() == b"inside\n"
        node.freeze_sidecar()

        with sqlite3.connect(store, timeout=0.1, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
    finally:
        node.process.kill()
        node.process.wait()
