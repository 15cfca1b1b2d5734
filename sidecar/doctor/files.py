"""Folders, programs and secrets that the configuration names."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sidecar.config import Config
from sidecar.config.compound import Argv
from sidecar.config.schema import KEYS, flat
from sidecar.doctor.finding import Finding, error, ok, warning
from sidecar.errors import ConfigError
from sidecar.guard.setup import entry_of
from sidecar.servers.command import check_program

FREE_WARNING, FREE_ERROR = 200_000_000, 10_000_000  # bytes: a server that logs fills the first in a day
SOCKET_PATH_MAX = 107
SECRET_FILES = ("key_file", "password_file", "token_file", "secret_file")


def paths(config: Config) -> Iterator[Finding]:
    """Look at permissions and free space of the folders that are written to."""
    folders = {"paths.state": config.paths.state, "paths.run": config.paths.run}
    if config.server.kind == "aggregate":
        folders["server.home"] = config.server.home
    for key, folder in folders.items():
        yield _folder(key, Path(folder))
    if len(os.fsencode(f"{config.paths.run}/guard.sock")) > SOCKET_PATH_MAX:
        yield warning("paths", f"paths.run: {config.paths.run} is long for a socket", "take a shorter one")


def _folder(key: str, path: Path) -> Finding:
    there = path
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return error("paths", f"{key}: {there} is not a folder", "remove it, or name another folder")
    made = "" if there == path else f" (to be made, in {there})"
    if not os.access(there, os.W_OK | os.X_OK):
        do = f"chown it, or run as its owner: this is user id {os.geteuid()}"
        return error("paths", f"{key}: {path}{made} cannot be written to", do)
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    says = f"{key}: {path}{made}, {free / 1e9:.1f} GB free"
    if free < FREE_WARNING or (found.f_files and not found.f_favail):
        return (error if free < FREE_ERROR else warning)("paths", says, "free some space or inodes")
    if there == path and there.stat().st_mode & stat.S_IWOTH:
        return error("paths", f"{key}: {path} can be written to by everybody", f"chmod o-w {path}")
    return ok("paths", says)


def programs(config: Config) -> Iterator[Finding]:
    """Find every program that the configuration names: server, stop command, probes, hooks."""
    home = Path(config.server.home)
    found = 0
    for key, argv in flat(config).items():
        if not isinstance(KEYS[key].kind, Argv) or argv is None:
            continue
        try:
            check_program(key, argv, home, config.server.environment)
            found += 1
        except ConfigError as failure:
            yield error("programs", str(failure), "install it, make it executable, or correct the key")
    if config.server.user is not None and not _is_user(config.server.user):
        says = f"server.user: there is no user {config.server.user} on this machine"
        yield error("programs", says, "make it, or correct the key: no server would start")
    if found:
        yield ok("programs", f"{found} found and executable")


def _is_user(user: str) -> bool:
    """Tell whether the guard will find *user*, a name or a number."""
    try:
        entry_of(user)
    except LookupError:
        return False
    return True


def secrets(config: Config) -> Iterator[Finding]:
    """Look at who may read the files with keys, passwords and tokens."""
    named = {key: path for key, path in flat(config).items() if key.endswith(SECRET_FILES) and path}
    for key, name in named.items():
        path = Path(name)
        try:
            mode = path.stat().st_mode
        except OSError as failure:
            yield error("secrets", f"{key}: {path}: {failure.strerror}", "restore it, or correct the key")
            continue
        readable = mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP)
        if readable:
            yield error(
                "secrets", f"{key}: {path} is open to others (mode {mode & 0o777:03o})", f"chmod 600 {path}"
            )
        elif mode & stat.S_IRGRP:
            yield warning("secrets", f"{key}: {path} can be read by its group", f"chmod 600 {path}")
        else:
            yield ok("secrets", f"{key}: {path} is its owner's alone")
    if not named:
        yield ok("secrets", "no file with a key, password or token is named")


def memory_bytes() -> int:
    """Return how much memory a server can have here: the machine's, or less where a cgroup limits it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::")[2].strip().lstrip("/")
        folder = Path("/sys/fs/cgroup", own)
        limits = [limit for path in (folder, *folder.parents) if (limit := _limit(path / "memory.max"))]
    except OSError:
        limits = []
    return min([total, *limits])


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
