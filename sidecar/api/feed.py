"""``/events``: what happens on this node and in the cluster, as server-sent events.

Whoever makes an event puts it into a bounded queue and goes on. The API's loop gives it a number and
hands it to every reader; a reader that does not keep up is dropped, and comes back with the number it has
seen last. ``status`` is no event but the present state, sent at the start and after each change, without
a number: a newer one makes an older one worthless.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import msgspec

from sidecar import events
from sidecar.clock import wall_ms
from sidecar.core.model import Request
from sidecar.operate.status import utc_time

TOLD = frozenset(
    event.NAME
    for event in (
        events.RoleChanged,
        events.ProbeFailed,
        events.ServerStarted,
        events.ServerEnded,
        events.BackendTrouble,
        events.BackendWell,
        events.Raised,
    )
)
"""Log events that are told. Notices are not: they are prose for the log."""

INCOMING_MAX = 1_000  # between two looks of the API's loop; beyond it the oldest are lost
KEPT_MAX = 256  # for readers that come back
WAITING_MAX = 64  # for one reader; a page on a slow line is behind by two or three
READERS_MAX = 32


class Reader:
    """One open ``/events``. *drop* ends its connection."""

    def __init__(self, drop: Callable[[], None]) -> None:
        self._drop = drop
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue(WAITING_MAX)

    def put(self, frame: bytes) -> None:
        """Queue *frame*, or end the reader that does not keep up."""
        try:
            self.waiting.put_nowait(frame)
        except asyncio.QueueFull:
            self._drop()


class Feed:
    """Takes events from every thread, gives them to readers on the API's."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._incoming: deque[tuple[int, events.Event]] = deque(maxlen=INCOMING_MAX)
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT_MAX)
        self._number = wall_ms()  # grows across restarts, so that a reader never skips new ones
        self._readers: set[Reader] = set()
        self._request: Request | None = None

    def hear(self, event: events.Event) -> None:
        """Take an event of the log. On any thread; never waits."""
        if event.NAME in TOLD:
            self._incoming.append((wall_ms(), event))

    # On the API's loop.

    def spread(self) -> None:
        """Hand what has come in to the readers."""
        while self._incoming:
            at_unix_ms, event = self._incoming.popleft()
            self._tell(event.NAME, at_unix_ms, asdict(event))

    def see(self, request: Request | None) -> None:
        """Tell of the request, if it is another one or in another state than last time."""
        if request is not None and request != self._request:
            told: dict[str, object] = {
                "id": request.id,
                "kind": request.kind,
                "state": request.state,
                "from": request.source,
                "to": request.to,
                "by": request.by,
                "epoch": request.epoch,
                "reason": request.reason,
            }
            self._tell("request", wall_ms(), told)
        self._request = request

    def show(self, status: bytes) -> None:
        """Send the present state."""
        for reader in tuple(self._readers):
            reader.put(_frame("status", status))

    @property
    def has_readers(self) -> bool:
        """Tell whether anybody would get to see it."""
        return bool(self._readers)

    @property
    def is_full(self) -> bool:
        """Tell whether one more reader is too many."""
        return len(self._readers) >= READERS_MAX

    @contextmanager
    def reading(self, status: bytes, after: str | None, drop: Callable[[], None]) -> Iterator[Reader]:
        """Make a reader: first the state, then what has happened since number *after*, then what happens."""
        reader = Reader(drop)
        reader.put(b"retry: 2000\n" + _frame("status", status))
        for frame in self._since(after)[-WAITING_MAX // 2 :]:
            reader.put(frame)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def _since(self, after: str | None) -> list[bytes]:
        if after is None or not after.isdecimal() or len(after) > 18:
            return []
        return [frame for number, frame in self._kept if number > int(after)]

    def _tell(self, name: str, at_unix_ms: int, fields: dict[str, object]) -> None:
        self._number += 1
        told = {"at": utc_time(at_unix_ms), "node": self._node} | fields
        frame = _frame(name, msgspec.json.encode(told), self._number)
        self._kept.append((self._number, frame))
        for reader in tuple(self._readers):
            reader.put(frame)


def _frame(name: str, data: bytes, number: int | None = None) -> bytes:
    head = f"event: {name}\n" if number is None else f"id: {number}\nevent: {name}\n"
    return head.encode() + b"data: " + data + b"\n\n"
