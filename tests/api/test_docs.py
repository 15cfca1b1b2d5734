"""Goal: docs/api.md is true: its tables have every path, event and outcome, and its curl lines work.

Method: the lines are run by a shell against a real API on the address that the page names, on another port.
Not covered: the prose.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from sidecar.api import commands
from sidecar.api.feed import TOLD
from sidecar.api.openapi import document
from sidecar.core import state as s
from tests.api.served import TOKEN, Served, lease
from tests.cli.stage import Stage
from tests.core.made import lock, view

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
LINES = re.findall(r"^    \$ (curl .*)$", TEXT, re.MULTILINE)


def test_the_page_has_every_path_and_no_other() -> None:
    named = set(re.findall(r"`(/[a-z.]*)(?:\?n=20)?`", TEXT)) | {"/openapi.json"}

    assert named == set(document()["paths"])


def test_the_page_has_every_event() -> None:
    section = TEXT.partition("### /events")[2].partition("## Commands")[0]
    first = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", section, re.MULTILINE)

    assert {name for cell in first for name in re.findall(r"`([a-z_]+)`", cell)} == TOLD | {
        "status",
        "request",
    }


@pytest.mark.parametrize("code", commands.OUTCOMES)
def test_the_page_has_every_outcome(code: int) -> None:
    assert f"| {code} | `{commands.OUTCOMES[code]}` | {commands.HTTP[code]} |" in TEXT


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_works(stage: Stage, api: Served, line: str) -> None:
    stage.acquire("node-a")
    stage.appear("node-b")
    api.tell(s.Serving(lease(60_000), 3), view(lock("a")))
    command = line.replace(":8009", f":{api.port}").replace("curl -", "curl --max-time 30 -", 1)
    if "/events" in line:
        command = f"timeout 1 {command} || true"
    environment = {**os.environ, "TOKEN": TOKEN}

    def run() -> str:
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout

    if "/switchover" in line:
        with stage.acting(lambda: stage.obey("node-b")):
            assert '"outcome":"done"' in run()
    elif "/resume" in line:
        assert '"message":"node-b is not paused"' in run()
    elif "/history" in line:
        assert run()
    else:
        assert re.search(r'"ok":true|"cluster":"plant-7"|"outcome":"done"', run())


def test_there_are_lines() -> None:
    assert len(LINES) >= 6
