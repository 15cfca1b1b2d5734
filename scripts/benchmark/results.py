"""What was measured, whether it is good enough, and how it is shown: table, JSON, docs/benchmarks.md."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

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
        shown = ["-" if value is None else f"{value:.{_digits(self.unit)}f} {self.unit}" for value in figures]
        target = "" if self.target is None else f"≤ {self.target:.{_digits(self.unit)}f} {self.unit}"
        return [self.measure, self.subject, str(len(self.samples)), *shown, target, self.verdict]


HEADER = ["measured", "subject", "n", "median", "maximum", "target (median)", ""]


def _digits(unit: str) -> int:
    return {"ms": 0, "MB": 1}.get(unit, 2)


def limit(rows: Sequence[Row], subject: str, peer: str, factor: float) -> None:
    """Give *subject*'s row its target: *factor* times the *peer*'s median."""
    other = next((row.median for row in rows if row.subject == peer), None)
    for row in rows:
        if row.subject == subject and other is not None:
            row.target = round(factor * other, 2)


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
    figures = [asdict(row) | {"median": row.median, "maximum": row.maximum} for row in rows]
    return json.dumps({"v": 1, "machine": facts, "rows": figures}, indent=1, ensure_ascii=False) + "\n"


def write(rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Keep the results in docs/."""
    DOCS.mkdir(exist_ok=True)
    (DOCS / "benchmarks.json").write_text(document(rows, facts))
    (DOCS / "benchmarks.md").write_text(page(rows, facts))
    print(f"bench: wrote {DOCS}/benchmarks.md and .json", file=sys.stderr)


def page(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    told = [(row, row.note) for row in rows if row.note]
    told += [(row, f"{len(row.failures)} failed, {row.failures[0]}") for row in rows if row.failures]
    notes = "\n".join(f"- {row.measure}, {row.subject}: {text}" for row, text in told)
    facts_lines = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items())
    return PAGE.format(grid=grid, notes=notes, facts=facts_lines)


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

## Machine
{facts}
- `load average` is that at the start, over 1, 5 and 15 minutes. Above the number of cores every figure in
  milliseconds is worse than on a quiet machine.

Not measured: several machines and a real network; disks slower than this one.
"""
