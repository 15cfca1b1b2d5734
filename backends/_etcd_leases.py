"""Leases, and since when each is known to run.

The one rule: what counts is the instant before the request that last (re)started the TTL was sent, and a
keep-alive counts only when the same raft term was seen before it, in it and in a linearizable answer
after it. Else a leader deposed without knowing may have answered, whose word its successor never got.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backends._etcd_client import Answer, Client, LeaseGone
from backends._etcd_rpc import pb
from sidecar.clock import Clock
from sidecar.core.units import Instant
from sidecar.errors import BackendError

SPARE_AGE_DIVISOR = 3  # a spare older than a third of its TTL is not used: its grant would be short


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease and since when it runs: the instant before the last request that (re)started its TTL."""

    id: int
    ttl_s: int
    since: Instant


class Leases:
    """Makes and extends leases, and keeps one spare for an acquisition in one transaction."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._state = threading.Lock()
        self._spare: Lease | None = None

    def grant(self, ttl_s: int, deadline: Instant) -> Lease:
        """Return a new lease; its TTL is what etcd gave, which may be more."""
        sent_at = self._clock.now()
        answer = self._client.call("LeaseGrant", pb.LeaseGrantRequest(TTL=ttl_s), deadline, effect=False)
        return Lease(answer.body.ID, int(answer.body.TTL), sent_at)

    def keep(self, lease: Lease, deadline: Instant) -> bool:
        """Extend a lease on which nothing but information depends; tell whether it still was there."""
        request = pb.LeaseKeepAliveRequest(ID=lease.id)
        return bool(self._client.call("LeaseKeepAlive", request, deadline, effect=False).body.TTL > 0)

    def extend(self, lease: int, check: Any, deadline: Instant, *, effect: bool) -> tuple[Lease, Answer]:
        """Extend *lease*, then carry out the transaction *check* in the same raft term.

        Raises:
            LeaseGone: There is no such lease, says the member that was asked.
        """
        while True:
            term, sent_at = self._client.term, self._clock.now()
            request = pb.LeaseKeepAliveRequest(ID=lease)
            alive = self._client.call("LeaseKeepAlive", request, deadline, effect=effect).body
            if alive.TTL <= 0:
                raise LeaseGone(f"lease {lease:x}")
            answer = self._client.call("Txn", check, deadline, effect=effect)
            if term == alive.header.raft_term == answer.body.header.raft_term:
                return Lease(lease, int(alive.TTL), sent_at), answer

    def beside(self, lease: Lease, request: Any, deadline: Instant) -> tuple[Answer, Lease]:
        """Carry out a transaction, a keep-alive beside it; return its answer and the lease as it is then."""
        term, sent_at = self._client.term, self._clock.now()
        alive_later = self._client.beside("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=lease.id), deadline)
        answer = self._client.call("Txn", request, deadline, effect=True)
        alive = alive_later()
        if alive is None or alive.TTL <= 0:
            return answer, lease
        if term == alive.header.raft_term == answer.body.header.raft_term:
            return answer, Lease(lease.id, int(alive.TTL), sent_at)
        return answer, lease

    def revoke(self, lease: Lease, deadline: Instant) -> None:
        """End a lease that nobody needs; it would end by itself."""
        with suppress(BackendError, LeaseGone):
            self._client.call("LeaseRevoke", pb.LeaseRevokeRequest(ID=lease.id), deadline, effect=False)

    # ---- the spare

    def take_spare(self, ttl_s: int) -> Lease | None:
        """Return the spare lease if it is fresh and long enough, and have none any more."""
        with self._state:
            spare, self._spare = self._spare, None
        if spare is None or spare.ttl_s < ttl_s:
            return None
        age_ms = self._clock.now() - spare.since
        return spare if age_ms * SPARE_AGE_DIVISOR <= spare.ttl_s * 1000 else None

    def keep_spare(self, lease: Lease) -> None:
        """Have *lease* as the spare, if there is none."""
        with self._state:
            self._spare = self._spare or lease

    def forget_spare(self) -> None:
        """Have no spare."""
        with self._state:
            self._spare = None

    def freshen_spare(self, show: Any, ttl_s: int, deadline: Instant) -> None:
        """Carry out the transaction *show* and extend the spare with it, or get one after it."""
        with self._state:
            spare, self._spare = self._spare, None
        if spare is not None and spare.ttl_s >= ttl_s:
            with suppress(LeaseGone):
                spare, _ = self.extend(spare.id, show, deadline, effect=True)
                self.keep_spare(spare)
                return
        self._client.call("Txn", show, deadline, effect=True)
        with suppress(BackendError):  # what matters to the caller is done
            self.keep_spare(self.grant(ttl_s, deadline))
