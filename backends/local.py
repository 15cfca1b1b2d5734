"""The embedded backend: one SQLite file, for nodes on one machine.

Rules
- Leases are rows with an expiry on CLOCK_BOOTTIME and the id of the boot it belongs to. After a reboot
  no process of before lives, so a lease of another boot is free at once.
- A write is one ``BEGIN IMMEDIATE`` transaction. What must survive a power cut is synced to the disk;
  renewals and presence are not, since their leases end with the boot anyway.
- SQLite runs on one worker thread: a disk that hangs in ``fsync`` cannot be interrupted, but the
  caller can be let go at its deadline.
- The file may be deleted, replaced or restored under us: every call looks at its inode, and those of its
  logs, first. A node that held the lock in the old file then learns `NotHolder`, unless the new one is a
  copy with that lock in it: there the lock's TTL begins anew, since its renewals are not in the copy. A
  file that is gone while its logs are there is not made anew: whoever moved it may put it back.

Not guaranteed: anything across machines. Network and cluster file systems are refused, because neither
WAL nor BOOTTIME means anything there; two virtual machines on one virtual disk cannot be told. A
copy that is written *into* the file, instead of moved to its place, cannot be told and damages it. Time
namespaces: a lease made in another one cannot be judged and counts as held until it is released
or broken.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from backends._sqlite import File, Transaction, boot_id, errors, make, undone_on_error
from backends._worker import Expired, Worker
from backends.shared import (
    EPOCH,
    LOCK,
    NODES,
    Entry,
    Reader,
    history,
    history_key,
    key_of,
    known_options,
    required_epoch,
    root,
    text_option,
)
from sidecar.clock import Clock, left_s
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
    BadDocument,
    ConfigError,
    Conflict,
    Denied,
    NotSent,
    OutcomeUnknown,
)
from sidecar.ports import BackendInfo, BackendSettings, Grant, HeldBy, Hold

DEFAULT_PATH = "/var/lib/aggregate-sidecar/local.db"
POLL_MS = 20  # how soon another process's change is seen; 0.2 % of a core. Ours wake at once
BUSY_POLL_S = 0.002  # between attempts at the write lock; a transaction holds it for 1-5 ms
VERDICT_S = 0.1  # past the deadline, for the worker to say what became of it
CLOSE_S = 0.8
FOREIGN = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs"}
    | {"glusterfs", "fuse.glusterfs", "lustre", "gfs", "gfs2", "ocfs2"}
)

R = TypeVar("R")
How = Literal["read", "write", "synced"]  # synced: what must survive a power cut


def connect(settings: BackendSettings, clock: Clock) -> "LocalBackend":
    """Return the backend on ``local.path``.

    Raises:
        ConfigError: The path is not absolute, its folder is missing and none that will be made, or on a file
            system shared by machines.
    """
    known_options("local", settings.options, ["path"])
    path = Path(text_option("local", settings.options, "path") or DEFAULT_PATH)
    if not path.is_absolute():
        raise ConfigError(f"local.path: {path} is not absolute")
    # os.path, since Path's raise where a name is too long or a folder above is shut. `run` makes paths.state.
    if not os.path.isdir(path.parent) and path.parent != settings.state_dir:  # noqa: PTH112
        raise ConfigError(
            f"local.path: the folder {path.parent} does not exist; make it, or name another file"
        )
    if os.path.isdir(path):  # noqa: PTH112
        raise ConfigError(f"local.path: {path} is a folder")
    kind = _file_system(path.parent)
    if kind in FOREIGN:
        raise ConfigError(f"local.path: {path} is on {kind}, which machines share; use etcd or consul there")
    return LocalBackend(path, root(settings), clock)


class LocalBackend:
    """One cluster's keys in one SQLite file; keeps `sidecar.ports.Backend`."""

    def __init__(self, path: Path, cluster: str, clock: Clock) -> None:
        self._path, self._cluster, self._clock = path, cluster, clock
        self._boot = boot_id()
        self._reader = Reader()
        self._worker = Worker("local-store")
        self._file: File | None = None  # the worker's
        self._base = self._last = 0  # of revisions: a replaced file starts again, our views do not
        self._replaced = self._closed = False
        self._changed = threading.Condition()
        self._generation = 0  # counts our own commits, to wake our own waiters

    def info(self, *, deadline: Instant) -> BackendInfo:
        """Say which file and which SQLite."""
        self._do("read", deadline, lambda tx: None)
        return BackendInfo("local", str(self._path), {str(self._path): f"sqlite {sqlite3.sqlite_version}"}, 1)

    def acquire(
        self, node: str, instance: str, ttl_ms: int, *, floor: Epoch, deadline: Instant
    ) -> Grant | HeldBy:
        """Take the lock, if it is vacant or ours already."""
        sent_at = self._clock.now()

        def take(tx: Transaction) -> Grant | HeldBy:
            epoch = required_epoch(tx.get(EPOCH), floor)
            lock = tx.lock()
            if lock is None:
                epoch = Epoch(epoch + 1)
                tx.put(EPOCH, encode(EpochRecord(epoch, node)))
            elif (lock.node, lock.instance, lock.state) != (node, instance, "held"):
                return HeldBy(lock.node, lock.epoch)
            else:
                epoch = lock.epoch
            tx.put(LOCK, encode(LockRecord(node, instance, epoch, ttl_ms)), ttl_ms)
            return Grant(Hold(node, instance, epoch, ttl_ms, cookie=""), sent_at, ttl_ms)

        return self._do("synced", deadline, take)

    def renew(self, hold: Hold, *, deadline: Instant) -> Grant:
        """Extend *hold* if it is still the one that counts."""
        sent_at = self._clock.now()

        def extend(tx: Transaction) -> Grant:
            tx.require(hold)
            lock = LockRecord(hold.node, hold.instance, hold.epoch, hold.ttl_ms)
            tx.put(LOCK, encode(lock), hold.ttl_ms, quiet=True)
            return Grant(hold, sent_at, hold.ttl_ms)

        return self._do("write", deadline, extend)

    def release(self, hold: Hold, *, cause: str, deadline: Instant) -> None:
        """Delete the lock, held or broken, if it is of exactly this hold."""

        def give_up(tx: Transaction) -> None:
            tx.require(hold, broken_too=True)
            tx.delete(LOCK)
            tx.put(EPOCH, encode(EpochRecord(hold.epoch, hold.node, cause)))

        self._do("synced", deadline, give_up)

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
        """Replace the lock by a broken one, with the full TTL before it from now."""

        def take_away(tx: Transaction) -> None:
            try:
                lock = tx.lock()
            except BadDocument:
                if epoch != NO_EPOCH:
                    raise
                lock = LockRecord(NOBODY, "", tx.epoch_or_none(), ttl_ms)
            else:
                if lock is not None and _same_break(lock, epoch, by, request):
                    return  # asked again after an unknown outcome: the wait goes on as it is
                if lock is None or lock.epoch != epoch or lock.state != "held":
                    raise Conflict(f"{LOCK}: not held at epoch {epoch}")
            broken = replace(lock, state="broken", to=to, by=by, request=request)
            tx.put(LOCK, encode(broken), lock.ttl_ms)

        self._do("synced", deadline, take_away)

    def raise_epoch(self, floor: Epoch, *, ttl_ms: int, by: str, deadline: Instant) -> Epoch:
        """Lift the epoch and keep the lock from being acquired for *ttl_ms*."""

        def lift(tx: Transaction) -> Epoch:
            lock = tx.lock()
            epoch = tx.epoch_or_none()
            if lock is not None and _same_break(lock, epoch, by, None) and epoch >= floor:
                return epoch
            if lock is not None:
                raise Conflict(f"{LOCK}: not vacant, {lock.state} at epoch {lock.epoch} by {lock.node}")
            epoch = Epoch(max(epoch, floor))
            tx.put(EPOCH, encode(EpochRecord(epoch)))
            tx.put(LOCK, encode(LockRecord(NOBODY, "", epoch, ttl_ms, "broken", by=by)), ttl_ms)
            return epoch

        return self._do("synced", deadline, lift)

    def publish(self, record: NodeRecord, *, ttl_ms: int, deadline: Instant) -> None:
        """Put the node's key, to disappear after *ttl_ms*."""
        self._do("write", deadline, lambda tx: tx.put(NODES + record.node, encode(record), ttl_ms))

    def withdraw(self, node: str, instance: str, *, deadline: Instant) -> None:
        """Delete the node's key if *instance* wrote it."""

        def take_back(tx: Transaction) -> None:
            with suppress(BadDocument):
                raw = tx.get(NODES + node)
                if raw is not None and decode(NODES + node, raw, NodeRecord).instance == instance:
                    tx.delete(NODES + node)

        self._do("write", deadline, take_back)

    def read(self, *, deadline: Instant) -> View:
        """Return the view of this moment; removes what has expired."""
        return self._look(deadline)[0]

    def await_change(self, revision: int, *, deadline: Instant) -> View | None:
        """Wait for a commit of any process, or for the next lease to end."""
        while True:
            with self._changed:
                generation = self._generation
            version = self._file_version()
            view, expires_at = self._look(deadline)
            if view.revision > revision:
                return view
            wake_at = deadline if expires_at is None else min(deadline, expires_at)
            self._sleep(generation, version, wake_at)
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
        """Put the document if its key is at version *expected*."""
        key = key_of(value)

        def swap(tx: Transaction) -> int:
            if hold is not None:
                tx.require(hold)
            found = tx.version(key)
            if found != expected:
                raise Conflict(f"{key}: at version {found}, not {expected}")
            return tx.put(key, encode(value))

        return self._do("synced", deadline, swap)

    def append_history(self, hold: Hold, entry: HistoryEntry, *, deadline: Instant) -> None:
        """Put the entry and drop the oldest ones."""

        def append(tx: Transaction) -> None:
            tx.require(hold)
            tx.put(history_key(entry.epoch), encode(entry))
            tx.trim_history()

        self._do("synced", deadline, append)

    def read_history(self, limit: int, *, deadline: Instant) -> tuple[HistoryEntry, ...]:
        """Return the newest entries."""
        rows = self._do("read", deadline, lambda tx: tx.history())
        return history(rows)[: max(0, limit)]

    def close(self) -> None:
        """Let go of everything; calls under way end with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._worker.stop(self._close_file, CLOSE_S)

    # ---- on the caller's thread

    def _do(self, how: How, deadline: Instant, work: Callable[[Transaction], R]) -> R:
        """Have *work* done in one transaction by the worker; its errors come from the error tree."""
        if self._closed:
            raise NotSent(f"{self._path}: closed")
        if self._clock.now() >= deadline:
            raise NotSent(f"{self._path}: no time left before it was asked")
        within_s = left_s(deadline, self._clock) + VERDICT_S
        try:
            return self._worker.call(lambda: self._transact(how, deadline, work), within_s)
        except Expired as late:
            if late.started and how != "read":
                raise OutcomeUnknown(f"{self._path}: the disk did not answer in time") from late
            raise NotSent(f"{self._path}: no turn before the deadline") from late

    def _look(self, deadline: Instant) -> tuple[View, Instant | None]:
        """Return the view, and when its next lease ends."""
        view, expires_at, due = self._do("read", deadline, self._view)
        if due:  # a lease has ended: that is a change, and somebody has to count it
            view, expires_at, _ = self._do("write", deadline, self._reap)
        return view, expires_at

    def _sleep(self, generation: int, version: int | None, until: Instant) -> None:
        """Return when something may have changed, at *until* at the latest."""
        while (left_ms := until - self._clock.now()) > 0:
            with self._changed:
                if self._closed:
                    raise NotSent(f"{self._path}: closed")
                self._changed.wait_for(
                    lambda: self._closed or self._generation != generation, min(left_ms, POLL_MS) / 1000
                )
                if self._generation != generation:
                    return
            if self._file_version() != version:
                return

    def _file_version(self) -> int | None:
        """Return a number that any commit of another connection changes; None where it cannot be told."""
        file = self._file
        return file.data_version() if file is not None else None

    # ---- on the worker's thread

    def _transact(self, how: How, deadline: Instant, work: Callable[[Transaction], R]) -> R:
        with errors(self._path):
            file = self._open(deadline)
            self._begin(file.connection, how, deadline)
        tx = Transaction(file.connection, self._cluster, self._boot, self._clock)
        with undone_on_error(file.connection), errors(self._path):
            result = work(tx)
        self._commit(file.connection)
        if tx.changed:
            with self._changed:
                self._generation += 1
                self._changed.notify_all()
        return result

    def _open(self, deadline: Instant) -> File:
        if self._file is not None and self._file.replaced():
            self._close_file()
            self._replaced = True
        if self._file is None:
            try:
                make(self._path)
            except PermissionError as error:
                raise Denied(f"{self._path}: {error.strerror}") from error
            file = File(self._path)
            try:
                self._retry(deadline, lambda: file.prepare(self._boot, self._clock, moved=self._replaced))
            except BaseException:
                file.close()
                raise
            self._file = file
        return self._file

    def _begin(self, connection: sqlite3.Connection, how: How, deadline: Instant) -> None:
        if how != "read":
            connection.execute(f"pragma synchronous = {'full' if how == 'synced' else 'normal'}")
        begin = "begin" if how == "read" else "begin immediate"
        self._retry(deadline, lambda: connection.execute(begin))

    def _retry(self, deadline: Instant, step: Callable[[], object]) -> None:
        """Do *step* as soon as no other process is in the way."""
        while True:
            try:
                step()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy or self._closed or self._clock.now() >= deadline:
                    raise
            else:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._closed, BUSY_POLL_S)

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("commit")
        except sqlite3.Error as error:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("rollback")
                raise NotSent(f"{self._path}: {error}") from error
            raise OutcomeUnknown(f"{self._path}: {error}") from error

    def _view(self, tx: Transaction) -> tuple[View, Instant | None, bool]:
        raw = tx.revision()
        if self._replaced or raw + self._base < self._last:  # another file, or an older copy of this one
            self._base, self._replaced = self._last + 1 - raw, False
        self._last = raw + self._base
        rows = tx.rows()
        alive = [row for row in rows if tx.alive(row)]
        ends = [Instant(row[3]) for row in alive if row[3] is not None and row[4] == self._boot]
        entries = {row[0]: Entry(row[1], row[2]) for row in alive}
        return self._reader.view(self._last, entries), min(ends, default=None), len(alive) < len(rows)

    def _reap(self, tx: Transaction) -> tuple[View, Instant | None, bool]:
        for row in tx.rows():
            if not tx.alive(row):
                tx.delete(row[0])
        return self._view(tx)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _same_break(lock: LockRecord, epoch: Epoch, by: str, request: str | None) -> bool:
    return (lock.state, lock.epoch, lock.by, lock.request) == ("broken", epoch, by, request)


def _file_system(folder: Path) -> str | None:
    """Return the type of the file system *folder* is on, None where the kernel does not tell."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    found = there.resolve().stat().st_dev
    device = f"{os.major(found)}:{os.minor(found)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    kinds = [line.partition(" - ")[2].split(" ")[0] for line in lines if line.split(" ")[2] == device]
    return kinds[0] if kinds else None
