"""How guard and client write to each other: one JSON object per SOCK_SEQPACKET message.

The guard speaks first:

    guard   {"type": "hello", "protocol": 1, "version", "guard_pid", "enforcement", "run": {...} or null}
    client  {"order": "control", "seq": 1, "protocol": 1}
    guard   {"type": "state", "seq": 1, ...as hello..., "finished": {...} or null}   + keeper's pidfd

Only ``control`` gives the client the say, and takes it from the client before: who merely connects,
reads the hello and leaves disturbs nobody. Then, any number of

    client  {"order": NAME, "seq": N, "run": ID, ...}
    guard   {"type": "answer", "seq": N, "order": NAME, "run": ID, "ok": bool, "reason": str or null}
    guard   {"type": "started" | "start_failed" | "exited" | "output", "run": ID, ...}

With ``started``, and in ``run``, come the ``token`` and ``cgroup`` by which what is left of a tree is found.

    order     takes
    start     argv, cwd, env, user, role, epoch, deadline_ms, kill_margin_ms, note, stop_signal,
              stop_command, own_output (optional; true: the server's stdout and stderr come with it)
    extend    deadline_ms, note (optional)
    stop      kill_at_ms
    kill, ack
    note      note
    ping, shutdown (these two without run)

What every version keeps, so that two can part in peace: the guard's hello comes first, with ``protocol``
and ``run``, in which ``role`` and ``deadline_ms`` stand; a number that the other does not know gives no
control and changes nothing; SIGTERM lets a guard leave once it has no server.

A guard that does not know ``own_output`` gives the server pipes, as without it.

Anything else ends the connection, after ``{"type": "error", "reason"}`` where that can be written,
and changes nothing. Instants are ms on CLOCK_BOOTTIME.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

PROTOCOL = 1
FRAME_MAX = 128 * 1024
"""Bytes of one message: argv and environment must fit. The kernel takes up to ~208 KB unasked."""
NOTE_MAX = 4096
"""Bytes of a note, as JSON."""
SOCKET_NAME = "guard.sock"
LOCK_NAME = "guard.lock"
"""Held by the guard, with flock(2), for as long as it lives."""

Frame = dict[str, object]


class BadFrame(ValueError):
    """A message that is not what this protocol allows."""


def taken(receive: Callable[[], T]) -> T:
    """Return what *receive* takes from a socket of ours, the peer's last words included.

    Of a peer that has closed with messages unread Linux tells once ``ECONNRESET``, ahead of all that the
    peer had sent before (net/unix/af_unix.c, unix_release_sock). That is the end only when nothing is left.
    """
    try:
        return receive()
    except ConnectionResetError:
        return receive()


def rights(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors in *ancillary*, as recvmsg() returns it; they are the caller's to close."""
    found: list[int] = []
    for level, kind, raw in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found += struct.unpack(f"{len(raw) // 4}i", raw[: len(raw) // 4 * 4])
    return found


def close_all(fds: list[int]) -> None:
    """Close these descriptors and forget them."""
    while fds:
        with contextlib.suppress(OSError):  # a disk that is full, or gone: closed all the same
            os.close(fds.pop())


def encode(frame: Frame) -> bytes:
    """Return *frame* as one message.

    Raises:
        BadFrame: It is too large, or nested too deeply.
    """
    try:
        data = json.dumps(frame, separators=(",", ":")).encode()
    except RecursionError as error:
        raise BadFrame("nested too deeply") from error
    if len(data) > FRAME_MAX:
        raise BadFrame(f"message of {len(data)} bytes, at most {FRAME_MAX} allowed")
    return data


def decode(data: bytes) -> Frame:
    """Return the object in *data*.

    Raises:
        BadFrame: It is not one JSON object.
    """
    try:
        frame = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadFrame("not JSON") from error
    if type(frame) is not dict:
        raise BadFrame("not a JSON object")
    return frame


def text(frame: Frame, key: str) -> str:
    """Return the string at *key*; raise BadFrame for anything else."""
    value = frame.get(key)
    if type(value) is not str or "\0" in value:
        raise BadFrame(f"{key}: not a string")
    return value


def whole(frame: Frame, key: str, low: int = 0, high: int = 1 << 53) -> int:
    """Return the integer within *low* and *high* at *key*; raise BadFrame for anything else."""
    value = frame.get(key)
    if type(value) is not int or not low <= value <= high:
        raise BadFrame(f"{key}: not an integer within {low}..{high}")
    return value


def texts(frame: Frame, key: str) -> list[str]:
    """Return the non-empty list of strings at *key*; raise BadFrame for anything else."""
    value = frame.get(key)
    if type(value) is not list or not value:
        raise BadFrame(f"{key}: not a list of strings")
    for item in value:
        if type(item) is not str or "\0" in item:
            raise BadFrame(f"{key}: not a list of strings")
    return value


def environment(frame: Frame, key: str) -> dict[str, str]:
    """Return the string-to-string object at *key*; raise BadFrame for anything else."""
    value = frame.get(key)
    if type(value) is not dict:
        raise BadFrame(f"{key}: not an object")
    for name, item in value.items():
        if type(item) is not str or "\0" in item or "\0" in name or "=" in name or not name:
            raise BadFrame(f"{key}: not an environment")
    return value


def note(frame: Frame) -> object:
    """Return the note; raise BadFrame when it is too large or nested too deeply."""
    value = frame.get("note")
    if len(encode({"note": value})) > NOTE_MAX + len('{"note":}'):
        raise BadFrame(f"note: more than {NOTE_MAX} bytes")
    return value


def seqpacket() -> socket.socket:
    """Return a new socket of the kind used here."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def address(run_dir_fd: int) -> str:
    """Return the socket's address: by descriptor, for an address may have only 107 bytes."""
    return f"/proc/self/fd/{run_dir_fd}/{SOCKET_NAME}"


def open_run_dir(run_dir: str) -> int:
    """Return a descriptor that stands for *run_dir*."""
    return os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def peer(sock: socket.socket) -> tuple[int, int]:
    """Return pid and uid of the other end, as the kernel noted them at connect or listen."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _gid = struct.unpack("3i", raw)
    return pid, uid
