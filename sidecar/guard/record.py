"""``keeper.json``: what proves an earlier server dead when its guard is gone.

The guard writes it before a server can start and removes it once the server's tree is proven dead,
so its absence means that nothing of ours can be running.
"""

from __future__ import annotations

import contextlib
import json
import os

from sidecar.guard import kernel

NAME = "keeper.json"

Record = dict[str, object]


def read(run_dir: str) -> Record | None:
    """Return the record, None when there is none.

    Raises:
        ValueError: There is one that cannot be read.
    """
    try:
        with open(os.path.join(run_dir, NAME), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            text = file.read()
    except FileNotFoundError:
        return None
    if not text.strip("\0"):
        return None  # how a crash of the host leaves a file that was not synced; no guard writes it so
    record = json.loads(text)
    if type(record) is not dict or type(record.get("keeper_pid")) is not int:
        raise ValueError(f"{run_dir}/{NAME}: not a record")
    return record


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
        os.write(fd, json.dumps({"v": 1, **record}).encode())
    finally:
        os.close(fd)
    os.replace(path + ".new", path)  # noqa: PTH105


def remove(run_dir: str) -> None:
    """Take it away: the tree is proven dead."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(run_dir, NAME))  # noqa: PTH108, PTH118
