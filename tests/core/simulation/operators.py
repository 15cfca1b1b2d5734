"""Commands: each a small protocol over the store, by somebody who may be killed half-way."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from sidecar.core.model import FINISHED, Request, RequestKind, Settings
from sidecar.core.units import Epoch, silence_ms
from tests.core.simulation.loop import Event, Loop, Network
from tests.core.simulation.store import Conflicting, Store

POLL_MS, PATIENCE_MS = 150, 20_000
OVERTAKE_MS = 8_000  # an unfinished request of that age may be replaced by the next command


class Operators:
    def __init__(self, loop: Loop, store: Store, network: Network, names: list[str]) -> None:
        self.loop, self.store, self.network, self.names = loop, store, network, names
        self.ids = count(1)
        self.asked_at = 0
        self.sober = False  # True: nobody is killed half-way any more

    def switchover(self, to: str | None = None) -> None:
        self._ask("switchover", to)

    def restart(self) -> None:
        self._ask("restart", None)

    def failover(self) -> None:
        request = self._ask("failover", None)
        if request is not None and (self.sober or not self.loop.chance(0.1)):
            self._later(lambda: self._break(request))

    def pause(self, *, paused: bool, node: str | None = None) -> None:
        def write() -> None:
            settings = self.store.content.settings
            if node is None:
                settings = replace(settings, paused=paused)
            else:
                others = tuple(name for name in settings.paused_nodes if name != node)
                settings = replace(settings, paused_nodes=(*others, node) if paused else others)
            self.loop.tell("operator", settings)
            self.store.write_settings(settings)

        self._later(write)

    def resume_all(self) -> None:
        self.store.write_settings(Settings())

    def raise_epoch(self, floor: Callable[[], Epoch], ttl_ms: int) -> None:
        self._later(lambda: self._raise(floor, ttl_ms, None, 0))

    def _raise(self, floor: Callable[[], Epoch], ttl_ms: int, watched: int | None, since: int) -> None:
        """Try until the lock is vacant; where the store keeps no leases, until it was long silent."""
        silent = not self.store.leases and self.loop.now >= since + silence_ms(ttl_ms)
        try:
            self.store.raise_epoch(floor(), ttl_ms, watched if silent else None)
            self.loop.tell("operator", f"raised the epoch to {self.store.content.epoch.epoch}")
        except Conflicting:
            index = self.store.lock_index
            since = since if watched == index else self.loop.now
            self.loop.after(500, lambda: self._raise(floor, ttl_ms, index, since))

    def raise_epoch_later(self, floor: Callable[[], Epoch], ttl_ms: int, delay_ms: int) -> None:
        self.loop.after(delay_ms, lambda: self.raise_epoch(floor, ttl_ms))

    def _later(self, event: Event) -> None:
        def execute() -> None:
            if self.loop.now < self.store.frozen_until:
                self.loop.at(self.store.frozen_until, execute)
            else:
                event()

        there = self.network.trip()
        if there is not None:
            self.loop.after(there, execute)

    def _ask(self, kind: RequestKind, to: str | None) -> Request | None:
        content, random = self.store.content, self.loop.random
        if self.loop.now < self.store.frozen_until or content.lock is None or content.lock.state != "held":
            return None
        last = content.request
        if last is not None and last.state not in FINISHED and self.loop.now < self.asked_at + OVERTAKE_MS:
            return None
        source = content.lock.node
        if kind == "restart":
            source = random.choice(self.names)
        elif to is None and random.random() < 0.6:
            to = random.choice([name for name in self.names if name != source] or [source])
        self.asked_at = self.loop.now
        identity = f"r{next(self.ids)}"
        request = Request(identity, kind, "asked", content.lock.epoch, source, to, "operator", 0)
        self.loop.tell("operator", request)
        self.loop.counts[f"asked: {kind}"] += 1
        self.store.write_request(request, content.request_version)
        if kind != "failover":
            self.loop.after(POLL_MS, lambda: self._follow(request.id))
        return request

    def _follow(self, identity: str) -> None:
        request = self.store.content.request
        if request is None or request.id != identity or request.state in FINISHED:
            return
        if self.loop.now > self.asked_at + PATIENCE_MS or request.state == "confirmed":
            return
        if not self.sober and self.loop.chance(0.02):
            self.loop.counts["command killed half-way"] += 1
            return
        if request.state == "accepted":
            version = self.store.content.request_version
            slow_ms = 0 if self.sober or self.loop.chance(0.8) else self.loop.random.randint(0, 6_000)
            self.loop.after(slow_ms, lambda: self._confirm(request, version))
        else:
            self.loop.after(POLL_MS, lambda: self._follow(identity))

    def _confirm(self, request: Request, version: int) -> None:
        try:
            self.store.write_request(replace(request, state="confirmed"), version)
            self.loop.tell("operator", f"confirms {request.id}")
        except Conflicting:
            self.loop.counts["confirmed too late"] += 1

    def _break(self, request: Request) -> None:
        try:
            self.store.break_lock(request.epoch, request.to, request.id)
            self.loop.tell("operator", f"breaks epoch {request.epoch}")
        except Conflicting:
            pass
