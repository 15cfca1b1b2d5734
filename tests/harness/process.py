"""Real processes for tests: each with a port of its own, a log, fault verbs and one owner.

Every process leads its own process group, so that what it leaves behind ends with it and a Ctrl-C
at the terminal does not reach it first. Ports come from below the kernel's ephemeral range and stay
reserved by a file lock for the life of the test process: a killed server finds its port again.
"""

import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest

READY_WITHIN_S = 20.0
STOP_WITHIN_S = 5.0
POLL_S = 0.03
PORTS = range(20_000, 32_000)  # Linux hands out 32768 and up to outgoing connections

_reserved: list[int] = []  # lock files' descriptors, held open until this process ends


@contextmanager
def inheriting(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """Let what is started meanwhile begin with *handler*, whatever we were started with (by nohup, say)."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def ahead(folder: Path) -> str:
    """Return a ``PYTHONPATH`` with *folder* before what stands there now."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on and no other test process will get."""
    folder = Path(tempfile.gettempdir()) / "sidecar-test-ports"
    folder.mkdir(exist_ok=True)
    for port in random.sample(PORTS, len(PORTS)):
        lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _reserved.append(lock)
        return port
    raise RuntimeError("no free port")


@contextmanager
def crowded(listener: socket.socket) -> Iterator[None]:
    """Fill the backlog of *listener*, where nobody accepts, so that the kernel drops further attempts."""
    with ExitStack() as stack:
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield


def found_at(*ends: tuple[object, ...]) -> list[tuple[object, ...]]:
    """Return the answer of ``getaddrinfo`` for a name with these addresses."""
    return [
        (socket.AF_INET6 if ":" in str(end[0]) else socket.AF_INET, socket.SOCK_STREAM, 6, "", end)
        for end in ends
    ]


def wait_until(condition: Callable[[], object], what: str, within_s: float = READY_WITHIN_S) -> None:
    """Return as soon as *condition* is true.

    Raises:
        TimeoutError: it was not within *within_s*; the message says *what*.
    """
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() >= until:
            raise TimeoutError(f"not within {within_s} s: {what}")
        time.sleep(POLL_S)


def unavailable(reason: str) -> NoReturn:
    """Skip the test for lack of a tool, or fail it in CI, where everything must have been there."""
    if os.environ.get("CI"):
        pytest.fail(f"required in CI: {reason}", pytrace=False)
    pytest.skip(reason)


class Process:
    """A program that can be frozen, thawed, killed and started again; ``stop`` always ends it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self.env = {**os.environ, **(env or {})}
        self._popen: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.name} was never started"
        return self._popen.pid

    def running(self) -> bool:
        """Tell whether the process exists, frozen or not."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        assert not self.running(), f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                start_new_session=True,
            )

    def freeze(self) -> None:
        """Stop answering without closing a connection, as a paused machine would."""
        self._signal(signal.SIGSTOP)
        if self._popen is not None:  # the signal is sent; a busy machine takes its time to stop every thread
            os.waitid(os.P_PID, self._popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(STOP_WITHIN_S)
        self.frozen = False

    def stop(self) -> None:
        """End it in good order if it can, by force if not. Safe to repeat."""
        if self._popen is None:
            return
        self.thaw()  # a frozen process ignores SIGTERM
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_WITHIN_S)
        self.kill()

    def log_tail(self, chars: int = 3_000) -> str:
        return self.log.read_text(errors="replace")[-chars:] if self.log.exists() else ""

    def wait_ready(self, ready: Callable[[], object], within_s: float = READY_WITHIN_S) -> None:
        """Wait for *ready*.

        Raises:
            RuntimeError: it did not come, or the process ended; the message has the log's end.
        """
        with suppress(TimeoutError):
            wait_until(lambda: ready() or not self.running(), self.name, within_s)
            if self.running():
                return
        how = "is not ready" if self.running() else "has ended"
        raise RuntimeError(f"{self.name} {how} after {within_s} s; its log:\n{self.log_tail()}")

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._popen is not None:
                os.killpg(self._popen.pid, number)
