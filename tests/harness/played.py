"""What a test needs to play the guard itself: its socket, and the server it speaks of."""

import os
import socket
from pathlib import Path

from sidecar.guard import wire

RUN = {
    "run": "r1",
    "role": "active",
    "epoch": 7,
    "deadline_ms": 1 << 50,
    "kill_margin_ms": 200,
    "started_at_ms": 5,
    "keeper_pid": 11,
    "server_pid": 12,
    "note": None,
    "state": "running",
}
"""A server that runs, as the guard tells of it."""


def listener(run_dir: Path) -> socket.socket:
    """Return the listening socket of the guard of *run_dir*."""
    found = wire.seqpacket()
    fd = wire.open_run_dir(str(run_dir))
    found.bind(wire.address(fd))
    os.close(fd)
    found.listen(4)
    return found
