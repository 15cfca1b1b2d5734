import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.stage import Stage

SERVER_XML = Path(__file__).parents[1] / "data" / "server.xml"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "local.db")
    yield made
    made.close()


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A configuration on the same store as `stage`."""
    path = tmp_path / "sidecar.yml"
    path.write_text(
        "cluster: plant-7\nnode: node-a\nbackend: local\n"
        f"local: {{path: {tmp_path}/local.db}}\n"
        f"server: {{kind: command, command: [/bin/sleep, '60']}}\n"
        f"paths: {{state: {tmp_path}/state, run: {tmp_path}/run}}\n"
    )
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An installation of an AggreGate Server, as far as files go."""
    home = tmp_path / "aggregate"
    home.mkdir()
    shutil.copy(SERVER_XML, home / "server.xml")
    (home / "ag_server").write_text("#!/bin/sh\nexec sleep 60\n")
    (home / "ag_server").chmod(0o755)
    return home
