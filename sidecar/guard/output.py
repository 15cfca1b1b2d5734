"""What the server prints, on its way to the sidecar.

The guard always drains the server's pipes, so a sidecar that is gone, stopped or slow never blocks
the server. Lines wait here until the client's socket takes them; when more than ``LIMIT_BYTES``
wait, the oldest are dropped and counted.

Not guaranteed: a guard that is itself stopped does not drain, and a server that prints on may then
block in its write, until the guard goes on or the deadline ends both.
"""

from __future__ import annotations

import os

from sidecar.guard import wire
from sidecar.guard.lines import cut

LIMIT_BYTES = 64 * 1024
"""Kept for a client that does not read. More costs memory in every guard."""
LINE_BYTES = 8 * 1024
"""A longer line is cut into several."""
FRAME_BYTES = 16 * 1024
"""Text of one output message. JSON escapes can make it six times as long; the limit is 128 KB."""
READ_BYTES = 16 * 1024


class Output:
    """Lines of the server's two streams, in the order in which the guard saw them."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str, bytes]] = []
        self._size = 0
        self._dropped = 0
        self._partial: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def read(self, fd: int, run: str, stream: str) -> bool:
        """Take what can be read at once; return False at the end of the stream."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            self._flush_partial(run, stream)
            return False
        lines, self._partial[stream] = cut(self._partial[stream], data, LINE_BYTES)
        for line in lines:
            self._add(run, stream, line)
        return True

    def drain(self, fd: int, run: str, stream: str) -> None:
        """Take all that is left in a pipe whose writers are dead."""
        for _ in range(1024):  # a pipe holds 64 KB unless the server asked for up to 1 MB
            if not self.read(fd, run, stream):
                return
        self._flush_partial(run, stream)

    def _flush_partial(self, run: str, stream: str) -> None:
        if self._partial[stream]:
            self._add(run, stream, self._partial[stream])
            self._partial[stream] = b""

    def _add(self, run: str, stream: str, line: bytes) -> None:
        self._lines.append((run, stream, line))
        self._size += len(line) + 1
        if self._size > LIMIT_BYTES:
            count = 0
            while self._size > LIMIT_BYTES * 3 // 4:  # several at once: a list is cheap that way
                self._size -= len(self._lines[count][2]) + 1
                count += 1
            del self._lines[:count]
            self._dropped += count

    def __bool__(self) -> bool:
        return bool(self._lines)

    def take(self) -> wire.Frame:
        """Return the next message: neighbouring lines of one run and one stream."""
        run, stream, _ = self._lines[0]
        lines = []
        size = 0
        for other_run, other_stream, line in self._lines:
            if (other_run, other_stream) != (run, stream) or size > FRAME_BYTES - LINE_BYTES:
                break
            lines.append(line)
            size += len(line) + 1
        del self._lines[: len(lines)]
        self._size -= size
        dropped, self._dropped = self._dropped, 0
        return {
            "type": "output",
            "run": run,
            "stream": stream,
            "dropped": dropped,
            "lines": [line.decode(errors="replace") for line in lines],
        }
