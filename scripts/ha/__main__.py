"""``compose/ha/try``: the arguments, the table, the judgement."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ha.client import backwards, longest_ms
from ha.faults import FAULTS, Fault
from ha.plant import STORES, Plant, now_ms
from sidecar.cli.printing import table
from sidecar.standin import witness

say = partial(print, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table."""

    fault: str
    before: str
    after: str
    interruption_s: float
    bound_s: float
    bound: str
    epochs: str  # what is wrong with them; "" for nothing

    @property
    def good(self) -> bool:
        return self.interruption_s <= self.bound_s and not self.epochs

    def row(self) -> list[str]:
        verdict = "" if self.good else f" MISSED {self.epochs}"
        spans = [f"{self.interruption_s:.2f} s", f"{self.bound_s:.1f} s"]
        return [self.fault, f"{self.before} → {self.after}", *spans, self.bound + verdict]


def inflict(plant: Plant, fault: Fault) -> Result:
    """Do *fault* to a plant at rest, wait until it is at rest again."""
    node, epoch = plant.settle()
    since_ms = now_ms()
    say(f"… {fault.name}: {node} is active in epoch {epoch}")
    away_s = fault.act(plant, node, epoch) or 0.0
    new, new_epoch = plant.settle()
    interruption_s = longest_ms(plant.client.answers, since_ms, now_ms()) / 1000
    bound = fault.bound(plant, away_s)
    moved = new_epoch != epoch
    wrong = "" if fault.moves in (None, moved) else f"epoch {epoch} → {new_epoch}"
    result = Result(
        fault.name, f"{node} ({epoch})", f"{new} ({new_epoch})", interruption_s, bound.s, bound.says, wrong
    )
    say("  " + "  ".join(result.row()[1:]))
    return result


def trial(backend: str, cpu_shares: int, logs: Path | None, faults: Sequence[Fault]) -> int:
    """Run it; return the exit status."""
    with Plant.run(backend, cpu_shares, say) as plant:
        results = [inflict(plant, fault) for fault in faults]
        if logs is not None:
            plant.keep_logs(logs)
        records, answers, scraped = plant.records(), plant.client.answers, plant.scraped()
        fenced = plant.refuses_older()
        history = plant.compose.exec(plant.client.answers[-1].node, "sidecar", "history")
    found = witness.verdict(records) + backwards(answers)
    head = ["KILLED", "ACTIVE (EPOCH)", ">INTERRUPTION", ">AT MOST", "WHICH IS"]
    print(f"compose/ha on {backend}: the longest time without an answer for a client behind HAProxy\n")
    print(table(head, [result.row() for result in results], width=130))
    runs = len(witness.active_intervals(records))
    print(f"\n{history.rstrip()}")
    judged = "\n".join(["WRONG:", *found]) if found else "never two active at once, epochs only grew"
    print(f"\nWitness (PostgreSQL): {len(records)} lines of {runs} active servers; {judged}")
    print(f"Client: {len(answers)} answers")
    print(f"A server of an older epoch is {'' if fenced else 'NOT '}refused by the database")
    print(f"Prometheus reaches {scraped} sidecars" if scraped else "No metrics in this build")
    missed = [result.fault for result in results if not result.good]
    print(f"Missed: {', '.join(missed)}" if missed else "Every interruption within its bound")
    reached = scraped is None or scraped == "3 of 3"
    return 0 if runs and reached and fenced and not found and not missed else 1


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="compose/ha/try")
    parser.add_argument("--backend", choices=STORES, default="etcd")
    parser.add_argument("--only", action="append", choices=[fault.name for fault in FAULTS], metavar="NAME")
    parser.add_argument("--cpu-shares", type=int, default=1024, help="of each container")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the containers have said")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if fault.name in (options.only or [fault.name])]
    return trial(options.backend, options.cpu_shares, options.logs, faults)


if __name__ == "__main__":
    sys.exit(main())
