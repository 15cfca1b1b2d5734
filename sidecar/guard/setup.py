"""What a forked child of the guard does to itself before it is a keeper, or a server."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import sys

from sidecar.guard import kernel


def close_all_but(keep: list[int]) -> None:
    """The guard's connections must end with the guard, whether or not we live."""
    low = 0
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)


def give_up_protection(path: str = "/proc/self/oom_score_adj") -> None:
    """Be as any other when memory runs out: a unit's OOMScoreAdjust is for sidecar and guard."""
    with contextlib.suppress(OSError, ValueError):
        with open(path, encoding="ascii") as file:  # noqa: PTH123
            score = int(file.read())
        if score < 0:
            with open(path, "w", encoding="ascii") as file:  # noqa: PTH123
                file.write("0")


def entry_of(user: str) -> pwd.struct_passwd:
    """Return what the system knows of *user*, a name or a number.

    Raises:
        LookupError: There is no such user.
    """
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise LookupError(user) from None


def drop_to(user: object) -> None:
    """Become *user*, a name or a number; None: stay who we are.

    Raises:
        LookupError: There is no such user.
        OSError: That is not allowed.
    """
    if user is None:
        return
    entry = entry_of(str(user))
    if entry.pw_uid == os.geteuid():
        return
    if os.geteuid() != 0:
        raise OSError(errno.EPERM, "only root may start a server as another user")
    os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def fresh_proc() -> None:
    """Show the server its own pids, where that is allowed; what the host mounts later comes in."""
    try:
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("proc", "/proc", "proc", flags)
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"keeper: no fresh /proc: {error}", file=sys.stderr)  # noqa: T201


def map_own_ids(uid: int, gid: int) -> None:
    """In a new user namespace: be the same user as outside, and nobody else."""
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)
