"""One mutant in a copy of the tree, and what has to fail there.

What counts as caught: the test ran and failed. A test that was skipped, or could not even be collected, has
said nothing; that is a fault of the table or of the machine, and is reported as one.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.mutants.mutant import ROOT, SIMULATION, Mutant

PARTS = ("sidecar", "backends", "tests", "docs", "pyproject.toml", "setup.cfg")
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc") if os.geteuid() == 0 else ()
"""A PID namespace of its own: what a broken guard or sidecar leaves behind ends with the trial."""
WITHIN_S = 240.0  # of one trial; the tests have a limit of 120 s each
CLEAN_UP_S = 20.0
# Looking for all plug-ins takes three times as long as a small test; this one keeps the limit of each test.
PYTEST = ("pytest", "-q", "-x", "--no-header", "-p", "pytest_timeout", "-p", "no:cacheprovider")

Verdict = Literal["caught", "survived", "no verdict"]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. *how*: the first test that failed, or why there is no verdict."""

    verdict: Verdict
    how: str
    took_s: float


def command(by: str) -> list[str]:
    """Return the command line of one of a mutant's checks. The one place that knows the simulation's."""
    if by.startswith(SIMULATION):
        schedules = by.removeprefix(SIMULATION)
        return [sys.executable, "-m", "tests.core.simulation", "--no-shrink", "--schedules", schedules]
    files, _, chosen = by.partition(" -k ")
    return [sys.executable, "-m", *PYTEST, *files.split(), *(["-k", chosen] if chosen else [])]


@contextmanager
def copy() -> Iterator[Path]:
    """Give a copy of what the tests need, that every user can read."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        tree.chmod(0o755)
        for part in PARTS:
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy2)(ROOT / part, tree / part)
        yield tree


def attempt(mutant: Mutant) -> Outcome:
    """Make *mutant* and run what has to catch it; it is caught when each of its checks fails.

    Raises:
        Unfit: The edit cannot be made.
    """
    with copy() as tree:
        path = tree / mutant.file
        path.write_text(mutant.mutated(tree))
        for cached in path.parent.glob(f"__pycache__/{path.stem}.*"):
            cached.unlink()  # Python tells a source file by size and whole seconds
        outcomes = [_settled(by, tree) for by in mutant.checks]
    missed = [outcome for outcome in outcomes if outcome.verdict != "caught"]
    how = "; ".join(outcome.how for outcome in missed or outcomes)
    return Outcome((missed or outcomes)[0].verdict, how, sum(outcome.took_s for outcome in outcomes))


def control(by: str) -> Outcome:
    """Run the same test on the unbroken tree: caught means nothing unless it passes there."""
    with copy() as tree:
        return _settled(by, tree)


def _settled(by: str, tree: Path) -> Outcome:
    """Run it, and once more where it said nothing: one killed trial must not spoil a run of hours."""
    outcome = _run(by, tree)
    return outcome if outcome.verdict != "no verdict" else _run(by, tree)


def _run(by: str, tree: Path) -> Outcome:
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    environment = {
        **{name: value for name, value in kept.items() if not name.startswith(("SIDECAR_", "COVERAGE_"))},
        "PYTHONPATH": str(tree),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "SIDECAR_TOOLS": os.environ.get("SIDECAR_TOOLS", str(ROOT / ".cache" / "tools")),
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [*ALONE, *command(by)],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        out, _ = process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        _end(process)
        return Outcome("no verdict", "not finished in time", time.monotonic() - began)
    took_s = time.monotonic() - began
    judge = _judge_simulation if by.startswith(SIMULATION) else _judge_pytest
    return Outcome(*judge(process.returncode, out), took_s)


def _end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)  # its fixtures end what they started
    try:
        process.communicate(timeout=CLEAN_UP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _judge_pytest(status: int, out: str) -> tuple[Verdict, str]:
    lines = out.strip().splitlines() or [""]
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR ")) and "::" in line]
    if status == 1 and failed:
        return "caught", failed[0].split(" - ")[0].partition("::")[2]
    if status == 0 and " passed" in lines[-1] and " skipped" not in lines[-1]:
        return "survived", lines[-1]
    return "no verdict", f"pytest ended with {status}: {lines[-1]}"


def _judge_simulation(status: int, out: str) -> tuple[Verdict, str]:
    lines = out.strip().splitlines() or [""]
    failed = [line for line in lines if line.startswith("schedule ")]
    if status != 0 and failed:
        return "caught", failed[0][:100]
    if status != 0 and "Traceback" in out:
        return "caught", f"raises {lines[-1][:90]}"
    return ("survived", lines[-1]) if status == 0 else ("no verdict", f"ended with {status}: {lines[-1]}")
