"""The few calls of Consul's API that the backend makes, typed, over py-consul.

Every read is in mode ``consistent``: the leader asks a majority before it answers, so it is
linearizable. That holds for transactions of reads too; source: hashicorp/consul agent/consul/txn_endpoint.go.
"""

import random
import threading
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from consul import base
from consul.exceptions import NotFound

from backends._consul_connection import Address, Credentials
from backends._consul_transport import Rejected, Transport
from sidecar.clock import Clock
from sidecar.core.units import Instant
from sidecar.documents import prepared
from sidecar.errors import Denied, OutcomeUnknown

__all__ = ["Client", "Op", "Rejected", "SessionGone", "Stored"]


class Stored(msgspec.Struct, frozen=True):
    """One key as Consul has it. ``index`` changes with every change of the value."""

    key: str
    index: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a transaction, named by Consul's verbs."""

    verb: Literal["cas", "set", "lock", "check-index", "delete", "delete-cas"]
    key: str
    raw: bytes | None = None
    index: int | None = None  # compare with; 0: must not exist
    session: str | None = None  # the key ends with it

    def wire(self) -> dict[str, object]:
        """Return it as Consul wants it."""
        fields: dict[str, object] = {"Verb": self.verb, "Key": self.key}
        if self.raw is not None:
            fields["Value"] = b64encode(self.raw).decode()
        if self.index is not None:
            fields["Index"] = self.index
        if self.session is not None:
            fields["Session"] = self.session
        return {"KV": fields}


class SessionGone(Exception):
    """Consul does not know that session (any more)."""


class _TxnKV(msgspec.Struct, rename="pascal"):
    key: str
    modify_index: int
    value: str | None = None


class _TxnResult(msgspec.Struct):
    kv: _TxnKV | None = msgspec.field(name="KV", default=None)


class _Txn(msgspec.Struct, rename="pascal"):
    results: list[_TxnResult] | None = None


class Client(base.Consul):  # type: ignore[misc]
    """The few calls the backend makes, typed. Each takes the total deadline of the call."""

    def __init__(
        self, address: Address, credentials: Credentials, datacenter: str | None, clock: Clock
    ) -> None:
        self._transport = Transport(address, credentials, datacenter, clock)
        self._datacenter = datacenter
        super().__init__(
            address.host, address.port, scheme=address.scheme, consistency="consistent", verify=True
        )
        self.token = None  # the library would take CONSUL_HTTP_TOKEN over the configured one

    def http_connect(self, *_args: Any, **_kwargs: Any) -> Transport:
        """Hand the library our transport."""
        return self._transport

    @property
    def address(self) -> Address:
        """Return where it talks to."""
        return self._transport.address

    @property
    def current_token(self) -> str | None:
        """Return the token that the next request will have."""
        return self._transport.token

    @property
    def closed(self) -> threading.Event:
        """Return the event that `close` sets."""
        return self._transport.closed

    def close(self) -> None:
        """End every call."""
        self._transport.close()

    def index_of(self, prefix: str, deadline: Instant, index: int = 0, wait_ms: int = 0) -> int:
        """Return the index of the newest change below *prefix*, waiting for one after *index* if given.

        Keys only, and those cut at the next slash: 1000 history entries are one line of the answer.
        """
        with self._transport.until(deadline, writes=False):
            found, _ = self.kv.get(prefix, index=index, wait=f"{wait_ms}ms", keys=True, separator="/")
            return max(int(found), 1)  # 0 would not block

    def get_trees(self, prefixes: Sequence[str], deadline: Instant) -> tuple[Stored, ...]:
        """Return every key that starts with one of *prefixes*, all as of one moment, linearizable."""
        ops = [{"KV": {"Verb": "get-tree", "Key": prefix}} for prefix in prefixes]
        return self._txn(ops, deadline, writes=False)

    def exists(self, key: str, deadline: Instant) -> bool:
        """Tell whether there is *key*; unlike a transaction this raises when it may not be read."""
        with self._transport.until(deadline, writes=False):
            return self.kv.get(key)[1] is not None

    def list_tree(self, prefix: str, deadline: Instant) -> tuple[Stored, ...]:
        """Return every key below *prefix*, in order."""
        with self._transport.until(deadline, writes=False):
            _, found = self.kv.get(prefix, recurse=True)
            rows = found or []
            return tuple(Stored(row["Key"], int(row["ModifyIndex"]), row["Value"] or b"") for row in rows)

    def commit(self, ops: Sequence[Op], deadline: Instant) -> tuple[Stored, ...]:
        """Do all *ops* or none; return the keys that were set, with their new indexes.

        Raises:
            Rejected: None was done, since some did not fit.
        """
        values = {op.key: op.raw for op in ops if op.raw is not None}
        done = self._txn([op.wire() for op in ops], deadline, writes=True)
        stored = tuple(Stored(e.key, e.index, values[e.key]) for e in done if e.key in values)
        if len(stored) < len(values):
            raise OutcomeUnknown(f"{self.address}: Consul does not say what it stored")
        return stored

    def keys(self, prefix: str, deadline: Instant) -> list[str]:
        """Return the name of every key below *prefix*."""
        with self._transport.until(deadline, writes=False):
            return [str(key) for key in self.kv.get(prefix, keys=True)[1] or ()]

    def create_session(self, name: str, ttl_s: int, deadline: Instant) -> str:
        """Return a session that takes its keys along when it ends, bound to no health check."""
        node = self._node_there(deadline)
        with self._transport.until(deadline, writes=True):
            created = self.session.create(name, node, [], lock_delay=0, behavior="delete", ttl=ttl_s)
            if not isinstance(created, str):
                raise TypeError("no session id")
            return created

    def _node_there(self, deadline: Instant) -> str | None:
        """Return a node of the datacenter that is named, if one is and tells us.

        A session belongs to a node, by default to that of the agent that is asked, which another datacenter
        does not know. Source: hashicorp/consul agent/session_endpoint.go, SessionCreate.
        """
        if self._datacenter is None:
            return None
        try:
            with self._transport.until(deadline, writes=False):
                names = [str(row["Node"]) for row in self.catalog.nodes()[1]]
        except Denied:
            return None
        return random.choice(names) if names else None

    def renew_session(self, session: str, deadline: Instant) -> None:
        """Restart the session's time.

        Raises:
            SessionGone: There is none such.
        """
        try:
            with self._transport.until(deadline, writes=True):
                self.session.renew(session)
        except NotFound as error:
            raise SessionGone(session) from error

    def destroy_session(self, session: str, deadline: Instant) -> None:
        """End a session and with it its keys. None such is not an error."""
        with self._transport.until(deadline, writes=True):
            self.session.destroy(session)

    def leader(self, deadline: Instant) -> str:
        """Return the address of the raft leader, empty where there is none."""
        with self._transport.until(deadline, writes=False):
            return str(self.status.leader() or "")

    def version(self, deadline: Instant) -> str | None:
        """Return the agent's version, None where the token may not ask."""
        try:
            with self._transport.until(deadline, writes=False):
                return str(self.agent.self()["Config"]["Version"])
        except Denied:
            return None

    def _txn(self, ops: list[Any], deadline: Instant, writes: bool) -> tuple[Stored, ...]:
        with self._transport.until(deadline, writes=writes):
            answer = msgspec.convert(self.txn.put(ops), prepared(_Txn))
            rows = [result.kv for result in answer.results or () if result.kv is not None]
            return tuple(Stored(kv.key, kv.modify_index, b64decode(kv.value or "")) for kv in rows)
