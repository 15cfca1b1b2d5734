"""Reads the witness and judges it: was ever more than one server active, and when was none?

A server was active from its ``open`` to its last line, whichever process of its tree wrote that. Between
its lines nobody looked: an overlap shorter than a tick can escape, one that is found is real. Two
servers overlap when

- one wrote a line behind the ``open`` of the other (the order of the lines, which needs no clock), or
- their times overlap (host CLOCK_BOOTTIME, comparable across time namespaces).

A server that is stopped (SIGSTOP) and killed without ever running again has not overlapped with its
successor: it did nothing. One that runs again has.

A witness that cannot be read proves nothing: `read` raises instead of skipping a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from sidecar.standin.record import CLOSE, LINE_BYTES, OPEN, TICK, now_ns

__all__ = [
    "Gap",
    "Interval",
    "Overlap",
    "Record",
    "WitnessError",
    "active_intervals",
    "epoch_faults",
    "gaps",
    "last",
    "now_ns",
    "overlaps",
    "read",
    "verdict",
]


class WitnessError(Exception):
    """The witness is damaged or contradicts itself; it proves nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line. *line* counts from 0 and is the order in which the lines were written."""

    line: int
    at_ns: int
    kind: str
    epoch: int
    run: str
    pid: int
    node: str


@dataclass(frozen=True, slots=True)
class Interval:
    """How long one server was active, for certain."""

    node: str
    run: str
    epoch: int
    opened_ns: int
    last_ns: int
    first_line: int
    last_line: int
    closed: bool  # it said so itself; else it was killed, or it is active still
    longest_silence_ns: int  # between two of its lines: frozen, starved, or the length of a tick

    @property
    def length_ms(self) -> float:
        """Return its length in ms."""
        return (self.last_ns - self.opened_ns) / 1e6


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two servers that were active at once; *length_ms* 0 where only the order of the lines shows it."""

    first: Interval
    second: Interval
    length_ms: float

    def __str__(self) -> str:
        a, b = self.first, self.second
        return (
            f"{a.node} (epoch {a.epoch}, run {a.run}) and {b.node} (epoch {b.epoch}, run {b.run}) "
            f"were active at once for {self.length_ms:.1f} ms (lines {b.first_line}..{a.last_line})"
        )


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without an active server; exact but for the tick in which the old one died."""

    before: Interval
    after: Interval
    from_ns: int
    until_ns: int

    @property
    def length_ms(self) -> float:
        """Return its length in ms."""
        return (self.until_ns - self.from_ns) / 1e6


def read(path: Path) -> list[Record]:
    """Return all lines of the witness; none where there is no file yet.

    Raises:
        WitnessError: A line is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    starts = range(0, len(data), LINE_BYTES)
    return [_parse(path, n, data[at : at + LINE_BYTES]) for n, at in enumerate(starts)]


def last(path: Path) -> Record | None:
    """Return the newest line; None where there is none yet. Costs the same however long the file is.

    Raises:
        WitnessError: The line is damaged.
    """
    try:
        with path.open("rb") as file:
            number = file.seek(0, 2) // LINE_BYTES - 1
            if number < 0:
                return None
            file.seek(number * LINE_BYTES)
            return _parse(path, number, file.read(LINE_BYTES))
    except FileNotFoundError:
        return None


def _parse(path: Path, number: int, line: bytes) -> Record:
    try:
        if len(line) != LINE_BYTES or line.find(b"\n") != LINE_BYTES - 1:
            raise ValueError("wrong length")
        at_ns, kind, epoch, run, pid, node = line.decode("ascii").split()
        record = Record(number, int(at_ns), kind, int(epoch), run, int(pid), unquote(node))
    except ValueError as error:
        raise WitnessError(f"{path}: line {number} is damaged: {line[:100]!r}") from error
    if kind not in (OPEN, TICK, CLOSE):
        raise WitnessError(f"{path}: line {number} is of unknown kind: {kind!r}")
    return record


def active_intervals(records: Sequence[Record]) -> list[Interval]:
    """Return when which server was active, in the order in which they opened.

    Raises:
        WitnessError: A server ticked without having opened, or changed its epoch or name.
    """
    runs: dict[str, Interval] = {}
    for record in records:
        run = runs.get(record.run)
        if (record.kind == OPEN) != (run is None):
            raise WitnessError(f"line {record.line}: {record.kind} of run {record.run} out of place")
        runs[record.run] = _opened(record) if run is None else _extended(run, record)
    return list(runs.values())


def _opened(record: Record) -> Interval:
    at_ns, line = record.at_ns, record.line
    return Interval(record.node, record.run, record.epoch, at_ns, at_ns, line, line, False, 0)


def _extended(run: Interval, record: Record) -> Interval:
    if (record.epoch, record.node) != (run.epoch, run.node):
        raise WitnessError(f"line {record.line}: run {run.run} is not what it was in {run.first_line}")
    return replace(
        run,
        last_ns=max(run.last_ns, record.at_ns),
        last_line=record.line,
        closed=run.closed or record.kind == CLOSE,
        longest_silence_ns=max(run.longest_silence_ns, record.at_ns - run.last_ns),
    )


def overlaps(records: Sequence[Record]) -> list[Overlap]:
    """Return every pair of servers that were active at once; [] is what everybody hopes for."""
    intervals = active_intervals(records)
    found = []
    for index, first in enumerate(intervals):
        for second in intervals[index + 1 :]:
            shared_ns = min(first.last_ns, second.last_ns) - max(first.opened_ns, second.opened_ns)
            if first.last_line > second.first_line or shared_ns >= 0:
                found.append(Overlap(first, second, max(0, shared_ns) / 1e6))
    return found


def gaps(records: Sequence[Record]) -> list[Gap]:
    """Return every time without an active between the first ``open`` and the last line."""
    found = []
    intervals = sorted(active_intervals(records), key=lambda interval: interval.opened_ns)
    latest = intervals[0] if intervals else None
    for after in intervals[1:]:
        assert latest is not None
        if after.opened_ns > latest.last_ns:
            found.append(Gap(latest, after, latest.last_ns, after.opened_ns))
        latest = max(latest, after, key=lambda interval: interval.last_ns)
    return found


def epoch_faults(records: Sequence[Record]) -> list[str]:
    """Return where an active's epoch is not above its predecessor's; a restart in place may keep it."""
    return [
        f"{after.node} opened at epoch {after.epoch} (line {after.first_line}) "
        f"after {before.node} at epoch {before.epoch}"
        for before, after in pairwise(active_intervals(records))
        if after.epoch < before.epoch or (after.epoch == before.epoch and after.node != before.node)
    ]


def verdict(records: Sequence[Record]) -> list[str]:
    """Return everything that must not have been, one sentence each."""
    return [str(overlap) for overlap in overlaps(records)] + epoch_faults(records)
