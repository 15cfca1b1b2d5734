"""A slice of the soak: each cheap fault once, on real stores, and proof that the witness can see.

Goal: every kind of fault is really injected, nobody is ever active beside another, and somebody is active
again in time. Method: ``tests.system.soak`` in a process of its own (it moves into namespaces); its report
is judged. Not covered here: every fault in every role, and faults upon faults; ``./scripts/soak`` has those.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.standin import witness
from sidecar.standin.record import File
from tests.harness.process import unavailable
from tests.system.soak.__main__ import UNAVAILABLE, Run
from tests.system.soak.arena import Arena, crashes
from tests.system.soak.report import Findings

SOAK = [sys.executable, "-m", "tests.system.soak"]
PROCESSES = (
    "kill all",
    "kill sidecar+server",
    "kill keeper",
    "stop sidecar",
    "stop all",
    "stop guard+keeper",
)
NETWORK = ("cut both ways", "cut inbound", "cut outbound", "delay 300 ms", "loss 30%")
MACHINE = (
    "wall clock a day off",
    "memory pressure",
    "state folder full",
    "state folder read-only",
    "full GC",
)
STORE = ("leader killed", "majority lost", "one member paused", "token revoked", "disk full")
KINDS = {  # what a machine does is the same whatever the store
    "etcd": {*PROCESSES, *NETWORK, *MACHINE, *STORE, "compaction"},
    "consul": {*PROCESSES, "cut both ways", *STORE},
}


def soak(report: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run it; return its exit status and its report."""
    done = subprocess.run(
        [*SOAK, *words, "--json", str(report)], capture_output=True, text=True, timeout=110, check=False
    )
    print(done.stdout, done.stderr)  # pytest shows it where the test failed
    if done.returncode == UNAVAILABLE:
        unavailable(done.stderr.strip())
    return done.returncode, dict(json.loads(report.read_text()))


@pytest.mark.parametrize("backend", KINDS)
def test_each_fault_leaves_one_active(backend: str, tmp_path: Path) -> None:
    kinds = KINDS[backend]
    words = ["--each", "--backend", backend, "--nodes", "2", "--seed", "7", "--ttl", "2.5"]

    status, report = soak(tmp_path / "report", *words, "--kinds", ",".join(sorted(kinds)))

    assert report["overlaps"] == 0
    assert report["stuck"] == 0
    assert set(report["faults_by_kind_and_role"]) == kinds - set(report["skipped"]), report["not_injected"]
    assert status == 0


def test_a_build_without_a_deadline_is_caught(tmp_path: Path) -> None:
    """The same fault as above, and a guard that holds no deadline: the witness must see two."""
    words = ["--faults", "2", "--backend", "etcd", "--clusters", "1", "--nodes", "2", "--broken"]

    status, report = soak(tmp_path / "report", *words, "--kinds", "stop sidecar", "--roles", "active")

    assert report["faults_by_kind_and_role"] == {"stop sidecar": {"active": report["faults"]}}
    assert report["overlaps"] > 0
    assert report["overlap_ms"] > 0
    assert status == 1


def test_bug_a_server_that_was_dead_had_returned(tmp_path: Path) -> None:
    """The soak counted its last line, where it was younger than 300 ms."""
    path = tmp_path / "witness"
    File(str(path)).pen("node-a", 1).write("open")
    arena = Arena.__new__(Arena)
    arena.cluster = cast(Any, SimpleNamespace(witness=path))

    assert arena.serving() == "node-a"
    assert arena.serving(witness.now_ns()) is None


def test_bug_a_soak_that_was_not_judged_to_the_end_was_good() -> None:
    def fail() -> None:
        raise witness.WitnessError("line 3")

    arena = SimpleNamespace(begin=lambda: None, stop=fail, judge=fail, findings=Findings("one", "", ()))
    Run([cast(Arena, arena)], minutes=0, faults=None, forgiving=False).play()

    assert len(arena.findings.errors) == 2


def test_what_crashed_is_found_in_what_was_said(tmp_path: Path) -> None:
    said = tmp_path / "log"
    assert crashes(said) == 0
    said.write_text('ok\nTraceback (most recent call last):\n{"event": "internal_error"}\n')
    assert crashes(said) == 2
