from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.served import Served, served
from tests.cli.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The store that the API's commands go to."""
    made = Stage(tmp_path / "local.db")
    yield made
    made.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made
