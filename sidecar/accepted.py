"""Has the program at the other end of a connection accepted it, or only the kernel on its behalf?

The kernel completes connections to a program that stands still until its backlog is full: 50 in Java, so a
hung server looks well for 50 probes. Who asks the kernel learns more: an end that waits in the queue of its
listener belongs to no file yet, inode 0 (sock_diag(7); ``ss -e`` shows the same).
"""

import socket
import struct

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2 up to its socket id
_PORTS = struct.Struct("!HH")
_REST = struct.Struct("=III")  # of the id: any interface, no cookie
_ANSWER = struct.Struct("=BB66xI")  # struct inet_diag_msg: family, state, …, inode
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_ALL, _NO_COOKIE, _ESTABLISHED = 0xFFFFFFFF, 0xFFFFFFFF, 1
_KERNEL_S = 1.0  # it answers within the call


def waits(connection: socket.socket) -> bool:
    """Tell whether the other end of a TCP *connection* waits to be accepted, on this machine.

    False also where that cannot be known: the other end is elsewhere, the connection is over, or this
    kernel has no ``tcp_diag``.
    """
    try:
        ours, theirs = connection.getsockname(), connection.getpeername()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(_KERNEL_S)
            kernel.sendto(_question(connection.family, theirs, ours), (0, 0))
            answer = kernel.recv(4096)
    except OSError:
        return False
    if len(answer) < _HEADER.size + _ANSWER.size or _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return False
    _family, state, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    return (state, inode) == (_ESTABLISHED, 0)  # one that was closed has no inode either, and another state


def _question(family: int, of: tuple[str, int], peer: tuple[str, int]) -> bytes:
    """Ask for the end at *of* of its connection with *peer*."""
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL) + _PORTS.pack(of[1], peer[1])
    for end in (of, peer):
        request += socket.inet_pton(family, end[0].partition("%")[0]).ljust(16, b"\0")
    request += _REST.pack(0, _NO_COOKIE, _NO_COOKIE)
    header = (_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    return _HEADER.pack(*header) + request
