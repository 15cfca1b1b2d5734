"""The paths: from a request to an answer. What may be said is in `answers`, `memory` and `commands`."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple

import msgspec
from aiohttp import web

from sidecar.api import answers, commands, page
from sidecar.api.access import WRONG, Access
from sidecar.api.door import Door
from sidecar.api.feed import Feed, Reader
from sidecar.api.limits import Limits
from sidecar.api.memory import Memory
from sidecar.api.openapi import document
from sidecar.api.threads import in_thread
from sidecar.clock import Clock
from sidecar.config import Config, timing
from sidecar.core.units import NO_EPOCH, Instant
from sidecar.events import LOG, Notice, Raised, emit
from sidecar.operate.status import history_entry

HISTORY_MAX, HISTORY_USUAL = 1_000, 20
HEARTBEAT_S = 10.0
WRITE_WITHIN_S = 10.0
TELL_AGAIN_MS = 60_000  # between two lines in the log about wrong tokens or a broken path

JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "aggregate-sidecar"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Parts(NamedTuple):
    """What the paths are made of."""

    memory: Memory
    feed: Feed
    access: Access
    clock: Clock
    runs: answers.Runs
    config: Callable[[], Config]
    metrics: Callable[[], bytes] | None
    halted: Callable[[], bool]
    limits: Limits


class Routes:
    """Answers requests. One for each life of the API's loop."""

    def __init__(self, parts: Parts, keep_open: Callable[[], Door]) -> None:
        self._parts, self._limits, self._door = parts, parts.limits, keep_open
        self._page = page.load()
        self._openapi = msgspec.json.encode(document())
        self._slots = threading.BoundedSemaphore(parts.limits.commands_max)
        self._told_at: dict[type, Instant] = {}

    def application(self) -> web.Application:
        """Return the paths and what is done around each of them."""
        made = web.Application(middlewares=[self._around], client_max_size=self._limits.body_max_bytes)
        health: dict[str, Handler] = {
            "/active": self._active,
            "/standby": self._standby,
            "/live": self._live,
            "/ready": self._ready,
        }
        for path, handler in health.items():
            made.router.add_get(path, handler)
            made.router.add_options(path, handler)  # what HAProxy asks by default
        others: dict[str, Handler] = {
            "/": self._index,
            "/status": self._status,
            "/history": self._history,
            "/timing": self._timing,
            "/metrics": self._metrics,
            "/events": self._events,
            "/openapi.json": self._document,
        }
        for path, handler in others.items():
            made.router.add_get(path, handler, allow_head=path != "/events")
        for command in commands.COMMANDS:
            made.router.add_post(f"/{command}", self._command)
        return made

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keep the connection open meanwhile, and answer in JSON whatever happens."""
        with self._door().busy(request.protocol):
            try:
                return await handler(request)
            except web.HTTPException as error:
                allow = error.headers.get("Allow")
                more = {"Allow": allow} if allow else {}
                return _json(error.status, {"message": _reason(error.status)}, more)
            except (ConnectionError, asyncio.CancelledError):
                raise
            except Exception as error:  # the outermost frame of a request
                LOG.debug("api: %s", request.path, exc_info=True)
                self._tell(
                    Raised(text=f"api: {request.path}: internal error: {type(error).__name__}: {error}")
                )
                return _json(500, {"message": "internal error; the log knows more"})

    # For load balancers.

    async def _active(self, request: web.Request) -> web.Response:
        parts, now = self._parts, self._parts.clock.now()

        def why_not(now: Instant) -> str | None:
            return answers.why_not_active(parts.memory.turn, parts.runs, now)

        found = self._health(why_not(now), now)
        return found if found.status != 200 else _Yes(found, lambda: why_not(parts.clock.now()) is None)

    async def _standby(self, request: web.Request) -> web.Response:
        now = self._parts.clock.now()
        return self._health(answers.why_not_standby(self._parts.memory.turn, now), now)

    async def _live(self, request: web.Request) -> web.Response:
        now = self._parts.clock.now()
        return self._health(answers.why_not_live(self._parts.memory.turn, now), now)

    async def _ready(self, request: web.Request) -> web.Response:
        memory, now = self._parts.memory, self._parts.clock.now()
        return self._health(
            answers.why_not_ready(memory.turn, self._parts.runs, memory.view_age_ms, now), now
        )

    def _health(self, reason: str | None, now: Instant) -> web.Response:
        turn = self._parts.memory.turn
        found: dict[str, object] = {"ok": reason is None, "reason": reason}
        if turn is not None:
            record = answers.own_record(turn, now)
            left_ms = record.lease_left_ms
            found |= {
                "node": record.node,
                "role": record.role,
                "state": record.state,
                "epoch": record.epoch if record.epoch != NO_EPOCH else None,
                "lease_remaining_s": None if left_ms is None else left_ms / 1000,
            }
        return _json(200 if reason is None else 503, found)

    # For people and programs.

    async def _index(self, request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": self._page.policy, "Referrer-Policy": "no-referrer"}
        return web.Response(
            body=self._page.body, content_type="text/html", charset="utf-8", headers=HEADERS | headers
        )

    async def _document(self, request: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type=JSON, headers=HEADERS)

    async def _status(self, request: web.Request) -> web.Response:
        age_ms = self._parts.memory.view_age_ms
        return _json(200, self._parts.memory.status(), {} if age_ms is None else _age(age_ms))

    async def _history(self, request: web.Request) -> web.Response:
        text = request.query.get("n", str(HISTORY_USUAL))
        if not (text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= HISTORY_MAX):
            return _json(400, {"message": f"n must be 1 to {HISTORY_MAX}"})
        memory = self._parts.memory
        if memory.history is None:
            return _json(503, {"message": "the history has not been read yet; the store may not answer"})
        entries = [history_entry(entry) for entry in memory.history[: int(text)]]
        return _json(200, entries, _age(memory.history_age_ms))

    async def _timing(self, request: web.Request) -> web.Response:
        return _json(200, timing.document(self._parts.config()))

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._parts.metrics is None:
            return _json(404, {"message": "this sidecar keeps no metrics"})
        body = await asyncio.to_thread(self._parts.metrics)  # it waits for what is being counted
        return web.Response(body=body, headers=HEADERS | {"Content-Type": PROMETHEUS})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        feed, transport = self._parts.feed, request.transport
        if feed.is_full or transport is None:
            return _json(503, {"message": "too many readers of /events; try later"}, {"Retry-After": "10"})
        status = msgspec.json.encode(self._parts.memory.status())
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
        with feed.reading(status, request.headers.get("Last-Event-ID"), transport.abort) as reader:
            await response.prepare(request)
            try:
                while True:
                    async with asyncio.timeout(WRITE_WITHIN_S + HEARTBEAT_S):
                        await response.write(await _next_frame(reader))
            except (ConnectionError, TimeoutError):
                transport.abort()
        return response

    # Commands.

    async def _command(self, request: web.Request) -> web.Response:
        command = request.path.strip("/")
        if (refusal := self._refusal(request, command)) is not None:
            return refusal
        if not self._slots.acquire(blocking=False):
            found = commands.bad_request(
                command, f"{self._limits.commands_max} commands are under way; try later"
            )
            return _json(429, found, {"Retry-After": "5"})
        try:
            body = await self._body(request)
        except TimeoutError:
            self._slots.release()
            return _json(408, commands.bad_request(command, "the body did not come in time"), _CLOSE)
        except BaseException:
            self._slots.release()
            raise
        turn = self._parts.memory.turn
        context = commands.Context(
            config=self._parts.config(),
            mark=NO_EPOCH if turn is None else turn.node.memory.mark,
            by=f"{_peer(request)} by HTTP",
            halted=self._parts.halted,
        )

        def job() -> tuple[int, commands.Document]:
            try:
                return commands.run(command, body, context)
            finally:
                self._slots.release()  # here: a client that goes away does not end the command

        try:
            outcome = in_thread(job)
        except RuntimeError:
            self._slots.release()
            raise
        return _json(*await outcome)

    async def _body(self, request: web.Request) -> bytes:
        size = request.content_length or 0
        if size > self._limits.body_max_bytes:
            raise web.HTTPRequestEntityTooLarge(self._limits.body_max_bytes, size)
        async with asyncio.timeout(self._limits.body_within_s):
            return await request.read()

    def _refusal(self, request: web.Request, command: str) -> web.Response | None:
        transport = request.transport
        address = None if transport is None else transport.get_extra_info("sockname")
        own = str(address[0]) if isinstance(address, tuple) else None
        denial = self._parts.access.denial(request.headers.get("Authorization"), own)
        if denial is None:
            return None
        if denial is WRONG:
            self._tell(Notice(text=f"api: a command with a wrong token from {_peer(request)}"))
        found = commands.bad_request(command, denial.message) | {"outcome": "refused", "exit_code": 4}
        return _json(denial.status, found, {"WWW-Authenticate": denial.challenge} if denial.challenge else {})

    def _tell(self, event: Notice | Raised) -> None:
        """Log *event*, unless one of its kind was told just now: whoever asks must not fill the log."""
        now, last = self._parts.clock.now(), self._told_at.get(type(event))
        if last is None or now - last >= TELL_AGAIN_MS:
            self._told_at[type(event)] = now
            emit(event)


_CLOSE = {"Connection": "close"}


async def _next_frame(reader: Reader) -> bytes:
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            return await reader.waiting.get()
    except TimeoutError:
        return b":\n\n"  # a comment: proxies and clients see that the line is alive


class _Yes(web.Response):
    """A yes that is sent only while it holds: the process may have been stopped since it was made.

    Otherwise the connection is closed without an answer, none of which has left before `write_eof`.
    """

    def __init__(self, answer: web.Response, holds: Callable[[], bool]) -> None:
        super().__init__(status=answer.status, body=answer.body, headers=answer.headers)
        self._holds = holds

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._holds():
            raise ConnectionResetError("not true any more")
        await super().write_eof(data)


def _json(status: int, value: object, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(value) + b"\n"
    return web.Response(status=status, body=body, content_type=JSON, headers=HEADERS | (headers or {}))


def _age(ms: int) -> dict[str, str]:
    return {"Age": str(ms // 1000)}


def _reason(status: int) -> str:
    return HTTPStatus(status).phrase.lower()


def _peer(request: web.Request) -> str:
    try:
        return str(ip_address((request.remote or "").partition("%")[0]))
    except ValueError:
        return "unknown"
