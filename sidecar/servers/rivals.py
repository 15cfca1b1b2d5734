"""Looks for a server from the same home that runs already. `boot` looks for what would start one.

AggreGate comes with ``ag_server_service``, which an init script or unit starts at boot. Under the sidecar
that is a server that no lock holds back. A shell that stands in the home, an editor with a file of it, or the
vendor's client is no server. A Java program that stands in the home or names it is one, whatever it does:
better one too many than two servers.

Not found: containers with a view of the same folder, another host with the folder mounted.
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

    *ours*: the keeper's pid, whose descendants are the server that the sidecar itself started.
    """
    place = Place(home)
    known = _family(ours)
    found = []
    for pid in psutil.pids():
        argv = _argv(pid)
        if argv and pid not in known and _is_server(place, pid, argv):
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


def _family(ours: Collection[int]) -> set[int]:
    known = {os.getpid(), *ours}
    try:
        known.update(parent.pid for parent in psutil.Process().parents())
        for pid in ours:
            known.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        pass  # ended meanwhile
    return known


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
