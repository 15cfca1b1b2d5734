"""The backend of a simulated process: the clauses of `sidecar.ports.Backend` over a store and a bad network.

A call's request or answer may be lost, late or repeated, and its effect may come after the caller has given
up. Errors say what the real ones say: `NotSent` only where nothing has happened or will.
"""

from collections.abc import Callable
from typing import TypeVar, cast

from sidecar.core.model import HistoryEntry, NodeRecord, Request, Settings, View
from sidecar.core.units import Epoch, Instant, silence_ms
from sidecar.errors import BackendError, Denied, NotSent, OutcomeUnknown
from sidecar.ports import BackendInfo, Grant, HeldBy, Hold
from tests.core.simulation.host import Host
from tests.core.simulation.loop import Network
from tests.core.simulation.store import Store
from tests.core.simulation.swift import replace
from tests.core.simulation.threads import Process, Strand, current

T = TypeVar("T")


class Client:
    def __init__(self, process: Process, host: Host, store: Store, network: Network) -> None:
        self.process, self.host, self.store, self.network = process, host, store, network
        self.loop, self.clock = process.loop, process.clock
        self._closed = False
        self._generation = store.generation
        self._shown: tuple[int, int] | None = None  # generation and revision of the last view
        self._watched: tuple[int, Instant] | None = None  # lock index, and since when: stores without leases
        self._lock_ttl_ms = 0
        self._expired_shown = False
        self._latest: View | None = None  # as last returned, numbered by this client
        self._waiting: list[Strand] = []
        store.watchers.append(self._changed)

    # calls

    def _call(self, carry_out: Callable[[], T], deadline: Instant) -> T:
        """Have the store carry it out, and wait for the answer."""
        process, strand, loop = self.process, current(), self.loop
        if not process.alive or self._closed:
            strand.wait(None if not process.alive else 0)
            raise NotSent("closed")
        mine = strand.ticket + 1  # of the wait below

        def deliver(answer: object) -> None:
            if strand.ticket == mine:
                strand.wake((answer,))

        def execute() -> None:
            if loop.now < self.store.frozen_until:
                loop.at(self.store.frozen_until, execute)
                return
            if not process.alive or strand.ticket != mine:
                loop.counts["late request executed"] += 1
            answer = self._carried_out(carry_out)
            if copied and isinstance(answer, Denied):
                answer = OutcomeUnknown("the token is not valid, and a copy is under way")
            back = self.network.trip()
            if back is not None and not self.host.cut:
                loop.after(back, lambda: deliver(answer))
            elif loop.chance(0.2):  # the connection breaks: known at once, the outcome is not
                loop.counts["answer lost, and known"] += 1
                loop.after(3, lambda: deliver(OutcomeUnknown("connection lost")))

        copied = False
        there = self.network.trip()
        if self.host.cut or there is None:
            if loop.chance(0.3):
                loop.after(3, lambda: deliver(NotSent("no connection")))
        else:
            loop.after(there, execute)
            if loop.chance(0.01 * self.network.harshness):
                loop.counts["request duplicated"] += 1
                copied = True
                again_ms = there + loop.random.randint(1, self.network.ttl_ms)
                loop.after(again_ms, lambda: self._repeat(carry_out))
        answer = strand.wait(max(1, deadline - self.clock.now()))
        if answer is None:
            raise OutcomeUnknown("timed out")
        found = cast(tuple[T | BackendError], answer)[0]  # as `deliver` has packed it
        if isinstance(found, BackendError):
            raise found
        return found

    def _carried_out(self, carry_out: Callable[[], T]) -> T | BackendError:
        if self.loop.now < self.store.denied_until:
            return Denied("the token is not valid")
        try:
            return carry_out()
        except BackendError as error:
            return error

    def _repeat(self, carry_out: Callable[[], object]) -> None:
        if self.loop.now >= self.store.frozen_until:
            self._carried_out(carry_out)

    def info(self, *, deadline: Instant) -> BackendInfo:
        return self._call(lambda: BackendInfo("simulated", "nowhere", {}, 0), deadline)

    def acquire(
        self, node: str, instance: str, ttl_ms: int, *, floor: Epoch, deadline: Instant
    ) -> Grant | HeldBy:
        watched = self._silent_index()
        granted_ms = self.store.granted_ms(ttl_ms)
        age_ms = self._spare_age_ms(granted_ms)
        since = Instant(self.clock.now() - age_ms * self.clock.rate // 1000 - 1)
        found = self._call(
            lambda: self.store.acquire(node, instance, ttl_ms, floor, watched, age_ms), deadline
        )
        if isinstance(found, HeldBy):
            return found
        return Grant(Hold(node, instance, found, ttl_ms, ""), since, granted_ms)

    def _spare_age_ms(self, granted_ms: int) -> int:
        """Return how long ago the lease was extended that is taken: etcd's adapter keeps a spare one."""
        random = self.loop.random
        return random.randint(0, granted_ms // 3) if self.store.leases and random.random() < 0.3 else 0

    def renew(self, hold: Hold, *, deadline: Instant) -> Grant:
        sent_at = self.clock.now()
        self._call(lambda: self.store.renew(hold.instance, hold.epoch), deadline)
        return Grant(hold, sent_at, self.store.granted_ms(hold.ttl_ms))

    def release(self, hold: Hold, *, cause: str, deadline: Instant) -> None:
        self._call(lambda: self.store.release(hold.instance, hold.epoch, cause), deadline)

    def break_lock(
        self,
        epoch: Epoch,
        *,
        to: str | None,
        by: str,
        request: str | None,
        ttl_ms: int,
        deadline: Instant,
    ) -> None:
        self._call(lambda: self.store.break_lock(epoch, to, by, request), deadline)

    def raise_epoch(self, floor: Epoch, *, ttl_ms: int, by: str, deadline: Instant) -> Epoch:
        watched = self._silent_index()
        return self._call(lambda: self.store.raise_epoch(floor, ttl_ms, by, watched), deadline)

    def publish(self, record: NodeRecord, *, ttl_ms: int, deadline: Instant) -> None:
        def publish() -> None:
            if self.process.alive:  # a record that comes late is of a session that has gone
                self.store.publish(record, ttl_ms)

        self._call(publish, deadline)

    def withdraw(self, node: str, instance: str, *, deadline: Instant) -> None:
        self._call(lambda: self.store.withdraw(node, instance), deadline)

    def write(
        self, value: Request | Settings, *, expected: int, hold: Hold | None = None, deadline: Instant
    ) -> int:
        return self._call(lambda: self.store.write(value, expected, hold), deadline)

    def append_history(self, hold: Hold, entry: HistoryEntry, *, deadline: Instant) -> None:
        self._call(lambda: self.store.append_history(hold, entry), deadline)

    def read_history(self, limit: int, *, deadline: Instant) -> tuple[HistoryEntry, ...]:
        return self._call(lambda: self.store.read_history(limit), deadline)

    # looking

    def read(self, *, deadline: Instant) -> View:
        if self.loop.now < self.host.stale_until:
            current().wait(5)
            raise NotSent("the member lags behind")
        return self._show(*self._call(self._snapshot, deadline))

    def await_change(self, revision: int, *, deadline: Instant) -> View | None:
        strand = current()
        while True:
            if self._closed:
                raise NotSent("closed")
            if self.store.generation != self._generation:
                raise NotSent("the store was replaced")
            now = self.clock.now()
            if self._latest is not None and self._latest.revision > revision:
                return self._latest
            if self._news():  # a connection that is dead is noticed long before a long poll ends
                soon = Instant(now + self.network.ttl_ms // 2)
                return self._show(*self._call(self._snapshot, min(deadline, soon)))
            if now >= deadline:
                return None
            until = min(deadline, self._silent_at() or deadline)
            self._waiting.append(strand)
            try:
                strand.wait(max(1, until - now))
            finally:
                self._waiting.remove(strand)

    def _snapshot(self) -> tuple[View, int, int]:
        return self.store.view(), self.store.lock_index, self.store.generation

    def _news(self) -> bool:
        if self.loop.now < self.host.stale_until:
            return False
        shown = self._shown
        if shown is None or shown != (self.store.generation, self.store.revision):
            return True
        return self._silent() and not self._expired_shown

    def _show(self, view: View, index: int, generation: int) -> View:
        self._generation, self._shown = generation, (generation, view.revision)
        self._watch_lock(view, index)
        self._expired_shown = self._silent()
        if self._expired_shown:
            self.loop.counts["silence over"] += 1
        number = 1 if self._latest is None else self._latest.revision + 1
        self._latest = replace(view, lock_expired=self._expired_shown, revision=number)
        return self._latest

    def _watch_lock(self, view: View, index: int) -> None:
        if self.store.leases or view.lock is None:
            self._watched = None
        elif self._watched is None or self._watched[0] != index:
            self._watched, self._lock_ttl_ms = (index, self.clock.now()), view.lock.ttl_ms

    def _silent_at(self) -> Instant | None:
        if self._watched is None or self._expired_shown:
            return None
        return Instant(self._watched[1] + silence_ms(self._lock_ttl_ms))

    def _silent_index(self) -> int | None:
        """Return the index of the lock that was watched in silence for long enough."""
        return self._watched[0] if self._watched is not None and self._silent() else None

    def _silent(self) -> bool:
        return self._watched is not None and self.clock.now() >= self._watched[1] + silence_ms(
            self._lock_ttl_ms
        )

    def _changed(self) -> None:
        """The store has changed: tell who waits, when the network lets it through."""
        if self._waiting:
            until = max(self.loop.now, self.host.cut_until, self.host.stale_until)
            trip = self.network.trip()
            delay_ms = self.network.ttl_ms if trip is None else trip  # TCP sends it again
            self.loop.at(until + delay_ms, self._wake)

    def _wake(self) -> None:
        if self.host.cut or self.loop.now < self.host.stale_until:
            self._changed()
            return
        for strand in self._waiting:
            strand.wake()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.store.watchers.remove(self._changed)
            for strand in self._waiting:
                strand.wake()
