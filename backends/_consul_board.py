"""What this process knows of a cluster's keys in Consul, and since when: the clock of the silence rule.

Consul keeps no lease for us. Whether a holder is gone is decided here, by one rule:

    the lock may be taken over by compare-and-set on an index of the lock key that this process first
    saw `silence_ms` of the record's TTL ago, counted from when the *answer* that showed it had come

The holder's renewal that made that index was sent before the answer came, and every renewal changes the
index; so when the compare-and-set succeeds, the holder's grant (99 % of the TTL, from the send) has ended on
any clock within 1 % of ours. A record seen for the first time is held, however old it looks.

Rules:
- ``began`` numbers order the reads: one that began before another was taken over, or before one of our own
  writes was answered, tells nothing and is refused, so knowledge never goes back by a late answer.
- The revision of a view is our own count. It grows when the content changes, an expiry included, and
  stays when the holder only renews.

No I/O. Used from several threads, hence the lock.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from backends.shared import EPOCH, LOCK, Entry, Reader, require_room
from sidecar.core.model import EpochRecord, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant, silence_ms
from sidecar.documents import decode
from sidecar.errors import BadDocument, EpochBehind
from sidecar.ports import Hold


@dataclass(frozen=True, slots=True)
class Lease:
    """The ``lock`` key: a `LockRecord`, or when vacant who had it last, with a counter of renewals."""

    node: str
    instance: str
    epoch: Epoch
    ttl_ms: int
    state: Literal["held", "broken", "vacant"] = "held"
    to: str | None = None
    by: str | None = None
    request: str | None = None
    renewals: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """The lock and the epoch as last seen, with the indexes to compare with. Index 0: no such key."""

    lease: Lease | None  # None: there is no lock key
    lease_index: int
    lapsed: bool  # watched in silence for long enough
    epoch: Epoch  # the last one given out, by either key
    epoch_index: int
    epoch_bad: BadDocument | None = None
    lease_bad: BadDocument | None = None
    orphan: str | None = None  # no lock key, yet this node never released the last epoch

    @property
    def free(self) -> bool:
        """Tell whether the lock can be taken by compare-and-set."""
        gone = self.lease is None or self.lease.state == "vacant" or self.lapsed
        return gone and self.lease_bad is None and self.epoch_bad is None

    @property
    def renewals(self) -> int:
        """Return how often the lock was renewed."""
        return self.lease.renewals if self.lease is not None else 0

    def is_with(self, node: str, instance: str) -> bool:
        """Tell whether that node and instance holds the lock, and has not been silent for its whole time."""
        lease = self.lease
        if lease is None or self.lapsed or lease.state != "held":
            return False
        return (lease.node, lease.instance) == (node, instance)

    def is_of(self, hold: Hold, *, broken_too: bool = False) -> bool:
        """Tell whether *hold* is what stands in the lock, and has not been silent for its whole time."""
        lease = self.lease
        if lease is None or self.lapsed or lease.state == "vacant":
            return False
        same = (lease.node, lease.instance, lease.epoch) == (hold.node, hold.instance, hold.epoch)
        return same and (lease.state == "held" or broken_too)

    def next_lease(self, node: str, instance: str, ttl_ms: int) -> Lease:
        """Return what to write to take a free lock, or to go on with one's own."""
        if self.lease is None or self.free:
            return Lease(node, instance, Epoch(self.epoch + 1), ttl_ms)
        return Lease(node, instance, self.lease.epoch, ttl_ms, renewals=self.renewals + 1)

    def require_readable(self, floor: Epoch) -> None:
        """Refuse an acquisition in a store that is damaged or behind.

        Raises:
            BadDocument: Lock or epoch cannot be read.
            EpochBehind: The store is not the one this node knew.
        """
        bad = self.lease_bad or self.epoch_bad
        if bad is not None:
            raise bad
        require_room(self.epoch)
        if self.epoch < floor:
            raise EpochBehind(
                f"{EPOCH}: the store is at {self.epoch} and this node has seen {floor}: "
                "it was wiped, restored or replaced"
            )


