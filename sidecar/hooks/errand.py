"""One run of one hook, as the sidecar sees it: started, listened to, called off.

The time limit is kept by the hook's keeper, whatever becomes of this process; it is kept here once more, a
moment later, for a keeper that does not answer.
"""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sidecar.clock import BootClock, Clock, left_s
from sidecar.core.units import Instant
from sidecar.guard import tree
from sidecar.signals import name_of

GRACE_MS = 5_000
"""For a keeper to start, to kill and to tell, on a busy machine. Then it is killed, with what is below it."""
DATAGRAM_MAX = 16 * 1024
_START = Path(__file__).with_name("start.py")


class Outcome(NamedTuple):
    """How a hook ended. *status*: its exit status, -signal, None when it did not end by itself."""

    status: int | None
    text: str  # for people: "exit 1"
    took_ms: int

    @property
    def ok(self) -> bool:
        """Tell whether the hook says that all is well."""
        return self.status == 0


class Errand:
    """A hook that is to be run once."""

    def __init__(
        self,
        argv: Sequence[str],
        timeout_ms: int,
        environment: Mapping[str, str],
        folder: str,
        say: Callable[[str], None],
        clock: Clock | None = None,
    ) -> None:
        """Start nothing yet. *say* gets each line of its output, on the thread of `run`."""
        self._argv = tuple(argv)
        self._timeout_ms = timeout_ms
        self._token = f"hook-{uuid.uuid4().hex}"
        self._environment = {**environment, tree.TOKEN_VARIABLE: self._token}
        self._folder = folder
        self._say = say
        self._clock = clock or BootClock()
        self._lock = threading.Lock()  # never held over anything that blocks
        self._ours: socket.socket | None = None
        self.called_off = False

    def run(self) -> Outcome:
        """Run it to its end, at most a moment longer than its time limit."""
        began = self._clock.now()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._ours = ours
            if self.called_off:
                self._close(ours)
                return Outcome(None, "called off", 0)
            try:
                keeper = self._start(theirs.fileno())
            except OSError as error:
                self._close(ours)
                return Outcome(None, f"cannot be started: {error.filename}: {error.strerror}", 0)
        deadline = Instant(began + self._timeout_ms + GRACE_MS)
        status, why = self._listen(ours, deadline)
        self._close(ours)
        if why == _LOST:
            tree.signal_descendants(keeper.pid, signal.SIGKILL)  # while they can be found below it
            keeper.kill()
            for pid in tree.marked(self._token):  # where it was killed, they are below it no more
                tree.send(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(GRACE_MS / 1000 if why == _LOST else 0.1)  # else Popen reaps it later
        return Outcome(status, self._words(status, why), self._clock.now() - began)

    def call_off(self) -> None:
        """End it now, or keep it from beginning. Returns at once, on any thread."""
        self.called_off = True
        with self._lock, contextlib.suppress(OSError):
            if self._ours is not None:
                self._ours.shutdown(socket.SHUT_WR)

    def _start(self, stdin: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_START), str(self._timeout_ms), *self._argv],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            env=self._environment,
            start_new_session=True,
        )

    def _listen(self, ours: socket.socket, deadline: Instant) -> tuple[int | None, str]:
        while True:
            ours.settimeout(max(left_s(deadline, self._clock), 0.001))
            try:
                data = ours.recv(DATAGRAM_MAX)
            except OSError:  # TimeoutError, too
                return None, _LOST
            if data[:1] == b"|":
                self._say(data[1:].decode(errors="replace"))
            elif data[:1] == b"=":
                status, _, why = data[1:].decode(errors="replace").partition(" ")
                return None if status == "-" else int(status), why
            else:
                return None, _LOST

    def _close(self, ours: socket.socket) -> None:
        with self._lock:
            self._ours = None
            ours.close()

    def _words(self, status: int | None, why: str) -> str:
        if why == "timeout":
            return f"not finished within {self._timeout_ms / 1000:g}s"
        if why or status is None:
            return why or "killed, and not proven dead"
        return f"exit {status}" if status >= 0 else f"killed by {name_of(-status)}"


_LOST = "its keeper does not answer"
