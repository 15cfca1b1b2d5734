"""Every ``sidecar`` command in README and docs/ is one that this program understands.

Method: lines of console blocks and code in the text are read as a shell would, and given to the click tree,
which parses them and runs nothing. Not covered: what they do; that is what the tests of each command are for.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sidecar.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GIVEN = {"NODE": "node-b", "FILE": "/dev/null", "SHELL": "bash", "server.xml": "/dev/null"}
"""What stands for itself in the text."""


def written(page: Path) -> Iterator[tuple[int, str]]:
    """Give the commands of *page* with their lines."""
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
            continue
        prompted = re.match(r"(?:[#$] )(sidecar .*)", line) if fenced else None
        found = (
            [prompted[1]] if prompted else re.findall(r"`(sidecar [a-z][^`]*)`", line) if not fenced else []
        )
        yield from ((number, text) for text in found)


def commands() -> Iterator[object]:
    for page in PAGES:
        for number, text in written(page):
            if "…" not in text and "[" not in text:
                yield pytest.param(text, id=f"{page.name}:{number} {text}")


@pytest.mark.parametrize("text", list(commands()))
def test_it_is_understood(text: str) -> None:
    words = shlex.split(re.split(r"\s[#|>&;]|;", text)[0], comments=True)[1:]
    words = [GIVEN.get(word, word) for word in words]
    if words[0] in ("-c", "--config"):
        words = words[2:]
    context = click.Context(main, info_name="sidecar")
    command = main.get_command(context, words[0])

    assert command is not None, f"no such command: {words[0]}"
    if len(words) > 1 and not {"-h", "--help"} & set(words):  # else it is only named
        command.make_context(words[0], words[1:], parent=context)


def test_there_are_commands_to_look_at() -> None:
    assert len(list(commands())) > 30
