"""Run seeds: ``python -m tests.core.simulation FIRST COUNT``."""

import sys
import time
from collections import Counter

from tests.core.simulation.loop import Violation
from tests.core.simulation.world import World


def main(first: int, number: int, failures_max: int = 1) -> int:
    counts: Counter[str] = Counter()
    cells: Counter[tuple[str, str]] = Counter()
    failed: list[int] = []
    began = time.process_time()
    for seed in range(first, first + number):
        world = World(seed)
        try:
            world.run()
        except Violation as violation:
            failed.append(seed)
            print("\n".join(str(violation).splitlines()[:1] if len(failed) > 1 else [str(violation)]))
            if len(failed) >= failures_max:
                break
        counts += world.loop.counts
        cells += world.loop.cells
    took = time.process_time() - began
    print(f"{seed - first + 1} schedules, {(seed - first + 1) / took:.1f} a second of CPU, failed: {failed}")
    for name, amount in sorted(counts.items()):
        print(f"{amount:>8} {name}")
    phases = sorted({phase for phase, _ in cells})
    for phase in phases:
        print(phase, {seen: n for (p, seen), n in sorted(cells.items()) if p == phase})
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
