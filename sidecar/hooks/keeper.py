"""Runs one hook and ends all it has started.

    sidecar ──(socket: our stdin)── keeper ── hook ── whatever it starts

A process of its own, a child subreaper: whatever the hook starts stays below it, double forks and new
sessions included, and ECHILD proves that nothing is left. The hook is over when its first process is; what
that has left behind is killed then. All of it is killed at the time limit, and when the socket's other end is
closed: by a sidecar that calls it off, or that is gone.

To the sidecar go datagrams: ``|LINE`` for each line of the hook's output, at last ``=STATUS WHY``, where
STATUS is ``-`` for a hook that did not end by itself. The time limit does not wait for a sidecar that does
not read: lines are dropped then, and counted.

Not guaranteed: that a process which hangs in the kernel is gone when the end is told; it is waited for here.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time

from sidecar.guard import kernel, tree
from sidecar.guard.lines import cut

LINE_BYTES = 4096
"""A longer line is cut into several."""
LINES_MAX = 1000
"""Of one hook; the rest is counted. Whoever floods the log must not keep the sidecar's threads busy."""
READ_BYTES = 64 * 1024
KILL_MS = 1_000
"""How long killed processes may take to die before the end is told all the same."""
RESCAN_S = 0.01
"""Between two passes of killing; each is a scan of /proc."""


class Lines:
    """The hook's output, on its way to the sidecar."""

    def __init__(self, control: socket.socket, fd: int) -> None:
        self.control, self.fd = control, fd
        self.rest = b""
        self.told = 0
        self.dropped = 0

    def read(self) -> bool:
        """Take what can be read at once; return False where there is no more."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return False
        lines, self.rest = cut(self.rest, data, LINE_BYTES)
        for line in lines:
            self._tell(line)
        return bool(data)

    def finish(self) -> None:
        """Tell what is left when the hook is over, and wait for a sidecar that is a little behind."""
        for _ in range(1024):  # a pipe holds 64 KB unless the hook asked for up to 1 MB
            if not self.read():
                break
        if self.rest:
            self._tell(self.rest)
        self.control.settimeout(KILL_MS / 1000)
        if self.dropped:
            self.told = 0
            self._tell(f"({self.dropped} lines more were dropped)".encode())

    def _tell(self, line: bytes) -> None:
        self.told += 1
        sent = False
        if self.told <= LINES_MAX:
            with contextlib.suppress(OSError):  # a sidecar that does not read, or is gone
                sent = self.control.send(b"|" + line) > 0
        self.dropped += not sent


def spawn(argv: list[str], out: int) -> int:
    """Start the hook in a session of its own; return its pid.

    Raises:
        OSError: It cannot be started.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, out, 2),
    ]
    ignored = (signal.SIGPIPE, signal.SIGXFSZ)  # by every Python process
    return os.posix_spawnp(
        argv[0], argv, os.environ, file_actions=actions, setsid=True, setsigmask=(), setsigdef=ignored
    )


def wait(control: socket.socket, root: int, lines: Lines, deadline_ms: int) -> str:
    """Wait until the hook's first process is over, or all has to end; return why."""
    poll = select.poll()
    pidfd = os.pidfd_open(root)
    for fd in (control.fileno(), pidfd, lines.fd):
        poll.register(fd, select.POLLIN)
    while (left_ms := deadline_ms - kernel.now_ms()) > 0:
        ready = [fd for fd, _ in poll.poll(left_ms)]
        if pidfd in ready:
            return ""
        if control.fileno() in ready:
            return "called off"
        if lines.fd in ready and not lines.read():
            poll.unregister(lines.fd)  # closed by all of them, and yet the hook runs on
    return "timeout"


def end(root: int) -> int | None:
    """Kill what is left; return how the first process ended, None where that is not known in time."""
    status: int | None = None
    until_ms = kernel.now_ms() + KILL_MS
    while kernel.now_ms() < until_ms:
        try:
            pid, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == root:
            status = os.waitstatus_to_exitcode(code)
        elif pid == 0:
            tree.signal_descendants(os.getpid(), signal.SIGKILL)
            time.sleep(RESCAN_S)
    return status


def main(timeout_ms: int, argv: list[str]) -> None:
    """Run the hook, and stay until nothing of it is left."""
    deadline_ms = kernel.now_ms() + timeout_ms
    kernel.set_child_subreaper()
    kernel.set_name("sidecar-hook")
    control = socket.socket(fileno=os.dup(0))
    control.setblocking(False)
    out, into = os.pipe()
    os.set_blocking(out, False)
    lines = Lines(control, out)
    status: int | None = None
    try:
        root = spawn(argv, into)
    except OSError as error:
        why = f"cannot be started: {error.strerror}"
        os.close(into)
    else:
        os.close(into)
        why = wait(control, root, lines, deadline_ms)
        status = end(root)
    lines.finish()
    with contextlib.suppress(OSError):
        control.send(f"={'-' if why or status is None else status} {why}".encode())
    control.close()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):  # killed, and still not dead
            pass
