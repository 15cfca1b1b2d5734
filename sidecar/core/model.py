"""What the nodes of a cluster tell each other through the backend, as plain values.

These are the contents of the keys of the cluster (``lock``, ``epoch``, ``nodes/<node>``, ``request``,
``settings``, ``history/<epoch>``) and the view a node gets of all of them. How they become JSON is
in `sidecar.documents`; where they are kept is a backend's business.
"""

from dataclasses import dataclass, field
from typing import Literal

from sidecar.core.units import NO_EPOCH, Epoch

LockState = Literal["held", "broken"]
Role = Literal["active", "standby"]
ServerState = Literal["starting", "running", "stopping", "stopped", "monitoring", "failed", "paused"]
Enforcement = Literal["kernel", "process", "none"]
RequestKind = Literal["switchover", "failover", "restart"]
RequestState = Literal[
    "asked",  # written by the command; nobody acts on it yet
    "accepted",  # the node that must act is willing; the command has to confirm that it still lives
    "confirmed",  # under way
    "done",
    "rolled_back",
    "failed",
    "refused",
    "abandoned",  # never confirmed, or overtaken by another change of active
]
NOBODY = "unknown"
"""The node of a broken lock when nobody knows who held it."""
FINISHED: frozenset[RequestState] = frozenset(("done", "rolled_back", "failed", "refused", "abandoned"))


@dataclass(frozen=True, slots=True)
class LockRecord:
    """The ``lock`` key: who holds it, or whose hold was broken and is being waited out.

    A *broken* lock belongs to nobody and cannot be acquired; it stands until the store's own lease
    on it (as long as the holder's) has run out, or until the old holder releases it, which
    it does only when its server is proven dead.
    """

    node: str
    instance: str
    epoch: Epoch
    ttl_ms: int
    state: LockState = "held"
    to: str | None = None  # broken: the node that should go first
    by: str | None = None  # broken: the operator who did it
    request: str | None = None  # broken: id of the failover request


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """The ``epoch`` key: the last epoch given out and how it ended, once it has."""

    epoch: Epoch = NO_EPOCH
    node: str | None = None
    released: str | None = None  # cause given with the release; None while held or when it expired


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What the operating system says of a server's process tree."""

    pid: int
    uptime_s: float
    rss_bytes: int
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A ``nodes/<node>`` key: what a node says of itself, and ``status`` shows."""

    node: str
    instance: str
    role: Role
    state: ServerState
    message: str
    epoch: Epoch  # of the lock it holds, else NO_EPOCH
    mark: Epoch  # highest epoch it has ever seen
    enforcement: Enforcement
    priority: int
    eligible: bool  # like priority: by configuration, or as `Override` says
    available: bool  # would take over now: eligible, not cooling down, not paused; its standby may fail
    failback: bool
    version: str
    seen_at_unix_ms: int  # wall clock of that node, for people; nothing is decided by it
    lease_left_ms: int | None = None
    server: ServerStats | None = None
    api: str | None = None
    heard: int = 0  # version of the ``settings`` key that it goes by

    @property
    def fit(self) -> bool:
        """Tell whether an active that is well may hand over to it: able, and its standby does not fail."""
        return self.available and self.state != "failed"


@dataclass(frozen=True, slots=True)
class Request:
    """The ``request`` key: the switchover, failover or restart under way, or the last one.

    ``asked → accepted → confirmed → done | rolled_back | failed``. The command that asks must confirm
    after the acceptance: a killed command never does, so nothing it asked for happens later.
    """

    id: str
    kind: RequestKind
    state: RequestState
    epoch: Epoch  # of the active it was asked of; another epoch makes it void
    source: str | None  # the active it was asked of (restart: the node to restart)
    to: str | None
    by: str
    asked_at_unix_ms: int
    reason: str | None = None  # of the outcome, one line


@dataclass(frozen=True, slots=True)
class Override:
    """What was set of a node at run time; it counts before the node's configuration. None: not set."""

    node: str
    priority: int | None = None
    eligible: bool | None = None
    unknown: dict[str, object] = field(default_factory=dict)  # written by another version, kept as it is


@dataclass(frozen=True, slots=True)
class Author:
    """Who made a setting what it is, and when: for people."""

    setting: str  # "paused", "priority", "eligible"
    node: str | None  # None: the whole cluster
    by: str  # user@host
    pid: int
    at_unix_ms: int
    unknown: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """The ``settings`` key: cluster-wide, changed by commands, last *by* whom and when."""

    paused: bool = False
    paused_nodes: tuple[str, ...] = ()
    by: str | None = None
    at_unix_ms: int | None = None
    overrides: tuple[Override, ...] = ()
    authors: tuple[Author, ...] = ()
    unknown: dict[str, object] = field(default_factory=dict)

    def holds_back(self, node: str) -> bool:
        """Tell whether *node* is in maintenance."""
        return self.paused or node in self.paused_nodes

    def override(self, node: str) -> Override:
        """Return what was set of *node*; nothing in it when nothing was."""
        return next((found for found in self.overrides if found.node == node), Override(node))


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A ``history/<epoch>`` key: one change of active. Durations in ms; None where not observed."""

    epoch: Epoch
    node: str
    previous: str | None
    cause: str
    at_unix_ms: int
    detect_ms: int | None  # last sign of life of the old active until the vacancy was seen
    lock_ms: int | None  # vacancy seen until lock granted
    start_ms: int | None  # lock granted until server ready


@dataclass(frozen=True, slots=True)
class View:
    """Everything under a cluster's prefix, as the backend showed it at one moment.

    ``lock`` None means vacant. ``lock_expired`` means that the record is still there but may be
    taken over at once (backends without leases of their own; always False elsewhere).
    ``versions`` are for compare-and-set (0: the key does not exist). ``unreadable`` names the keys
    that hold no document known here; such a key's last good value stays in the view, except
    that an unreadable ``lock`` counts as held by somebody unknown (`lock_unreadable`). ``mark_unreadable``
    is the highest epoch that a node has seen whose record is among them, by that record.
    """

    revision: int
    lock: LockRecord | None = None
    lock_expired: bool = False
    epoch: EpochRecord = EpochRecord()
    nodes: tuple[NodeRecord, ...] = ()
    request: Request | None = None
    settings: Settings = Settings()
    versions: dict[str, int] = field(default_factory=dict)  # "request", "settings"
    unreadable: tuple[str, ...] = ()
    mark_unreadable: Epoch = NO_EPOCH

    @property
    def mark(self) -> Epoch:
        """Return the highest epoch that any node says it has seen."""
        return max([self.mark_unreadable, *(record.mark for record in self.nodes)])

    @property
    def lock_unreadable(self) -> bool:
        """Tell whether the lock key holds something that cannot be read."""
        return "lock" in self.unreadable

    @property
    def vacant(self) -> bool:
        """Tell whether the lock can be taken right now."""
        return not self.lock_unreadable and (self.lock is None or self.lock_expired)

    @property
    def holder(self) -> LockRecord | None:
        """Return the lock while somebody holds it."""
        held = self.lock is not None and self.lock.state == "held" and not self.lock_expired
        return self.lock if held else None

    def node(self, name: str) -> NodeRecord | None:
        """Return what *name* said of itself, or None when it is not there."""
        return next((record for record in self.nodes if record.node == name), None)
