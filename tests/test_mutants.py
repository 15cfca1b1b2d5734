"""The tests can see: each mutant can still be made, and a few of them are caught in every run.

Method: every edit is made in memory and looked at by ruff, since one that raises NameError would be caught by
anything; a slice of the table is tried, chosen for being fast. All of it: ``python -m tests.mutants``.
"""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.mutant import ROOT, Mutant, Unfit
from tests.mutants.page import PATH, page
from tests.mutants.table import MUTANTS
from tests.mutants.trial import attempt


def test_every_edit_can_still_be_made(tmp_path: Path) -> None:
    unfit = []
    for number, mutant in enumerate(MUTANTS):
        try:
            (tmp_path / f"mutant_{number}.py").write_text(mutant.mutated())
        except Unfit as error:
            unfit.append(str(error))
    looked = subprocess.run(
        ["ruff", "check", "--isolated", "--select", "F821,F823", "--output-format", "concise", str(tmp_path)],
        capture_output=True,
        text=True,
    )

    assert unfit == []
    assert looked.returncode == 0, looked.stdout


def test_every_name_is_there_once() -> None:
    assert [name for name, count in Counter(m.breaks for m in MUTANTS).items() if count > 1] == []


def test_every_test_that_has_to_catch_one_is_there() -> None:
    missing = []
    for mutant in MUTANTS:
        files, _, test = mutant.by.partition(" -k ")[0].partition("::")
        texts = [(ROOT / file).read_text() for file in files.split()]
        if test and f"def {test}(" not in texts[0]:
            missing.append(mutant.by)

    assert missing == []


def test_the_page_is_of_this_table() -> None:
    """Else run ``python -m tests.mutants --jobs 2 --write``."""
    assert PATH.read_text() == page(MUTANTS)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.slice], ids=lambda mutant: mutant.breaks)
def test_a_broken_rule_is_caught(mutant: Mutant) -> None:
    outcome = attempt(mutant)

    assert outcome.verdict == "caught", outcome.how
