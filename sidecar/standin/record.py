"""One line of the witness, and the pen that writes it. Standard library only: servers import it.

    AT_NS                KIND  EPOCH        RUN      PID     NODE
    00000012345678901234 open  000000000017 9f1c22ab 4711    node-a

- One ``write`` to a file opened with O_APPEND is one line: the kernel puts it whole behind all
  others. So **the order of the lines is an order in real time** which needs no clock at all: whoever
  writes a line behind another server's ``open`` was running after that server had opened.
- Every line is 128 bytes, so none lies across two pages: neither a kill in the middle of a write nor a
  reader beside it can see half a line (Linux splits a write, and looks for SIGKILL, between pages only).
- AT_NS is the host's CLOCK_BOOTTIME, a time namespace's offset taken out again: lines of nodes
  in different time namespaces can be compared. It is read just before the line is written.
- RUN names one server, the whole process tree of one start; a pid cannot (two PID namespaces, one pid).
- ``open`` stands before the first port opens, ``close`` after the last one is shut.

Not guaranteed: AT_NS under a faked libc clock (libfaketime); the order of the lines still holds there.
A file system that several hosts share need not keep O_APPEND whole.
"""

import os
import time

OPEN, TICK, CLOSE = "open", "tick", "close"
LINE_BYTES = 128
"""Divides the page size, see above. Leaves 70 for the node's name."""
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")


def boottime_offset_ns() -> int:
    """Return what this process's time namespace adds to the host's CLOCK_BOOTTIME."""
    try:
        with open("/proc/self/timens_offsets", encoding="ascii") as file:  # noqa: PTH123 - 5 ms
            lines = [line.split() for line in file]
    except FileNotFoundError:
        return 0  # a kernel before 5.6, without time namespaces
    return sum(int(s) * 1_000_000_000 + int(ns) for name, s, ns in lines if name == "boottime")


def now_ns() -> int:
    """Return the host's CLOCK_BOOTTIME: the same in all time namespaces."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boottime_offset_ns()


def quote(node: str) -> str:
    """Return *node* as one word of ASCII."""
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in node.encode()) or "%"


class Pen:
    """Writes the lines of one server. Any failure is an OSError: a server without a witness must end."""

    def __init__(self, path: str, node: str, epoch: int) -> None:
        self.node, self.epoch = node, epoch
        self.run = os.urandom(4).hex()
        self._node = quote(node)
        if len(self._node) > 70:
            raise ValueError(f"node name too long for the witness: {node}")
        self._offset_ns = boottime_offset_ns()
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def write(self, kind: str) -> None:
        """Append one line."""
        tail = f"{kind:5} {self.epoch:012d} {self.run} {os.getpid():<7d} {self._node:70}\n"
        at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._offset_ns
        line = f"{at_ns:020d} {tail}".encode()
        if os.write(self._fd, line) != LINE_BYTES:
            raise OSError("the witness took only part of a line")


class File:
    """The shared database as a file on one host. A server may be given another with the same methods."""

    def __init__(self, path: str) -> None:
        self._path = path

    def pen(self, node: str, epoch: int) -> Pen:
        """Return what the active server *node* writes with."""
        return Pen(self._path, node, epoch)

    def beat(self) -> int:
        """Return what changes as long as somebody writes: a standby's sign of life of its master."""
        try:
            return os.stat(self._path).st_size  # noqa: PTH116 - 5 ms
        except FileNotFoundError:
            return 0
