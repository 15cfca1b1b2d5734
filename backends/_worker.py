"""One thread that does blocking calls which cannot be given a deadline, for callers that have one."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

R = TypeVar("R")


class Expired(Exception):
    """The job was not done in time; ``started`` says whether it may have happened or may yet happen."""

    def __init__(self, started: bool) -> None:
        super().__init__(started)
        self.started = started


class _Job(Generic[R]):
    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._started = self._cancelled = False
        self._result: R
        self._error: BaseException | None = None

    def run(self) -> None:
        with self._lock:
            if self._cancelled:
                return
            self._started = True
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error
        self._done.set()

    def result(self, within_s: float) -> R:
        if not self._done.wait(within_s):
            with self._lock:
                self._cancelled = True
                started = self._started
            if not self._done.is_set():
                raise Expired(started)
        if self._error is not None:
            raise self._error
        return self._result


def join(thread: threading.Thread, within_s: float) -> None:
    """Wait for the end of *thread*; not if Ctrl-C came while it was started: Python refuses to."""
    with suppress(RuntimeError):
        thread.join(within_s)


class Worker:
    """Runs jobs one after the other. A daemon: a hung disk must not keep the program alive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None] | None] = deque()
        self._asked = threading.Condition()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, job: Callable[[], R], within_s: float) -> R:
        """Return what *job* returns or raise what it raises.

        Raises:
            Expired: It did not end in time.
        """
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        waiting = _Job(job)
        self._put(waiting.run)
        try:
            return waiting.result(within_s)
        except Expired:
            with self._asked, suppress(ValueError):  # its turn has come
                self._jobs.remove(waiting.run)
            raise

    def stop(self, last: Callable[[], None], within_s: float) -> None:
        """Run *last* after everything that was asked for, and end."""
        with self._start:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._put(last)
            self._put(None)
            join(thread, within_s)

    def _put(self, job: Callable[[], None] | None) -> None:
        with self._asked:
            self._jobs.append(job)
            self._asked.notify()

    def _next(self) -> Callable[[], None] | None:
        with self._asked:
            self._asked.wait_for(lambda: self._jobs)
            return self._jobs.popleft()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job()
