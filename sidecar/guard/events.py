"""What the sidecar and its guard client say to each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sidecar.core.units import Epoch, Instant

Enforcement = Literal["kernel", "process"]
KilledBy = Literal["deadline", "order", "guard"]


@dataclass(frozen=True, slots=True)
class StartOrder:
    """One server to start.

    Args:
        run: A new name for it, never used before; every later order names it.
        env: The whole environment, nothing is added but ``SIDECAR_GUARD_TOKEN``.
        user: Name or number; None: the sidecar's own.
        kill_margin_ms: The guard kills this long before the deadline, the kernel half as long.
        note: Any JSON value of at most 4096 bytes; a later client gets it back.
        stop_signal: To the first process's group, or the whole tree once that process is gone.
        stop_command: Instead of the signal; when it fails, the signal is sent all the same.
        out: Descriptors that become its stdout and stderr; None: what it prints comes as `Output`. They stay
            open until the run has started or ended.
    """

    run: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    role: str
    epoch: Epoch
    deadline_at: Instant
    kill_margin_ms: int
    user: str | None = None
    note: object = None
    stop_signal: int = 15
    stop_command: tuple[str, ...] | None = None
    out: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class AdoptedRun:
    """A server that an earlier sidecar left to the guard.

    ``server_pid`` is None while it is being started; `Started` or `StartFailed` follows then.
    """

    run: str
    role: str
    epoch: Epoch
    deadline_at: Instant
    started_at: Instant
    server_pid: int | None
    keeper_pid: int | None  # of the host; the whole tree is below it
    note: object
    stopping: bool


@dataclass(frozen=True, slots=True)
class Started:
    """The command was executed. That the server is of any use is for the probes to say."""

    run: str
    server_pid: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Proof that nothing of this run is alive, nor will be."""

    run: str
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """Proof that the whole process tree of this run is dead. Comes once per run.

    ``status`` is the first process's exit code, or minus the signal that ended it; None when the
    guard died too and took it along. ``killed_by`` ``guard``: the server died with its guard.
    """

    run: str
    status: int | None
    killed_by: KilledBy | None


@dataclass(frozen=True, slots=True)
class OrderRefused:
    """The guard did not do this, and nothing changed."""

    run: str
    order: str
    reason: str


@dataclass(frozen=True, slots=True)
class GuardLost:
    """The guard is dead or has closed the connection. The run's `Exited` comes apart from this."""

    reason: str


@dataclass(frozen=True, slots=True)
class Output:
    """One line that the server printed.

    ``dropped`` lines before it were lost, because nobody read them.
    """

    run: str
    stream: Literal["stdout", "stderr"]
    line: str
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class ClientBroken:
    """The client's thread has ended by an error of its own: no event will come any more, nor any proof."""


GuardEvent = Started | StartFailed | Exited | OrderRefused | GuardLost | Output | ClientBroken
