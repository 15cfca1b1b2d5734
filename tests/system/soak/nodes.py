"""The nodes under fire, behind one face: a node of the sidecar's, or one of a peer's.

A peer (``etcdctl lock``, ``consul lock``) is run as a systemd unit with ``Restart=always`` would run it: when
its main process is gone, what it leaves behind gets SIGTERM and, 300 ms later, SIGKILL; then it is started
again. So a peer is judged by what it does as a supervisor, not by an orphan that nobody cleans up.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sidecar.demo.cluster import DemoNode
from tests.harness.cells import Cell, MemoryGroup
from tests.harness.process import wait_until

PARTS = ("sidecar", "guard", "keeper", "server")
UNIT_STOP_S = 0.3
WORN_WITHIN_S = 5.0


@dataclass
class Place:
    """A node, where it lives, and what it was last heard to be."""

    node: "SidecarNode | PeerNode"
    cell: Cell
    memory: MemoryGroup | None
    clock: Path | None = None  # the file that moves its wall clock, where it has one

    @property
    def name(self) -> str:
        return self.node.name

    def start(self) -> None:
        """Start the node in its place."""
        self.node.start()
        if self.memory is not None and self.node.process is not None:
            with contextlib.suppress(OSError):  # ended at once
                self.memory.add(self.node.process.pid)


@dataclass
class SidecarNode(DemoNode):
    """A node of the sidecar's, with its phase as the log tells it (a hint; the witness judges)."""

    _library: Path | None = None  # what moves its wall clock
    _phase: str = "none"
    _read_to: int = 0

    def wear(self, library: Path, clock: Path) -> None:
        """Give each sidecar started from now on the wall clock of the file *clock* (wallclock.c)."""
        self._library = library
        link = str(self.folder / "wallclock.so")
        self.environment = {**self.environment, "LD_PRELOAD": link, "WALLCLOCK": str(clock)}

    def start(self, *options: str) -> None:
        """Start the sidecar; the library is there only until it has it, so that guard and server do not."""
        self.events()
        self._phase = "none"  # what the one before said is over
        link = self.folder / "wallclock.so"
        if self._library is not None:
            link.unlink(missing_ok=True)
            link.symlink_to(self._library)
        super().start(*options)
        if self._library is not None:
            with contextlib.suppress(TimeoutError):  # it has ended at once
                wait_until(self._wears, "the sidecar with its clock", WORN_WITHIN_S)
            link.unlink()

    def _wears(self) -> bool:
        assert self.process is not None
        process = Path(f"/proc/{self.process.pid}")
        with contextlib.suppress(OSError):
            python = "python" in (process / "exe").readlink().name  # not nsenter any more
            return python and "wallclock" in (process / "maps").read_text()
        return self.process.poll() is not None

    def ended(self) -> bool:
        """Tell whether the sidecar has to be started again."""
        return self.process is None or self.process.poll() is not None

    def terminate_main(self) -> None:
        """Ask the sidecar to stop in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def thaw_all(self) -> None:
        """Let whatever is stopped go on."""
        if self.process is not None:
            self.thaw()

    def events(self) -> list[dict[str, object]]:
        """Return the events logged since the last call, the phase being noted."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(self._read_to)
            data = log.read()
        whole = data.rfind(b"\n") + 1
        self._read_to += whole
        found = []
        for line in data[:whole].splitlines():
            with contextlib.suppress(ValueError):  # a line of the server's, or a message of ld.so's
                event = json.loads(line)
                if isinstance(event, dict):
                    self._note(event)
                    found.append(event)
        return found

    def _note(self, event: dict[str, object]) -> None:
        if event.get("event") == "role_changed":
            self._phase = str(event["after"])
        elif event.get("event") == "started":
            self._phase = str(event["phase"])

    def stopping(self) -> bool:
        """Tell whether it is stopping its active server."""
        return self.phase() == "stopping"

    def phase(self) -> str:
        """Return the phase the node was last heard to be in."""
        self.events()
        return self._phase


@dataclass
class PeerNode:
    """A node of a peer's: the program that holds the lock, and the command it runs under it."""

    name: str
    folder: Path
    command: Sequence[str]
    environment: dict[str, str]
    prefix: Sequence[str] = ()
    process: "subprocess.Popen[bytes] | None" = None
    _left: list[psutil.Process] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The stand-in's home."""
        return self.folder / "home"

    @property
    def log(self) -> Path:
        """What the program said."""
        return self.folder / "log"

    def start(self) -> None:
        """Start the program; what its last run has left is ended first."""
        self._end(self._left)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def part(self, name: str) -> list[psutil.Process]:
        """Return the program as ``sidecar``, its command as ``server``; it has no guard and no keeper."""
        if name == "sidecar":
            alive = self.process is not None and self.process.poll() is None
            return [psutil.Process(self.process.pid)] if alive and self.process is not None else []
        return self._children() if name == "server" else []

    def _children(self) -> list[psutil.Process]:
        assert self.process is not None
        if self.process.poll() is None:
            with contextlib.suppress(psutil.Error):
                self._left = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in self._left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def ended(self) -> bool:
        """Tell whether the program has ended. Meanwhile, note what belongs to it, as a unit's cgroup does."""
        self._children()
        return self.process is None or self.process.poll() is not None

    def phase(self) -> str:
        """Return what can be told from outside."""
        return "starting" if self.part("server") else "standing"

    def stopping(self) -> bool:
        """Tell whether it has heard that it is to end, and its command is still there."""
        return bool(self.part("server"))

    def terminate_main(self) -> None:
        """Ask the program to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def thaw_all(self) -> None:
        """Let whatever is stopped go on."""
        for process in (*self.part("sidecar"), *self.part("server")):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

    def clean_up(self) -> None:
        """Leave no process behind."""
        left = [*self.part("sidecar"), *self.part("server")]
        self._end(left)
        if self.process is not None:
            self.process.wait()

    @staticmethod
    def _end(left: list[psutil.Process]) -> None:
        for number, within_s in ((signal.SIGTERM, UNIT_STOP_S), (signal.SIGKILL, 5.0)):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGCONT if number == signal.SIGKILL else number)
                    process.send_signal(number)
            _, left = psutil.wait_procs(left, timeout=within_s)


def pause(seconds: float) -> None:
    """Let time pass: a fault has to last."""
    threading.Event().wait(seconds)
