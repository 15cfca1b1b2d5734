"""What commands print: tables of at most the terminal's width, JSON, YAML, and lines for people.

Text that came from the backend was written by others: whatever is not printable is taken out of it
before it gets to a terminal.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

WIDTH, NARROW = 80, 20
CELL_MAX, CELL_MIN = 24, 12
"""A name longer than the first is cut in a table, and down to the second where the last column needs room;
JSON has all of it."""
LAST_MIN = 12
"""Columns for the last column. Where that leaves too little for the others, each row becomes a block."""


def say(text: str) -> None:
    """Tell the user how it goes, on stderr. Nobody listening is no reason to stop what is under way."""
    with suppress(OSError):
        click.echo(printable(text), err=True)


def conclude(text: str) -> None:
    """Write a result on stdout. That it cannot be written does not change what was done."""
    from sidecar.cli.program import settle

    try:
        click.echo(printable(text))
    except OSError as error:
        settle(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            say(f"sidecar: warning: the output cannot be written: {error.strerror}: {text}")


def document(value: object, output: str, *, compact: bool = False) -> None:
    """Write *value* as JSON or YAML."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
        return
    import json

    click.echo(json.dumps(value, indent=None if compact else 2, ensure_ascii=False))


def paint(text: str, colour: str | None) -> str:
    """Colour *text*; `click.echo` takes the colour out where there is no terminal."""
    return click.style(text, fg=colour) if colour and not os.environ.get("NO_COLOR") else text


def printable(text: str) -> str:
    """Return *text* without control characters."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def width() -> int:
    """Return how wide a table may be: the terminal, or 80 where there is none."""
    import shutil

    return max(NARROW, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else WIDTH


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int = WIDTH,
    colours: Mapping[str, str] | None = None,
) -> str:
    """Return *rows* in columns; the last one takes what is left and wraps.

    ``>NAME``: right-aligned; ``=NAME``: never cut, as a time is useless then.
    """
    import textwrap

    right, whole = ([name.startswith(mark) for name in head] for mark in ">=")
    lines = [[name.lstrip(">=") for name in head]]
    lines += [[_cell(cell) for cell in row[:-1]] + [printable(row[-1])] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
    room = width - 2 * len(widths) - LAST_MIN
    cut = [index for index in range(len(widths)) if not whole[index]]
    while sum(widths) > room and max((widths[index] for index in cut), default=0) > CELL_MIN:
        widths[max(cut, key=lambda index: widths[index])] -= 1
    if sum(widths) > room:
        return _blocks(lines, width, colours or {})
    lines = [
        [*(_cell(cell, size) for cell, size in zip(line, widths, strict=False)), line[-1]] for line in lines
    ]
    left = sum(widths) + 2 * len(widths)
    text: list[str] = []
    for line in lines:
        cells = [
            paint(cell.rjust(size) if at_right else cell.ljust(size), (colours or {}).get(cell))
            for cell, size, at_right in zip(line[:-1], widths, right, strict=False)
        ]
        last = textwrap.wrap(line[-1], width - left) or [""]
        text.append("  ".join([*cells, last[0]]).rstrip())
        text += [" " * left + more for more in last[1:]]
    return "\n".join(text)


def wrap(mark: str, text: str, width: int) -> list[str]:
    """Return *text* in lines of at most *width*, the first one after *mark*."""
    import textwrap

    return textwrap.wrap(
        printable(text),
        width,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_on_hyphens=False,
    )


def _blocks(lines: Sequence[Sequence[str]], width: int, colours: Mapping[str, str]) -> str:
    """Return each row as a few lines, its first cell above the others: for narrow terminals."""
    text: list[str] = []
    for first, *rest in lines[1:]:
        text += wrap("", first, width)
        for name, cell in zip(lines[0][1:], rest, strict=True):
            colour = colours.get(cell)
            text += [paint(line, colour) for line in wrap(f"  {name} ", cell, width)]
    return "\n".join(text)


def _cell(text: str, most: int = CELL_MAX) -> str:
    """Cut *text* in its middle: the end of a name often tells it from the others."""
    text = printable(text).replace("\n", " ")
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"


def epoch(value: object) -> str:
    """Return an epoch for people; ``?`` for one that cannot be read."""
    return "?" if value is None else str(value)


def seconds(value: object) -> str:
    """Return a number of seconds for a table."""
    if not isinstance(value, int | float):
        return "-"
    if value < 100:
        return f"{value:.1f}s"
    if value < 7200:
        return f"{value / 60:.0f}m"
    return f"{value / 3600:.0f}h" if value < 172_800 else f"{value / 86_400:.0f}d"
