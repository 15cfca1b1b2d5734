"""The etcd backend: a lock key bound to a lease, an epoch raised in the same transaction.

How the clauses are kept
- A hold is known by the create revision of the lock key and its lease; both are in its cookie.
  Renewing is a keep-alive and *then* a linearizable transaction that the key still has that create
  revision, is unmodified and bound to that lease. The order proves it: the lease was extended after
  ``sent_at``, and the key was there after that. A keep-alive is answered by one member alone, perhaps
  by a leader that was deposed without knowing: so the raft term must have been the same before, in the
  keep-alive and in the check, else both are done again.
- Acquiring is one transaction (lock key absent, epoch key unmodified) when a spare lease is at hand,
  which standbys keep fresh with what they publish. Such a grant counts from when that lease was last
  *extended*, never from the transaction. A keep-alive sent beside the transaction counts when it was
  answered in the same term. After an unknown outcome the spare is left to expire: nobody must keep a
  lock alive that he does not know of.
- A broken lock gets its own lease *after* the break, from whoever breaks it or, when that process died
  in between, from the next that reads it or waits for a change: until then it does not expire at all.
  A lease granted before could run out too early, since the holder may renew until the very break.

Not guaranteed: TTLs are whole seconds, and etcd raises them to its floor (2 s with default elections);
etcd notices the end of a lease up to 1 s late.
"""

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from backends._etcd_client import Answer, Client, LeaseGone, Login
from backends._etcd_leases import Lease, Leases
from backends._etcd_options import login
from backends._etcd_rpc import after, delete, found, get, is_at, pb, put, txn
from backends._etcd_watch import Key, Snapshot, Watcher
from backends.shared import (
    EPOCH,
    HISTORY,
    HISTORY_KEEP,
    LOCK,
    NODES,
    REQUEST,
    SETTINGS,
    Entry,
    Reader,
    history,
    history_key,
    key_of,
    required_epoch,
    root,
)
from sidecar.clock import Clock
from sidecar.core.model import (
    NOBODY,
    EpochRecord,
    HistoryEntry,
    LockRecord,
    NodeRecord,
    Request,
    Settings,
    View,
)
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.documents import decode, encode
from sidecar.errors import (
    BackendError,
    BadDocument,
    Conflict,
    NotHolder,
    NotSent,
    OutcomeUnknown,
)
from sidecar.ports import BackendInfo, BackendSettings, Grant, HeldBy, Hold

ROUNDS = 5  # of a compare that fails because somebody else was first; each round he has made progress
TTL_FLOOR_MS = 2_000
ADOPT_MS = 1_000  # for a broken lock to be given its lease, before a waiter tries that again
REVISIONS_MAX = 100_000  # 80 MB of the usual 2 GB. Two nodes at TTL 10 s make them in two days
INFO_MS = 500  # for endpoints other than the one that works to tell their version
CLOSE_S = 0.5


def connect(settings: BackendSettings, clock: Clock) -> "EtcdBackend":
    """Return the backend on ``etcd.endpoints``; files named in the options are read here.

    Raises:
        ConfigError: An option is unknown or unusable, or a file cannot be read; names the key.
    """
    return EtcdBackend(login(settings.options), f"/{root(settings)}", clock)


