"""Writes the man pages, sidecar(1) and one for each command, out of the click commands.

    python scripts/manpages.py DIR

A generator of our own, because click-man leaves out what a command adds to its help: the exit statuses.
"""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from inspect import cleandoc
from pathlib import Path

import click

from sidecar import __version__
from sidecar.cli import main
from sidecar.cli.options import Command
from sidecar.cli.program import COMMANDS

MORE = r"""
.SH FILES
.TP
.I /etc/aggregate\-sidecar/sidecar.yml
The configuration, unless
.B \-\-config
or the environment names another one; \fBsidecar init\fR writes one to start with.
.SH ENVIRONMENT
.TP
.B SIDECAR_CONFIG
Names the configuration.
.TP
.B SIDECAR_LOCK__TTL
and the like: every key of the configuration can be set so.
.TP
.B SIDECAR_DEBUG
When set, an unexpected error shows where it came from.
.TP
.B NO_COLOR
When set, nothing is coloured.
"""


def escaped(text: str) -> str:
    """Return *text* as roff takes it literally, in ASCII."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def paragraphs(text: str) -> Iterator[str]:
    for number, block in enumerate(text.strip().split("\n\n")):
        if number:
            yield ".PP"
        verbatim = block.startswith("\b")
        lines = [escaped(line) for line in block.lstrip("\b\n").splitlines()]
        yield from [".nf", *lines, ".fi"] if verbatim else lines


def definitions(rows: list[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield from (".TP", f"\\fB{escaped(term)}\\fR", escaped(text))


def page(name: str, command: click.Command) -> str:
    """Return the man page of *command*, which is called *name*: ``sidecar``, ``sidecar-status``."""
    context = click.Context(command, info_name=name.replace("-", " "), **command.context_settings)
    day = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", datetime.now(UTC).timestamp())), UTC)
    head, _, rest = cleandoc(command.help or "").partition("\n\n")
    records = [r for param in command.get_params(context) if (r := param.get_help_record(context)) and r[1]]
    usage = " ".join(command.collect_usage_pieces(context))
    title = (
        f'.TH {escaped(name.upper())} 1 "{day:%Y-%m-%d}" "aggregate-sidecar {__version__}" "User Commands"'
    )
    lines = [title, ".SH NAME", f"{escaped(name)} \\- {escaped(' '.join(head.split()).rstrip('.'))}"]
    lines += [".SH SYNOPSIS", f".B {escaped(context.command_path)}", escaped(usage)]
    lines += [".SH DESCRIPTION", *paragraphs(rest or head)]
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *definitions([(each, text) for each, (_, text) in COMMANDS.items()])]
    lines += [".SH OPTIONS", *definitions(records)]
    if isinstance(command, Command):
        exits = [(str(status), meaning) for status, meaning in command.exits.items()]
        lines += [".SH EXIT STATUS", *definitions(exits)]
    others = ["sidecar"] if name != "sidecar" else [f"sidecar-{each}" for each in COMMANDS]
    also = "\n".join(f".BR {escaped(other)} (1)" for other in others)
    return "\n".join([*lines, *MORE.strip().splitlines(), ".SH SEE ALSO", also]) + "\n"


def write(folder: Path) -> None:
    """Write all pages into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sidecar.1").write_text(page("sidecar", main), encoding="ascii")
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        (folder / f"sidecar-{name}.1").write_text(page(f"sidecar-{name}", command), encoding="ascii")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
