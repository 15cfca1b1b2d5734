"""The tests of the core see: each edit here breaks a rule, and one of them must fail.

Method: a few of the mutants, chosen because they are caught fast; all of them with
``python -m tests.core.mutants``.
"""

from pathlib import Path

import pytest

from tests.core.mutants import FAST, MUTANTS, caught_by_simulation, caught_by_units, plant

SEEDS = 60


@pytest.mark.parametrize("name", FAST)
def test_a_broken_rule_is_caught(name: str, tmp_path: Path) -> None:
    """By a unit test, or else by the simulation; the whole table says which."""
    plant(MUTANTS[name], tmp_path)

    assert caught_by_units(tmp_path) or caught_by_simulation(tmp_path, SEEDS)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_edit_can_still_be_made(name: str, tmp_path: Path) -> None:
    plant(MUTANTS[name], tmp_path)
