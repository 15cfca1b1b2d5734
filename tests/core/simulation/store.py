"""The lock store. ``leases``: it expires locks itself, like etcd. Otherwise candidates watch, like Consul.

Every verb is carried out at one instant; what may happen on the way there is the caller's business.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter

from sidecar.core.model import EpochRecord, HistoryEntry, LockRecord, NodeRecord, Request, Settings, View
from sidecar.core.units import Epoch
from sidecar.errors import Conflict, EpochBehind, NotHolder
from sidecar.ports import HeldBy, Hold
from tests.core.simulation.loop import Event, Loop

HEARTBEATS_TOLD = 0.2  # share of those that say nothing new: telling all of them costs half the time
SAID = attrgetter(
    "instance", "state", "message", "epoch", "mark", "available", "priority", "eligible", "failback", "heard"
)
"""What a node says of itself, without what changes with every heartbeat."""
NO_RECORD, NO_SETTINGS = EpochRecord(), Settings()


@dataclass(frozen=True)
class Content:
    lock: LockRecord | None = None
    epoch: EpochRecord = NO_RECORD
    request: Request | None = None
    settings: Settings = NO_SETTINGS
    request_version: int = 0
    settings_version: int = 0
    history: tuple[HistoryEntry, ...] = ()


class Store:
    def __init__(self, loop: Loop, *, leases: bool) -> None:
        self.loop = loop
        self.leases = leases
        self.content = Content()
        self.nodes: dict[str, tuple[NodeRecord, int]] = {}
        self.revision = 1
        self.lock_index = 1  # changes with every write of the lock
        self.expires_at = 0  # of the lock; where the store keeps no leases, before this no observer gets it
        self.generation = 0  # a wiped or restored store is another store
        self.frozen_until = 0
        self.denied_until = 0  # credentials are refused
        self.watchers: list[Event] = []
        self.on_release: Callable[[str, Epoch, str], None] = lambda _i, _e, _c: None
        self.on_acquired: Callable[[str, Epoch], None] = lambda _n, _e: None
        self.on_request: Callable[[Request], None] = lambda _r: None
        self.on_settings: Callable[[Settings], None] = lambda _s: None
        self.on_broken: Callable[[LockRecord], None] = lambda _l: None
        self.on_raised: Callable[[str], None] = lambda _by: None
        self._view: View | None = None

    def granted_ms(self, ttl_ms: int) -> int:
        """Return the TTL that is given where *ttl_ms* is asked: etcd counts whole seconds."""
        return -(-ttl_ms // 1000) * 1000 if self.leases else ttl_ms

    # what a client can ask for

    def acquire(
        self, node: str, instance: str, ttl_ms: int, floor: Epoch, watched: int | None, age_ms: int = 0
    ) -> Epoch | HeldBy:
        """Give the lock, on a lease that was extended *age_ms* ago, where the store keeps leases."""
        lock, epoch = self.content.lock, self.content.epoch
        if epoch.epoch < floor:
            raise EpochBehind(f"the store is at {epoch.epoch}, below {floor}")
        mine = lock is not None and lock.state == "held" and (lock.node, lock.instance) == (node, instance)
        if mine:
            self.loop.counts["acquired again"] += 1
            self._put_lock(lock)
            return epoch.epoch
        if lock is not None and (self.leases or self.lock_index != watched):
            return HeldBy(lock.node, lock.epoch)
        new = Epoch(epoch.epoch + 1)
        self.content = replace(self.content, epoch=EpochRecord(new, node))
        self._put_lock(LockRecord(node, instance, new, self.granted_ms(ttl_ms)), age_ms)
        self.loop.counts["acquisition"] += 1
        if epoch.node not in (None, node):
            self.loop.counts["takeover"] += 1
        self.on_acquired(node, new)
        return new

    def renew(self, instance: str, epoch: Epoch) -> None:
        lock = self.content.lock
        if lock is None or lock.state != "held" or (lock.instance, lock.epoch) != (instance, epoch):
            raise NotHolder(f"not held at {epoch}")
        if self.leases:
            self.expires_at = self._expiry(lock)
        else:
            self._put_lock(lock)

    def release(self, instance: str, epoch: Epoch, cause: str) -> None:
        lock = self.content.lock
        if lock is None or (lock.instance, lock.epoch) != (instance, epoch):
            raise NotHolder(f"not held at {epoch}")
        if lock.state == "broken":
            self.loop.counts["broken lock released early"] += 1
        self.on_release(instance, epoch, cause)
        self.content = replace(self.content, epoch=replace(self.content.epoch, released=cause))
        self._put_lock(None)

    def break_lock(self, epoch: Epoch, to: str | None, by: str, request: str | None) -> None:
        lock = self.content.lock
        if lock is None or lock.state != "held" or lock.epoch != epoch:
            raise Conflict(f"the lock is not held at {epoch}")
        self.loop.counts["broken lock"] += 1
        self.loop.tell("store", f"the lock of epoch {epoch} is broken by {by}")
        broken = replace(lock, state="broken", to=to, by=by, request=request)
        self.on_broken(broken)
        self._put_lock(broken)

    def raise_epoch(self, floor: Epoch, ttl_ms: int, by: str, watched: int | None) -> Epoch:
        lock = self.content.lock
        if lock is not None and (self.leases or self.lock_index != watched):
            if (lock.state, lock.by, lock.epoch) == ("broken", by, max(floor, self.content.epoch.epoch)):
                return lock.epoch  # asked again after an unknown outcome
            raise Conflict("the lock is not free")
        new = Epoch(max(floor, self.content.epoch.epoch))
        self.content = replace(self.content, epoch=EpochRecord(new, None))
        self._put_lock(LockRecord("", "", new, ttl_ms, state="broken", by=by))
        self.loop.counts["epoch raised"] += 1
        self.loop.tell("store", f"the epoch is raised to {new} by {by}")
        self.on_raised(by)
        return new

    def write(self, value: Request | Settings, expected: int, hold: Hold | None) -> int:
        if hold is not None:
            self._require(hold)
        content, version = self.content, self.revision + 1
        if isinstance(value, Request):
            if expected != content.request_version:
                raise Conflict("the request has changed")
            self.content = replace(content, request=value, request_version=version)
            self.on_request(value)
        else:
            if expected != content.settings_version:
                raise Conflict("the settings have changed")
            self.content = replace(content, settings=value, settings_version=version)
            self.on_settings(value)
        self._changed()
        return version

    def append_history(self, hold: Hold, entry: HistoryEntry) -> None:
        self._require(hold)
        others = tuple(known for known in self.content.history if known.epoch != entry.epoch)
        self.content = replace(self.content, history=(*others, entry))
        self.loop.counts["changes recorded"] += 1

    def read_history(self, limit: int) -> tuple[HistoryEntry, ...]:
        return self.content.history[::-1][:limit]

    def _require(self, hold: Hold) -> None:
        lock = self.content.lock
        if lock is None or lock.state != "held" or (lock.instance, lock.epoch) != (hold.instance, hold.epoch):
            raise NotHolder(f"not held at {hold.epoch}")

    def publish(self, record: NodeRecord, ttl_ms: int) -> None:
        known = self.nodes.get(record.node)
        self.nodes[record.node] = record, self.loop.now + ttl_ms
        if known is None or SAID(known[0]) != SAID(record) or self.loop.chance(HEARTBEATS_TOLD):
            self._changed()
        if known is None:
            self.loop.after(ttl_ms, lambda: self._forget(record.node))

    def withdraw(self, node: str, instance: str | None = None) -> None:
        known = self.nodes.get(node)
        if known is not None and instance in (None, known[0].instance):
            del self.nodes[node]
            self._changed()

    def view(self) -> View:
        if self._view is None:
            content = self.content
            self._view = View(
                revision=self.revision,
                lock=content.lock,
                epoch=content.epoch,
                nodes=tuple(record for record, _ in self.nodes.values()),
                request=content.request,
                settings=content.settings,
                versions={"request": content.request_version, "settings": content.settings_version},
            )
        return self._view

    # what can befall a store

    def replace_by(self, content: Content) -> None:
        """Be another store: empty, or restored from a snapshot. Leases start afresh there."""
        self.generation += 1
        self.content = content
        self.revision += 1
        self.nodes.clear()
        self._put_lock(content.lock)

    def change_leader(self) -> None:
        """Etcd's new leader gives every lease its full TTL again."""
        lock = self.content.lock
        if self.leases and lock is not None:
            self.expires_at = self._expiry(lock)

    def _put_lock(self, lock: LockRecord | None, age_ms: int = 0) -> None:
        self.content = replace(self.content, lock=lock)
        self.lock_index += 1
        if lock is not None and self.leases:
            self.expires_at = self._expiry(lock) - age_ms
            self._watch_expiry(self.lock_index)
        elif lock is not None:
            self.expires_at = self.loop.now + lock.ttl_ms
        self._changed()

    def _expiry(self, lock: LockRecord) -> int:
        late = self.loop.random.randint(1, 400) if self.loop.chance(0.2) else 0
        return self.loop.now + lock.ttl_ms + late

    def _watch_expiry(self, index: int) -> None:
        self.loop.at(self.expires_at, lambda: self._expire(index))

    def _expire(self, index: int) -> None:
        if index != self.lock_index or self.content.lock is None:
            return
        if self.loop.now < max(self.expires_at, self.frozen_until):
            self.loop.at(max(self.expires_at, self.frozen_until), lambda: self._expire(index))
            return
        self.loop.tell("store", f"expires epoch {self.content.lock.epoch}")
        self.loop.counts["lock expired"] += 1
        self._put_lock(None)

    def _forget(self, node: str) -> None:
        if node not in self.nodes:
            return
        expires_at = self.nodes[node][1]
        if self.loop.now < expires_at:
            self.loop.at(expires_at, lambda: self._forget(node))
        else:
            self.withdraw(node)

    def _changed(self) -> None:
        self.revision += 1
        self._view = None
        for watcher in list(self.watchers):
            watcher()
