"""One connection to the guard's socket, as the guard sees it."""

from __future__ import annotations

import os
import socket
import struct

from sidecar.guard import wire

QUEUE_MAX = 256
"""Messages kept for a client that does not read. Each answers one of its orders, so a client that
sends this many without reading is broken, and is dropped."""

REASON_MAX = 500
"""Characters of a refusal: it may quote a message that would not fit with JSON's escapes."""


class Link:
    """Never blocks: what the socket does not take waits, in order, up to a limit.

    A client that has closed its end hears nothing more, but what it sent before is still read.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.broken = False
        self._mute = False
        self._waiting: list[tuple[bytes, int | None]] = []

    def send(self, frame: wire.Frame, fd: int | None = None) -> None:
        """Send *frame*, and a copy of the descriptor *fd*, now or when the socket is writable."""
        copy = None if fd is None else os.dup(fd)  # the original may be closed while this waits
        self._waiting.append((wire.encode(frame), copy))
        self.flush()
        if len(self._waiting) > QUEUE_MAX:
            self.broken = True

    def flush(self) -> bool:
        """Send what waits; return whether all of it is gone."""
        while self._waiting and not self.broken:
            data, fd = self._waiting[0]
            if not self._put(data, fd):
                return False
            del self._waiting[0]
            if fd is not None:
                os.close(fd)
        return not self._waiting

    def offer(self, data: bytes) -> bool:
        """Send *data* if it goes at once and nothing else waits; return whether it went."""
        return not self._waiting and not self.broken and self._put(data, None)

    def _put(self, data: bytes, fd: int | None) -> bool:
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
        if self._mute:
            return True
        try:
            self.sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            self._mute = True
        return True

    def refuse(self, reason: str) -> None:
        """Say why, if that goes at once, and take the connection for broken."""
        self.offer(wire.encode({"type": "error", "reason": reason[:REASON_MAX]}))
        self.broken = True

    def close(self) -> None:
        """Close the connection and drop what waits."""
        self.broken = True
        for _data, fd in self._waiting:
            if fd is not None:
                os.close(fd)
        self._waiting.clear()
        self.sock.close()
