"""The API of one sidecar: binds, serves on its own thread, and begins again when that fails.

A failure in here is an alarm and a new loop, never the end of the sidecar: the server under it is worth more
than an answer about it.
"""

import asyncio
import logging
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar import events
from sidecar.api.access import Access
from sidecar.api.answers import Runs
from sidecar.api.feed import Feed
from sidecar.api.limits import USUAL, Limits
from sidecar.api.memory import Memory
from sidecar.api.tls import LOOK_EVERY_S, Certificates
from sidecar.clock import Backoff, Clock
from sidecar.config import Config
from sidecar.config.address import of_api, parse
from sidecar.core.model import Enforcement
from sidecar.errors import ConfigError
from sidecar.events import LOG, Notice, Raised, emit
from sidecar.runtime.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.api.door import Door
    from sidecar.api.routes import Routes


BACKLOG = 128
JOIN_WITHIN_S = 1.0
AGAIN_FIRST_S, AGAIN_MAX_S = 0.5, 30.0
LIVED_MS = 60_000
"""After so long a failure is another one, and begins again at once."""
SHOW_EVERY_S = 0.25
"""At most so often the whole state is sent to the readers of ``/events``."""


class Api:
    """Owns the listener, the thread and what they answer from."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        runs: Runs,
        metrics: "Callable[[], bytes] | None" = None,
        limits: Limits = USUAL,
    ) -> None:
        """Nothing is touched yet."""
        api = config.api
        assert api.listen is not None
        self._config, self._clock, self._runs, self._metrics = config, clock, runs, metrics
        self._limits = limits
        self._certificates: Certificates | None = None
        encrypted = api.tls_cert_file is not None
        self.url = of_api(api.listen, encrypted=encrypted)
        self._access = Access(api.token, encrypted=encrypted, plain_too=api.plain_http_commands)
        self._memory = Memory(clock, config.cluster, config.backend, config.node, self.url)
        self._feed = Feed(config.node)
        self._closing = threading.Event()
        self._awake = False
        self._shown: object = None
        self._showing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = ExitStack()
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._live, name="api", daemon=True)

    def open(self) -> None:
        """Load the certificate and bind, unless that is done.

        Raises:
            ConfigError: The certificate cannot be used, or the address cannot be listened on.
        """
        api = self._config.api
        if self._certificates is None and api.tls_cert_file and api.tls_key_file:
            self._certificates = Certificates(Path(api.tls_cert_file), Path(api.tls_key_file))
        if self._listener is None:
            assert api.listen is not None
            self._listener = self._stack.enter_context(_bind(api.listen))

    def start(self, enforcement: Enforcement) -> None:
        """Serve as soon as it can be opened, and listen to what happens.

        Args:
            enforcement: Shown in the status.
        """
        self._memory.enforcement = enforcement
        self._stack.enter_context(events.listening(self._heard))
        self._thread.start()

    def close(self) -> None:
        """Stop serving; commands under way are told to end."""
        self._closing.set()
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(self._end)
        if self._thread.is_alive():
            self._thread.join(JOIN_WITHIN_S)
        self._stack.close()

    def reload(self, config: Config) -> None:
        """Take in what a reload may change: the token. On any thread."""
        self._config = config
        self._access.token = config.api.token

    # On whatever thread it happens, the deciding one among them: never wait, never raise.

    def turned(self, turn: Turn) -> None:
        """Take in what the deciding thread knows."""
        self._memory.take(turn)
        self._wake()

    def _heard(self, event: events.Event) -> None:
        self._feed.hear(event)
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is None or self._awake:
            return
        self._awake = True
        try:
            loop.call_soon_threadsafe(self._look)
        except RuntimeError:  # the loop has just ended; the next one looks at the start
            self._awake = False

    # On the API's thread.

    def _live(self) -> None:
        backoff, said = Backoff(AGAIN_FIRST_S, AGAIN_MAX_S), ""
        while not self._closing.is_set():
            began = self._clock.now()
            try:
                self.open()
                if said:
                    emit(Notice(text=f"api: begins at {self.url}"))
                    said = ""
                asyncio.run(self._serve())
            except ConfigError as error:  # at a start under a server that runs
                if str(error) != said:
                    said = str(error)
                    emit(Raised(text=f"{error}; the API begins when that is mended"))
            except (Exception, asyncio.CancelledError) as error:  # the outermost frame of the thread
                if self._closing.is_set():
                    return
                LOG.debug("api", exc_info=True)
                emit(Raised(text=f"api: failed, and begins again: {type(error).__name__}: {error}"))
            self._loop = None
            if self._clock.now() - began > LIVED_MS:
                backoff.reset()
            self._closing.wait(backoff.next_s())

    async def _serve(self) -> None:
        """Serve until told to end."""
        from aiohttp import web

        from sidecar.api.door import Door
        from sidecar.api.history import Historian

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_note)
        assert self._listener is not None
        doors: list[Door] = []
        routes = self._routes(lambda: doors[0])
        runner = web.AppRunner(
            routes.application(),
            handle_signals=False,
            access_log=None,
            logger=_silent(),
            handler_cancellation=True,
            shutdown_timeout=0.1,
            **self._limits.of_library(),
        )
        await runner.setup()
        server = runner.server
        assert server is not None
        doors.append(Door(self._listener, server, self._context, self._limits))
        self._historian = Historian(self._memory, lambda: self._config, self._closing.is_set)
        self._tasks = [
            loop.create_task(work)
            for work in (doors[0].serve(), self._historian.keep(), self._keep_certificates())
        ]
        self._loop, self._awake, self._showing = loop, False, False
        try:
            self._look()
            if not self._closing.is_set():
                await asyncio.gather(*self._tasks)
        except asyncio.CancelledError:
            if not self._closing.is_set():
                raise
        finally:
            self._loop = None
            self._end()
            await runner.cleanup()

    def _routes(self, door: "Callable[[], Door]") -> "Routes":
        from sidecar.api.routes import Parts, Routes

        parts = Parts(
            memory=self._memory,
            feed=self._feed,
            access=self._access,
            clock=self._clock,
            runs=self._runs,
            config=lambda: self._config,
            metrics=self._metrics,
            halted=self._closing.is_set,
            limits=self._limits,
        )
        return Routes(parts, door)

    def _context(self) -> Any:
        return None if self._certificates is None else self._certificates.context

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _keep_certificates(self) -> None:
        while self._certificates is not None:
            self._certificates.refresh()
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        """Spread what has happened since the last look."""
        self._awake = False
        view = self._memory.view
        self._feed.spread()
        if view is not None:
            self._feed.see(view.request)
            self._historian.see(view)
        turn = self._memory.turn
        if not self._feed.has_readers or turn is None:
            return
        shape = (view, turn.node.phase, turn.policy)
        if shape != self._shown and self._loop is not None and not self._showing:
            self._shown, self._showing = shape, True
            self._loop.call_later(SHOW_EVERY_S, self._show)

    def _show(self) -> None:
        self._showing = False
        self._feed.show(msgspec.json.encode(self._memory.status()))


def _bind(listen: str) -> socket.socket:
    found = parse(f"http://{listen}", schemes=("http",))
    assert found.port is not None
    try:
        family, _, _, _, address = socket.getaddrinfo(
            found.host, found.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = family == socket.AF_INET6 and found.host == "::" and socket.has_dualstack_ipv6()
        made = socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(f"api.listen: {listen}: {(error.strerror or str(error)).lower()}") from error
    made.setblocking(False)
    return made


def _silent() -> logging.Logger:
    """Return a logger for the library, which would log every malformed request with a traceback."""
    return logging.Logger("api", logging.CRITICAL + 1)


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    LOG.debug("api: %s", context.get("message"), exc_info=context.get("exception"))
