"""Looks for a server from the same home that runs already. `boot` looks for what would start one.

AggreGate comes with ``ag_server_service``, which an init script or unit starts at boot. Under the sidecar
that is a server that no lock holds back. A shell that stands in the home, an editor with a file of it, or the
vendor's client is no server. A Java program that stands in the home or names it is one, whatever it does:
better one too many than two servers.

Not found: another host with the folder mounted.
"""

import os
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import psutil

from sidecar.config.launcher import LAUNCHERS
from sidecar.servers.place import Place

_SHELLS = frozenset(("sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"))


def processes(home: Path, ours: Collection[int] = ()) -> list[str]:
    """Return the servers that run from *home* and are neither below one of *ours* nor above this process.

    *ours*: pids, such as the keeper's, whose descendants are the sidecar's own: server, probes, hooks.
    """
    place = Place(home)
    above = _above()
    found = []
    for pid in psutil.pids():
        argv = _argv(pid)
        if not argv or pid in above or not _is_server(place, pid, argv):
            continue
        if _sees(place.home, pid) and not _is_below(pid, ours):
            found.append(f"process {pid} ({' '.join(argv)[:80]})")
    return found


def _argv(pid: int) -> list[str]:
    """Return the command line, as psutil does in ten times the time: a takeover waits for this."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []  # ended meanwhile
    return os.fsdecode(data).rstrip("\0").split("\0") if data else []  # kernel thread or zombie


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115 - "(deleted)" and the like are no path
    except OSError:
        return ""  # ended meanwhile, or another user's and we are not root


def _above() -> set[int]:
    return {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}


def _is_below(pid: int, ours: Collection[int]) -> bool:
    """Tell whether *pid* is ours, or has ended meanwhile."""
    try:
        return pid in ours or any(parent.pid in ours for parent in psutil.Process(pid).parents())
    except psutil.Error:
        return True


def _sees(home: Path, pid: int) -> bool:
    """Tell whether *home* is the same folder there: a container may have another one by that name."""
    try:
        if os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):  # noqa: PTH115
            return True
        return os.path.samestat(home.stat(), Path(f"/proc/{pid}/root{home}").stat())
    except FileNotFoundError:
        return False  # there is no such folder there, or it has ended meanwhile
    except OSError:
        return True  # another user's and we are not root


def _is_server(place: Place, pid: int, argv: list[str]) -> bool:
    name = Path(argv[0]).name
    started = argv[:2] if name in _SHELLS else argv[:1]
    if any(Path(word).name in LAUNCHERS for word in started):
        return any(place.holds(word, _link(pid, "cwd")) for word in started)
    if not name.startswith(("java", "python")):
        return False
    cwd = _link(pid, "cwd")
    if any(a == "-o" and place.is_at(b, cwd) for a, b in pairwise(argv)):
        return True
    if name.startswith("python") or any("ag_client" in word for word in argv):
        return False
    stands = (cwd, _link(pid, "exe"))
    return any(place.holds(path) for path in stands if path) or any(map(place.named_in, argv))
