"""What the user wants while a command works: go on, or end."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

import click
from click.exceptions import Exit

from sidecar.cli import options
from sidecar.cli.program import INTERRUPTED, fail
from sidecar.errors import Failed, Interrupted, UsageError

if TYPE_CHECKING:
    from sidecar.config import Config
    from sidecar.operate.desk import Desk

UNKNOWN = 5
TWICE = (
    "interrupted twice: whether it was done, or goes on without this command, is not known; "
    "`sidecar status` and `sidecar history` show what becomes of it"
)


def need_yes(yes: bool) -> None:
    """Raise UsageError where nobody can be asked."""
    if not yes and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for confirmation; give --yes")


def ask(question: str) -> None:
    """Ask on the terminal.

    Raises:
        Failed: The answer was no.
        Exit: There was none: Ctrl-C, or the end of the input.
    """
    try:
        agreed = click.confirm(question, default=False, err=True)
    except click.Abort:
        click.echo(err=True)  # the question's line is still open
        raise Exit(fail("interrupted; nothing was done", INTERRUPTED)) from None
    if not agreed:
        raise Failed("not confirmed; nothing was done")


class Halt:
    """Notes the first SIGINT or SIGTERM, for an end in good order; the second one ends it at once.

    ``began`` False: nothing was asked of anybody yet.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.began = True

    def asked(self) -> bool:
        """Tell whether there was one."""
        return self.number is not None

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def interruptible_desk(configuration: "Config") -> "Iterator[Desk]":
    """Give an operation its desk, and the chance to end in good order: see `interruptible`."""
    with interruptible() as halt, options.open_desk(configuration) as desk:
        yield replace(desk, halted=halt.asked)


@contextmanager
def interruptible() -> Iterator[Halt]:
    """Give an operation the chance to end in good order. Ctrl-C before it began: the command exits with 130.

    After a second signal nobody looks any more at what becomes of it, so that is unknown. Once it is over
    both signals are ignored: the command is about to end, and has to say what came of it.
    """
    halt = Halt()
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    for number in numbers:
        signal.signal(number, halt.note)
    try:
        yield halt
    except Interrupted as error:
        if halt.number == signal.SIGINT:
            raise Exit(fail(str(error), INTERRUPTED)) from error
        raise
    except KeyboardInterrupt:
        if not halt.began:
            raise Exit(fail("interrupted; nothing was done", INTERRUPTED)) from None
        raise Exit(fail(TWICE, UNKNOWN)) from None
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
