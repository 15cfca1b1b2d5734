"""The lock in Consul's KV store: a lease by check-and-set and watched silence, not a session.

`backends._consul_client` talks, `backends._consul_board` knows and measures; here are the clauses.

Rules:
- The lock key changes only by compare-and-set on the index that the decision was based on.
- A holder renews with a counter one higher: Consul keeps a key's index when its value stays the same, and the
  index is what the others watch.
- A rolled-back transaction says only that something changed: then everything is read again, and that reading
  says who holds the lock. So an answer lost on the way costs one round trip, never the lock.
- A release leaves an empty lock behind, not a missing one: a request of ours still under way
  somewhere, made for a missing key, must not find one again.

Not guaranteed:
- After a store was restored from a backup, a process that watched the restored index before
  measures its silence from then. Stop the nodes before a restore, as with etcd.
- Presence is kept by sessions; Consul ends one 20 s (or the TTL, if that is more) after the last publishing.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from backends._consul_board import Board, Lease, Standing
from backends._consul_client import Client, Op, Rejected, Stored
from backends._consul_options import client
from backends._consul_presence import Presence
from backends.shared import (
    EPOCH,
    HISTORY,
    HISTORY_KEEP,
    LOCK,
    NODES,
    REQUEST,
    SETTINGS,
    Entry,
    history,
    history_key,
    key_of,
    root,
)
from sidecar.clock import Backoff, Clock
from sidecar.core.model import NOBODY, EpochRecord, HistoryEntry, NodeRecord, Request, Settings, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.documents import encode
from sidecar.errors import BackendError, Conflict, NotHolder, NotSent, OutcomeUnknown
from sidecar.ports import BackendInfo, BackendSettings, Grant, HeldBy, Hold

WAIT_MAX_MS = 5_000  # of one blocking query: after a restore it waits for an index that is far off
ANSWER_MS = 50  # for an answer on its way: longer makes an end of silence a fresh query more often late
RETRY_FIRST_S, RETRY_MAX_S = 0.05, 0.5  # after failed queries: a store that is back is seen this much later
WAIT_MIN_MS = 10  # below, a query's way there and back is longer than the wait
TXN_OPS_MAX = 60  # Consul 1.8 refuses more than 64
VIEW_KEYS = (LOCK, EPOCH, REQUEST, SETTINGS, NODES)  # everything but history, as prefixes


def connect(settings: BackendSettings, clock: Clock) -> "ConsulBackend":
    """Return the backend on the agent at ``consul.address``.

    Raises:
        ConfigError: An option is unknown, of the wrong type or unusable; names the key.
    """
    return ConsulBackend(client(settings.options, root(settings), clock), root(settings), clock)


class ConsulBackend:
    """One cluster's keys in Consul; keeps `sidecar.ports.Backend`."""

    def __init__(self, client: Client, prefix: str, clock: Clock) -> None:
        self._client, self._prefix, self._clock = client, prefix, clock
        self._board = Board()
        self._mutex = threading.Lock()
        self._watched = 0  # the board knows everything up to this index of the prefix; 0: unknown
        self._backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        self._presence = Presence(client, prefix + NODES, clock)

    def info(self, *, deadline: Instant) -> BackendInfo:
        """Say which agent, and that its servers have a leader."""
        address = str(self._client.address)
        leader = self._client.leader(deadline)
        if not leader:
            raise NotSent(f"{address}: no cluster leader")
        version = self._client.version(deadline)
        return BackendInfo("consul", address, {address: version} if version else {}, 1, leader)

    # ---- the lock

    def acquire(
        self, node: str, instance: str, ttl_ms: int, *, floor: Epoch, deadline: Instant
    ) -> Grant | HeldBy:
        """Take the lock if it is free or ours; one round trip where the watch has shown it free."""
        standing = self._board.standing(self._clock.now())
        promising = standing is not None and (standing.free or standing.is_with(node, instance))
        if standing is None or not promising or standing.epoch < floor:
            standing = self._look(deadline)
        while True:
            standing.require_readable(floor)
            if standing.orphan is not None:
                # Somebody deleted the lock under its holder: wait that holder out like a broken one.
                lost = Lease(standing.orphan, "", standing.epoch, ttl_ms, "broken", by="lock key was missing")
                self._try([self._put_if(LOCK, encode(lost), 0)], deadline)
                standing = self._look(deadline)
                continue
            lease = standing.lease
            if lease is not None and not standing.free and not standing.is_with(node, instance):
                return HeldBy(lease.node, lease.epoch)
            sent_at = self._clock.now()
            taken = standing.next_lease(node, instance, ttl_ms)
            ops = [self._put_if(LOCK, encode(taken), standing.lease_index)]
            if standing.free:
                ops.append(self._put_if(EPOCH, encode(EpochRecord(taken.epoch, node)), standing.epoch_index))
            try:
                self._commit(ops, deadline)
            except Rejected:
                standing = self._look(deadline)
                continue
            return Grant(Hold(node, instance, taken.epoch, ttl_ms, cookie="cas"), sent_at, ttl_ms)

    def renew(self, hold: Hold, *, deadline: Instant) -> Grant:
        """Write the lock again with a higher counter, on the index of our last writing."""
        standing = self._board.standing(self._clock.now())
        if standing is None or not standing.is_of(hold):
            standing = self._find(hold, deadline)
        while True:
            sent_at = self._clock.now()
            lease = Lease(hold.node, hold.instance, hold.epoch, hold.ttl_ms, renewals=standing.renewals + 1)
            try:
                self._commit([self._put_if(LOCK, encode(lease), standing.lease_index)], deadline)
            except Rejected:
                standing = self._find(hold, deadline)
                continue
            return Grant(hold, sent_at, hold.ttl_ms)

    def release(self, hold: Hold, *, cause: str, deadline: Instant) -> None:
        """Leave an empty lock, which wakes everybody who waits."""
        standing = self._board.standing(self._clock.now())
        if standing is None or not standing.is_of(hold):
            standing = self._find(hold, deadline, broken_too=True)
        while True:
            empty = Lease(hold.node, hold.instance, hold.epoch, hold.ttl_ms, "vacant")
            ops = [self._put_if(LOCK, encode(empty), standing.lease_index)]
            if standing.epoch == hold.epoch:
                ended = EpochRecord(hold.epoch, hold.node, cause)
                ops.append(self._put_if(EPOCH, encode(ended), standing.epoch_index))
            try:
                self._commit(ops, deadline)
            except Rejected:
                standing = self._find(hold, deadline, broken_too=True)
                continue
            return

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
        """Write a broken lock, whose index everybody then has to watch for its full TTL."""

        def broken(standing: Standing) -> Lease | None:
            lease = standing.lease
            if standing.lease_bad is not None:
                if epoch != NO_EPOCH:
                    raise standing.lease_bad
                return Lease(NOBODY, "", standing.epoch, ttl_ms, "broken", to, by, request)
            if lease is None or standing.free or lease.epoch != epoch:
                raise Conflict(f"{LOCK}: not held at epoch {epoch}")
            if lease.state == "broken":
                if (lease.by, lease.request) == (by, request):
                    return None  # asked again after an unknown outcome: the wait goes on as it is
                raise Conflict(f"{LOCK}: broken already, by {lease.by}")
            return replace(lease, state="broken", to=to, by=by, request=request)

        while True:
            standing = self._look(deadline)
            lease = broken(standing)
            if lease is None or self._try(
                [self._put_if(LOCK, encode(lease), standing.lease_index)], deadline
            ):
                return

    def raise_epoch(self, floor: Epoch, *, ttl_ms: int, by: str, deadline: Instant) -> Epoch:
        """Lift the epoch and leave a broken lock to be waited out."""
        while True:
            standing = self._look(deadline)
            if standing.lease_bad is not None:
                raise standing.lease_bad
            lease, epoch = standing.lease, max(standing.epoch, floor)
            if lease is not None and lease.state != "vacant" and not standing.lapsed:
                again = lease == Lease(NOBODY, "", epoch, ttl_ms, "broken", by=by)
                if again and standing.epoch_bad is None:
                    return epoch
                raise Conflict(f"{LOCK}: not vacant, {lease.state} at epoch {lease.epoch} by {lease.node}")
            ops = [
                self._put_if(
                    LOCK, encode(Lease(NOBODY, "", epoch, ttl_ms, "broken", by=by)), standing.lease_index
                ),
                self._put_if(EPOCH, encode(EpochRecord(epoch)), standing.epoch_index),
            ]
            if self._try(ops, deadline):
                return epoch

    # ---- presence

    def publish(self, record: NodeRecord, *, ttl_ms: int, deadline: Instant) -> None:
        """Store the node's key, bound to a session."""
        self._presence.publish(record, ttl_ms, deadline)

    def withdraw(self, node: str, instance: str, *, deadline: Instant) -> None:
        """Remove the node's key if *instance* wrote it."""
        self._presence.withdraw(node, instance, deadline)

    # ---- the view

    def read(self, *, deadline: Instant) -> View:
        """Return the view of this moment."""
        self._look(deadline)
        return self._board.view(self._clock.now())

    def await_change(self, revision: int, *, deadline: Instant) -> View | None:
        """Watch by blocking queries; the silence of the holder is a change too, at its very instant.

        A store that cannot be asked is asked again until the deadline; only then is that an error. Every
        answer is linearizable, so one that is older than the last comes of a store that was replaced.
        """
        trouble: NotSent | None = None
        while True:
            now = self._clock.now()
            view = self._board.view(now)
            if view.revision > revision:
                return view
            if now >= deadline:
                if trouble is not None:
                    raise trouble
                return None
            until = min(deadline, self._board.expires_at(now) or deadline)
            trouble = self._wait(until, deadline, trouble)

    # ---- documents

    def write(
        self,
        value: Request | Settings,
        *,
        expected: int,
        hold: Hold | None = None,
        deadline: Instant,
    ) -> int:
        """Put the document if its key is at index *expected*."""
        key = key_of(value)
        written = self._guarded(hold, [self._put_if(key, encode(value), expected)], deadline)
        for entry in written:
            if entry.key == self._prefix + key:
                return entry.index
        raise OutcomeUnknown(f"{self._client.address}: {key}: written, and may not be read")

    def append_history(self, hold: Hold, entry: HistoryEntry, *, deadline: Instant) -> None:
        """Put the entry; then drop the oldest ones, which a failure leaves to the next time."""
        key = self._prefix + history_key(entry.epoch)
        self._guarded(hold, [Op("set", key, encode(entry))], deadline)
        with suppress(BackendError):
            self._trim_history(deadline)

    def read_history(self, limit: int, *, deadline: Instant) -> tuple[HistoryEntry, ...]:
        """Return the newest entries."""
        found = self._client.list_tree(self._prefix + HISTORY, deadline)
        rows = sorted(((entry.key, entry.raw) for entry in found), reverse=True)
        return history(rows)[: max(0, limit)]

    def close(self) -> None:
        """End every call under way; our sessions end by themselves."""
        self._client.close()

    def _trim_history(self, deadline: Instant) -> None:
        keys = sorted(self._client.keys(self._prefix + HISTORY, deadline))
        surplus = keys[: max(0, len(keys) - HISTORY_KEEP)]
        for start in range(0, len(surplus), TXN_OPS_MAX):
            self._try([Op("delete", key) for key in surplus[start : start + TXN_OPS_MAX]], deadline)

    # ---- reading

    def _look(self, deadline: Instant) -> Standing:
        """Read everything; answers that another thread has overtaken are read again."""
        while not self._refresh(deadline):
            pass
        return self._known()

    def _refresh(self, deadline: Instant) -> bool:
        began, token = self._board.begin(), self._client.current_token
        found = self._client.get_trees([self._prefix + key for key in VIEW_KEYS], deadline)
        if not found:  # without rights one is shown an empty store; this call says so
            self._client.exists(self._prefix + LOCK, deadline)
            if self._client.current_token != token:
                return False  # it was asked for with another
        received_at = self._clock.now()
        return self._board.take(began, self._entries(found), received_at)

    def _entries(self, found: Sequence[Stored]) -> dict[str, Entry]:
        """Return the keys of the view by their short names; a prefix also finds longer names."""
        short = {entry.key.removeprefix(self._prefix): Entry(entry.raw, entry.index) for entry in found}
        return {key: entry for key, entry in short.items() if key in VIEW_KEYS or key.startswith(NODES)}

    def _known(self) -> Standing:
        standing = self._board.standing(self._clock.now())
        assert standing is not None, "only called after something was read"
        return standing

    def _find(self, hold: Hold, deadline: Instant, *, broken_too: bool = False) -> Standing:
        """Read whether *hold* still counts.

        Raises:
            NotHolder: It does not.
        """
        standing = self._look(deadline)
        # A token that lost its rights sees nothing: ask in the way that says so, or takes the next token.
        if standing.lease_index == 0 and self._client.exists(self._prefix + LOCK, deadline):
            standing = self._look(deadline)
        if not standing.is_of(hold, broken_too=broken_too):
            raise NotHolder(f"{LOCK}: not held by {hold.node} at epoch {hold.epoch}")
        return standing

    def _wait(self, until: Instant, deadline: Instant, trouble: NotSent | None) -> NotSent | None:
        """Bring the board up to date with the next change, or return at *until*; say what is in the way."""
        with self._mutex:
            watched = self._watched
        left_ms = until - self._clock.now()
        if left_ms < WAIT_MIN_MS:
            self._pause(left_ms)
            return trouble
        # Consul adds up to a sixteenth of the wait at random, and the answer takes its way.
        wait_ms = min(WAIT_MAX_MS, max(1, (left_ms - ANSWER_MS) * 16 // 17))
        try:
            index = self._client.index_of(self._prefix, until, watched, wait_ms)
            if index == watched and self._clock.now() < until - left_ms + wait_ms // 2:
                self._pause(min(until - self._clock.now(), round(self._backoff.next_s() * 1000)))
                return None  # so soon? What is there does not wait, a proxy perhaps
            if index != watched and self._refresh(Instant(deadline + ANSWER_MS)):
                self._set_watched(index)
        except NotSent as error:
            self._set_watched(0)  # what answers next may be another store
            if self._client.closed.is_set():
                raise
            rest_ms = until - self._clock.now()
            if rest_ms > 0:
                self._pause(min(rest_ms, round(self._backoff.next_s() * 1000)))
            fair = rest_ms > 0 or left_ms > 4 * ANSWER_MS  # it had its chance to say "no change"
            return error if fair else trouble
        self._backoff.reset()
        return None

    def _set_watched(self, index: int) -> None:
        with self._mutex:
            self._watched = index

    def _pause(self, left_ms: int) -> None:
        if self._client.closed.wait(max(1, left_ms) / 1000):
            raise NotSent(f"{self._client.address}: closed")

    # ---- writing

    def _put_if(self, key: str, raw: bytes, index: int) -> Op:
        return Op("cas", self._prefix + key, raw, index)

    def _commit(self, ops: Sequence[Op], deadline: Instant) -> Sequence[Stored]:
        """Do *ops*, and know the keys of the lock as they are then."""
        stored = self._client.commit(ops, deadline)
        self._board.wrote(self._entries(stored), self._clock.now())
        return stored

    def _try(self, ops: Sequence[Op], deadline: Instant) -> bool:
        """Do *ops*; tell whether they fitted."""
        try:
            self._commit(ops, deadline)
        except Rejected:
            return False
        return True

    def _guarded(self, hold: Hold | None, ops: Sequence[Op], deadline: Instant) -> Sequence[Stored]:
        """Do *ops* while *hold* counts; a renewal in between only means another try."""
        standing = self._board.standing(self._clock.now())
        while True:
            guard: tuple[Op, ...] = ()
            if hold is not None:
                if standing is None or not standing.is_of(hold):
                    standing = self._find(hold, deadline)
                guard = (Op("check-index", self._prefix + LOCK, index=standing.lease_index),)
            try:
                return self._commit([*guard, *ops], deadline)
            except Rejected as rejected:
                if guard and 0 in rejected.failed:
                    standing = None
                    continue
                raise Conflict(f"{self._client.address}: {rejected}") from rejected
