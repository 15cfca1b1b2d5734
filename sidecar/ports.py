"""What the program needs from a lock store, and the numbered clauses a backend must keep.

Nothing of a client library passes through here: arguments and answers are the plain values of
`sidecar.core.model`, errors are the leaves of `sidecar.errors.BackendError`.

Which clocks are trusted: only this host's CLOCK_BOOTTIME and the store's own lease clock, and of
both only the rate (within 1 % of each other), never the reading.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from sidecar.clock import Clock
from sidecar.core.model import HistoryEntry, NodeRecord, Request, Settings, View
from sidecar.core.units import Epoch, Instant, lease_deadline


@dataclass(frozen=True, slots=True)
class Hold:
    """The right to renew and release one acquisition; kept with the guard across sidecars."""

    node: str
    instance: str
    epoch: Epoch
    ttl_ms: int  # asked for
    cookie: str  # the backend's own, printable, at most 1 KB; nobody else reads it


@dataclass(frozen=True, slots=True)
class Grant:
    """A hold that was verified by a request sent at ``sent_at`` and is good for ``ttl_ms`` from then."""

    hold: Hold
    sent_at: Instant
    ttl_ms: int  # as granted by the store; may differ from what was asked for

    @property
    def deadline(self) -> Instant:
        """Return the instant after which a server under this grant must not run."""
        return lease_deadline(self.sent_at, self.ttl_ms)


@dataclass(frozen=True, slots=True)
class HeldBy:
    """The lock was not free. *node* is None where the store did not say who has it."""

    node: str | None
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """For ``validate``, ``status`` and ``doctor``."""

    name: str  # "etcd", "consul", "local"
    address: str  # what to look at when it fails; no secrets
    versions: Mapping[str, str]  # endpoint -> version, where the store tells
    ttl_min_ms: int  # a shorter TTL is raised by the store
    leader: str | None = None  # which of its members leads, where it tells
    advice: tuple[tuple[str, str], ...] = ()  # what is amiss with it in the long run, and what to do


@runtime_checkable
class Backend(Protocol):
    """One cluster's keys in a store. Every method may be called from any thread, several at once.

    C1   Epochs only grow: each acquisition gets a larger one than any before, and it is written in
         the same transaction as the lock.
    C2   ``acquire`` by the same node and instance while it holds returns a `Grant` with the same
         epoch and the full TTL: asking again after an unknown outcome is safe.
    C3   At most one hold at a time. ``acquire`` while another holds, or while a broken lock is being
         waited out, returns `HeldBy` and changes nothing. The lock becomes free by release, or when
         the holder's last renewal is at least its TTL old on the store's clock (where the
         store keeps no lease: when this process has watched it unchanged for TTL × 1.01).
    C4   ``renew`` and ``release`` act only on exactly the hold they are given. Otherwise they
         raise `NotHolder` and change nothing. A renewal is a linearizable check, not a keep-alive.
         ``NotHolder`` is raised only on a definite answer of the store.
    C5   A grant counts from before its request was sent: ``sent_at`` is read before the first byte.
    C6   ``break_lock`` takes the lock from the holder at exactly that epoch: from then on its
         renewals raise `NotHolder`, and nobody can acquire until the full TTL has passed since, or the
         old holder has released (which C4 still allows it, for a broken lock alone).
         At any other epoch, or on a vacant lock, it raises `Conflict` and changes nothing.
    C7   ``acquire`` with a *floor* above the store's epoch raises `EpochBehind` and changes nothing.
         ``raise_epoch`` sets the epoch to at least *floor* on a vacant lock and keeps it from being
         acquired for the full TTL, since an unknown holder may have been forgotten with the old store.
    C8   No call outlives its *deadline* by more than 200 ms, whatever the store or the network
         does. It raises `OutcomeUnknown` when the effect may have happened or may yet happen,
         `NotSent` when it certainly has not and will not.
    C9   Errors are `NotSent`, `OutcomeUnknown`, `Denied`, `BadDocument`, `NotHolder`, `Conflict` and
         `EpochBehind`, nothing else; the message is one line with the address and no secret.
    C10  ``read`` is linearizable. ``await_change`` returns a view newer than *revision* as soon as there
         is one, and None at the deadline; changes between two calls are never missed (they may be
         merged). A view never goes back behind an earlier one of the same object:
         a restored or stale member is refused with `NotSent`, until ``read`` confirms that the store was
         replaced (etcd: another cluster id or a linearizable answer), which gives a view with a
         lower epoch instead of hiding it.
    C11  ``write`` is compare-and-set on the version in ``View.versions`` (0: must not exist), raises
         `Conflict` otherwise. With *hold* it is done only while that hold is valid, else `NotHolder`.
    C12  A published node disappears by itself when it is not published again for its TTL (the store
         may add its own delay, for Consul sessions up to another 20 s). It is information only.
    C13  A key that holds garbage or a future version never raises from ``read`` or ``await_change``: it is
         named in ``View.unreadable``. An unreadable lock or epoch makes ``acquire`` raise `BadDocument`:
         it is not free. ``break_lock`` with epoch 0 replaces an unreadable lock by a broken one.
    C14  Two clusters in one store, or one name being a prefix of the other, never see each other.
    C15  ``close`` ends every call under way within 1 s and frees everything; it may be called twice.
    """

    def info(self, *, deadline: Instant) -> BackendInfo:
        """Say where and what the store is; raises like any other call when it cannot be reached."""
        ...

    def acquire(
        self, node: str, instance: str, ttl_ms: int, *, floor: Epoch, deadline: Instant
    ) -> Grant | HeldBy:
        """Take the lock for *node*, or tell who has it. Losing the race is an answer, not an error.

        Raises:
            OutcomeUnknown: The lock may be ours. Ask again before assuming.
            EpochBehind: The store's epoch is below *floor*.
            BadDocument: Lock or epoch cannot be read.
        """
        ...

    def renew(self, hold: Hold, *, deadline: Instant) -> Grant:
        """Prove that *hold* is still valid and extend it by its full TTL."""
        ...

    def release(self, hold: Hold, *, cause: str, deadline: Instant) -> None:
        """Give *hold* up and note *cause* in the epoch record. Valid for a broken hold too."""
        ...

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
        """Take the lock from its holder. *ttl_ms* is used where the record's own cannot be read."""
        ...

    def raise_epoch(self, floor: Epoch, *, ttl_ms: int, by: str, deadline: Instant) -> Epoch:
        """Lift the store's epoch over every node's high-water mark; return the new value."""
        ...

    def publish(self, record: NodeRecord, *, ttl_ms: int, deadline: Instant) -> None:
        """Show *record* to the others; repeated at least every third of *ttl_ms* by the caller."""
        ...

    def withdraw(self, node: str, instance: str, *, deadline: Instant) -> None:
        """Remove what this process published. Nothing there is not an error."""
        ...

    def read(self, *, deadline: Instant) -> View:
        """Return everything there is about the cluster."""
        ...

    def await_change(self, revision: int, *, deadline: Instant) -> View | None:
        """Wait for a view newer than *revision*; None when there was none until *deadline*."""
        ...

    def write(
        self,
        value: Request | Settings,
        *,
        expected: int,
        hold: Hold | None = None,
        deadline: Instant,
    ) -> int:
        """Store *value* under its key if that is still at version *expected*; return the new version."""
        ...

    def append_history(self, hold: Hold, entry: HistoryEntry, *, deadline: Instant) -> None:
        """Add *entry* under its epoch while *hold* is valid; keep the newest 1000."""
        ...

    def read_history(self, limit: int, *, deadline: Instant) -> tuple[HistoryEntry, ...]:
        """Return the newest *limit* entries, newest first; unreadable ones are left out."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What a backend gets to connect: its own section of the configuration, secrets already read."""

    cluster: str
    options: Mapping[str, object]  # the section named like the backend, validated by the backend
    prefix: str = "aggregate-sidecar"  # tests only: keeps them apart in one store
    state_dir: Path | None = None


class Connect(Protocol):
    """The entry point of a backend in the group ``aggregate_sidecar.backends``."""

    def __call__(self, settings: BackendSettings, clock: Clock) -> Backend:
        """Return a backend without touching the network.

        Raises:
            ConfigError: An option is unknown, of the wrong type or unusable; names the key.
        """
        ...
