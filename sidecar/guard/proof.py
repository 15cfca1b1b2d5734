"""Proof that a server left by a dead guard is dead, from ``keeper.json`` alone.

A keeper is known by pid *and* start time; its death is read from a pidfd, never from /proc or
``kill(pid, 0)``: a zombie is dead, a reused pid is somebody else.

Not guaranteed under enforcement ``process``: when keeper and guard were both killed by force and
the server had no cgroup, strays are found by a mark in their environment; one that cleared its
environment is missed. Under ``kernel`` there is no such gap. What another container has left cannot be
looked at: an active is waited out to its deadline, a standby for a moment after its guard is gone.
"""

import errno
import fcntl
import json
import os
import select
import signal
import time
from pathlib import Path

from sidecar.clock import BootClock, Clock, left_s
from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import kernel, record, tree, wire

GONE_MS = 2_000
"""How long a standby of another PID namespace gets to die after its guard, which the kernel sees to. It holds
no lock. Less risks two servers on one home; more makes a restarted container wait."""
_RESCAN_S = 0.02
"""Between two looks for strays; each scans /proc."""


def wait_for_orphans(run_dir: Path, deadline: Instant, clock: Clock | None = None) -> bool:
    """Wait until a server left in *run_dir* by a dead guard is proven dead.

    To be called when no guard answers; blocks, for a worker thread. Strays of enforcement
    ``process`` are killed on the way. Once proven, the record is removed.

    Returns:
        False when there is no proof by *deadline*: a server may be alive.

    Raises:
        GuardError: The record cannot be read. A person must look, then remove it.
    """
    clock = clock or BootClock()
    found = read_record(run_dir)
    if found is None:
        return True
    if not _proven(run_dir, found, deadline, clock):
        return False
    record.remove(str(run_dir))
    return True


def read_record(run_dir: Path) -> record.Record | None:
    """Return ``keeper.json``, None when there is none.

    Raises:
        GuardError: It cannot be read.
    """
    try:
        return record.read(str(run_dir))
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise GuardError(f"{run_dir / record.NAME}: {error}") from error


def open_keeper(found: record.Record) -> int | None:
    """Return a pidfd of the keeper in *found*; None when that very process is gone for good."""
    pid = found["keeper_pid"]
    assert isinstance(pid, int)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        # ESRCH: nobody has the number. The others: a thread of some process has it (ENOENT on Linux 6.18).
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            return None
        raise
    try:
        same = kernel.start_time(pid) == found.get("keeper_start")
    except OSError:
        same = False  # reaped between the two calls
    if same:
        return pidfd
    os.close(pidfd)
    return None


def readable(fd: int, timeout_ms: int) -> bool:
    """Wait until a pidfd says that its process is dead; return whether it does."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_ms))


def tree_is_empty(run_dir: Path, found: record.Record) -> bool:
    """With the keeper dead: tell whether nothing is left of its tree, and kill what is.

    A namespace is empty when its keeper is dead. Without one, the keeper says so as its last act;
    one that was killed could not.
    """
    if found.get("enforcement") == "kernel":
        return True
    if _said_empty(run_dir, found):
        return True
    path, token = found.get("cgroup"), found.get("token")
    if isinstance(path, str):
        cgroup = tree.Cgroup(path)
        if cgroup.populated():
            cgroup.kill()
            return False
        cgroup.remove()
    strays = tree.marked(str(token))
    for pid in strays:
        tree.send(pid, signal.SIGKILL)
    return not strays


def _said_empty(run_dir: Path, found: record.Record) -> bool:
    try:
        latest = read_record(run_dir)
    except GuardError:  # damaged since: it says nothing
        return False
    return bool(latest and latest.get("keeper_pid") == found["keeper_pid"] and latest.get("empty"))


def _proven(run_dir: Path, found: record.Record, deadline: Instant, clock: Clock) -> bool:
    if found.get("boot_id") != record.boot_id():
        return True
    if found.get("pid_namespace") != record.pid_namespace():
        # Another container's: its pids say nothing here. The kernel's timer has ended it by then.
        at = found.get("deadline_ms")
        if found.get("role") == "standby" and _guard_is_gone(run_dir):
            at = clock.now() + GONE_MS  # for hours, or for ever, nobody could start here otherwise
        return isinstance(at, int) and _wait_until(Instant(at), deadline, clock)
    pidfd = open_keeper(found)
    if pidfd is not None:
        try:
            if not readable(pidfd, int(left_s(deadline, clock) * 1000)):
                return False
        finally:
            os.close(pidfd)
    while not tree_is_empty(run_dir, found):
        if clock.now() >= deadline:
            return False
        time.sleep(_RESCAN_S)
    return True


def _guard_is_gone(run_dir: Path) -> bool:
    """Tell whether no guard works in *run_dir*, in whatever PID namespace."""
    fd = os.open(run_dir / wire.LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _wait_until(at: Instant, deadline: Instant, clock: Clock) -> bool:
    while clock.now() < at:
        if clock.now() >= deadline:
            return False
        time.sleep(min(left_s(at, clock), left_s(deadline, clock)) + 0.001)
    return True
