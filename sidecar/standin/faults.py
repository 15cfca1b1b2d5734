"""What can go wrong with the stand-in, on demand. Standard library only: the server imports it.

From the environment variable STANDIN_FAULTS (JSON) and ``faults.json`` in the server's home, which wins and
is read again at every tick. An unknown name ends the server: a misspelt fault tests nothing.

    slow_start_ms       added to the start
    start_fails         the start ends with exit code 1
    crash_after_ms      ends without a word so long after it was up (or after the fault was set) ...
    exit_code           ... with this code (1)
    freeze              ports stay open, nothing is accepted, no tick, no signal heard
    full_gc_ms          once: 100 % CPU and nothing served for so long (at most a minute)
    deaf_to_sigterm     as if the shutdown hook hung
    slow_stop_ms        serves on for so long when told to stop
    torn_server_xml     is killed half way through saving server.xml
    self_activate       a standby makes itself the master
    deaf_to_heartbeats  a standby no longer sees the master, and after the detection time the same
    escape              when it starts to serve: leaves a daemon in its own session, deaf to SIGTERM, that
                        is as active as the server (at most a minute)
"""

import json
import os
import time

FILE = "faults.json"
ENVIRONMENT = "STANDIN_FAULTS"


class Faults:
    """The faults in force. Attributes are set by `reload` only."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = (-1, -1, -1)
        self.version = 0
        self.loaded_at = 0.0
        self._clear()
        self.reload()

    def _clear(self) -> None:
        self.slow_start_ms = self.slow_stop_ms = self.crash_after_ms = self.full_gc_ms = 0
        self.exit_code = 1
        self.start_fails = self.freeze = self.deaf_to_sigterm = self.torn_server_xml = False
        self.self_activate = self.deaf_to_heartbeats = self.escape = False

    def reload(self) -> None:
        """Read the file if it has changed.

        Raises:
            ValueError: A fault is unknown or of the wrong type.
        """
        try:
            stat = os.stat(self._path)  # noqa: PTH116
            seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except FileNotFoundError:
            seen = None
        if seen == self._seen:
            return
        self._seen = seen
        self._clear()
        self._set(json.loads(os.environ.get(ENVIRONMENT) or "{}"))
        if seen is not None:
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123
                self._set(json.load(file))
        self.version += 1
        self.loaded_at = time.monotonic()

    def _set(self, values: dict[str, object]) -> None:
        for name, value in values.items():
            check(name, value)
            setattr(self, name, value)


_SWITCHES = frozenset(
    (
        "start_fails",
        "freeze",
        "deaf_to_sigterm",
        "torn_server_xml",
        "self_activate",
        "deaf_to_heartbeats",
        "escape",
    )
)
_NUMBERS = frozenset(("slow_start_ms", "slow_stop_ms", "crash_after_ms", "full_gc_ms", "exit_code"))


def check(name: str, value: object) -> None:
    """Raise ValueError unless *name* is a fault that can have *value*."""
    if not (name in _SWITCHES and type(value) is bool) and not (
        name in _NUMBERS and type(value) is int and value >= 0
    ):
        raise ValueError(f"no such fault: {name}={value!r}")
