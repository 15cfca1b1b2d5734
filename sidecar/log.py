"""How the log is written: text for people, JSON for programs, both with priorities for systemd's journal.

Rule 1.  Writing never blocks the caller: lines go through a bounded queue, and what a stuck reader makes
         overflow is counted. What servers and hooks print never takes the last room from our own events.
Rule 2.  Nobody forges a line: what servers and hooks print and errors say has its control characters
         escaped, so that each event is one line, and only a traceback, whose lines are indented, is several.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TextIO

from sidecar.events import LOG

QUEUE_LINES_MAX = 10_000
OWN_LINES = 1_000
"""Of these, for events alone: an alarm must not be lost because a server floods the log."""
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Of syslog, as ``sd-daemon(3)`` wants them at the beginning of a line."""


class Printed(NamedTuple):
    """A line that somebody else has printed: the server on a *stream*, or a hook of that name."""

    line: str
    stream: str | None = None
    hook: str | None = None


class Style(Protocol):
    """Makes lines of what is logged."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of an event."""
        ...

    def output(self, printed: Printed) -> str:
        """Return the line for one that somebody else has printed."""
        ...


class TextLine(logging.Formatter):
    """``2026-11-26 12:01:02.345+0100 warning role_changed node=a …``, ``server| …``, ``hook NAME| …``."""

    def __init__(self, *, stamped: bool = True) -> None:
        super().__init__()
        self._stamped = stamped

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback, where there is one, follows it, indented."""
        fields: dict[str, object] = getattr(record, "fields", {})
        words = [_stamp(record)] if self._stamped else []
        words += [record.levelname.lower(), _safe(record.getMessage())]
        words += [f"{name}={_text(value)}" for name, value in fields.items() if value is not None]
        trace = self.formatException(record.exc_info).split("\n") if record.exc_info else []
        return "\n".join([" ".join(words), *(f"  {_safe(line)}" for line in trace)])

    def output(self, printed: Printed) -> str:
        """Return the line so that it cannot pass for one of ours."""
        whose = "server" if printed.hook is None else f"hook {printed.hook}"
        return f"{whose}| {_safe(printed.line.rstrip(chr(13)))}"


class JsonLine(logging.Formatter):
    """``{"event": ..., "level": ..., "at_unix_ms": ..., <fields>}``, one object to a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as one line."""
        fields: dict[str, object] = getattr(record, "fields", {})
        line: dict[str, object] = {"event": record.getMessage(), "level": record.levelname.lower()}
        line["at_unix_ms"] = int(record.created * 1000)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line | fields, default=str)

    def output(self, printed: Printed) -> str:
        """Return the line as an event."""
        event = "server_output" if printed.hook is None else "hook_output"
        fields = {name: value for name, value in printed._asdict().items() if value is not None}
        return self.format(_record(logging.INFO, event, fields))


class Journal:
    """Another style with a priority before each line."""

    def __init__(self, style: Style) -> None:
        self._style = style

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines, each with the priority of the event's level."""
        priority = PRIORITIES.get(record.levelno, PRIORITIES[logging.INFO])
        return "\n".join(f"<{priority}>{line}" for line in self._style.format(record).split("\n"))

    def output(self, printed: Printed) -> str:
        """Return the line at the priority of information."""
        return f"<{PRIORITIES[logging.INFO]}>{self._style.output(printed)}"


def _record(level: int, event: str, fields: Mapping[str, object]) -> logging.LogRecord:
    return LOG.makeRecord(LOG.name, level, "", 0, event, (), None, extra={"fields": dict(fields)})


def _stamp(record: logging.LogRecord) -> str:
    at = time.localtime(record.created)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', at)}.{int(record.msecs):03d}{time.strftime('%z', at)}"


def _text(value: object) -> str:
    text = str(value)
    if text.isprintable() and text and not {" ", '"'} & set(text):
        return text
    return _safe(json.dumps(text, ensure_ascii=False))


def _safe(text: str) -> str:
    """Return *text* with every character escaped that could end, erase or turn round a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else json.dumps(c)[1:-1] for c in text)


class Outlet:
    """Writes lines to *stream* from a thread of its own, so that a stuck reader stops nobody.

    ``put`` drops and counts when the queue is full; *overflow* says so in the log's own way.
    """

    def __init__(self, stream: TextIO, overflow: Callable[[int], str] = "{} lines dropped".format) -> None:
        self._stream = stream
        self._overflow = overflow
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str, *, leaving: int = 0) -> None:
        """Queue *line*, or count it as dropped: also where less room than *leaving* would be left."""
        if self._lines.qsize() >= QUEUE_LINES_MAX - leaving:
            self._dropped += 1
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, within_s: float = 1.0) -> None:
        """Write what is queued, as far as the reader takes it in time."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(within_s)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    self._stream.write(self._overflow(dropped) + "\n")
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                continue  # nobody reads any more: that must not stop a supervisor


class Log(Outlet):
    """The outlet of our own log, to which what server and hooks print goes as well, at level ``info``."""

    def __init__(self, stream: TextIO, style: Style) -> None:
        self._style = style
        super().__init__(stream, self._lost)

    def server(self, stream: str, line: str) -> None:
        """Write a line that the server printed on *stream*."""
        self._printed(Printed(line, stream=stream))

    def hook(self, name: str, line: str) -> None:
        """Write a line that the hook *name* printed."""
        self._printed(Printed(line, hook=name))

    def event(self, record: logging.LogRecord) -> None:
        """Write an event."""
        self.put(self._style.format(record))

    def _printed(self, printed: Printed) -> None:
        if LOG.isEnabledFor(logging.INFO):
            self.put(self._style.output(printed), leaving=OWN_LINES)

    def _lost(self, count: int) -> str:
        return self._style.format(_record(logging.WARNING, "log_lines_dropped", {"lines": count}))


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.event(record)


def style_of(stream: TextIO, environment: Mapping[str, str], *, as_json: bool) -> Style:
    """Return how to write to *stream*: the journal, named by ``JOURNAL_STREAM``, has its own time stamps.

    Source: systemd.exec(5), ``JOURNAL_STREAM``: device and inode of the stream that leads to the journal.
    """
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file: a test's
        here = None
    else:
        here = f"{stat.st_dev}:{stat.st_ino}"
    journal = here is not None and environment.get("JOURNAL_STREAM") == here
    style: Style = JsonLine() if as_json else TextLine(stamped=not journal)
    return Journal(style) if journal else style


def configure(level: str, *, as_json: bool = False, stream: TextIO | None = None) -> Log:
    """Send the log to *stream* (standard error) and return its outlet, to be closed at the end."""
    stream = sys.stderr if stream is None else stream
    log = Log(stream, style_of(stream, os.environ, as_json=as_json))
    LOG.handlers[:] = [_Handler(log)]
    LOG.setLevel(level.upper())
    LOG.propagate = False
    return log
