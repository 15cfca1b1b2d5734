"""The ``nodes/<node>`` keys: bound to Consul sessions, so that those of dead nodes end for everybody at once.

Information only: nothing here can delay or break the lock, and the lock never looks here.

Rules:
- A session is bound to no health check: it lives by being renewed, whatever becomes of the agent's node.
- A key still bound to the session of an earlier instance is deleted and bound anew in one transaction.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from backends._consul_client import Client, Op, Rejected, SessionGone
from sidecar.clock import Clock
from sidecar.core.model import NodeRecord
from sidecar.core.units import Instant
from sidecar.documents import decode, encode
from sidecar.errors import BadDocument, NotSent

SESSION_MIN_S = 10  # Consul refuses less
FRESH_PART = 10  # a session renewed within this part of its TTL is not renewed again


@dataclass(frozen=True, slots=True)
class _Session:
    id: str
    instance: str
    renewed_at: Instant
    ttl_ms: int


class Presence:
    """What this process shows of its nodes."""

    def __init__(self, client: Client, prefix: str, clock: Clock) -> None:
        self._client, self._prefix, self._clock = client, prefix, clock
        self._mutex = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def publish(self, record: NodeRecord, ttl_ms: int, deadline: Instant) -> None:
        """Store the node's key, bound to a session that lives on by being renewed here."""
        key = self._prefix + record.node
        for _ in range(3):  # session gone; key still bound to an earlier one; then it must work
            session = self._live(record, ttl_ms, deadline)
            bound = Op("lock", key, encode(record), session=session.id)
            if self._try([bound], deadline):
                return
            if self._try([Op("delete", key), bound], deadline):
                return
            self._forget(record.node)
        raise NotSent(f"{self._client.address}: node {record.node}: Consul keeps refusing a new session")

    def withdraw(self, node: str, instance: str, deadline: Instant) -> None:
        """End the session that holds the key, or delete the key if *instance* wrote it by another."""
        with self._mutex:
            session = self._sessions.get(node)
        if session is not None and session.instance == instance:
            self._client.destroy_session(session.id, deadline)
            self._forget(node)
            return
        key = self._prefix + node
        for entry in self._client.get_trees([key], deadline):
            if entry.key == key and _wrote(key, entry.raw, instance):
                self._try([Op("delete-cas", entry.key, index=entry.index)], deadline)

    def _live(self, record: NodeRecord, ttl_ms: int, deadline: Instant) -> _Session:
        """Return a session with enough time left, renewed or new."""
        with self._mutex:
            known = self._sessions.get(record.node)
        now = self._clock.now()
        if known is not None and (known.instance, known.ttl_ms) == (record.instance, ttl_ms):
            if now - known.renewed_at < _session_ttl_s(ttl_ms) * 1000 // FRESH_PART:
                return known
            with suppress(SessionGone):
                self._client.renew_session(known.id, deadline)
                return self._remember(record.node, replace(known, renewed_at=now))
        new = self._client.create_session(
            f"aggregate-sidecar {record.node}", _session_ttl_s(ttl_ms), deadline
        )
        return self._remember(record.node, _Session(new, record.instance, now, ttl_ms))

    def _remember(self, node: str, session: _Session) -> _Session:
        with self._mutex:
            self._sessions[node] = session
        return session

    def _forget(self, node: str) -> None:
        with self._mutex:
            self._sessions.pop(node, None)

    def _try(self, ops: Sequence[Op], deadline: Instant) -> bool:
        try:
            self._client.commit(ops, deadline)
        except Rejected:
            return False
        return True


def _wrote(key: str, raw: bytes, instance: str) -> bool:
    try:
        return decode(key, raw, NodeRecord).instance == instance
    except BadDocument:
        return False


def _session_ttl_s(ttl_ms: int) -> int:
    """Return the TTL that ends a session no sooner than *ttl_ms* and, up to 6 min, no later than 20 s after.

    Consul ends a session at twice its TTL. Its word is only "not before once": a caller that publishes
    every third of *ttl_ms* renews in time for that too.
    """
    return max(SESSION_MIN_S, -(-ttl_ms // 1900))  # 2 × 950: see FRESH_PART
