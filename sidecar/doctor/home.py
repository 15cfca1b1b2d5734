"""Whether the server's files can be used as they must be: by the sidecar, and by ``server.user``."""

import array
import fcntl
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sidecar.config import Config
from sidecar.doctor.finding import Finding, error, warning
from sidecar.guard.setup import entry_of

GET_FLAGS, IMMUTABLE, APPEND = 0x80086601, 0x10, 0x20  # ioctl_iflags(2): FS_IOC_GETFLAGS
TRY_WITHIN_S = 2
READS, WRITES, RUNS = "-r", "-w", "-x"  # test(1)
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def look(config: Config) -> Iterator[Finding]:
    """Find what keeps a role from being written, or the server from being started."""
    path = Path(config.server.home) / config.server.config_file
    yield from _replaceable(path)
    if config.server.user is not None:
        yield from _of_user(config, path)


def _replaceable(path: Path) -> Iterator[Finding]:
    """Say what forbids a new file in its place. That a home is not writable at all is found by `files`."""
    real = Path(os.path.realpath(path))
    if not real.is_file():
        return  # said by whoever reads it
    if real.parent != Path(os.path.realpath(path.parent)) and not os.access(real.parent, os.W_OK | os.X_OK):
        says = f"{path}: leads to {real.parent}, which cannot be written to: it gets no role"
        yield error("server.xml", says, "move the file to server.home, or make that folder writable")
    if str(real) in _mount_points():
        says = f"{path}: is mounted by itself and cannot be replaced: it gets no role"
        yield error("server.xml", says, "mount the folder it is in, not the file alone")
    if _flags(real) & (IMMUTABLE | APPEND):
        says = f"{path}: is immutable or append-only: it gets no role"
        yield error("server.xml", says, f"chattr -i -a {real}")


def _mount_points() -> set[str]:
    with suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        return {os.fsdecode(_ESCAPED.sub(_character, line.split()[4])) for line in lines}
    return set()


def _character(escaped: "re.Match[bytes]") -> bytes:
    return bytes([int(escaped[1], 8)])


def _flags(path: Path) -> int:
    with suppress(OSError), path.open("rb") as file:  # not every file system has them
        found = array.array("l", [0])
        fcntl.ioctl(file, GET_FLAGS, found)
        return found[0]
    return 0


def _of_user(config: Config, path: Path) -> Iterator[Finding]:
    user, home = config.server.user, Path(config.server.home)
    try:
        entry = entry_of(str(user))
    except LookupError:
        return  # said by who looks at server.user
    if os.geteuid() not in (0, entry.pw_uid):
        return  # only root can try as another
    program = home / config.server.command[0]
    for access, file, verb in ((RUNS, home, "enter"), (READS, path, "read"), (RUNS, program, "run")):
        named = file != program or "/" in config.server.command[0]
        if named and file.exists() and not _may(entry, access, file):
            says = f"server.user: {user} may not {verb} {file}: no server would start"
            yield error("server.xml", says, f"chown or chmod it, and each folder above: namei -l {file}")
            return
    if path.exists() and not _may(entry, WRITES, path):
        says = f"server.user: {user} may not write {path}: the server cannot save its settings"
        yield warning("server.xml", says, f"chown {user} {path}")


def _may(entry: pwd.struct_passwd, access: str, path: Path) -> bool:
    """Let the kernel say, which knows ACLs, too; a try that cannot be made counts as passed."""
    root = os.geteuid() == 0
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            ["/usr/bin/test", access, path],
            timeout=TRY_WITHIN_S,
            check=False,
            cwd="/",
            user=entry.pw_uid if root else None,
            group=entry.pw_gid if root else None,
            extra_groups=os.getgrouplist(entry.pw_name, entry.pw_gid) if root else None,
        )
        return done.returncode != 1
    return True