class Board:
    """See the module."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._reader = Reader()
        self._entries: dict[str, Entry] = {}  # as read, all at one moment
        self._own: dict[str, Entry] = {}  # lock and epoch, as written by us since
        self._known = False  # anything has been read at all
        self._began = 0
        self._taken = 0  # reads that began up to here are too old
        self._seen_at = Instant(0)  # when the answer with the lock's present index had come
        self._view = View(revision=0)

    def begin(self) -> int:
        """Return the number of a read that is about to be sent."""
        with self._mutex:
            self._began += 1
            return self._began

    def take(self, began: int, entries: Mapping[str, Entry], received_at: Instant) -> bool:
        """Know *entries* from now on; False when they are older than what is known."""
        with self._mutex:
            if began <= self._taken:
                return False
            self._taken = self._began  # of those that are under way nobody knows which was carried out first
            before = self._present().get(LOCK)
            self._known, self._entries, self._own = True, dict(entries), {}
            self._sight(before, received_at)
            self._refresh(received_at)
            return True

    def wrote(self, written: Mapping[str, Entry], received_at: Instant) -> None:
        """Know what a transaction of ours has just stored; views come from reads alone."""
        with self._mutex:
            self._taken = self._began
            before = self._present().get(LOCK)
            for key in (LOCK, EPOCH):  # an answer may come after a read has shown what came later
                if key in written and written[key].version > _index(self._present(), key):
                    self._own[key] = written[key]
            self._sight(before, received_at)

    def view(self, now: Instant) -> View:
        """Return the view of this moment."""
        with self._mutex:
            if self._known:
                self._refresh(now)
            return self._view

    def standing(self, now: Instant) -> Standing | None:
        """Return what stands in the lock's way; None when nothing has been read yet."""
        with self._mutex:
            return self._standing(now) if self._known else None

    def expires_at(self, now: Instant) -> Instant | None:
        """Return when the lock will be free by silence; None when it is free, or nobody can tell."""
        with self._mutex:
            lease, _ = _lease(self._present())
            if lease is None or lease.state == "vacant":
                return None
            expires_at = self._expires_at(lease)
            return expires_at if expires_at > now else None

    def _expires_at(self, lease: Lease) -> Instant:
        return Instant(self._seen_at + silence_ms(lease.ttl_ms) + 1)  # 1: the clock rounds down

    def _present(self) -> dict[str, Entry]:
        return self._entries | self._own

    def _sight(self, before: Entry | None, received_at: Instant) -> None:
        if self._present().get(LOCK) != before:
            self._seen_at = received_at

    def _standing(self, now: Instant) -> Standing:
        present = self._present()
        lease, lease_bad = _lease(present)
        last, epoch_bad = _epoch_record(present)
        held = lease is not None and lease.state != "vacant"
        return Standing(
            lease,
            _index(present, LOCK),
            lapsed=held and lease is not None and now >= self._expires_at(lease),
            epoch=_epoch(present),
            epoch_index=_index(present, EPOCH),
            epoch_bad=epoch_bad,
            lease_bad=lease_bad,
            orphan=last.node if LOCK not in present and last.released is None else None,
        )

    def _refresh(self, now: Instant) -> None:
        """Make the view anew; a new revision only if it differs."""
        shown = self._entries
        lease, bad = _lease(shown)
        if lease is not None and lease.state == "vacant":
            shown = {key: entry for key, entry in shown.items() if key != LOCK}
        view = self._reader.view(self._view.revision, shown)
        if bad is not None and LOCK not in view.unreadable:
            view = replace(view, lock=None, unreadable=(LOCK, *view.unreadable))
        current = LOCK not in self._own
        view = replace(view, lock_expired=current and self._standing(now).lapsed)
        if _epoch(self._entries) > view.epoch.epoch:
            view = replace(view, epoch=EpochRecord(_epoch(self._entries)))
        if view != self._view or view.revision == 0:
            newest = max((entry.version for entry in self._entries.values()), default=0)
            self._view = replace(view, revision=max(self._view.revision + 1, newest))


def _lease(entries: Mapping[str, Entry]) -> tuple[Lease | None, BadDocument | None]:
    if LOCK not in entries:
        return None, None
    try:
        return decode(LOCK, entries[LOCK].value, Lease), None
    except BadDocument as bad:
        return None, bad


def _epoch_record(entries: Mapping[str, Entry]) -> tuple[EpochRecord, BadDocument | None]:
    if EPOCH not in entries:
        return EpochRecord(), None
    try:
        found = decode(EPOCH, entries[EPOCH].value, EpochRecord)
    except BadDocument as bad:
        return EpochRecord(), bad
    return found, None


def _epoch(entries: Mapping[str, Entry]) -> Epoch:
    """Return the last epoch given out; the lock knows it too, should the other key be lost."""
    lease, _ = _lease(entries)
    return max(_epoch_record(entries)[0].epoch, lease.epoch if lease is not None else NO_EPOCH)


def _index(entries: Mapping[str, Entry], key: str) -> int:
    return entries[key].version if key in entries else 0
