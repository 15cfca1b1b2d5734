"""docs/configuration.md says of every key what the schema says, and its examples are configurations.

Method: the tables of the page are compared with `KEYS`, row by row. Not covered: whether the prose is wise.
"""

import os
import re
from pathlib import Path

import pytest

from sidecar.config import from_text
from sidecar.config.schema import KEYS, Key

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
HOOKS = PAGE.with_name("hooks")
TEXT = PAGE.read_text()
ROW = re.compile(r"\| `([a-z_.]+)` \| ([^|]+) \| ([^|]+) \| (yes|no) \| ([^|]+) \|")
ROWS = {found[1]: found for found in ROW.finditer(TEXT)}
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_has_every_key_and_no_other() -> None:
    assert sorted(ROWS) == sorted(path for path, key in KEYS.items() if key.from_file)


@pytest.mark.parametrize("key", [key for key in KEYS.values() if key.from_file], ids=lambda key: key.path)
def test_a_row_says_what_the_schema_says(key: Key) -> None:
    kind, default, live, meaning = (ROWS[key.path][column].strip() for column in (2, 3, 4, 5))

    assert (kind, default.strip("`"), live) == (key.kind.says, key.default_says, "yes" if key.live else "no")
    assert len(meaning) > 20


@pytest.mark.parametrize("key", [key for key in KEYS.values() if not key.from_file], ids=lambda key: key.path)
def test_the_page_names_every_secret_of_the_environment(key: Key) -> None:
    assert f"`{key.variable}`" in TEXT


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_is_a_configuration(block: str) -> None:
    from_text(block, {}, source=str(PAGE))


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize(
    "block",
    [
        block
        for page in ("hooks.md", "load-balancer.md")
        for block in re.findall(r"```yaml\n(.*?)```", PAGE.with_name(page).read_text(), re.DOTALL)
    ],
)
def test_an_example_of_hooks_runs_a_program_that_is_there(block: str) -> None:
    hooks = from_text("cluster: c\nbackend: local\n" + block, {}, source="the page").hooks

    named = (hooks.before_active, hooks.on_active, hooks.after_stop, hooks.on_standby)
    assert any(named)
    for argv in filter(None, named):
        assert os.access(HOOKS / Path(argv[0]).name, os.X_OK)
