"""What tests ask the witness. The instrument itself ships with the stand-in, since ``demo`` uses it too."""

import time
from pathlib import Path

from sidecar.standin import witness
from sidecar.standin.witness import Interval, Record

PAUSE_S = 0.01


def one_active_at_a_time(path: Path) -> list[Interval]:
    """Return all active intervals, after failing the test if two servers overlapped or epochs fell."""
    records = witness.read(path)
    faults = witness.verdict(records)
    assert not faults, "\n".join(["the witness saw:", *faults, f"in {path}"])
    return witness.active_intervals(records)


def await_open(path: Path, *, node: str | None = None, after: int = 0, within_s: float = 30) -> Record:
    """Return the first ``open`` (of *node*) at line *after* or later; fail when there is none in time."""
    return _await(path, "open", node, after, within_s)


def await_tick(path: Path, *, node: str | None = None, after: int = 0, within_s: float = 30) -> Record:
    """Return the first ``tick`` (of *node*) at line *after* or later."""
    return _await(path, "tick", node, after, within_s)


def await_close(path: Path, *, node: str | None = None, after: int = 0, within_s: float = 30) -> Record:
    """Return the first ``close`` (of *node*) at line *after* or later."""
    return _await(path, "close", node, after, within_s)


def lines(path: Path) -> int:
    """Return how many lines there are: where to look for what comes next."""
    return len(witness.read(path))


def _await(path: Path, kind: str, node: str | None, after: int, within_s: float) -> Record:
    until = time.monotonic() + within_s
    while True:
        records = witness.read(path)
        for record in records[after:]:
            if record.kind == kind and node in (None, record.node):
                return record
        if time.monotonic() > until:
            tail = "\n".join(str(record) for record in records[-5:])
            raise AssertionError(f"no {kind} of {node or 'anybody'} in {within_s} s; last:\n{tail}")
        time.sleep(PAUSE_S)
