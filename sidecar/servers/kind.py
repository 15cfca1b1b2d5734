"""What the shell needs to know of a server: how to give it a role, start it, and ask how it is.

A kind prepares and answers; it starts nothing, keeps no thread, remembers nothing. Starting, signals and the
proof of death are the guard's, who must be dead when `prepare` is called.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sidecar.core.model import Role
from sidecar.probes import Probe

Standby = Literal["monitoring", "stopped"]
SERVING = "Serving"
STARTING = "Starting"
MONITORING = "Monitoring Master Server Status"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start the server. *environment* is added to; SIDECAR_* is the shell's to add.

    *lifetime_ms*: end it after so long, whatever happens (a standby's own detection would fire later).
    *notes*: what happened on the way that an operator should know, such as a repaired file.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    lifetime_ms: int | None = None
    notes: tuple[str, ...] = ()


class ServerKind(Protocol):
    """One kind of server. Methods may block on the local disk, never on the network."""

    @property
    def name(self) -> str:
        """``aggregate`` or ``command``."""
        ...

    @property
    def standby(self) -> Standby:
        """Whether the server runs on a standby node."""
        ...

    @property
    def standby_lifetime_ms(self) -> int | None:
        """How long a standby server may run before it is started anew; None: for ever."""
        ...

    def check(self, ours: Collection[int] = ()) -> list[str]:
        """Look at everything that must be right before the first start; return warnings.

        *ours*: pids (the keeper's, this one) below which a running program is the sidecar's own.

        Raises:
            ConfigError: A file or key is wrong; names it and what to do.
            ServerError: The server cannot run under the sidecar as it is: file, launcher, second supervisor.
        """
        ...

    def prepare(self, role: Role, ours: Collection[int] = ()) -> Launch | None:
        """Give the server, which is down, the role, and return how to start it; None: it must not run.

        Raises:
            ConfigError, ServerError: As `check`. Nothing was started; the file is whole.
        """
        ...

    def default_probe(self) -> Probe | None:
        """Return the probe for ready and alive where the configuration names none.

        It, and `self_activated_probe`, are of the server as it was last prepared.
        """
        ...

    def self_activated_probe(self) -> Probe | None:
        """Return what answers yes when a *standby* has made itself active; None: it cannot tell."""
        ...

    def message(self, role: Role, ready: bool) -> str:
        """Return the text for ``status``."""
        ...


def message(role: Role, ready: bool) -> str:
    """Return the usual text: a standby shows the vendor's own, or the sidecar in its place."""
    if role == "standby":
        return MONITORING
    return SERVING if ready else STARTING
