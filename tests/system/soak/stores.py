"""The store of one cluster under fire, and every fault that it can have.

Three members of etcd or Consul, with authentication on; or the embedded store's file. Each fault is a
context as in `faults`: in force inside, healed after, and proven. After a store was wiped or restored
the operator has to raise its epoch, as the documentation says (`StoreKind.forgets`).
"""

import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.harness.cells import fill, takes_a_write
from tests.harness.consuls import CLIENT_TOKEN, ConsulCluster
from tests.harness.fabric import STORES
from tests.harness.process import Process, wait_until
from tests.harness.stores import EtcdCluster
from tests.harness.tools import ETCD34
from tests.system.soak.faults import NotInjected, need

USER, PASSWORD = "sidecar", "secret-of-sidecar"
CONSUL_DISK = "24m"
ETCD_OPTIONS = ("--bcrypt-cost", "4", "--heartbeat-interval", "100", "--election-timeout", "1000")
"""etcd's own timing: the harness's shorter one makes leaders fall on a machine as busy as this is here."""
MARKER = "harness-marker"
"""Written before a store goes back; a store that has gone back does not have it."""
REFUSED_WITHIN_S = 10.0


@dataclass(frozen=True)
class StoreKind:
    """One fault of a store."""

    name: str
    fault: Callable[[], AbstractContextManager[None]]
    forgets: bool = False  # the store's epoch may be behind afterwards


class Store(Protocol):
    """What an arena needs of its store."""

    def section(self, index: int) -> dict[str, Any]:
        """Return the part of the configuration of node *index* that leads to the store."""

    def kinds(self) -> Sequence[StoreKind]:
        """Return its faults."""

    def snapshot(self) -> None:
        """Keep a snapshot, for a later fault to go back to."""

    def heal(self) -> None:
        """Start what has ended, and wait until it serves."""

    def close(self) -> None:
        """End it."""


