"""How the guard process begins: detached, alone in its run directory, silent but for its log."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import traceback

from sidecar.guard import kernel, wire
from sidecar.guard.daemon import Guard
from sidecar.guard.orders import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main(argv: list[str]) -> NoReturn:
    """Detach, start, tell the starter on ``--ready-fd`` how it went, serve."""
    options = dict(zip(argv[::2], argv[1::2], strict=True))
    ready_fd = int(options["--ready-fd"])
    if os.fork():
        os._exit(0)  # the sidecar must not be our parent: it would have to reap us
    run_dir = options["--run-dir"]
    try:
        guard = _begin(run_dir, options)
    except BaseException as error:  # outermost frame
        if not isinstance(error, Refused):
            traceback.print_exc()
        os.write(ready_fd, str(error).encode()[:4000] or b"unknown error")
        os._exit(1)
    try:
        os.write(ready_fd, b"ready")
    except BrokenPipeError:  # whoever started us is gone; the next sidecar starts a guard of its own
        os._exit(1)
    os.close(ready_fd)
    try:
        guard.serve()
    except BaseException:  # outermost frame: the tree dies with us
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _begin(run_dir: str, options: dict[str, str]) -> Guard:
    os.chdir("/")
    kernel.set_name("sidecar-guard")
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock = os.open(os.path.join(run_dir, wire.LOCK_NAME), flags, 0o600)  # noqa: PTH118
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused("another guard is at work here") from None
    gc.collect()
    gc.freeze()  # pages shared with the keepers stay shared
    idle_exit_ms = int(options["--idle-exit-ms"])
    # A sidecar that was started before the files were replaced says no version.
    return Guard(run_dir, options["--enforcement"], options.get("--version", ""), idle_exit_ms)
