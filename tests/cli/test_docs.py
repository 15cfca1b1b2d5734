"""Goal: docs/cli.md describes every command as it is: its options, their help, its exit statuses.

Method: the tables of each section are compared with the click tree. A failure prints the right table.
Not covered: the prose.
"""

import re
from pathlib import Path

import click
import pytest

from sidecar.cli import main
from sidecar.cli.options import Command
from sidecar.cli.program import COMMANDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"


def load(name: str) -> Command:
    command = main.get_command(click.Context(main), name)
    assert isinstance(command, Command)
    return command


def sections() -> dict[str, str]:
    parts = re.split(r"^## `sidecar (\S+)`.*\n", DOCUMENT.read_text(), flags=re.MULTILINE)
    return {
        name: re.split(r"^## ", text, flags=re.MULTILINE)[0]
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def options_table(command: Command) -> str:
    context = click.Context(command)
    records = [param.get_help_record(context) for param in command.params]
    rows = [f"| `{names}` | {text} |" for names, text in filter(None, records)]
    return "\n".join(["| Option | |", "|---|---|", *rows])


def exits_table(command: Command) -> str:
    rows = [f"| {status} | {meaning} |" for status, meaning in command.exits.items()]
    return "\n".join(["| Exit | |", "|---|---|", *rows])


def test_every_command_has_its_section_in_order() -> None:
    assert list(sections()) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_tables_are_true(name: str) -> None:
    section, command = sections()[name], load(name)
    for table in (options_table(command), exits_table(command)):
        assert table in section, f"docs/cli.md, {name}: should have\n\n{table}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_prose_names_no_option_that_does_not_exist(name: str) -> None:
    known = {
        option
        for command in map(load, COMMANDS)
        for param in command.params
        for option in (*param.opts, *param.secondary_opts)
    }
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", sections()[name]):
        assert option in known | {"--help", "--version"}, f"{name}: {option}"
