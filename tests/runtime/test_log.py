"""The log: nobody but us begins a line, whatever servers print or errors say; the journal gets priorities.

Method: the real outlet and formatters, into memory or a pipe; lines read back as a program would.
Not covered: which events there are (the parts' own tests), a real journal.
"""

import io
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator

import pytest

from sidecar import events, log
from sidecar.events import LOG
from sidecar.log import Journal, JsonLine, Log, Printed, Style, TextLine
from tests.harness.process import wait_until
from tests.runtime.stubs import WITHIN_S

FORGED = "2026-11-26 01:02:03.456+0000 error alarm text=forged"
EVIL = [
    f"x\n{FORGED}",
    f"x\r{FORGED}",
    f"x\x1b[2K\x1b[1G{FORGED}",
    f"x\x0b\x0c\x1c\x85\u2028\u2029{FORGED}",
    f"x\u202e\u2066{FORGED}",
    "x\x00\x07\x08\x7f\x9b",
    'x" level=error y="',
    "<0>x",
    "\ud800x",
]
PRINTED = Printed("x", stream="stdout")
LINE = re.compile(r"(\S+ \S+ )?(debug|info|warning|error) (\w+)(( \w+=(\"([^\"\\]|\\.)*\"|[^\s\"]+))*)")


def event(**fields: object) -> logging.LogRecord:
    return log._record(logging.WARNING, "backend_trouble", fields)


@pytest.mark.parametrize("evil", EVIL)
def test_a_text_line_is_one_line_and_its_fields_are_what_they_were(evil: str) -> None:
    line = TextLine().format(event(call="lock", reason=evil))

    found = LINE.fullmatch(line)
    assert line.isprintable()
    assert found is not None
    fields = dict(re.findall(r" (\w+)=(\"(?:[^\"\\]|\\.)*\"|[^\s\"]+)", found[4]))
    assert fields.keys() == {"call", "reason"}
    value = fields["reason"]
    assert (json.loads(value) if value.startswith('"') else value) == evil


@pytest.mark.parametrize(
    "style", [TextLine(), JsonLine(), Journal(TextLine(stamped=False)), Journal(JsonLine())]
)
@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("whose", ["server", "hook"])
def test_what_server_and_hooks_print_is_one_line_that_cannot_pass_for_ours(
    style: Style, whose: str, evil: str
) -> None:
    printed = Printed(evil, stream="stdout") if whose == "server" else Printed(evil, hook="on_active")

    line = style.output(printed)

    assert line.isprintable()
    if isinstance(style, Journal):
        assert line.startswith("<6>")
        line = line[3:]
    if line.startswith("{"):
        assert json.loads(line)["event"] == f"{whose}_output"
        assert json.loads(line)["line"] == evil
    else:
        assert line.startswith("server| " if whose == "server" else "hook on_active| ")


def test_a_server_may_indent_and_end_its_lines_as_windows_does() -> None:
    line = Printed("\tat java.lang.Thread.run\r", stream="stdout")

    assert TextLine().output(line) == "server| \tat java.lang.Thread.run"


def traceback(evil: str) -> logging.LogRecord:
    record = event()
    try:
        raise ValueError(evil)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    return record


@pytest.mark.parametrize("evil", EVIL)
def test_the_lines_of_a_traceback_are_indented(evil: str) -> None:
    first, *rest = TextLine().format(traceback(evil)).split("\n")

    assert LINE.fullmatch(first)
    assert len(rest) >= 4
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
    assert len(JsonLine().format(traceback(evil)).splitlines()) == 1


def test_the_journal_gets_the_priority_on_every_line() -> None:
    style = Journal(TextLine(stamped=False))
    for level, priority in {"debug": 7, "info": 6, "warning": 4, "error": 3}.items():
        record = log._record(getattr(logging, level.upper()), "notice", {"text": "x"})
        assert style.format(record) == f"<{priority}>{level} notice text=x"
    lines = style.format(traceback("a\nb")).split("\n")
    assert len(lines) > 4
    assert all(line.startswith("<4>") for line in lines)


