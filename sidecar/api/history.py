"""Keeps the history in memory: reads it at the start and after each change of active, not when asked."""

import asyncio
from collections.abc import Callable

from sidecar.api.memory import Memory
from sidecar.api.threads import in_thread
from sidecar.clock import Backoff
from sidecar.config import Config
from sidecar.core.model import HistoryEntry, View
from sidecar.core.units import NO_EPOCH
from sidecar.errors import SidecarError
from sidecar.events import LOG
from sidecar.operate.desk import READ_WITHIN_MS, open_desk

ENTRIES_MAX = 1_000
AGAIN_FIRST_S, AGAIN_MAX_S = 0.5, 30.0
MISSED_MAX = 6
"""How often an entry that should be there is looked for, over some 30 s; the next change looks again."""


class Historian:
    """Reads with a backend of its own, opened for each read: there are few."""

    def __init__(self, memory: Memory, config: Callable[[], Config], halted: Callable[[], bool]) -> None:
        self._memory, self._config, self._halted = memory, config, halted
        self._wanted = asyncio.Event()
        self._seen: object = None
        self._expected = NO_EPOCH  # the epoch of the newest entry that must be there by now

    def see(self, view: View) -> None:
        """Take note of what the store shows. On the API's loop."""
        holder = view.holder
        record = None if holder is None else view.node(holder.node)
        serves = record is not None and record.role == "active" and record.state in ("running", "paused")
        seen = (view.epoch.epoch, serves)
        if seen != self._seen:
            self._seen = seen
            self._expected = holder.epoch if holder is not None and serves else self._expected
            self._wanted.set()

    async def keep(self) -> None:
        """Read whenever it is wanted, and again until what is expected is there."""
        backoff, missed = Backoff(AGAIN_FIRST_S, AGAIN_MAX_S), 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                entries = await in_thread(self._read)
            except SidecarError as error:
                LOG.debug("api: history: %s", error)
            else:
                self._memory.keep_history(entries)
                missed += 1
                if missed > MISSED_MAX or self._complete(entries):
                    backoff.reset()
                    missed = 0
                    continue
            await asyncio.sleep(backoff.next_s())
            self._wanted.set()

    def _complete(self, entries: tuple[HistoryEntry, ...]) -> bool:
        return max((entry.epoch for entry in entries), default=NO_EPOCH) >= self._expected

    def _read(self) -> tuple[HistoryEntry, ...]:
        with open_desk(self._config()) as desk:
            return desk.backend.read_history(ENTRIES_MAX, deadline=desk.after(READ_WITHIN_MS))