class _Members:
    """The faults that etcd and Consul have in common: those of their processes."""

    cluster: EtcdCluster | ConsulCluster

    def __init__(self, rng: random.Random) -> None:
        self.random = rng

    def process_kinds(self) -> list[StoreKind]:
        return [
            StoreKind("one member paused", self.member_paused),
            StoreKind("leader killed", self.leader_killed),
            StoreKind("majority lost", self.majority_lost),
            StoreKind("all restarted", self.all_restarted),
        ]

    @contextmanager
    def member_paused(self) -> Iterator[None]:
        process = self.random.choice(self.cluster.members).process
        process.freeze()
        try:
            need(_state(process) == "T", "it runs on")
            yield
        finally:
            process.thaw()

    @contextmanager
    def leader_killed(self) -> Iterator[None]:
        process = self.cluster.members[self.cluster.leader()].process
        process.kill()
        need(not process.running(), "it lives on")
        yield
        self.cluster.heal()

    @contextmanager
    def majority_lost(self) -> Iterator[None]:
        lost = self.random.sample(self.cluster.members, len(self.cluster.members) // 2 + 1)
        for member in lost:
            member.kill()
        need(not any(member.process.running() for member in lost), "they live on")
        yield
        self.cluster.heal()

    @contextmanager
    def all_restarted(self) -> Iterator[None]:
        before = {member.process.pid for member in self.cluster.members}
        for member in self.cluster.members:
            member.stop()
        self.cluster.start()
        need(before.isdisjoint(member.process.pid for member in self.cluster.members), "the same processes")
        yield

    def _gone_back(self, go_back: Callable[[], None], why: str) -> None:
        """Let the store go back; what was written just before must not be there any more."""
        self.cluster.members[self.cluster.leader()].put(MARKER, "x")
        go_back()
        need(self.cluster.members[self.cluster.leader()].get(MARKER) is None, why)

    def heal(self) -> None:
        self.cluster.heal()

    def close(self) -> None:
        for member in self.cluster.members:
            member.stop()


class EtcdStore(_Members):
    """Three members of etcd 3.4 with users."""

    cluster: EtcdCluster

    def __init__(self, folder: Path, rng: random.Random) -> None:
        super().__init__(rng)
        self.folder = folder
        folder.mkdir(parents=True)
        self.cluster = EtcdCluster(folder, ETCD34, host=STORES, extra=ETCD_OPTIONS)
        (folder / "password").write_text(PASSWORD)
        self._snapshot = folder / "snapshot"
        try:
            self.cluster.start()
            self.cluster.enable_auth(USER, PASSWORD)
        except BaseException:
            self.close()
            raise

    def section(self, index: int) -> dict[str, Any]:
        login = {"username": USER, "password_file": str(self.folder / "password")}
        return {"backend": "etcd", "etcd": {"endpoints": self.cluster.urls, **login}}

    def kinds(self) -> Sequence[StoreKind]:
        return [
            *self.process_kinds(),
            StoreKind("disk full", self.disk_full),
            StoreKind("compaction", self.compaction),
            StoreKind("token revoked", self.token_revoked),
            StoreKind("restored", self.restored, forgets=True),
            StoreKind("wiped", self.wiped, forgets=True),
        ]

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        members = self.cluster.members
        try:
            for member in members:
                member.no_space(set_it=True)
            with suppress(OSError):
                members[0].put("harness-full", "x")
                need(False, "a write was accepted")
            yield
        finally:
            for member in members:
                wait_until(lambda m=member: _done(lambda: m.no_space(set_it=False)), "alarm off")  # type: ignore[misc]

    @contextmanager
    def compaction(self) -> Iterator[None]:
        member = self.cluster.members[0]
        old = member.revision()
        member.put("harness-compaction", "x")
        member.compact()
        with suppress(OSError):
            member.call("kv/range", key="aA==", revision=str(old))
            need(False, "the old revision is still there")
        yield

    @contextmanager
    def token_revoked(self) -> Iterator[None]:
        leader = self.cluster.members[self.cluster.leader()]
        token = leader.token(USER, PASSWORD)
        need(leader.accepts(token), "the token was no good before")
        other = self.random.choice((PASSWORD, "another"))  # half of the time nobody can log in meanwhile
        leader.set_password(USER, other)
        try:
            need(not leader.accepts(token), "the token still opens")
            yield
        finally:
            member = self.cluster.members[0]
            wait_until(lambda: _done(lambda: member.set_password(USER, PASSWORD)), "password set")

    def snapshot(self) -> None:
        """Keep one without the marker; a store that cannot be asked now keeps the one before."""
        with suppress(OSError, subprocess.SubprocessError):
            self.cluster.members[0].delete(MARKER)
            self.cluster.members[0].save(self._snapshot)

    @contextmanager
    def restored(self) -> Iterator[None]:
        need(self._snapshot.exists(), "no snapshot was taken yet")
        self._gone_back(lambda: self.cluster.restore(self._snapshot), "what came after is still there")
        yield

    @contextmanager
    def wiped(self) -> Iterator[None]:
        def wipe() -> None:
            self.cluster.wipe()
            self.cluster.enable_auth(USER, PASSWORD)

        self._gone_back(wipe, "the data is still there")
        yield


class ConsulStore(_Members):
    """Three Consul servers with tokens; each node talks to one of them, as to its local agent."""

    cluster: ConsulCluster

    def __init__(self, folder: Path, rng: random.Random) -> None:
        super().__init__(rng)
        folder.mkdir(parents=True)
        self.cluster = ConsulCluster(folder, host=STORES)
        for member in self.cluster.members:  # small disks of their own, to be filled
            member.data.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={CONSUL_DISK}", "consul", str(member.data)]
            subprocess.run(command, check=True)
        (folder / "token").write_text(CLIENT_TOKEN)
        self._token = folder / "token"
        self._snapshot: bytes | None = None
        try:
            self.cluster.start()
        except BaseException:
            self.close()
            raise

    def section(self, index: int) -> dict[str, Any]:
        url = self.cluster.urls[index % len(self.cluster.urls)]
        return {"backend": "consul", "consul": {"address": url, "token_file": str(self._token)}}

    def kinds(self) -> Sequence[StoreKind]:
        return [
            *self.process_kinds(),
            StoreKind("disk full", self.disk_full),
            StoreKind("token revoked", self.token_revoked),
            StoreKind("restored", self.restored, forgets=True),
            StoreKind("wiped", self.wiped, forgets=True),
        ]

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        disk = self.cluster.members[self.cluster.leader()].data
        try:
            fill(disk)
            need(not takes_a_write(disk), "the disk still takes a write")
            yield
        finally:
            (disk / "filler").unlink(missing_ok=True)
            self.cluster.heal()

    @contextmanager
    def token_revoked(self) -> Iterator[None]:
        self.cluster.revoke()
        try:
            wait_until(lambda: not self.cluster.accepts(), "the token is refused", REFUSED_WITHIN_S)
            yield
        finally:
            self.cluster.grant()

    def close(self) -> None:
        super().close()
        for member in self.cluster.members:
            subprocess.run(["umount", "--lazy", str(member.data)], check=False, capture_output=True)

    def snapshot(self) -> None:
        """Keep one without the marker; a store that cannot be asked now keeps the one before."""
        with suppress(OSError):
            self.cluster.members[self.cluster.leader()].delete(MARKER)
            self._snapshot = self.cluster.save()

    @contextmanager
    def restored(self) -> Iterator[None]:
        snapshot = self._snapshot
        if snapshot is None:
            raise NotInjected("no snapshot was taken yet")
        self._gone_back(lambda: self.cluster.restore(snapshot), "what came after is still there")
        yield

    @contextmanager
    def wiped(self) -> Iterator[None]:
        self._gone_back(self.cluster.wipe, "the data is still there")
        yield


class LocalStore:
    """The embedded store: one SQLite file."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        folder.mkdir(parents=True)
        self.path, self.old = folder / "store.db", folder / "old.db"

    def section(self, index: int) -> dict[str, Any]:
        return {"backend": "local", "local": {"path": str(self.path)}}

    def kinds(self) -> Sequence[StoreKind]:
        return [
            StoreKind("locked", self.locked),
            StoreKind("restored", self.restored, forgets=True),
            StoreKind("wiped", self.wiped, forgets=True),
        ]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else keeps the file locked."""
        with closing(sqlite3.connect(self.path, timeout=5, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def snapshot(self) -> None:
        self.old.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(self.old)) as copy:
            source.backup(copy)

    @contextmanager
    def restored(self) -> Iterator[None]:
        need(self.old.exists(), "no snapshot was taken yet")
        before = self.path.stat().st_ino
        self._drop()
        self.old.rename(self.path)
        need(self.path.stat().st_ino != before, "the same file")
        yield

    @contextmanager
    def wiped(self) -> Iterator[None]:
        self._drop()
        yield

    def _drop(self) -> None:
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()

    def heal(self) -> None:
        """Nothing can have ended."""

    def close(self) -> None:
        """Nothing runs."""


def open_store(name: str, folder: Path, rng: random.Random) -> Store:
    """Start a store of that kind."""
    if name == "local":
        return LocalStore(folder, rng)
    return EtcdStore(folder, rng) if name == "etcd" else ConsulStore(folder, rng)


def _state(process: Process) -> str:
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def _done(call: Callable[[], object]) -> bool:
    with suppress(OSError):
        call()
        return True
    return False
