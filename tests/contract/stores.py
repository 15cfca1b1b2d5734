"""The stores the contract runs over, each behind the same few verbs. One more is a `Store` in `STORES`.

A store gives connected backends for a cluster name, puts raw text under a key behind the backend's back,
and has faults as verbs. ``through`` is a `Proxy` in front of a server; the embedded store has none.
"""

import sqlite3
import threading
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.plugins import load_backend
from sidecar.ports import Backend, BackendSettings
from tests.harness.proxy import Proxy
from tests.harness.stores import Consul, Etcd

PREFIX = "aggregate-sidecar"
DOCUMENT = b'{"v":1'


def soon(ms: int = 3_000) -> Instant:
    """Return the instant *ms* from now: a deadline that no healthy store misses."""
    return Instant(BootClock().now() + ms)


class Store(ABC):
    """One store under test; every other name is a parameter of the contract."""

    ttl_ms = 2_000  # the shortest that the store grants as asked
    late_ms = 3_000  # how much later than its TTL a lease may be seen to have ended
    presence_late_ms = 3_000  # the same for a published node
    has_server = True
    document = b""  # how each document begins in a request to the server

    @abstractmethod
    def configured(self, through: Proxy | None = None) -> tuple[str, dict[str, object]]:
        """Return the backend's name and options, through a proxy if one is given."""

    def connect(self, cluster: str, through: Proxy | None = None) -> Backend:
        """Return a new backend."""
        name, options = self.configured(through)
        return load_backend(name)(BackendSettings(cluster, options, PREFIX), BootClock())

    @abstractmethod
    def put(self, cluster: str, key: str, text: str) -> None:
        """Write *text* under a key, whatever it was bound to."""

    @abstractmethod
    def proxy(self, host: str = "127.0.0.1") -> Proxy:
        """Return a new proxy in front of the server, at an address of loopback."""

    @abstractmethod
    def freeze(self) -> None:
        """Make the store answer nobody, without an error."""

    @abstractmethod
    def thaw(self) -> None: ...

    @abstractmethod
    def wipe(self) -> None:
        """Lose all data and go on."""

    def kill(self) -> None:
        raise NotImplementedError

    def restart(self) -> None:
        raise NotImplementedError

    @contextmanager
    def slow(self, cluster: str, delay_ms: int) -> Iterator[tuple[Backend, Callable[[], None]]]:
        """Give a backend for which a request takes *delay_ms* at least, if ``hinder`` was called."""
        with self.proxy() as proxy:
            backend = self.connect(cluster, proxy)
            backend.read(deadline=soon())  # connected
            proxy.delay(delay_ms)
            yield backend, lambda: None
            backend.close()


class LocalStore(Store):
    """The SQLite file; another process that keeps it locked stands for a frozen server."""

    has_server = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: sqlite3.Connection | None = None

    def configured(self, through: Proxy | None = None) -> tuple[str, dict[str, object]]:
        return "local", {"path": str(self.path)}

    def put(self, cluster: str, key: str, text: str) -> None:
        self._make()
        name = f"{PREFIX}/{cluster}/"
        with self._open() as sql:
            sql.execute("begin immediate")
            sql.execute("insert or ignore into revisions values (?, 0)", (name,))
            sql.execute("update revisions set revision = revision + 1 where cluster = ?", (name,))
            sql.execute(
                "insert or replace into keys select cluster, ?, ?, revision, null, null from revisions"
                " where cluster = ?",
                (key, text.encode(), name),
            )

    def proxy(self, host: str = "127.0.0.1") -> Proxy:
        pytest.skip("an embedded store has no connection")

    def freeze(self) -> None:
        self._make()
        self._lock = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._lock.execute("begin immediate")

    def thaw(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.execute("rollback")
            lock.close()

    def wipe(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").unlink()

    @contextmanager
    def slow(self, cluster: str, delay_ms: int) -> Iterator[tuple[Backend, Callable[[], None]]]:
        backend = self.connect(cluster)
        backend.read(deadline=soon())
        timers: list[threading.Timer] = []

        def hinder() -> None:
            self.freeze()
            timers.append(threading.Timer(delay_ms / 1000, self.thaw))
            timers[-1].start()

        try:
            yield backend, hinder
        finally:
            for timer in timers:
                timer.join()
            backend.close()

    def _make(self) -> None:
        if not self.path.exists():
            first = self.connect("first")
            first.read(deadline=soon())
            first.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        sql = sqlite3.connect(self.path, timeout=2, isolation_level=None)
        try:
            yield sql
            sql.execute("commit")
        finally:
            sql.close()


class EtcdStore(Store):
    """One etcd member."""

    document = DOCUMENT

    def __init__(self, etcd: Etcd) -> None:
        self.etcd = etcd

    def configured(self, through: Proxy | None = None) -> tuple[str, dict[str, object]]:
        return "etcd", {"endpoints": [through.url if through else self.etcd.url]}

    def put(self, cluster: str, key: str, text: str) -> None:
        self.etcd.put(f"/{PREFIX}/{cluster}/{key}", text)

    def proxy(self, host: str = "127.0.0.1") -> Proxy:
        return Proxy(self.etcd.host_port, host)

    def freeze(self) -> None:
        self.etcd.freeze()

    def thaw(self) -> None:
        self.etcd.thaw()

    def wipe(self) -> None:
        self.etcd.wipe()

    def kill(self) -> None:
        self.etcd.kill()

    def restart(self) -> None:
        self.etcd.restart()


class ConsulStore(Store):
    """One Consul server."""

    document = b64encode(DOCUMENT)
    ttl_ms = 1_000  # ours, not Consul's: any would do
    late_ms = 1_000
    presence_late_ms = 21_000  # a session's minimum of 10 s, twice, as Consul counts

    def __init__(self, consul: Consul) -> None:
        self.consul = consul

    def configured(self, through: Proxy | None = None) -> tuple[str, dict[str, object]]:
        return "consul", {"address": through.url if through else self.consul.url}

    def put(self, cluster: str, key: str, text: str) -> None:
        self.consul.put(f"{PREFIX}/{cluster}/{key}", text)

    def proxy(self, host: str = "127.0.0.1") -> Proxy:
        return Proxy(self.consul.host_port, host)

    def freeze(self) -> None:
        self.consul.freeze()

    def thaw(self) -> None:
        self.consul.thaw()

    def wipe(self) -> None:
        self.consul.wipe()

    def kill(self) -> None:
        self.consul.kill()

    def restart(self) -> None:
        self.consul.restart()


def _local(request: pytest.FixtureRequest) -> Store:
    folder: Path = request.getfixturevalue("tmp_path")
    return LocalStore(folder / "local.db")


STORES: dict[str, Callable[[pytest.FixtureRequest], Store]] = {
    "local": _local,
    "etcd34": lambda request: EtcdStore(request.getfixturevalue("etcd34")),
    "etcd35": lambda request: EtcdStore(request.getfixturevalue("etcd35")),
    "consul": lambda request: ConsulStore(request.getfixturevalue("consul")),
}
