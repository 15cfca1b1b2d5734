"""A TCP proxy between a client and a real store, whose faults are verbs.

    with Proxy(("127.0.0.1", port)) as proxy:
        client = connect(proxy.address)
        proxy.drop_replies()      # the write arrives, its answer is lost

Rules: a verb holds from its return on for old and new connections alike; ``heal`` undoes any of
them. Where bytes were lost a connection cannot go on, so ``heal`` resets it; where they were only
held back (``blackhole``) they arrive late, as TCP's retransmissions do after a partition.

Not covered: a connect that gets no answer. The kernel accepts for us; a black hole shows as a
connection on which nothing ever comes back.
"""

import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from tests.harness.process import free_port

CHUNK_BYTES = 65_536
CONNECT_WITHIN_S = 2.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST


class Mode(Enum):
    PASS = "pass"
    HOLD = "hold"
    LOSE_REPLIES = "lose replies"


@dataclass(eq=False)
class Link:
    """One client connection and its way on to the store."""

    client: socket.socket
    server: socket.socket
    lost: bool = False  # bytes were thrown away: it can only be reset
    closed: threading.Event = field(default_factory=threading.Event)

    def reset(self) -> None:
        """Wake both pumps; their owner then closes, and with that the kernel sends RST."""
        self.closed.set()
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Listens on *host*, an address of loopback, and forwards to *upstream*."""

    def __init__(self, upstream: tuple[str, int], host: str = "127.0.0.1") -> None:
        self.upstream = upstream
        self.host = host
        self.port = free_port()
        self.connections = 0  # accepted since the start
        self._mode, self._delay_s = Mode.PASS, 0.0
        self._awaited = b""  # in a request: from then on replies are lost
        self._changed = threading.Condition()
        self._links: set[Link] = set()
        self._listener: socket.socket | None = None
        self._listen()

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def heal(self) -> None:
        """Forward everything, at once; reset the connections that lost bytes."""
        self._set(Mode.PASS, 0.0)
        for link in self._snapshot():
            if link.lost:
                self._drop(link)
        if self._listener is None:
            self._listen()

    def blackhole(self) -> None:
        """Let nothing through and close nothing; what is sent meanwhile arrives after ``heal``."""
        self._set(Mode.HOLD, 0.0)

    def drop_replies(self, after: bytes = b"") -> None:
        """Forward requests and lose their answers: a write happens and its sender cannot know.

        *after*: only from the request on in which these bytes come, so that what precedes it is answered.
        """
        self._set(Mode.PASS if after else Mode.LOSE_REPLIES, 0.0, after)

    def delay(self, delay_ms: int) -> None:
        """Hold every chunk back for *delay_ms* in each direction."""
        self._set(Mode.PASS, delay_ms / 1000)

    def cut(self) -> None:
        """Reset every connection; new ones are accepted."""
        for link in self._snapshot():
            self._drop(link)

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, as a host whose store is down."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
            listener.close()
        self.cut()

    def close(self) -> None:
        self.refuse()
        self._set(Mode.PASS, 0.0)  # wakes the pumps that hold

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set(self, mode: Mode, delay_s: float, awaited: bytes = b"") -> None:
        with self._changed:
            self._mode, self._delay_s, self._awaited = mode, delay_s, awaited
            self._changed.notify_all()

    def _snapshot(self) -> list[Link]:
        with self._changed:
            return list(self._links)

    def _drop(self, link: Link) -> None:
        link.reset()
        with self._changed:
            self._links.discard(link)
            self._changed.notify_all()

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client, listener), daemon=True).start()

    def _serve(self, client: socket.socket, listener: socket.socket) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._mode is not Mode.HOLD)
        try:
            server = socket.create_connection(self.upstream, CONNECT_WITHIN_S)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(client, server)
        with self._changed:
            self._links.add(link)
            refused = self._listener is not listener
        if refused:  # refuse() came while we connected
            self._drop(link)
        pump = threading.Thread(target=self._pump, args=(link, server, client, True), daemon=True)
        pump.start()
        self._pump(link, client, server, reply=False)
        pump.join()
        self._drop(link)
        client.close()
        server.close()

    def _pump(self, link: Link, source: socket.socket, sink: socket.socket, reply: bool) -> None:
        """Copy one direction until it ends; a half close is passed on."""
        try:
            while chunk := source.recv(CHUNK_BYTES):
                if not reply:
                    self._spot(chunk)
                if self._admit(link, reply):
                    sink.sendall(chunk)
            if self._admit(link, reply):
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(link)

    def _spot(self, request: bytes) -> None:
        """Begin to lose replies where the awaited request is about to go on."""
        with self._changed:
            if self._awaited and self._awaited in request:
                self._mode, self._awaited = Mode.LOSE_REPLIES, b""

    def _admit(self, link: Link, reply: bool) -> bool:
        """Wait as the mode says; tell whether a chunk that has come may go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._mode is not Mode.HOLD or link.closed.is_set())
            if reply and self._mode is Mode.LOSE_REPLIES:
                link.lost = True
            losing, delay_s = reply and link.lost, self._delay_s
        if delay_s and not losing:
            time.sleep(delay_s)
        return not losing
