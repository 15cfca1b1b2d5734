"""Any program: active while it runs; on standby it does not, or runs with SIDECAR_ROLE=standby."""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sidecar.config.files import is_folder
from sidecar.core.model import Role
from sidecar.errors import ConfigError
from sidecar.probes import Probe
from sidecar.servers.kind import Launch, Standby, message


class CommandKind:
    """The kind ``command``."""

    name = "command"
    standby_lifetime_ms = None

    def __init__(
        self,
        *,
        command: Sequence[str],
        cwd: Path | None = None,
        standby: Standby = "stopped",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.standby: Standby = standby
        self._command = tuple(command)
        self._cwd = cwd
        self._environment = dict(environment or {})

    def check(self, ours: Collection[int] = ()) -> list[str]:
        """Find the program. A second copy of it cannot be told from a stranger: nobody looks for one."""
        check_program("server.command", self._command, self._cwd, self._environment)
        return []

    def prepare(self, role: Role, ours: Collection[int] = ()) -> Launch | None:
        """Return the command."""
        if role == "standby" and self.standby == "stopped":
            return None
        cwd = str(self._cwd) if self._cwd else None
        return Launch(self._command, cwd, self._environment)

    def default_probe(self) -> Probe | None:
        """Return None: running is ready."""
        return None

    def self_activated_probe(self) -> Probe | None:
        """Return None: it is active when it is told to."""
        return None

    def message(self, role: Role, ready: bool) -> str:
        """Return the text for ``status``."""
        return message(role, ready)


def check_program(key: str, command: Sequence[str], cwd: Path | None, environment: Mapping[str, str]) -> None:
    """Raise ConfigError, naming *key*, unless *command* can be started in *cwd*."""
    if not command or not command[0]:
        raise ConfigError(f"{key}: empty: give the program and its arguments")
    if cwd is not None and not is_folder(cwd):
        raise ConfigError(f"server.home: {cwd}: no such directory")
    program = command[0]
    path = str((cwd or Path.cwd()) / program) if "/" in program else program
    if shutil.which(path, path=environment.get("PATH", os.environ.get("PATH"))) is None:
        there = "/" in program and os.path.exists(path)  # noqa: PTH110 - Path's raises for a long name
        shown = program if program.isprintable() and len(program) <= 255 else repr(program[:60])
        raise ConfigError(f"{key}: {shown}: {'not executable' if there else 'not found'}")
