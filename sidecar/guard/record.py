"""``keeper.json``: what proves an earlier server dead when its guard is gone.

The guard writes it before a server can start and removes it once the server's tree is proven dead,
so its absence means that nothing of ours can be running.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat

from sidecar.guard import kernel

NAME = "keeper.json"
VERSION = 1

Record = dict[str, object]


def read(run_dir: str) -> Record | None:
    """Return the record, None when there is none.

    Raises:
        ValueError: There is one that is not as `write` leaves it.
    """
    try:
        fd = os.open(os.path.join(run_dir, NAME), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # noqa: PTH118
    except FileNotFoundError:
        return None
    with open(fd, encoding="utf-8") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a regular file")
        text = file.read()
    if not text.strip("\0"):
        return None  # how a crash of the host leaves a file that was not synced; no guard writes it so
    try:
        record: Record = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not _is_record(record):
        raise ValueError("not a record of a version known here")
    return record


def _is_record(found: object) -> bool:
    """Tell whether all is there that a proof is drawn from: a boot that is missing is not another boot."""
    return (
        type(found) is dict
        and found.get("v") == VERSION
        and type(found.get("keeper_pid")) is int
        and 0 < found["keeper_pid"] < 1 << 31
        and type(found.get("keeper_start")) is int
        and all(
            type(found.get(name)) is str and found[name] for name in ("boot_id", "pid_namespace", "token")
        )
        and type(found.get("deadline_ms")) is int
    )


def identity(pid: int) -> Record:
    """Return what tells *pid* from every other process of this host, ever."""
    return {
        "keeper_pid": pid,
        "keeper_start": kernel.start_time(pid),
        "boot_id": boot_id(),
        "pid_namespace": pid_namespace(),
    }


def boot_id() -> str:
    """Return the kernel's random name for this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:  # noqa: PTH123
        return file.read().strip()


def pid_namespace() -> str:
    """Return the name of the PID namespace in which our pids mean something."""
    return os.readlink("/proc/self/ns/pid")  # noqa: PTH115


def write(run_dir: str, record: Record) -> None:
    """Put *record* in place at one stroke. Not synced: a crash of the host ends the server too."""
    path = os.path.join(run_dir, NAME)  # noqa: PTH118
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path + ".new", flags, 0o600)
    try:
        os.write(fd, json.dumps({"v": VERSION, **record}).encode())
    finally:
        os.close(fd)
    os.replace(path + ".new", path)  # noqa: PTH105


def remove(run_dir: str) -> None:
    """Take it away: the tree is proven dead."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(run_dir, NAME))  # noqa: PTH108, PTH118
