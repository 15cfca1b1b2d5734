"""AggreGate Server: its role is in ``server.xml``, and open client and web ports show that it serves.

A standby stays up and monitors the master. Its own detection of a silent master cannot be switched off,
only put off, to 24 h: so a standby lives 20 h at most and is then started anew. One whose client port
opens all the same has made itself active.

Not known, and assumed: that ``clusterRole`` 1 makes a server serve without asking the others, and that a
standby opens no client port (docs/aggregate.md, marks I). ``server.standby: stopped`` needs the first alone.
"""

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sidecar.clock import BootClock, Clock
from sidecar.config.files import is_folder
from sidecar.core.model import Role
from sidecar.errors import ConfigError, ServerError
from sidecar.probes import Probe, TcpProbe, within
from sidecar.servers import boot, java, rivals, serverxml, settings
from sidecar.servers.command import check_program
from sidecar.servers.kind import Launch, Standby, message

STANDBY_LIFETIME_MS = 20 * 3600 * 1000
"""4 h less than clusterFailureDetectionTime allows: room for a restart that is put off. Less costs
more restarts of a standby, which nobody notices."""
LOOPBACK = "127.0.0.1"
BUSY_PROBE_MS = 200
"""On loopback a closed port refuses at once; a listener that does not answer has it for certain."""


class AggregateKind:
    """The kind ``aggregate``. *root* and *shared_database* are for tests and for a wrong rule of ours."""

    name = "aggregate"
    standby_lifetime_ms = STANDBY_LIFETIME_MS

    def __init__(
        self,
        *,
        command: Sequence[str],
        home: Path,
        config_file: str = "server.xml",
        standby: Standby = "monitoring",
        environment: Mapping[str, str] | None = None,
        shared_database: bool = True,
        root: Path = Path("/"),
        clock: Clock | None = None,
    ) -> None:
        self.standby: Standby = standby
        self._command = tuple(command)
        self._home = home
        self._file = home / config_file
        self._environment = dict(environment or {})
        self._shared_database = shared_database
        self._root = root
        self._clock = clock or BootClock()

    def check(self, ours: Collection[int] = ()) -> list[str]:
        """Look at launcher, ``server.xml``, ``.vmoptions`` and for a second supervisor."""
        check_program("server.command", self._command, self._home, self._environment)
        found = self._settings()
        self._refuse_rivals(boot.services(self._home, self._root), "would start a server at boot")
        self._refuse_processes(ours)
        return settings.warnings(found) + java.warnings(java.options_file(self._home, self._command))

    def prepare(self, role: Role, ours: Collection[int] = ()) -> Launch | None:
        """Write the role into ``server.xml``, on a stopped standby too: a stray start is harmless then."""
        found = self._settings()
        self._refuse_processes(ours)
        edit = serverxml.set_role(self._file, role)
        if role == "standby" and self.standby == "stopped":
            return None
        self._refuse_busy(found)
        return Launch(
            argv=self._command,
            cwd=str(self._home),
            environment=self._environment,
            lifetime_ms=STANDBY_LIFETIME_MS if role == "standby" else None,
            notes=(f"{self._file}: {edit.repaired}: repaired from its backup",) if edit.repaired else (),
        )

    def default_probe(self) -> Probe:
        """Connect to ``clientPort`` and ``webAppsSslPort``, where it is on, and be accepted."""
        found = serverxml.read_started(self._file)
        ports = tuple(found.serving_ports.values())
        return TcpProbe(ports, _hosts(found.server_ip), clock=self._clock)

    def self_activated_probe(self) -> Probe:
        """Connect to the client port, which a standby has shut."""
        found = serverxml.read_started(self._file)
        return TcpProbe((found.client_port,), _hosts(found.server_ip), accepting=False, clock=self._clock)

    def message(self, role: Role, ready: bool) -> str:
        """Return the text for ``status``."""
        return message(role, ready)

    def _settings(self) -> settings.ServerSettings:
        if not is_folder(self._home):
            raise ConfigError(f"server.home: {self._home}: no such directory")
        found = serverxml.read(self._file)
        if self._shared_database:
            settings.refuse_embedded(found)
        return found

    def _refuse_processes(self, ours: Collection[int]) -> None:
        self._refuse_rivals(rivals.processes(self._home, ours), "runs here already")

    def _refuse_rivals(self, found: list[str], what: str) -> None:
        if found:
            raise ServerError(
                f"{self._home}: {found[0]} {what}, and not under this sidecar: where another sidecar "
                "has started it, use that one; else stop and disable it, only a sidecar may start this server"
            )

    def _refuse_busy(self, found: settings.ServerSettings) -> None:
        for key, port in found.serving_ports.items():
            probe = TcpProbe((port,), _hosts(found.server_ip), accepting=False, clock=self._clock)
            if within(probe, BUSY_PROBE_MS, self._clock).ok:
                raise ServerError(
                    f"{self._file}: {key}: port {port} is in use by another program: "
                    "stop it or give another port"
                )


def _hosts(server_ip: str) -> tuple[str, ...]:
    """Return where to look for the server: loopback first, then the address it may be bound to alone."""
    if not server_ip or ipaddress.ip_address(server_ip).is_unspecified or server_ip == LOOPBACK:
        return (LOOPBACK,)
    return LOOPBACK, server_ip
