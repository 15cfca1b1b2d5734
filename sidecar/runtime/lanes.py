"""Worker threads: each lane does its jobs one after the other, in the order they were given."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from sidecar.errors import BackendError
from sidecar.events import LOG, BackendTrouble, BackendWell, emit

Job = Callable[[], None]
JOIN_WITHIN_S = 1.0
REASONS_MAX = 8
"""That are told of one outage. Each endpoint has its own, and some name a number that is never the same."""


class Lane:
    """One daemon thread and its queue."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Queue *job*. Jobs report by the shell's queue, never by exceptions."""
        self._jobs.put(job)

    def close(self, within_s: float = JOIN_WITHIN_S) -> None:
        """Do what is queued, as far as it gets in time, and end."""
        self._jobs.put(None)
        self._thread.join(within_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # outermost frame of the thread: the lane must live on
                LOG.exception("internal_error")


class Health:
    """Logs when calls of one kind begin to fail, each new reason for it, and when they succeed again."""

    def __init__(self, call: str) -> None:
        self._call = call
        self._failed = 0
        self._told: set[tuple[str, str]] = set()

    def well(self) -> None:
        """Take note of a success."""
        if self._failed:
            emit(BackendWell(call=self._call, failed_calls=self._failed))
        self._failed, self._told = 0, set()

    def ill(self, error: BackendError) -> None:
        """Take note of a failure."""
        self._failed += 1
        seen = (type(error).__name__, str(error))
        if seen not in self._told and len(self._told) < REASONS_MAX:
            self._told.add(seen)
            emit(BackendTrouble(call=self._call, error=seen[0], reason=seen[1]))
