"""The guard's socket: who may come in, and which one has the say."""

from __future__ import annotations

import contextlib
import os
import socket

from sidecar.guard import wire
from sidecar.guard.link import Link

VISITORS_MAX = 8
"""Connections that read the hello and give no order; the oldest goes when one more comes."""


class Door:
    """The listening socket, its connections, and the one among them that is in control."""

    def __init__(self, run_dir: str) -> None:
        self.path = os.path.join(run_dir, wire.SOCKET_NAME)  # noqa: PTH118
        dir_fd = wire.open_run_dir(run_dir)
        self.listener = wire.seqpacket()
        self.listener.setblocking(False)
        self.links: dict[int, Link] = {}
        self.controller: Link | None = None
        self.given: list[int] = []  # the descriptors that came with the message read last
        self._buffer = bytearray(wire.FRAME_MAX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108 - left by a guard that was killed; we hold its lock
        before = os.umask(0o177)
        try:
            self.listener.bind(wire.address(dir_fd))
        finally:
            os.umask(before)
            os.close(dir_fd)
        self.listener.listen(16)

    def accept(self) -> Link | None:
        """Let one in; None when there is none, or it belongs to somebody else."""
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return None
        if wire.peer(sock)[1] != os.geteuid():
            sock.close()
            return None
        link = Link(sock)
        self.links[link.fd] = link
        visitors = [other for other in self.links.values() if other is not self.controller]
        if len(visitors) > VISITORS_MAX:
            visitors[0].broken = True
        return link

    def read(self, link: Link) -> wire.Frame | None:
        """Return the next message; None when there is none, or the connection has broken.

        Raises:
            BadFrame: It is not a message of this protocol.
        """
        flags = socket.MSG_TRUNC | socket.MSG_CMSG_CLOEXEC
        space = socket.CMSG_SPACE(8)  # two descriptors; the kernel closes what is more
        try:
            size, rest, _flags, _address = wire.taken(
                lambda: link.sock.recvmsg_into([self._buffer], space, flags)
            )
            self.given = wire.rights(rest)
        except BlockingIOError:
            return None
        except OSError:
            size = 0
        if size == 0:
            link.broken = True
            return None
        if size > wire.FRAME_MAX:
            raise wire.BadFrame(f"message of {size} bytes, at most {wire.FRAME_MAX} allowed")
        return wire.decode(bytes(memoryview(self._buffer)[:size]))

    def drop_given(self) -> None:
        """Close what came with the last message and was not taken: nobody's terminal is kept busy here."""
        wire.close_all(self.given)

    def take_control(self, link: Link) -> None:
        """Give *link* the say: the sidecar before is dead or stuck, or it would hold its own lock."""
        if self.controller and self.controller is not link:
            self.controller.refuse("superseded by another client")
        self.controller = link

    def close(self, link: Link) -> None:
        """Forget one connection."""
        del self.links[link.fd]
        if self.controller is link:
            self.controller = None
        link.close()

    def lock_up(self) -> None:
        """Let nobody in any more."""
        os.unlink(self.path)  # noqa: PTH108
        self.listener.close()
