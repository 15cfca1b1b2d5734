"""docs/mutants.md: the table for people. Written by ``python -m tests.mutants --write`` alone."""

# ruff: noqa: E501 - the page has longer lines than the code

from collections import Counter
from collections.abc import Sequence

from tests.mutants.mutant import ROOT, Mutant

PATH = ROOT / "docs" / "mutants.md"
HEAD = """\
# Mutants: what is broken on purpose, and which test sees it

A test that finds nothing proves nothing unless it can find something. So each line that matters has an edit that breaks it, and the
test that has to fail then. `python -m tests.mutants --jobs 2 --write` makes each edit in a copy of the tree, runs
that one test there, makes sure that the same test passes on the unbroken tree, and writes this page only when every mutant was caught.
`python -m tests.mutants NAME…` tries the mutants whose name contains NAME. `./scripts/test` checks that every edit can still be made,
and tries a few of them.
"""


def page(mutants: Sequence[Mutant]) -> str:
    """Return the page for *mutants*, all of which were caught."""
    layers = Counter(mutant.layer for mutant in mutants)
    caught = ", ".join(f"{count} by {layer}" for layer, count in layers.most_common())
    simulated = sum(mutant.schedules > 0 for mutant in mutants)
    parts = [HEAD, f"{len(mutants)} mutants, all caught: {caught}; {simulated} by the simulation too.\n"]
    for folder in dict.fromkeys(_part(mutant) for mutant in mutants):
        parts += [f"## {folder}\n", "| what is broken | file | caught by |\n|---|---|---|"]
        for mutant in mutants:
            if _part(mutant) == folder:
                name = mutant.file.removeprefix(f"{folder}/")
                parts.append(f"| {mutant.breaks} | {name} | {_by(mutant)} |")
        parts.append("")
    return "\n".join(parts).rstrip("\n") + "\n"


def _part(mutant: Mutant) -> str:
    return mutant.file.rpartition("/")[0]


def _by(mutant: Mutant) -> str:
    test = f"`{mutant.by.removeprefix('tests/')}`"
    return f"{test}, simulation ({mutant.schedules} schedules)" if mutant.schedules else test
