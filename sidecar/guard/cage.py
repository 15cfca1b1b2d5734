"""The keeper as the guard sees it: made in advance, given one server, dead with it.

prepare() ── ready ── go() ── started or failed ── root exit ── pidfd readable ── reap()
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct

from sidecar.guard import keeper, kernel, record, tree, wire
from sidecar.guard.shared import SharedInstant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
_READY_WITHIN_S = 5
"""For the trial at start alone; a keeper takes about 5 ms."""


class Cage:
    """One keeper: its process, its socket, our ends of the server's two pipes, a way to give it others."""

    def __init__(self, namespaces: int, run_dir: str, token: str) -> None:
        """Fork the keeper.

        Raises:
            OSError: Namespaces or processes are refused; nothing is left behind.
        """
        self.token = token
        self.in_namespace = namespaces != 0
        self.cgroup = None if namespaces else tree.Cgroup.make(f"sidecar-{token}")
        self.ready = False
        self.told_go = False
        self.root_pid: int | None = None
        self.status: int | None = None
        self.failed: str | None = None
        self.ends_at = SharedInstant()
        ids = os.geteuid(), os.getegid()
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as given:
            if self.cgroup:
                undo.callback(self.cgroup.remove)
            ours, theirs = _pair(undo, given)
            # Before the fork: a message sent earlier than this carries pid 0.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            outlets, outlets_theirs = _pair(undo, given)
            stdout, stdout_w = _pipe(undo, given)
            stderr, stderr_w = _pipe(undo, given)
            self.pid = kernel.clone(namespaces) if namespaces else os.fork()
            if self.pid == 0:
                out = stdout_w, stderr_w, outlets_theirs.fileno()
                keeper.main(theirs, out, ids, namespaces, self.cgroup, run_dir, self.ends_at)
            undo.pop_all()
        self.pidfd = os.pidfd_open(self.pid)
        self.identity = record.identity(self.pid)
        self.streams = {stdout: "stdout", stderr: "stderr"}
        for fd in self.streams:
            os.set_blocking(fd, False)
        self.control = ours
        self.outlets = outlets

    @property
    def traces(self) -> record.Record:
        """What the tree is found by, should keeper and guard both be killed."""
        return {"token": self.token, "cgroup": self.cgroup.path if self.cgroup else None}

    def wait_ready(self) -> bool:
        """Wait until the keeper is ready or dead; return whether it is ready."""
        self.control.settimeout(_READY_WITHIN_S)
        with contextlib.suppress(TimeoutError):
            while not self.ready and self.receive() != "end":
                pass
        self.control.setblocking(False)
        return self.ready

    def receive(self) -> str | None:
        """Take one message and note what it says; return its name, None when there is none.

        At the end of the socket the name is ``end``.
        """
        try:
            data, rest, _flags, _address = wire.taken(
                lambda: self.control.recvmsg(4096 + 64, socket.CMSG_SPACE(12))
            )
        except BlockingIOError:
            return None
        if not data:
            return "end"
        message = wire.decode(data)
        match message:
            case {"ready": _}:
                self.ready = True
            case {"root": _}:
                for _level, kind, raw in rest:
                    if kind == socket.SCM_CREDENTIALS and len(raw) == 12:
                        self.root_pid = struct.unpack("3i", raw)[0]
            case {"started": _} if self.root_pid is None:  # "started" is an end of file: exec, or death
                self.failed = "its process died before the command"
                return "failed"
            case {"exit": int(status)}:
                self.status = status
            case {"failed": str(reason)}:
                self.failed = reason
        return next(iter(message))

    def go(self, order: wire.Frame, outlets: Sequence[int] = ()) -> None:
        """Let the keeper start the server that *order* describes.

        Args:
            outlets: Its stdout and stderr, if not our pipes; they are copied, past the keeper (see there).
        """
        data = wire.encode({**order, "own_output": bool(outlets)})
        if outlets:
            with contextlib.suppress(ConnectionError):  # dead before its time: the keeper will tell
                socket.send_fds(self.outlets, [b"."], outlets)
        self.control.send(data)
        self.told_go = True

    def stop(self) -> None:
        """Ask the server to stop, by its stop command or signal."""
        self._tell("stop")

    def _tell(self, what: str) -> None:
        with contextlib.suppress(OSError):  # it is dead, or so stuck that the kill must do
            self.control.send(wire.encode({"do": what}))

    def kill(self) -> None:
        """Begin the end of the whole tree; nothing happens when the keeper is reaped."""
        if self.pidfd < 0:
            return
        if self.in_namespace or not self.told_go:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            return
        self._tell("kill")
        if self.cgroup:
            self.cgroup.kill()
        signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)

    def reap(self) -> int:
        """Collect the dead keeper, close everything; return its exit code."""
        _pid, status = os.waitpid(self.pid, 0)
        self.control.close()
        self.outlets.close()
        os.close(self.pidfd)
        self.pidfd = -1
        self.ends_at.close()
        for fd in self.streams:
            os.close(fd)
        return os.waitstatus_to_exitcode(status)


def _pair(undo: contextlib.ExitStack, given: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return undo.enter_context(ours), given.enter_context(theirs)


def _pipe(undo: contextlib.ExitStack, given: contextlib.ExitStack) -> tuple[int, int]:
    ours, theirs = os.pipe()
    undo.callback(os.close, ours)
    given.callback(os.close, theirs)
    return ours, theirs
