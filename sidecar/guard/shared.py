"""An instant that the guard writes and its keepers read, in memory that both have.

Why not a message: a keeper that was stopped for long would find a full socket, or an old instant first; and
a guard must never wait for its keeper.
"""

from __future__ import annotations

import mmap
import struct

_TWICE = struct.Struct("@qq")


class SharedInstant:
    """Made before the fork. Only the guard writes, and only later instants for one server.

    It stands there twice, and the earlier one counts: a guard may be stopped between the two writes.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _TWICE.size)

    def write(self, at_ms: int) -> None:
        """Set the instant, ms on CLOCK_BOOTTIME."""
        _TWICE.pack_into(self._memory, 0, at_ms, at_ms)

    def read(self) -> int:
        """Return the instant, ms on CLOCK_BOOTTIME; 0 before the first was written."""
        one, other = _TWICE.unpack_from(self._memory)
        return min(int(one), int(other))

    def close(self) -> None:
        """Give the memory up, on this side."""
        self._memory.close()