class EtcdBackend:
    """One cluster's keys in etcd; keeps `sidecar.ports.Backend`."""

    def __init__(self, login: Login, prefix: str, clock: Clock) -> None:
        self._prefix, self._clock = prefix, clock
        self._client = Client(login, clock, prefix, self._key(LOCK))
        self._leases = Leases(self._client, clock)
        self._reader = Reader()
        self._watcher = Watcher(self._client, prefix.encode(), self._load, clock)
        self._state = threading.Lock()
        self._known_epoch: Key | None = None  # only saves a round trip: a transaction compares it
        self._lock_ttl_s: int | None = None  # of the lock, once it was asked for
        self._presence: dict[str, Lease] = {}
        self._generation = self._base = self._last = 0  # of view revisions, across replaced stores

    def info(self, *, deadline: Instant) -> BackendInfo:
        """Ask every endpoint for its version, and etcd for the shortest lease it grants."""
        self._client.call("Status", pb.StatusRequest(), deadline, effect=False)
        leader = self._client.ask_versions(Instant(min(deadline, self._clock.now() + INFO_MS)))
        versions = {e.address: e.version for e in self._client.endpoints if e.version is not None}
        floor_ms = TTL_FLOOR_MS
        with suppress(BackendError):
            lease = self._leases.grant(1, deadline)
            floor_ms = lease.ttl_s * 1000
            self._leases.revoke(lease, deadline)
        return BackendInfo(
            "etcd", self._client.address, versions, floor_ms, leader, advice=self._advice(deadline)
        )

    def _advice(self, deadline: Instant) -> tuple[tuple[str, str], ...]:
        """Tell of an etcd that keeps every revision: it takes no more writes once its quota is used up."""
        first = pb.RangeRequest(key=self._key(LOCK), revision=1, count_only=True)
        try:
            revision = int(self._client.call("Range", first, deadline, effect=False).body.header.revision)
        except BackendError:  # the first one is compacted away, as it should be
            return ()
        if revision < REVISIONS_MAX:
            return ()
        says = f"keeps all of its {revision} revisions: its database grows until it refuses every write"
        return ((says, "start each member with --auto-compaction-retention=1 (an hour)"),)

    # ---- the lock

    def acquire(
        self, node: str, instance: str, ttl_ms: int, *, floor: Epoch, deadline: Instant
    ) -> Grant | HeldBy:
        """Take the lock in one transaction, or find out who has it."""
        ttl_s = self._lock_ttl_s = _whole_s(ttl_ms)
        for _ in range(ROUNDS):
            at = self._epoch_key(floor, deadline)
            epoch = required_epoch(at.value if at.mod else None, floor)
            lease = self._leases.take_spare(ttl_s) or self._leases.grant(ttl_s, deadline)
            record = LockRecord(node, instance, Epoch(epoch + 1), lease.ttl_s * 1000)
            try:
                answer, lease = self._try(record, at, lease, deadline)
            except LeaseGone:
                continue
            if answer.body.succeeded:
                cookie = f"{answer.body.header.revision}:{lease.id}"
                hold = Hold(node, instance, record.epoch, ttl_ms, cookie)
                self._wrote_epoch(EpochRecord(record.epoch, node), answer)
                return Grant(hold, lease.since, lease.ttl_s * 1000)
            # An earlier copy may have taken the lock with it, or take it yet: then nobody may keep it alive.
            if not answer.maybe and all(kv.lease != lease.id for kv in found(answer.body)):
                self._leases.keep_spare(lease)
            with suppress(NotHolder, _Moved):
                return self._taken(answer, node, instance, ttl_ms, floor, deadline)
        raise NotSent(f"{self._client.address}: lock and epoch keep changing; nothing was written")

    def renew(self, hold: Hold, *, deadline: Instant) -> Grant:
        """Keep the lease alive, then verify that the lock is still bound to it."""
        create, lease = _cookie(hold)
        check = txn(self._held(create, lease), [], [get(self._key(LOCK))])
        try:
            extended, answer = self._leases.extend(lease, check, deadline, effect=True)
        except LeaseGone:
            answer = self._client.call("Txn", check, deadline, effect=False)
            if answer.body.succeeded:
                raise NotSent(f"{self._client.address}: lease and lock disagree; ask again") from None
        if not answer.body.succeeded:
            raise self._not_holder(hold, answer)
        return Grant(hold, extended.since, extended.ttl_s * 1000)

    def release(self, hold: Hold, *, cause: str, deadline: Instant) -> None:
        """Delete the lock in one transaction if it is of exactly this hold, held or broken."""
        create, lease = _cookie(hold)
        epoch = EpochRecord(hold.epoch, hold.node, cause)
        give_up = [delete(self._key(LOCK)), put(self._key(EPOCH), encode(epoch))]
        look = [get(self._key(LOCK)), get(self._key(EPOCH))]
        condition, maybe = self._held(create, lease), False
        for _ in range(ROUNDS):
            answer = self._client.call("Txn", txn(condition, give_up, look), deadline, effect=True)
            maybe = maybe or answer.maybe
            if answer.body.succeeded:
                self._wrote_epoch(epoch, answer)
                return
            if maybe and self._has_released(answer, epoch):
                return
            kv = next(iter(found(answer.body)), None)
            if kv is None or kv.create_revision != create or not _is_broken(kv.value, hold):
                raise self._not_holder(hold, answer)
            condition = is_at(self._key(LOCK), mod=kv.mod_revision)
        raise NotSent(f"{self._client.address}: the lock keeps changing; nothing was written")

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
        """Replace the lock by a broken one without a lease, then give that a full one."""
        for _ in range(ROUNDS):
            keys = self._load(deadline).keys
            record = _to_break(keys, epoch, by, request, ttl_ms)
            if record.state == "broken":
                self._adopt(keys, deadline)  # asked again after an unknown outcome
                return
            broken = replace(record, state="broken", to=to, by=by, request=request)
            lock = self._key(LOCK)
            request_ = txn(is_at(lock, mod=keys[LOCK].mod), [put(lock, encode(broken))], [])
            answer = self._client.call("Txn", request_, deadline, effect=True)
            if answer.body.succeeded:
                self._attach(broken, answer.body.header.revision, deadline)
                return
        raise NotSent(f"{self._client.address}: the lock keeps changing; nothing was written")

    def raise_epoch(self, floor: Epoch, *, ttl_ms: int, by: str, deadline: Instant) -> Epoch:
        """Lift the epoch and leave a broken lock in the same transaction."""
        for _ in range(ROUNDS):
            keys = self._load(deadline).keys
            epoch = _epoch_or_none(keys)
            lock = decode(LOCK, keys[LOCK].value, LockRecord) if LOCK in keys else None
            if (
                lock is not None
                and (lock.state, lock.epoch, lock.by) == ("broken", epoch, by)
                and epoch >= floor
            ):
                self._adopt(keys, deadline)
                return epoch
            if lock is not None:
                raise Conflict(f"{LOCK}: not vacant, {lock.state} at epoch {lock.epoch} by {lock.node}")
            epoch = Epoch(max(epoch, floor))
            broken = LockRecord(NOBODY, "", epoch, ttl_ms, "broken", by=by)
            mod = keys[EPOCH].mod if EPOCH in keys else 0
            condition = is_at(self._key(LOCK), create=0) + is_at(self._key(EPOCH), mod=mod)
            lift = [put(self._key(EPOCH), encode(EpochRecord(epoch))), put(self._key(LOCK), encode(broken))]
            answer = self._client.call("Txn", txn(condition, lift, []), deadline, effect=True)
            if answer.body.succeeded:
                self._attach(broken, answer.body.header.revision, deadline)
                return epoch
        raise NotSent(f"{self._client.address}: lock and epoch keep changing; nothing was written")

    # ---- documents

    def publish(self, record: NodeRecord, *, ttl_ms: int, deadline: Instant) -> None:
        """Put the node's key on its own lease; a standby that can take over also freshens its spare."""
        ttl_s, key = _whole_s(ttl_ms), self._key(NODES + record.node)
        self._watcher.pace(ttl_ms)
        for _ in range(2):
            lease = self._presence.get(record.node)
            if lease is None or not self._leases.keep(lease, deadline):
                lease = self._presence[record.node] = self._leases.grant(ttl_s, deadline)
            show = txn([], [put(key, encode(record), lease.id)], [])
            try:
                if record.role == "standby" and record.available:
                    self._leases.freshen_spare(show, self._lock_ttl_s or ttl_s, deadline)
                else:
                    self._client.call("Txn", show, deadline, effect=True)
            except LeaseGone:
                self._presence.pop(record.node, None)
                continue
            return
        raise NotSent(f"{self._client.address}: its leases end at once")

    def withdraw(self, node: str, instance: str, *, deadline: Instant) -> None:
        """Delete the node's key if *instance* wrote it."""
        key = self._key(NODES + node)
        for kv in found(self._client.call("Txn", txn([], [get(key)], []), deadline, effect=False).body):
            with suppress(BadDocument):
                if decode(NODES + node, kv.value, NodeRecord).instance == instance:
                    request = txn(is_at(key, mod=kv.mod_revision), [delete(key)], [])
                    self._client.call("Txn", request, deadline, effect=True)
        self._presence.pop(node, None)

    def read(self, *, deadline: Instant) -> View:
        """Read all keys in one linearizable transaction."""
        snapshot = self._load(deadline)
        self._adopt(snapshot.keys, deadline)
        return self._view(snapshot)

    def await_change(self, revision: int, *, deadline: Instant) -> View | None:
        """Wait for the watch to bring something newer."""
        if self._clock.now() >= deadline:
            raise NotSent(f"{self._client.address}: no time left before it was asked")
        while True:
            until = deadline
            latest = self._watcher.latest
            unleased = _orphan(latest.keys) is not None
            if unleased and self._number(latest) <= revision:  # no news would come of it by itself
                until = Instant(min(deadline, self._clock.now() + ADOPT_MS))
                self._adopt(latest.keys, until)
            snapshot = self._watcher.wait(lambda latest: self._number(latest) > revision, until)
            if snapshot is not None:
                return self._view(snapshot)
            if self._clock.now() >= deadline:
                return None

    def write(
        self,
        value: Request | Settings,
        *,
        expected: int,
        hold: Hold | None = None,
        deadline: Instant,
    ) -> int:
        """Put the document if its key was last modified at *expected*."""
        name, raw = key_of(value), encode(value)
        key = self._key(name)
        held = self._held(*_cookie(hold)) if hold is not None else []
        request = txn(held + is_at(key, mod=expected), [put(key, raw)], [get(self._key(LOCK)), get(key)])
        answer = self._client.call("Txn", request, deadline, effect=True)
        if answer.body.succeeded:
            return int(answer.body.header.revision)
        kv = next(iter(found(answer.body, 1)), None)
        version = int(kv.mod_revision) if kv is not None else 0
        if answer.maybe and kv is not None and kv.value == raw and version != expected:
            return version  # an earlier copy of this request did it
        if hold is not None and not self._still(answer, hold):
            raise self._not_holder(hold, answer)
        if answer.maybe:
            raise OutcomeUnknown(f"{name}: written or overtaken; at version {version} now")
        raise Conflict(f"{name}: at version {version}, not {expected}")

    def append_history(self, hold: Hold, entry: HistoryEntry, *, deadline: Instant) -> None:
        """Put the entry, then drop the oldest ones."""
        entry_put = put(self._key(history_key(entry.epoch)), encode(entry))
        request = txn(self._held(*_cookie(hold)), [entry_put], [get(self._key(LOCK))])
        answer = self._client.call("Txn", request, deadline, effect=True)
        if not answer.body.succeeded:
            raise self._not_holder(hold, answer)
        with suppress(BackendError):  # the entry is there; too many of them is the next one's to mend
            self._trim_history(deadline)

    def read_history(self, limit: int, *, deadline: Instant) -> tuple[HistoryEntry, ...]:
        """Read the newest entries."""
        if limit <= 0:
            return ()
        prefix = self._key(HISTORY)
        request = pb.RangeRequest(
            key=prefix, range_end=after(prefix), limit=limit, sort_order="DESCEND", sort_target="KEY"
        )
        kvs = self._client.call("Range", request, deadline, effect=False).body.kvs
        return history((self._name(kv.key), kv.value) for kv in kvs)

    def close(self) -> None:
        """End all calls and the watch."""
        self._watcher.close()
        self._client.close()
        self._watcher.join(CLOSE_S)

    # ---- acquiring

    def _epoch_key(self, floor: Epoch, deadline: Instant) -> Key:
        """Return the epoch key as last seen; asked for where that is unknown or would be refused."""
        known = self._known_epoch
        with suppress(BackendError):
            if known is not None:
                required_epoch(known.value if known.mod else None, floor)
                return known
        answer = self._client.call("Txn", txn([], [get(self._key(EPOCH))], []), deadline, effect=False)
        return self._note_epoch(found(answer.body))

    def _note_epoch(self, kvs: list[Any]) -> Key:
        key = Key(b"", 0, 0, 0)
        for kv in kvs:
            key = Key(kv.value, kv.mod_revision, kv.create_revision, kv.lease)
        self._known_epoch = key
        return key

    def _wrote_epoch(self, record: EpochRecord, answer: Answer) -> None:
        revision = int(answer.body.header.revision)
        self._known_epoch = Key(encode(record), revision, revision, 0)

    def _try(self, record: LockRecord, at: Key, lease: Lease, deadline: Instant) -> tuple[Answer, Lease]:
        """Send the transaction with a keep-alive beside it; return its answer and the lease as it is then."""
        lock, epoch = self._key(LOCK), self._key(EPOCH)
        take = [
            put(lock, encode(record), lease.id),
            put(epoch, encode(EpochRecord(record.epoch, record.node))),
        ]
        request = txn(is_at(lock, create=0) + is_at(epoch, mod=at.mod), take, [get(lock), get(epoch)])
        try:
            return self._leases.beside(lease, request, deadline)
        except OutcomeUnknown:
            self._known_epoch = None
            raise

    def _taken(
        self, answer: Answer, node: str, instance: str, ttl_ms: int, floor: Epoch, deadline: Instant
    ) -> Grant | HeldBy:
        """Say who has the lock, or renew it where that is us.

        Raises:
            _Moved: It is free, but the epoch was another one.
            NotHolder: It was ours when we looked.
        """
        epoch = self._note_epoch(found(answer.body, 1))
        required_epoch(epoch.value if epoch.mod else None, floor)
        kv = next(iter(found(answer.body)), None)
        if kv is None:
            raise _Moved
        lock = decode(LOCK, kv.value, LockRecord)
        if (lock.node, lock.instance, lock.state) == (node, instance, "held"):
            hold = Hold(node, instance, lock.epoch, ttl_ms, f"{kv.create_revision}:{kv.lease}")
            return self.renew(hold, deadline=deadline)
        self._adopt({LOCK: Key(kv.value, kv.mod_revision, kv.create_revision, kv.lease)}, deadline)
        return HeldBy(lock.node, lock.epoch)

    # ---- broken locks

    def _attach(self, broken: LockRecord, mod: int, deadline: Instant) -> None:
        """Give a broken lock a lease of its own, with its full TTL from now on.

        Failing is no error: the lock is broken, and the next that reads it tries again.
        """
        with suppress(BackendError, LeaseGone):
            lease = self._leases.grant(_whole_s(broken.ttl_ms), deadline)
            lock = self._key(LOCK)
            request = txn(is_at(lock, mod=mod), [put(lock, encode(broken), lease.id)], [])
            if not self._client.call("Txn", request, deadline, effect=True).body.succeeded:
                self._leases.revoke(lease, deadline)

    def _adopt(self, keys: Mapping[str, Key], deadline: Instant) -> None:
        """Give a broken lock its lease where the one who broke it did not come to it."""
        lock = _orphan(keys)
        if lock is not None:
            self._attach(lock, keys[LOCK].mod, deadline)

    # ---- holds

    def _held(self, create: int, lease: int) -> list[Any]:
        """Return what is true while the lock is of that hold and was not broken."""
        return is_at(self._key(LOCK), create=create, mod=create, lease=lease)

    def _still(self, answer: Answer, hold: Hold) -> bool:
        create, lease = _cookie(hold)
        return any(
            (kv.create_revision, kv.mod_revision, kv.lease) == (create, create, lease)
            for kv in found(answer.body)
        )

    def _not_holder(self, hold: Hold, answer: Answer) -> NotHolder:
        now = "vacant"
        for kv in found(answer.body):
            now = "unreadable"
            with suppress(BadDocument):
                lock = decode(LOCK, kv.value, LockRecord)
                now = f"{lock.state} at epoch {lock.epoch} by {lock.node}"
        return NotHolder(f"{LOCK}: not ours at epoch {hold.epoch}; it is {now}")

    def _has_released(self, answer: Answer, epoch: EpochRecord) -> bool:
        with suppress(BadDocument):
            return any(decode(EPOCH, kv.value, EpochRecord) == epoch for kv in found(answer.body, 1))
        return False

    # ---- keys and views

    def _key(self, name: str) -> bytes:
        return (self._prefix + name).encode()

    def _name(self, key: bytes) -> str:
        return key[len(self._prefix.encode()) :].decode(errors="replace")

    def _load(self, deadline: Instant) -> Snapshot:
        """Read all keys but history."""
        nodes = self._key(NODES)
        wanted = [get(self._key(name)) for name in (LOCK, EPOCH, REQUEST, SETTINGS)] + [
            get(nodes, after(nodes))
        ]
        answer = self._client.call("Txn", txn([], wanted, []), deadline, effect=False).body
        keys = {}
        for index in range(len(wanted)):
            for kv in found(answer, index):
                keys[self._name(kv.key)] = Key(kv.value, kv.mod_revision, kv.create_revision, kv.lease)
        return Snapshot(keys, int(answer.header.revision), self._client.generation)

    def _number(self, snapshot: Snapshot) -> int:
        """Return the view revision: etcd's, moved up when the store was replaced by one that counts anew."""
        with self._state:
            if snapshot.generation > self._generation:
                self._generation, self._base = snapshot.generation, self._last
                self._known_epoch = None
                self._leases.forget_spare()
                self._presence.clear()
            if snapshot.generation < self._generation:
                return 0
            number = self._base + snapshot.revision
            self._last = max(self._last, number)
            return number

    def _view(self, snapshot: Snapshot) -> View:
        number = self._number(snapshot)
        self._known_epoch = snapshot.keys.get(EPOCH, Key(b"", 0, 0, 0))
        entries = {name: Entry(key.value, key.mod) for name, key in snapshot.keys.items()}
        return self._reader.view(number, entries)

    def _trim_history(self, deadline: Instant) -> None:
        prefix = self._key(HISTORY)
        count = pb.RangeRequest(key=prefix, range_end=after(prefix), count_only=True)
        surplus = int(self._client.call("Range", count, deadline, effect=False).body.count) - HISTORY_KEEP
        if surplus > 0:
            oldest = pb.RangeRequest(key=prefix, range_end=after(prefix), limit=surplus, keys_only=True)
            kvs = self._client.call("Range", oldest, deadline, effect=False).body.kvs
            drop = txn([], [delete(prefix, kvs[-1].key + b"\0")], [])
            self._client.call("Txn", drop, deadline, effect=True)


