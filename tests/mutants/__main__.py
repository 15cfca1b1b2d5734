"""The command; see the package. Exit status 0: every mutant that was tried is caught."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.mutants.mutant import Unfit
from tests.mutants.page import PATH, page
from tests.mutants.table import MUTANTS
from tests.mutants.trial import Outcome, attempt, control

T = TypeVar("T")


def main(arguments: Sequence[str]) -> int:
    """Try mutants and tell of each how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Try mutants.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="those whose name or file contains one of these"
    )
    parser.add_argument("--jobs", type=int, default=1, help="so many at once")
    parser.add_argument(
        "--write",
        action="store_true",
        help="try all, the tests on the unbroken tree too; write docs/mutants.md",
    )
    given = parser.parse_args(arguments)
    if given.write and given.names:
        parser.error("--write needs all of them: leave the names out")
    chosen = [m for m in MUTANTS if not given.names or any(n in m.breaks or n in m.file for n in given.names)]
    if not chosen:
        parser.error("no mutant has such a name")
    for mutant in chosen:  # before hours are spent on the others
        mutant.mutated()
    counts = _each(chosen, attempt, lambda mutant: mutant.breaks, given.jobs)
    bad = counts["survived"] + counts["no verdict"]
    print(f"{len(chosen)} mutants: {dict(counts)}", flush=True)
    if given.write and not bad:
        passed = _each(sorted({check for m in chosen for check in m.checks}), control, str, given.jobs)
        print(f"unbroken: {passed['survived']} of {passed.total()} tests pass")
        bad = passed.total() - passed["survived"]
        if not bad:
            PATH.write_text(page(MUTANTS))
    return 1 if bad else 0


def _each(
    things: Sequence[T], work: Callable[[T], Outcome], name: Callable[[T], str], jobs: int
) -> Counter[str]:
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(jobs) as pool:
        for thing, outcome in zip(things, pool.map(work, things), strict=True):
            counts[outcome.verdict] += 1
            print(
                f"{outcome.verdict:<10} {name(thing):<58} {outcome.took_s:5.1f} s  {outcome.how}", flush=True
            )
    return counts


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Unfit as unfit:
        sys.exit(f"unfit: {unfit}")
