"""Looks for a second supervisor: whatever runs, or would start at boot, a server from the same home.

AggreGate comes with ``ag_server_service``, which an init script or unit starts at boot. Under the sidecar
that is a server that no lock holds back. Only what is certain is reported: a shell that stands in
the home, an editor with a file of it, or the vendor's client is no server.

Not found: cron jobs, containers with a view of the same folder, another host with the folder mounted.
"""

import os
import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path

import psutil

LAUNCHERS = frozenset(("ag_server", "ag_server_console", "ag_server_service"))
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"))
_UNIT_FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_SCRIPT_BYTES = 64 * 1024


def processes(home: Path, ours: Collection[int] = ()) -> list[str]:
    """Return the servers that run from *home* and are neither below one of *ours* nor above this process.

    *ours*: the keeper's pid, whose descendants are the server that the sidecar itself started.
    """
    home = Path(os.path.realpath(home))
    known = _family(ours)
    found = []
    for pid in psutil.pids():
        argv = _argv(pid)
        if argv and pid not in known and _is_server(home, pid, argv):
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


def _is_server(home: Path, pid: int, argv: list[str]) -> bool:
    name = Path(argv[0]).name
    started = argv[:2] if name in _SHELLS else argv[:1]
    if any(Path(word).name in LAUNCHERS for word in started):
        return any(_under(home, word, _link(pid, "cwd")) for word in started)
    if not name.startswith(("java", "python")):
        return False
    cwd = _link(pid, "cwd")
    if any(a == "-o" and _same(home, b, cwd) for a, b in pairwise(argv)):
        return True
    if name.startswith("python") or any("ag_client" in word for word in argv):
        return False
    places = (cwd, _link(pid, "exe"))
    return any(f"{home}/" in word for word in argv) or any(_under(home, p) for p in places if p)


def _under(home: Path, path: str, cwd: str = "") -> bool:
    real = Path(os.path.realpath(Path(cwd or "/") / path))
    return real == home or home in real.parents


def _same(home: Path, path: str, cwd: str) -> bool:
    return Path(os.path.realpath(Path(cwd or "/") / path)) == home


def services(home: Path, root: Path = Path("/")) -> list[str]:
    """Return the systemd units and init scripts that start something in *home* at boot."""
    home = Path(os.path.realpath(home))
    return [*_units(home, root), *_init_scripts(home, root)]


def _units(home: Path, root: Path) -> Iterator[str]:
    seen = set()
    for folder in _UNIT_FOLDERS:
        for unit in sorted((root / folder).glob("*.service")):
            if unit.name in seen:
                continue  # shadowed by the one in /etc
            seen.add(unit.name)
            wanted = [*root.glob(f"etc/systemd/system/*.wants/{unit.name}")]
            wanted += root.glob(f"etc/systemd/system/*.requires/{unit.name}")
            if wanted and any(_starts_in(home, line) for line in _text(unit).splitlines()):
                yield f"unit {unit.name} (systemctl disable --now {unit.name})"


def _starts_in(home: Path, line: str) -> bool:
    """Tell whether *line* of a unit starts something in *home* other than a sidecar."""
    match = re.match(r"\s*ExecStart(?:Pre|Post)?\s*=\s*[-@:+!]*(.*)", line)
    if not match:
        return False
    words = match.group(1).replace('"', " ").split()
    if any("sidecar" in Path(word).name for word in words[:3]):
        return False
    return any(word.startswith("/") and _under(home, word) for word in words)


def _init_scripts(home: Path, root: Path) -> Iterator[str]:
    for script in sorted((root / "etc/init.d").glob("*")):
        enabled = any(True for _ in root.glob(f"etc/rc[2345].d/S[0-9][0-9]{script.name}"))
        if enabled and (_under(home, str(script)) or f"{home}/ag_server" in _text(script)):
            yield f"init script {script.name} (update-rc.d {script.name} disable)"


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_SCRIPT_BYTES).decode(errors="replace")
    except OSError:
        return ""
