"""What the log says: one class per event, whose fields are the log's schema.

Text for people (``12:01:02.345 warning role_changed node=a …``) or JSON for programs. Writing never blocks
the caller: lines go through a bounded queue, and what a stuck reader makes overflow is counted.
"""

import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, TextIO

LOG = logging.getLogger("sidecar")
QUEUE_LINES_MAX = 10_000


class Event(Protocol):
    """A log event: its name, its level and its fields."""

    NAME: ClassVar[str]
    LEVEL: ClassVar[int]
    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChanged:
    """A node entered another phase. The one event worth an operator's alarm."""

    NAME: ClassVar[str] = "role_changed"
    LEVEL: ClassVar[int] = logging.WARNING

    node: str
    before: str
    after: str
    cause: str  # the observation's class name, never prose
    epoch: int
    lease_left_ms: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The sidecar began."""

    NAME: ClassVar[str] = "started"
    LEVEL: ClassVar[int] = logging.INFO

    cluster: str
    node: str
    backend: str
    version: str
    enforcement: str
    adopted: bool
    phase: str  # what it begins in: more than idle only with a server that was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The sidecar ended."""

    NAME: ClassVar[str] = "stopped"
    LEVEL: ClassVar[int] = logging.INFO

    status: int
    server_kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTrouble:
    """Calls of one kind began to fail."""

    NAME: ClassVar[str] = "backend_trouble"
    LEVEL: ClassVar[int] = logging.WARNING

    call: str
    error: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendWell:
    """Calls of that kind succeed again."""

    NAME: ClassVar[str] = "backend_well"
    LEVEL: ClassVar[int] = logging.INFO

    call: str
    failed_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something happened that an operator may want to know."""

    NAME: ClassVar[str] = "notice"
    LEVEL: ClassVar[int] = logging.INFO

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An alarm: somebody has to look."""

    NAME: ClassVar[str] = "alarm"
    LEVEL: ClassVar[int] = logging.ERROR

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStarted:
    """The guard started a server."""

    NAME: ClassVar[str] = "server_started"
    LEVEL: ClassVar[int] = logging.INFO

    run: int
    role: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEnded:
    """A server's whole process tree is proven dead, or it was never started."""

    NAME: ClassVar[str] = "server_ended"
    LEVEL: ClassVar[int] = logging.INFO

    run: int
    status: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed:
    """A running active server did not answer its alive probe; *of* in a row make it hung."""

    NAME: ClassVar[str] = "probe_failed"
    LEVEL: ClassVar[int] = logging.WARNING

    run: int
    reason: str
    failures: int
    of: int


Listener = Callable[[Event], None]
_listeners: list[Listener] = []


def emit(event: Event) -> None:
    """Log *event*, and hand it to who listens."""
    LOG.log(event.LEVEL, event.NAME, extra={"fields": asdict(event)})
    for listener in tuple(_listeners):
        listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hand every event to *listener* too, whatever the log's level, on the thread it happens on.

    That may be the deciding one: a listener neither blocks nor raises.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class TextLine(logging.Formatter):
    """``<time> <level> <event> <field>=<value> …``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback, where there is one, follows it."""
        fields: dict[str, object] = getattr(record, "fields", {})
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        words = [f"{clock}.{int(record.msecs):03d}", record.levelname.lower(), record.getMessage()]
        words += [f"{name}={_text(value)}" for name, value in fields.items() if value is not None]
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return " ".join(words) + trace


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


def _text(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or text == "" else text


class Outlet:
    """Writes lines to *stream* from a thread of its own, so that a stuck reader stops nobody.

    Server output goes the same way: ``put`` drops and counts when the queue is full.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue *line*, or count it as dropped."""
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
                    self._stream.write(f"{dropped} log lines dropped: the reader was too slow\n")
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                continue  # nobody reads any more: that must not stop a supervisor


class _OutletHandler(logging.Handler):
    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        self._outlet.put(self.format(record))


def configure(level: str, *, as_json: bool = False, stream: TextIO | None = None) -> Outlet:
    """Send the log to *stream* (standard error) and return the outlet, to be closed at the end."""
    outlet = Outlet(stream if stream is not None else sys.stderr)
    handler = _OutletHandler(outlet)
    handler.setFormatter(JsonLine() if as_json else TextLine())
    LOG.handlers[:] = [handler]
    LOG.setLevel(level.upper())
    LOG.propagate = False
    return outlet
