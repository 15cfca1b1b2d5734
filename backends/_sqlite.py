"""The SQLite file of the local backend: opening it, its keys inside a transaction, its errors."""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

from backends.shared import EPOCH, HISTORY_KEEP, LOCK
from sidecar.clock import Clock
from sidecar.core.model import EpochRecord, LockRecord
from sidecar.core.units import NO_EPOCH, Epoch
from sidecar.documents import decode
from sidecar.errors import BackendError, BadDocument, Denied, NotHolder, NotSent
from sidecar.ports import Hold

SCHEMA = """
create table if not exists keys (
    cluster text, key text, value blob not null, version integer not null,
    expires_at integer, boot text, primary key (cluster, key)) without rowid;
create table if not exists revisions (cluster text primary key, revision integer not null) without rowid;
create table if not exists home (device integer not null, inode integer not null);
"""
TABLES = SCHEMA.count("create table")

Row = tuple[str, bytes, int, int | None, str | None]  # key, value, version, expires_at, boot


class File:
    """An open database file: the worker's connection, and one to see others' commits with."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found = _identity(path)
        self.connection = self._connect()
        self._watch = self._connect()
        self._watching = threading.Lock()
        self._closed = False

    def prepare(self, boot: str, clock: Clock, *, moved: bool) -> None:
        """Make it a database of ours, if it is none yet, and move in, if it is a copy.

        Args:
            boot: As `boot_id` tells.
            clock: For the leases of a copy.
            moved: Known to be another file than the one before; without it only its inode tells.

        Raises:
            NotSent: It was moved or replaced meanwhile.
        """
        if self.connection.execute("pragma journal_mode").fetchone()[0] != "wal":
            self.connection.execute("pragma journal_mode = wal")
        if self.connection.execute("select count(*) from sqlite_master").fetchone()[0] < TABLES:
            self.connection.executescript("begin immediate;" + SCHEMA + "commit;")
        self._watch.execute("select count(*) from sqlite_master").fetchone()  # its log is open from here on
        here = _identity(self._path)
        if here is None or here != self._found:
            raise NotSent(f"{self._path}: moved or replaced while it was opened")
        self._move_in(here, boot, clock, moved=moved)
        self._parts = self._identities()

    def replaced(self) -> bool:
        """Tell whether the path leads to another file now, or to none, or to another log."""
        return self._identities() != self._parts

    def data_version(self) -> int | None:
        with self._watching:
            if self._closed or self.replaced():
                return None
            try:
                return int(self._watch.execute("pragma data_version").fetchone()[0])
            except sqlite3.Error:
                return None

    def _move_in(self, here: tuple[int, int], boot: str, clock: Clock, *, moved: bool) -> None:
        """In a copy a held or broken lock begins its TTL anew.

        What its holder has renewed since the copy was made is not in it: by the copy the lock may be
        long over while its server runs. One that cannot be read does not expire; an operator breaks it.
        """
        home = self.connection.execute("select device, inode from home").fetchall()
        if not moved and home == [here]:
            return
        self.connection.execute("begin immediate")
        with undone_on_error(self.connection):
            locks = self.connection.execute("select cluster, value, boot from keys where key = ?", (LOCK,))
            for cluster, value, written in locks.fetchall():
                if written is None or not same_boot(written, boot):
                    continue  # it never expires, or its server ended with the machine
                self.connection.execute(
                    "update keys set expires_at = ?, boot = ? where cluster = ? and key = ?",
                    (*_anew(value, boot, clock), cluster, LOCK),
                )
            self.connection.execute("delete from home")
            self.connection.execute("insert into home values (?, ?)", here)
            self.connection.execute("commit")

    def close(self) -> None:
        with self._watching:
            self._closed = True
            for connection in (self._watch, self.connection):
                with suppress(sqlite3.Error):
                    connection.close()

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self._path.as_uri()}?mode=rw"  # never made here: see `make`
        return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)

    def _identities(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in (self._path, *logs(self._path))]


def make(path: Path) -> None:
    """Make the database if there is none, complete at once.

    SQLite takes an empty file for a new database and deletes the log beside it. Where the file was
    only moved away, that log is the newest part of what will be moved back.

    Raises:
        NotSent: The log of a file that is not there is.
    """
    if _is_there(path):
        return
    left = [log.name for log in logs(path) if log.exists()]
    if left and not _is_there(path):  # else another process has made it meanwhile, and the logs are its
        raise NotSent(f"{path}: gone, but not its {' and '.join(left)}: put it back, or delete those too")
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(SCHEMA)
        content = empty.serialize()
    descriptor, new = mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - closed before it has its name: see fcntl(2)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _name(new, path)
    finally:
        os.unlink(new)  # noqa: PTH108


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _name(new: str, path: Path) -> None:
    """Give a file its name unless another process was quicker."""
    with suppress(FileExistsError):
        try:
            os.link(new, path)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
                raise
            # no hard links here, as on vfat: an empty file, which `File.prepare` fills
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def logs(path: Path) -> tuple[Path, Path]:
    """Return the two files SQLite keeps beside an open database."""
    return Path(f"{path}-wal"), Path(f"{path}-shm")


class Transaction:
    """The cluster's keys inside one transaction."""

    def __init__(self, connection: sqlite3.Connection, cluster: str, boot: str, clock: Clock) -> None:
        self._sql, self._cluster, self._boot, self._clock = connection, cluster, boot, clock
        self.changed = False

    def revision(self) -> int:
        found = self._sql.execute(
            "select revision from revisions where cluster = ?", (self._cluster,)
        ).fetchone()
        return int(found[0]) if found else 0

    def rows(self) -> list[Row]:
        """Return all keys but history, expired ones too."""
        return self._sql.execute(
            "select key, value, version, expires_at, boot from keys"
            " where cluster = ? and key not glob 'history/*'",
            (self._cluster,),
        ).fetchall()

    def alive(self, row: Row) -> bool:
        """Tell whether a row's lease, if it has one, still runs."""
        _, _, _, expires_at, boot = row
        if expires_at is None or boot is None:
            return True
        if not same_boot(boot, self._boot):
            return False  # the machine was started anew
        return boot != self._boot or self._clock.now() < expires_at

    def get(self, key: str) -> bytes | None:
        row = self._row(key)
        return bytes(row[1]) if row is not None and self.alive(row) else None

    def version(self, key: str) -> int:
        row = self._row(key)
        return row[2] if row is not None and self.alive(row) else 0

    def lock(self) -> LockRecord | None:
        raw = self.get(LOCK)
        return decode(LOCK, raw, LockRecord) if raw is not None else None

    def epoch_or_none(self) -> Epoch:
        """Return the epoch, NO_EPOCH where it cannot be read: for operators' repairs only."""
        raw = self.get(EPOCH)
        with suppress(BadDocument):
            return decode(EPOCH, raw, EpochRecord).epoch if raw is not None else NO_EPOCH
        return NO_EPOCH

    def require(self, hold: Hold, broken_too: bool = False) -> None:
        try:
            lock = self.lock()
        except BadDocument as error:
            raise NotHolder(f"{LOCK}: not ours at epoch {hold.epoch}; {error}") from error
        ours = lock is not None and (lock.node, lock.instance, lock.epoch) == (
            hold.node,
            hold.instance,
            hold.epoch,
        )
        if lock is None or not ours or (lock.state == "broken" and not broken_too):
            now = "vacant" if lock is None else f"{lock.state} at epoch {lock.epoch} by {lock.node}"
            raise NotHolder(f"{LOCK}: not ours at epoch {hold.epoch}; it is {now}")

    def put(self, key: str, value: bytes, ttl_ms: int | None = None, quiet: bool = False) -> int:
        """Put a key and return its version; *quiet* when nobody needs to look at the change."""
        revision = self.revision() if quiet else self._next()
        expires_at = None if ttl_ms is None else self._clock.now() + ttl_ms
        self._sql.execute(
            "insert or replace into keys values (?, ?, ?, ?, ?, ?)",
            (self._cluster, key, value, revision, expires_at, None if ttl_ms is None else self._boot),
        )
        return revision

    def delete(self, key: str) -> None:
        self._next()
        self._sql.execute("delete from keys where cluster = ? and key = ?", (self._cluster, key))

    def history(self) -> list[tuple[str, bytes]]:
        """Return all entries, newest first."""
        return self._sql.execute(
            "select key, value from keys where cluster = ? and key glob 'history/*' order by key desc",
            (self._cluster,),
        ).fetchall()

    def trim_history(self) -> None:
        self._sql.execute(
            "delete from keys where cluster = ?1 and key glob 'history/*' and key <= (select key from keys"
            " where cluster = ?1 and key glob 'history/*' order by key desc limit 1 offset ?2)",
            (self._cluster, HISTORY_KEEP),
        )

    def _row(self, key: str) -> Row | None:
        row: Row | None = self._sql.execute(
            "select key, value, version, expires_at, boot from keys where cluster = ? and key = ?",
            (self._cluster, key),
        ).fetchone()
        return row

    def _next(self) -> int:
        self.changed = True
        revision = self.revision() + 1
        self._sql.execute("insert or replace into revisions values (?, ?)", (self._cluster, revision))
        return revision


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors, before a commit, into ours: nothing has happened."""
    try:
        yield
    except sqlite3.Error as error:
        raise mapped(path, error) from error
    except OSError as error:
        raise NotSent(f"{path}: {error.strerror}") from error


def mapped(path: Path, error: sqlite3.Error) -> BackendError:
    code = getattr(error, "sqlite_errorcode", None)
    match (code or 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_FORMAT:
            return BadDocument(f"{path}: damaged, or not a database of ours ({error})")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return Denied(f"{path}: {error}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return NotSent(f"{path}: another process kept it locked until the deadline")
        case sqlite3.SQLITE_CANTOPEN if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            return Denied(f"{path}: no permission to read and write it")
        case sqlite3.SQLITE_ERROR if code == sqlite3.SQLITE_ERROR:
            return BadDocument(f"{path}: a database, but not one of ours ({error})")
        case _:
            return NotSent(f"{path}: {error}")


def boot_id() -> str:
    """Return the id of this boot and time namespace: leases of another cannot be compared with ours."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    try:
        return f"{boot_id} {Path('/proc/self/ns/time').readlink()}"
    except OSError:  # Linux before 5.6 has no time namespaces
        return f"{boot_id} -"


def same_boot(one: str, other: str) -> bool:
    """Tell whether two boot ids, as of `boot_id`, are of one boot, whatever their time namespaces."""
    return one.partition(" ")[0] == other.partition(" ")[0]


def _anew(lock: bytes, boot: str, clock: Clock) -> tuple[int, str] | tuple[None, None]:
    try:
        return clock.now() + decode(LOCK, lock, LockRecord).ttl_ms, boot
    except BadDocument:
        return None, None


@contextmanager
def undone_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    """Roll the transaction back when something goes wrong in it."""
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("rollback")
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
