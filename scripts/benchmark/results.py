"""What was measured, whether it is good enough, and how it is shown: table, JSON, docs/benchmarks.md."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import psutil

from sidecar.clock import wall_ms
from tests.harness.tools import ROOT, need

DOCS = ROOT / "docs"


@dataclass
class Row:
    """One figure: all its samples, and what its median must not exceed."""

    measure: str
    subject: str
    unit: str
    target: float | None = None
    samples: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float | None:
        return round(median(self.samples), 2) if self.samples else None

    @property
    def maximum(self) -> float | None:
        return round(max(self.samples), 2) if self.samples else None

    @property
    def verdict(self) -> str:
        """Return met, missed, not measured, or nothing where there is no target."""
        if self.failures or not self.samples:
            return "not measured" if not self.samples else f"{len(self.failures)} failed"
        if self.target is None or self.median is None:
            return ""
        return "met" if self.median <= self.target else "missed"

    def cells(self) -> list[str]:
        """Return what the table shows."""
        figures = (self.median, self.maximum)
        shown = ["-" if value is None else self._shown(value) for value in figures]
        target = "" if self.target is None else f"≤ {self._shown(self.target)}"
        return [self.measure, self.subject, str(len(self.samples)), *shown, target, self.verdict]

    def _shown(self, value: float) -> str:
        return f"{value:.{_digits(self.unit)}f} {self.unit}".rstrip()


HEADER = ["measured", "subject", "n", "median", "maximum", "target (median)", ""]


def _digits(unit: str) -> int:
    return {"": 0, "ms": 0, "MB": 1}.get(unit, 2)


def limit(rows: Sequence[Row], subject: str, peer: str, factor: float) -> None:
    """Give *subject*'s row its target: *factor* times the *peer*'s median."""
    other = next((row.median for row in rows if row.subject == peer), None)
    for row in rows:
        if row.subject == subject and other is not None:
            row.target = round(factor * other, 2)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let the command line say where the results go, besides the terminal."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples here, too")
    parser.add_argument(
        "--write", action="store_true", help="keep the results in docs/benchmarks.md and .json"
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text in columns."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def machine() -> dict[str, Any]:
    """Return on what and with what it was measured."""
    return {
        "at_unix_ms": wall_ms(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // 1_000_000,
        "kernel": platform.release(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "sidecar": version("aggregate-sidecar"),
        "commit": _said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "etcd": _said(str(need("etcd-3.4")), "--version").partition("\n")[0],
        "consul": _said(str(need("consul")), "version").partition("\n")[0],
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip()


def document(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    """Return the results as JSON."""
    return _json({"v": 1} | _run(rows, facts))


def write(
    run: Literal["peers", "api"], rows: Sequence[Row], facts: dict[str, Any], docs: Path = DOCS
) -> None:
    """Keep the results of *run* in docs/, beside those of the other one."""
    docs.mkdir(exist_ok=True)
    kept = docs / "benchmarks.json"
    before = json.loads(kept.read_text()) if kept.exists() else {"v": 1}
    found = before | (_run(rows, facts) if run == "peers" else {"api": _run(rows, facts)})
    kept.write_text(_json(found))
    (docs / "benchmarks.md").write_text(page(found))
    print(f"bench: wrote {docs}/benchmarks.md and .json", file=sys.stderr)


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _run(rows: Sequence[Row], facts: dict[str, Any]) -> dict[str, Any]:
    figures = [asdict(row) | {"median": row.median, "maximum": row.maximum} for row in rows]
    return {"machine": facts, "rows": figures}


def page(found: dict[str, Any]) -> str:
    """Return what is in benchmarks.json as Markdown."""
    api = found.get("api", {})
    machine = f"Measured on:\n{_facts(api)}\n\n" if api else ""
    return PAGE.format(
        grid=_grid(found), notes=_notes(found), facts=_facts(found), api=_grid(api), api_machine=machine
    )


def _rows(run: dict[str, Any]) -> list[Row]:
    names = {field.name for field in fields(Row)}
    return [Row(**{name: row[name] for name in names & row.keys()}) for row in run.get("rows", [])]


def _grid(run: dict[str, Any]) -> str:
    if not run.get("rows"):
        return "Not measured yet."
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in _rows(run))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _notes(run: dict[str, Any]) -> str:
    rows = _rows(run)
    told = [(row, row.note) for row in rows if row.note]
    told += [(row, f"{len(row.failures)} failed, {row.failures[0]}") for row in rows if row.failures]
    return "\n".join(f"- {row.measure}, {row.subject}: {text}" for row, text in told)


def _facts(run: dict[str, Any]) -> str:
    return "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in run.get("machine", {}).items())


PAGE = """\
# Benchmarks