class _Moved(Exception):
    """The lock is free, but what was known of the epoch is out of date."""


def _whole_s(ttl_ms: int) -> int:
    return -(
        -ttl_ms // 1000
    )  # etcd's leases are whole seconds: up, so that nobody gets less than he asked for


def _cookie(hold: Hold) -> tuple[int, int]:
    """Return create revision of the lock key and lease of a hold."""
    create, _, lease = hold.cookie.partition(":")
    try:
        return int(create), int(lease)
    except ValueError:
        raise NotHolder(f"{LOCK}: {hold.cookie!r} is no hold of etcd's") from None


def _is_broken(raw: bytes, hold: Hold) -> bool:
    with suppress(BadDocument):
        lock = decode(LOCK, raw, LockRecord)
        key = (lock.state, lock.node, lock.instance, lock.epoch)
        return key == ("broken", hold.node, hold.instance, hold.epoch)
    return False


def _to_break(keys: Mapping[str, Key], epoch: Epoch, by: str, request: str | None, ttl_ms: int) -> LockRecord:
    """Return the record to break, or the one that this same order has broken already."""
    if LOCK not in keys:
        raise Conflict(f"{LOCK}: vacant")
    try:
        lock = decode(LOCK, keys[LOCK].value, LockRecord)
    except BadDocument:
        if epoch != NO_EPOCH:
            raise
        return LockRecord(NOBODY, "", _epoch_or_none(keys), ttl_ms)
    done = (lock.state, lock.epoch, lock.by, lock.request) == ("broken", epoch, by, request)
    if not done and (lock.epoch != epoch or lock.state != "held"):
        raise Conflict(f"{LOCK}: {lock.state} at epoch {lock.epoch}, not held at {epoch}")
    return lock


def _orphan(keys: Mapping[str, Key]) -> LockRecord | None:
    """Return the broken lock that has no lease yet, so that it would never expire."""
    if LOCK in keys and keys[LOCK].lease == 0:
        with suppress(BadDocument):
            lock = decode(LOCK, keys[LOCK].value, LockRecord)
            return lock if lock.state == "broken" else None
    return None


def _epoch_or_none(keys: Mapping[str, Key]) -> Epoch:
    """Return the epoch, NO_EPOCH where it cannot be read: for operators' repairs only."""
    with suppress(BadDocument):
        return decode(EPOCH, keys[EPOCH].value, EpochRecord).epoch if EPOCH in keys else NO_EPOCH
    return NO_EPOCH
