"""Find and kill a tree of processes without a PID namespace (enforcement ``process``).

Rules: a process is killed through a pidfd whose identity was checked after it was opened, so a
reused pid cannot send the signal elsewhere. Emptiness is never judged here: a parent's ECHILD is
the proof (keeper, guard), or an unpopulated cgroup.

Not guaranteed: a tree that forks faster than we scan; processes of another uid, for an unprivileged
guard; processes that left the cgroup, lost both keeper and guard, and cleared their environment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from sidecar.guard import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

TOKEN_VARIABLE = "SIDECAR_GUARD_TOKEN"  # noqa: S105 - a marker, not a secret
"""In the server's environment: by it strays are found when keeper and guard are both gone."""


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _parent_and_state(pid: int) -> tuple[int, str]:
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
    finally:
        os.close(fd)
    return int(fields[1]), fields[0].decode()


def descendants(root: int) -> list[int]:
    """Return all living processes below *root*, without it."""
    children: dict[int, list[int]] = {}
    dead = set()
    for pid in _pids():
        try:
            parent, state = _parent_and_state(pid)
        except OSError:
            continue
        children.setdefault(parent, []).append(pid)
        if state in "ZX":
            dead.add(pid)
    found = []
    front = [root]
    while front:
        below = children.get(front.pop(), [])
        front += below
        found += below
    return [pid for pid in found if pid not in dead]


def marked(token: str) -> list[int]:
    """Return the living processes, other than this one, that carry *token* in their environment."""
    wanted = f"{TOKEN_VARIABLE}={token}".encode()
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
                if wanted in file.read().split(b"\0"):
                    found.append(pid)
        except OSError:
            continue
    return found


def send(pid: int, number: int) -> None:
    """Signal the process that *pid* is now; nothing happens when it is gone or not ours."""
    try:
        started = kernel.start_time(pid)
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if kernel.start_time(pid) == started:
            signal.pidfd_send_signal(pidfd, number)
    except OSError:
        pass
    finally:
        os.close(pidfd)


def signal_descendants(root: int, number: int) -> None:
    """Signal every process below *root* once."""
    for pid in descendants(root):
        send(pid, number)


def kill_below(cgroup: Cgroup | None) -> None:
    """Kill every process below this one once, and what is in *cgroup*."""
    if cgroup:
        cgroup.kill()
    signal_descendants(os.getpid(), signal.SIGKILL)


def reap_all() -> bool:
    """Reap the children that have ended; return whether none is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


class Cgroup:
    """A cgroup (v2) of the server's own: ``cgroup.kill`` reaches all in it at once."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def make(cls, name: str) -> Cgroup | None:
        """Make one below our own; None where there is no cgroup v2 or it may not be changed."""
        try:
            root = _mount_point()
            path = f"{root}{_own_path()}/{name}".replace("//", "/")
            os.mkdir(path, 0o755)  # noqa: PTH102
        except (OSError, LookupError):
            return None
        cgroup = cls(path)
        # Before Linux 5.14 there is no cgroup.kill; without it a cgroup is of no use here.
        if not os.access(f"{path}/cgroup.kill", os.W_OK):
            cgroup.remove()
            return None
        return cgroup

    def _write(self, name: str, data: bytes) -> None:
        fd = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def enter(self) -> None:
        """Move the calling process into it."""
        self._write("cgroup.procs", b"0")

    def kill(self) -> None:
        """Kill everything in it; nothing happens when it is gone."""
        with contextlib.suppress(OSError):
            self._write("cgroup.kill", b"1")

    def populated(self) -> bool:
        """Tell whether a living process is in it; a removed one, as only an empty one can be, has none.

        Raises OSError when that cannot be told.
        """
        try:
            with open(f"{self.path}/cgroup.events", encoding="utf-8") as file:  # noqa: PTH123
                return tells_populated(file)
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Remove it when it is empty."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)  # noqa: PTH106


def tells_populated(events: TextIO) -> bool:
    """Tell what an open ``cgroup.events`` says; False when its cgroup was removed meanwhile."""
    try:
        return "populated 1" in events.read()
    except OSError as error:
        if error.errno == errno.ENODEV:  # kernfs: an open file outlives its node, without content
            return False
        raise


def _mount_point() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:  # noqa: PTH123
        for line in file:
            left, _, right = line.partition(" - ")
            if right.startswith("cgroup2 "):
                return left.split()[4]
    raise LookupError("cgroup2 is not mounted")


def _own_path() -> str:
    with open("/proc/self/cgroup", encoding="utf-8") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("0::"):
                return line[3:].rstrip("\n")
    raise LookupError("not in a cgroup of version 2")