@pytest.fixture
def pipe() -> Iterator[io.TextIOWrapper]:
    reader, writer = os.pipe()
    with open(writer, "w") as stream, open(reader):  # noqa: PTH123 - descriptors
        yield stream


def test_the_journal_is_known_by_its_stream(pipe: io.TextIOWrapper) -> None:
    stat = os.fstat(pipe.fileno())
    ours = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
    other = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino + 1}"}

    def shape(environment: dict[str, str], *, as_json: bool = False) -> str:
        return log.style_of(pipe, environment, as_json=as_json).output(PRINTED)

    assert shape(ours) == "<6>server| x"
    assert shape(other) == shape({}) == "server| x"
    assert shape(ours, as_json=True).startswith('<6>{"event"')
    assert log.style_of(io.StringIO(), ours, as_json=False).output(PRINTED) == "server| x"
    stamped = log.style_of(pipe, other, as_json=False).format(event())
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d{4} warning backend_trouble", stamped)
    assert log.style_of(pipe, ours, as_json=False).format(event()) == "<4>warning backend_trouble"


class Stuck(io.StringIO):
    """A reader that takes nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.asked = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.asked.set()
        self.go_on.wait(WITHIN_S)
        return super().write(text)


def finish(made: Log, stream: Stuck) -> None:
    """Let the reader take what is queued."""
    stream.go_on.set()
    wait_until(made._lines.empty, "everything to be taken", WITHIN_S)
    made.close(WITHIN_S)


@pytest.mark.parametrize("style", [TextLine(), JsonLine()])
def test_a_stuck_reader_stops_nobody_and_what_is_lost_is_said_in_the_logs_own_way(style: Style) -> None:
    stream = Stuck()
    made = Log(stream, style)
    made.put("first")
    assert stream.asked.wait(WITHIN_S)
    for _ in range(log.QUEUE_LINES_MAX + 5):
        made.event(event())
    finish(made, stream)

    said = stream.getvalue().splitlines()[1]
    assert re.search(r'log_lines_dropped.*lines["=: ]+5\b', said), said
    assert len(stream.getvalue().splitlines()) == log.QUEUE_LINES_MAX + 2


def test_bug_a_server_that_flooded_the_log_threw_our_alarms_away(
    configured: Callable[[str], io.StringIO],
) -> None:
    configured("info")
    stream = Stuck()
    made = Log(stream, TextLine())
    made.put("first")
    assert stream.asked.wait(WITHIN_S)
    for _ in range(log.QUEUE_LINES_MAX):
        made.server("stdout", "x")
        made.hook("on_active", "x")
    made.event(event(reason="alarm"))
    finish(made, stream)

    assert stream.getvalue().splitlines()[-1].endswith("reason=alarm")


@pytest.fixture
def configured() -> Iterator[Callable[[str], io.StringIO]]:
    made: list[Log] = []
    level, handlers = LOG.level, LOG.handlers[:]

    def configure(wanted: str) -> io.StringIO:
        stream = io.StringIO()
        made.append(log.configure(wanted, stream=stream))
        return stream

    yield configure
    LOG.setLevel(level)
    LOG.handlers[:] = handlers
    for one in made:
        one.close()


def test_the_level_decides_what_is_written_and_listeners_hear_all(
    configured: Callable[[str], io.StringIO],
) -> None:
    stream, heard = configured("warning"), list[events.Event]()
    quiet, loud = events.Notice(text="quiet"), events.Raised(text="loud")

    with events.listening(heard.append):
        events.emit(quiet)
        events.emit(loud)
    events.emit(events.Notice(text="not heard"))
    events.emit(quiet, logging.ERROR)
    LOG.handlers[0]._log.server("stdout", "what a server prints is of level info")  # type: ignore[attr-defined]
    LOG.handlers[0]._log.close()  # type: ignore[attr-defined]

    assert heard == [quiet, loud]
    assert [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()] == [
        "error alarm text=loud",
        "error notice text=quiet",
    ]
