"""Goal: watch on a terminal: follows changes and the terminal's size, outlives the store, ends clean.

Method: the real command on a pseudo-terminal, and pages of every width. Its lines are in test_program.py.
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
from dataclasses import replace
from pathlib import Path
from typing import cast

import click
import pytest

from sidecar.cli.looking import page
from sidecar.cli.watching import looks
from sidecar.clock import BootClock
from sidecar.core.model import View
from sidecar.core.units import Instant
from sidecar.errors import Denied, NotSent
from sidecar.ports import Backend
from tests.cli.stage import Stage, request
from tests.cli.test_program import WITHIN_S
from tests.cli.test_status import WELL, A, B, document


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *args: str, columns: int = 80, term: str = "xterm-256color") -> None:
        ours = ("NO_COLOR", "COLUMNS", "LINES")  # the last two, which pytest-xdist sets, would hide the size
        env = {name: value for name, value in os.environ.items() if name not in ours} | {"TERM": term}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-P", "-m", "sidecar", *args], env)
        self.resize(columns)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))

    def until(self, pattern: str) -> str:
        """Read until *pattern* appears in what has come since the last time; return that."""
        clock, seen = BootClock(), ""
        deadline = clock.now() + int(WITHIN_S * 1000)
        while not re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", seen), re.DOTALL):
            ready, _, _ = select.select([self.fd], [], [], 1)
            assert clock.now() < deadline, f"no {pattern!r} in {seen[-2000:]!r}"
            seen += os.read(self.fd, 65_536).decode(errors="replace") if ready else ""
        return seen

    def interrupt(self) -> tuple[str, int]:
        """Press Ctrl-C; return what was still written, and the exit status."""
        os.write(self.fd, b"\x03")
        rest = ""
        try:
            while more := os.read(self.fd, 65_536).decode(errors="replace"):
                rest += more
        except OSError:
            pass  # the other end is closed
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return rest, os.waitstatus_to_exitcode(status)


def test_a_terminal_is_kept_up_to_date(stage: Stage, config_file: Path) -> None:
    stage.appear("node-b")
    terminal = Terminal("watch", "-c", str(config_file), columns=100)
    terminal.until("nobody is active.*NODE +ROLE +STATE")

    stage.acquire("node-a")
    coloured = terminal.until(r"node-a is active, epoch 1.*node-a\* +active +running")
    assert "\x1b[32m" in coloured, "colours on a terminal"

    away = stage.path.with_suffix(".away")
    stage.path.rename(away)
    stage.path.mkdir()
    terminal.until(r"! the backend does not answer; what follows is \d+\.\ds old.*node-a\* +active")
    stage.path.rmdir()
    away.rename(stage.path)
    stage.show("node-a", "running", "Serving again")
    terminal.until("\x1b\\[2K(?!.*does not answer).*Serving again")

    terminal.resize(30)
    terminal.until("ROLE active")
    rest, status = terminal.interrupt()

    assert status == 130
    assert "\x1b[?25h" in rest, "the cursor is shown again"
    assert "Traceback" not in rest
    assert "Aborted" not in rest


class Away:
    """A store that fails with the next of *reasons*, and at their end for good."""

    def __init__(self, *reasons: str) -> None:
        self._reasons = iter(reasons)

    def read(self, *, deadline: Instant) -> View:
        raise next((NotSent(reason) for reason in self._reasons), Denied("the end"))


def test_bug_watch_repeated_what_it_had_said_of_a_store_that_was_away_from_the_start(stage: Stage) -> None:
    """With ``-o json`` the same object was written every second, for ever."""

    def said(*, repeat: bool) -> list[str | None]:
        desk = replace(stage.desk(), backend=cast(Backend, Away("one", "one", "two", "two", "one")))
        found: list[str | None] = []
        with pytest.raises(Denied):
            found.extend(look.trouble for look in looks(desk, repeat=repeat))
        return found

    assert said(repeat=False) == ["one", "two", "one"]
    assert said(repeat=True) == ["one", "one", "two", "two", "one"], (
        "the page on a terminal shows how old it is"
    )


def test_a_terminal_that_cannot_be_painted_gets_lines(stage: Stage, config_file: Path) -> None:
    stage.acquire("node-a")
    terminal = Terminal("watch", "-c", str(config_file), term="dumb")

    seen = terminal.until("node-a is active, epoch 1; node-a active running\r\n")
    _, status = terminal.interrupt()

    assert status == 130
    assert "\x1b[?25l" not in seen


@pytest.mark.parametrize("columns", [80, 64, 40, 20])
def test_a_page_fits_every_terminal_and_loses_nothing(columns: int) -> None:
    name = "pumping-station-" + "b" * 40 + "-12"
    long = replace(B, node=name, message="Cooling down: " + "exit status 3, " * 8, eligible=False)
    view = replace(WELL, nodes=(A, long), request=request(by="b" * 60))
    text = click.unstyle(page(document(view), name, columns))

    assert max(map(len, text.splitlines())) <= columns
    words = " ".join(text.split())
    assert words.count("status 3,") == 8
    assert "(not eligible)" in words
    assert "12*" in words, "the end of a long name, and the mark of this machine's node"
    assert "4711" not in words, "of this machine's node alone"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" in page(document(WELL), "node-a", 80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in page(document(WELL), "node-a", 80)