Written by `./scripts/bench --write`; all samples are in [benchmarks.json](benchmarks.json). Everything
below was measured in one run on one machine, the sidecar beside `etcdctl lock` and `consul lock` with the
same command, store and TTL.

{grid}

## How it is measured
- A server writes to the *witness* from its first instruction on, every 5 ms. A takeover ends when the
  other node's command has written its first line. The start of its Python interpreter is therefore in the
  figures of all subjects; the row "start of the measured command alone" tells how much that is.
- **crash** kills everything of the node at once. The lease then has to run out, whoever holds it; how much
  is left of it depends on the last renewal, so the crash comes at a random instant, drawn from the same
  seed for all subjects.
- **switchover** is the time without an active, between the last line of the old server and the first of the
  new one: `sidecar run`, a server of kind `command` that starts and stops at once.
- **memory** is the proportional set size (PSS) of sidecar, guard and keeper, without the server; **CPU** is
  user and system time.
{notes}

## What holds a figure back
- **command killed, etcd**: `etcdctl lock` is ahead. Its waiter has queued its key beforehand, so one delete
  hands the lock over. The sidecar writes twice, one after the other (release by the node that proved the
  death, acquisition with a new epoch by the other), in Python. Traced by hand on 2026-11-25, in ms after
  the kill: 4 the namespace is proven empty, 5 the release is sent, 7 the other node has seen it, 11 the lock
  is granted, 13 the command is executed (its keeper was made in advance); the rest is the command's own.
- **node crash, etcd**: the sidecar renews every ttl/5, or where the row says so every ttl/3; `etcdctl lock` a
  good deal later, as its client looks at its leases only every 500 ms. A crash therefore finds more of the
  sidecar's lease left. That is wanted: a later renewal is one try less before the lease ends. etcd itself
  ends leases up to half a second late, for everybody.
- **idle CPU, etcd**: about a third of it are gRPC's four event engine threads, each of which wakes up a dozen
  times a second (0.15 of 0.46 %, measured thread by thread on 2026-11-25, where the command slept; the one
  in the table writes every 5 ms).
- **SIGTERM, etcd**: `etcdctl lock` 3.4 does not pass SIGTERM on to its command, keeps the lock and waits
  for the command to end. It has nothing to be measured there.

## The HTTP API
Written by `./scripts/bench api --write`, in a run of its own: an active `sidecar exec` with the API on, on
one etcd, TTL 10 s, renewed every 2 s.

{api}

- **/active** is asked at instants that are fixed in advance, on up to 20 connections. The time counts from
  that instant on, so an answer that is late makes the next ones late, as it does for people.
- **the lease's rest** is what each answer tells. It does not fall below 7.9 s (TTL × 0.99, less one period)
  by more than a renewal takes, unless a renewal was late: a flood would show there.
- **idle connections** are opened and ask nothing. The API keeps 200 and closes the one that has been quiet
  longest for each that comes beyond.
- **a body of 1000 MB** is sent to a command that takes 16 KB. What was taken is what went into buffers and
  was dropped before the connection was cut off.
- **memory** is the sum of the PSS of sidecar, guard and keeper (`/proc/PID/smaps_rollup`), byte code
  compiled as pip does it. A page of the interpreter or of a library counts by its share where other
  processes have it mapped, too: beside other Pythons the sum is up to 12 MB less than on a machine where
  nothing else runs.

{api_machine}## Machine
{facts}
- `load average` is that at the start, over 1, 5 and 15 minutes. Above the number of cores every figure in
  milliseconds is worse than on a quiet machine.

Not measured: several machines and a real network; disks slower than this one.
"""
