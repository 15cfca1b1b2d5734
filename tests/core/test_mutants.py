"""The tests of the core see: each edit here breaks a rule, and one of them must fail.

Method: a few of the mutants, chosen because they are caught fast; all of them with
``python -m tests.core.mutants``.
"""

from pathlib import Path

import pytest

from tests.core.mutants import FAST, MUTANTS, caught_by_simulation, plant

SEEDS = 60


@pytest.mark.parametrize("name", FAST)
def test_the_simulation_catches(name: str, tmp_path: Path) -> None:
    plant(MUTANTS[name], tmp_path)

    assert caught_by_simulation(tmp_path, SEEDS) is not None


@pytest.mark.parametrize("name", MUTANTS)
def test_the_edit_can_still_be_made(name: str, tmp_path: Path) -> None:
    plant(MUTANTS[name], tmp_path)
