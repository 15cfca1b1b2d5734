"""Tells systemd how this node is: one datagram to ``$NOTIFY_SOCKET``, in the words of sd_notify(3).

Rules: only the deciding thread speaks, and only after a turn, so that a loop that stands still is ended by
the watchdog. Nothing waits here: what the socket does not take is said again soon. The variables leave the
environment, which guard, server, probes and hooks inherit: none of them may speak for this process.

Our own, because no library does that: systemd-python needs a compiler and libsystemd's headers, sdnotify is
of 2017, systemd-watchdog (1.0.1) counts on the wall clock; those two wait for the socket, know no reload and
leave the variables where they are.
Source: sd_notify(3), sd_watchdog_enabled(3), systemd 252.
"""

import os
import socket
import time
from collections.abc import MutableMapping

from sidecar.clock import Clock, monotonic_us, wall_ms
from sidecar.core.model import NodeRecord
from sidecar.core.units import Instant

EVERY_MS = 5_000
"""Between two refreshings of the status where no watchdog asks for more."""

AGAIN_MS = 250
"""Until what the socket did not take is said again."""

STOPPING_US = 15_000_000
"""How much longer systemd shall wait for a stop under way, asked for anew all the time: a loop that stands
still meanwhile is killed after this."""


class Manager:
    """What started this process, if that is systemd; otherwise nothing happens here."""

    def __init__(self, environ: MutableMapping[str, str], clock: Clock) -> None:
        """Take the variables out of *environ*."""
        address = environ.pop("NOTIFY_SOCKET", "")
        period_us, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", str(os.getpid()))
        known = period_us.isascii() and period_us.isdigit() and int(period_us) > 0
        watched = known and pid == str(os.getpid())
        self._every_ms = max(1, int(period_us) // 2_000) if watched else EVERY_MS
        self._clock = clock
        self._due_at = Instant(0)
        self._told: object = None
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def turned(self, record: NodeRecord, *, stopping: bool) -> Instant:
        """Say what is due after a turn of the loop; return when the loop has to turn again.

        All of it is said every time: what got lost is made good, and systemd takes a repetition as none.
        """
        now = self._clock.now()
        told = (record.role, record.state, record.message, record.epoch, stopping)
        if self._socket is None:
            return Instant(now + EVERY_MS)
        if now < self._due_at and told == self._told:
            return self._due_at
        words = [f"STATUS={status(record)}", "WATCHDOG=1"]
        if stopping:
            words += ["STOPPING=1", f"EXTEND_TIMEOUT_USEC={STOPPING_US}"]
        else:
            words += ["READY=1"]
        if not self._say(words):
            return Instant(now + AGAIN_MS)
        self._told, self._due_at = told, Instant(now + self._every_ms)
        return self._due_at

    def reloading(self) -> None:
        """Say that the configuration is read again; the turn after that says that it has been."""
        self._say(["RELOADING=1", f"MONOTONIC_USEC={monotonic_us()}"])
        self._told = None

    def _say(self, words: list[str]) -> bool:
        if self._socket is None:
            return True
        try:
            self._socket.sendto("\n".join(words).encode(), self._address)
        except OSError:  # full for the moment, or systemd is being replaced
            return False
        return True


def status(record: NodeRecord) -> str:
    """Return the line that ``systemctl status`` shows; a lease is told with the time it was looked at."""
    epoch = f", epoch {record.epoch}" if record.epoch else ""
    text = f"{record.role}{epoch}: {' '.join(record.message.split())}"
    if record.lease_left_ms is None:
        return text
    at = time.strftime("%H:%M:%S", time.localtime(wall_ms() / 1000))
    return f"{text}; lease {record.lease_left_ms / 1000:.1f} s left at {at}"
