"""What a run leaves: every fault with its role, and what the witness and the clock say."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.config.timing import Term
from sidecar.standin import witness

RESETS = "left_with_more_than_one_active"


@dataclass(frozen=True)
class Outcome:
    """One card that was played. *missed* says why it does not count; times are the witness's."""

    kind: str
    role: str
    from_ns: int
    until_ns: int  # when somebody was active after everything had healed
    returned_ms: int | None  # from the healing to an active; None: nobody in time
    missed: str | None = None
    alone: bool = True  # no other fault at the same time


@dataclass
class Findings:
    """What one cluster has to show."""

    name: str
    server: str
    bound: tuple[Term, ...]
    outcomes: list[Outcome] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    overlap_ms: float = 0.0
    stuck: list[str] = field(default_factory=list)
    resets: int = 0  # how often all of a peer had to be ended, because two went on being active
    errors: list[str] = field(default_factory=list)
    commands: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)  # of sidecars, by exit status
    crashes: dict[str, int] = field(default_factory=dict)  # lines that tell of a fault of ours, by file
    actives: int = 0
    epoch: int = 0
    gaps: list[tuple[int, float]] = field(default_factory=list)  # when it began, how long (ms)

    def judge(self, path: Path, *, epochs: bool) -> None:
        """Ask the witness; without *epochs* (a peer has none) for overlaps alone."""
        records = witness.read(path)
        found = witness.overlaps(records)
        self.overlaps = [str(overlap) for overlap in found]
        self.overlap_ms = sum(overlap.length_ms for overlap in found)
        if epochs:
            self.overlaps += witness.epoch_faults(records)
        actives = witness.active_intervals(records)
        self.actives, self.epoch = len(actives), max((one.epoch for one in actives), default=0)
        self.gaps = [(gap.from_ns, gap.length_ms) for gap in witness.gaps(records)]

    def longest_gap_ms(self, outcome: Outcome) -> float:
        """Return the longest time without an active that began while *outcome* lasted."""
        inside = [ms for from_ns, ms in self.gaps if outcome.from_ns - 10**9 <= from_ns < outcome.until_ns]
        return max(inside, default=0.0)


def summary(all_findings: Sequence[Findings], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the report of a run as JSON holds it; *facts* go first."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    missed: dict[str, Counter[str]] = defaultdict(Counter)
    returned: dict[str, int] = defaultdict(int)
    without: dict[str, float] = defaultdict(float)
    for findings in all_findings:
        for outcome in findings.outcomes:
            if outcome.missed is not None:
                missed[f"{outcome.kind} / {outcome.role}"][outcome.missed] += 1
                continue
            table[outcome.kind][outcome.role] += 1
            returned[outcome.kind] = max(returned[outcome.kind], outcome.returned_ms or 0)
            if outcome.alone:
                without[outcome.kind] = max(without[outcome.kind], findings.longest_gap_ms(outcome))
    overlaps = [f"{one.name}: {text}" for one in all_findings for text in one.overlaps]
    stuck = [f"{one.name}: {text}" for one in all_findings for text in one.stuck]
    return {
        **facts,
        "faults": sum(sum(roles.values()) for roles in table.values()),
        "overlaps": len(overlaps),
        "overlap_ms": round(sum(one.overlap_ms for one in all_findings), 1),
        "stuck": len(stuck),
        RESETS: sum(one.resets for one in all_findings),
        "harness_errors": [f"{one.name}: {text}" for one in all_findings for text in one.errors],
        "what_overlapped": overlaps[:100],
        "what_was_stuck": stuck,
        "faults_by_kind_and_role": {kind: dict(roles) for kind, roles in sorted(table.items())},
        "not_injected": {kind: dict(why) for kind, why in sorted(missed.items())},
        "longest_without_active_ms": {kind: round(ms) for kind, ms in sorted(without.items())},
        "longest_from_healing_to_active_ms": dict(sorted(returned.items())),
        "bound_ms": {
            one.server: {
                "total": sum(term.ms for term in one.bound),
                "terms": {term.what: term.ms for term in one.bound},
            }
            for one in all_findings
        },
        "commands": dict(sum((one.commands for one in all_findings), Counter())),
        "sidecars_ended": dict(sum((one.ends for one in all_findings), Counter())),
        "crashes": {path: n for one in all_findings for path, n in one.crashes.items() if n},
        "clusters_detail": [
            {
                "name": one.name,
                "server": one.server,
                "actives": one.actives,
                "epoch": one.epoch,
                "longest_without_active_ms": round(max((ms for _, ms in one.gaps), default=0)),
            }
            for one in all_findings
        ],
    }


def write(report: dict[str, Any], to: Path) -> None:
    """Write the report as JSON."""
    to.write_text(json.dumps(report, indent=1) + "\n")


def show(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"faults        {report['faults']} in {report['duration_s']} s, seed {report['seed']}"]
    for kind, roles in report["faults_by_kind_and_role"].items():
        cells = ", ".join(f"{role} {count}" for role, count in roles.items())
        gap = report["longest_without_active_ms"].get(kind)
        back = report["longest_from_healing_to_active_ms"][kind]
        without = "" if gap is None else f"without active {gap} ms, "
        lines.append(f"  {kind:<24} {cells:<52} {without}back {back} ms after healing")
    for kind, why in report["not_injected"].items():
        lines.append(f"  not injected: {kind}: {why}")
    lines += [f"  skipped: {kind}: {why}" for kind, why in report["skipped"].items()]
    lines.append(f"commands      {report['commands']}")
    lines.append(f"sidecars ended, by status  {report['sidecars_ended']}")
    lines += [f"  crashed: {path}: {count} lines" for path, count in report["crashes"].items()]
    lines.append(f"overlaps      {report['overlaps']} ({report['overlap_ms']} ms)")
    lines += [f"  {text}" for text in report["what_overlapped"]]
    if report[RESETS]:
        lines.append(f"left with more than one active, so that all had to be ended: {report[RESETS]} times")
    lines.append(f"stuck         {report['stuck']}")
    lines += [f"  {text}" for text in (*report["what_was_stuck"], *report["harness_errors"])]
    return "\n".join(lines)
