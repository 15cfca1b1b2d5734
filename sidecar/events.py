"""What happens, one class per event; the fields are the schema of the log (`sidecar.log` writes it).

Who wants to know more than the log says, metrics for one, listens, and is told of every event, whatever the
log's level.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

LOG = logging.getLogger("sidecar")

ServerEnd = Literal["exited", "signalled", "killed", "deadline", "guard_lost", "not_started"]
ProbeKind = Literal["ready", "alive", "self_activation"]


class Event(Protocol):
    """A log event: its name, its level and its fields."""

    NAME: ClassVar[str]
    LEVEL: ClassVar[int]
    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChanged:
    """A node entered another phase. A warning where it holds the lock, or did: somebody is affected."""

    NAME: ClassVar[str] = "role_changed"
    LEVEL: ClassVar[int] = logging.WARNING

    node: str
    before: str
    after: str
    cause: str  # the observation's class name, never prose
    why: str | None  # taking the lock: how it became free; on the way down: what is wrong, or wanted
    previous: str | None  # taking the lock: who had it
    epoch: int  # of the lock it holds, or has just given up or lost
    lease_left_ms: int | None  # of that lock; below 0 its deadline has passed
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TookOver:
    """The server is ready as active, and where the time went."""

    NAME: ClassVar[str] = "took_over"
    LEVEL: ClassVar[int] = logging.WARNING

    node: str
    previous: str | None
    why: str
    epoch: int
    detect_ms: int | None
    lock_ms: int | None
    start_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The sidecar began."""

    NAME: ClassVar[str] = "started"
    LEVEL: ClassVar[int] = logging.INFO

    cluster: str
    node: str
    backend: str
    version: str
    enforcement: str
    adopted: bool
    phase: str  # what it begins in: more than idle only with a server that was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The sidecar ended."""

    NAME: ClassVar[str] = "stopped"
    LEVEL: ClassVar[int] = logging.INFO

    status: int
    server_kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTrouble:
    """Calls of one kind began to fail."""

    NAME: ClassVar[str] = "backend_trouble"
    LEVEL: ClassVar[int] = logging.WARNING

    call: str
    error: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendWell:
    """Calls of that kind succeed again."""

    NAME: ClassVar[str] = "backend_well"
    LEVEL: ClassVar[int] = logging.INFO

    call: str
    failed_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsTaken:
    """Files with certificates or a secret were replaced, and are in use."""

    NAME: ClassVar[str] = "credentials_taken"
    LEVEL: ClassVar[int] = logging.INFO

    files: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsRefused:
    """Files with certificates or a secret were replaced and cannot be used; those from before still are."""

    NAME: ClassVar[str] = "credentials_refused"
    LEVEL: ClassVar[int] = logging.WARNING

    files: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something happened that an operator may want to know."""

    NAME: ClassVar[str] = "notice"
    LEVEL: ClassVar[int] = logging.INFO

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """A changed configuration was read: each key as ``key: old -> new``, secrets hidden."""

    NAME: ClassVar[str] = "reloaded"
    LEVEL: ClassVar[int] = logging.INFO

    changed: str  # in force from now on
    needs_restart: str | None  # waits for a restart of the sidecar


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An alarm: somebody has to look."""

    NAME: ClassVar[str] = "alarm"
    LEVEL: ClassVar[int] = logging.ERROR

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStarted:
    """The guard started a server."""

    NAME: ClassVar[str] = "server_started"
    LEVEL: ClassVar[int] = logging.INFO

    run: int
    role: str
    epoch: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReady:
    """A server is ready in its role."""

    NAME: ClassVar[str] = "server_ready"
    LEVEL: ClassVar[int] = logging.INFO

    run: int
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A probe was answered. Logged only at debug level, but where an active server answers again."""

    NAME: ClassVar[str] = "probed"
    LEVEL: ClassVar[int] = logging.DEBUG

    run: int
    probe: ProbeKind
    ok: bool  # self_activation: nothing was found
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """A switchover, failover or restart is over; said by the node that concludes it."""

    NAME: ClassVar[str] = "request_ended"
    LEVEL: ClassVar[int] = logging.INFO

    kind: str
    request: str
    state: str
    to: str | None
    by: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEnded:
    """A server's whole process tree is proven dead, or it was never started."""

    NAME: ClassVar[str] = "server_ended"
    LEVEL: ClassVar[int] = logging.INFO

    run: int
    role: str
    epoch: int
    how: ServerEnd
    status: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed:
    """A running active server did not answer its alive probe; *of* in a row make it hung."""

    NAME: ClassVar[str] = "probe_failed"
    LEVEL: ClassVar[int] = logging.WARNING

    run: int
    reason: str
    failures: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEnded:
    """A hook has said that all is well, or was called off as its time is over."""

    NAME: ClassVar[str] = "hook_ended"
    LEVEL: ClassVar[int] = logging.INFO

    hook: str
    epoch: int
    status: int | None  # exit status, -signal, None when it did not end by itself
    outcome: str
    took_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HookFailed(HookEnded):
    """A hook has said no, or was not finished in time."""

    NAME: ClassVar[str] = "hook_failed"
    LEVEL: ClassVar[int] = logging.WARNING


Listener = Callable[[Event], None]
_listeners: list[Listener] = []


def emit(event: Event, level: int | None = None) -> None:
    """Log *event*, at its own level or this one, and hand it to who listens."""
    level = event.LEVEL if level is None else level
    if LOG.isEnabledFor(level):
        LOG.log(level, event.NAME, extra={"fields": asdict(event)})
    for listener in tuple(_listeners):
        listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hand every event to *listener* too, whatever the log's level, on the thread it happens on.

    That may be the deciding one: a listener neither blocks nor raises.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
