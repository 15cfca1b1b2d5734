"""Takes connections in and bounds their number: what is open costs descriptors that renewals need, too.

A flood of connections that ask nothing closes its own: whoever has been quiet longest makes room for the
newest, which may be a load balancer's check. Commands and readers of ``/events`` are few, bounded where they
are made, and stay. What one connection may do is bounded by the library: see `Limits.of_library`.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from sidecar.api.limits import Limits
from sidecar.events import LOG

UNACKNOWLEDGED_MS = 15_000
"""After so long without an acknowledgement the kernel ends a connection whose peer takes nothing."""
EXHAUSTED_PAUSE_S = 0.2


class Door:
    """Accepts on *listener* and hands connections to *server*."""

    def __init__(
        self,
        listener: socket.socket,
        server: web.Server,
        context: Callable[[], ssl.SSLContext | None],
        limits: Limits,
    ) -> None:
        self._listener, self._server, self._context, self._limits = listener, server, context, limits
        self._entering: dict[asyncio.Task[None], None] = {}  # oldest first
        self._quiet: dict[web.RequestHandler, None] = {}  # longest quiet first
        self._busy: set[web.RequestHandler] = set()

    async def serve(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._listener)
                except OSError:
                    LOG.debug("api: accept", exc_info=True)
                    await asyncio.sleep(EXHAUSTED_PAUSE_S)
                    continue
                self._make_room()
                task = loop.create_task(self._enter(connection))
                self._entering[task] = None
                task.add_done_callback(lambda done: self._entering.pop(done, None))
                await asyncio.sleep(0)  # accepting never waits while there is a backlog: let the others on
        finally:
            for task in tuple(self._entering):
                task.cancel()

    @contextmanager
    def busy(self, connection: web.RequestHandler | None) -> Iterator[None]:
        """Keep *connection* open while it is worked for."""
        if connection is None:
            yield
            return
        self._quiet.pop(connection, None)
        self._busy.add(connection)
        try:
            yield
        finally:
            self._busy.discard(connection)
            if connection.transport is not None:
                self._quiet[connection] = None

    def _make_room(self) -> None:
        while len(self._entering) >= self._limits.handshakes_max:
            oldest = next(iter(self._entering))
            self._entering.pop(oldest)
            oldest.cancel()
        self._quiet = {c: None for c in self._quiet if c.transport is not None}
        excess = len(self._quiet) + len(self._busy) + len(self._entering) + 1 - self._limits.open_max
        for connection in tuple(self._quiet)[: max(0, excess)]:
            del self._quiet[connection]
            _abort(connection)

    async def _enter(self, connection: socket.socket) -> None:
        context = self._context()
        within_s = None if context is None else self._limits.handshake_within_s
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
            loop = asyncio.get_running_loop()
            _, protocol = await loop.connect_accepted_socket(
                self._server, connection, ssl=context, ssl_handshake_timeout=within_s
            )
            if protocol not in self._busy and protocol.transport is not None:
                self._quiet[protocol] = None
        except (OSError, asyncio.CancelledError):  # a failed handshake is the client's business
            with suppress(OSError):
                connection.close()


def _abort(connection: web.RequestHandler) -> None:
    if isinstance(connection.transport, asyncio.Transport):
        connection.transport.abort()
