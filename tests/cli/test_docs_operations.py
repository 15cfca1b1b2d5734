"""docs/operations.md explains every alarm and every message that the program can show.

Method: the texts are taken from the source, with ``…`` for what is put in, and looked for on the page.
Not covered: whether the advice is good.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.metrics.causes import RULES

ROOT = Path(__file__).parents[2]
PAGE = re.sub(r"\s+", " ", (ROOT / "docs" / "operations.md").read_text()).replace("`", "")
ALARMS = {"Raised", "Alarm"}


def text_of(node: ast.expr) -> str | None:
    """Return a text as the page has it; None: it is put together elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            shown = ("…" if isinstance(part, ast.FormattedValue) else text_of(part) or "" for part in parts)
            return re.sub(r"…[^:;,]*…", "…", "".join(shown)).removeprefix("…; ")
        case ast.BinOp(left=left, right=right):
            return f"{text_of(left) or '…'}{text_of(right) or '…'}"
        case _:
            return None


def alarms() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "sidecar").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                values = [*node.args, *(keyword.value for keyword in node.keywords)]
                if name in ALARMS and values and (text := text_of(values[-1])):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def messages() -> Iterator[str]:
    """Every sentence of the functions that put a node's message together."""
    outlook = ast.parse((ROOT / "sidecar" / "core" / "outlook.py").read_text())
    functions = [node for node in outlook.body if isinstance(node, ast.FunctionDef)]
    for function in functions:
        if function.name in ("_summary", "_waiting", "older_store"):
            parts = {
                id(value)
                for node in ast.walk(function)
                if isinstance(node, ast.JoinedStr)
                for value in node.values
            }
            docstring = ast.get_docstring(function, clean=False)
            for node in ast.walk(function):
                text = text_of(node) if isinstance(node, ast.Constant | ast.JoinedStr) else None
                if (
                    text
                    and text != docstring
                    and id(node) not in parts
                    and (" " in text or text[0].isupper())
                ):
                    yield text.strip()


@pytest.mark.parametrize(("where", "text"), list(alarms()))
def test_every_alarm_is_explained(where: str, text: str) -> None:
    assert text.replace("`", "") in PAGE, f"{where}: {text}"


@pytest.mark.parametrize("cause", [beginning.strip() for beginning, _ in RULES])
def test_every_cause_of_a_failover_is_explained(cause: str) -> None:
    assert cause in PAGE[PAGE.index("Why did it fail over?") :]


@pytest.mark.parametrize("text", sorted(set(messages())))
def test_every_message_is_explained(text: str) -> None:
    assert text.replace("`", "") in PAGE
