"""Guards for tests: a site (run directory, user, enforcement), sidecars on it, fault verbs.

Death is judged by pidfds opened while the processes lived and by what they wrote to the witness
file, never by /proc or by what the code under test says.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.clock import BootClock
from sidecar.guard import proof, record, tree, wire
from tests.harness.process import unavailable, wait_until

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("guard_server.py")
LIVES_MS, MARGIN_MS = 5_000, 3_000
"""Deadline of servers that are to die at it, and how long before it they are killed: Python starts twice on
a busy machine before that, and whoever has to kill, die and tell is not scheduled at once."""
LEASE: dict[str, Any] = {"lives_ms": LIVES_MS, "kill_margin_ms": MARGIN_MS}
DRIVER = Path(__file__).with_name("guard_driver.py")
NOBODY = 65534
WITHIN_S = 30.0


def now_ms() -> int:
    return BootClock().now()


def interpreter() -> str:
    """Return a Python that every user may run: ours may lie in root's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with suppress(OSError, subprocess.CalledProcessError):
            user = NOBODY if os.geteuid() == 0 else None
            subprocess.run(check, check=True, user=user, cwd="/")
            return python
    raise AssertionError("no Python for other users")


@dataclass
class Tree:
    """The processes of a run, by pidfds opened while they lived."""

    pidfds: dict[int, int]

    def dead(self, within_ms: int = 0) -> bool:
        """Tell whether all are dead, after waiting for it at most *within_ms*."""
        until = now_ms() + within_ms
        return all(proof.readable(fd, max(0, until - now_ms())) for fd in self.pidfds.values())

    def alive(self) -> list[int]:
        return [pid for pid, fd in self.pidfds.items() if not proof.readable(fd, 0)]

    def send(self, number: int) -> None:
        for fd in self.pidfds.values():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)

    def close(self) -> None:
        for fd in self.pidfds.values():
            os.close(fd)


class Sidecar:
    """A driver process and the events that it told."""

    def __init__(self, site: "Site", enforcement: str, idle_exit_ms: int) -> None:
        self.site = site
        command = [*site.before, site.python, str(DRIVER), str(site.run_dir), enforcement, str(idle_exit_ms)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=site.folder,
            user=site.uid,
            group=site.uid,
            extra_groups=_groups(site.uid),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{site.tree}:{ROOT}"},
        )
        self.events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    def wait(self, *names: str, **fields: object) -> dict[str, Any]:
        """Return the first event of these names with these fields, once it is there."""

        def found() -> dict[str, Any] | None:
            wanted = [event for event in self.events if event["event"] in names]
            matching = (e for e in wanted if all(e.get(k) == v for k, v in fields.items()))
            return next(matching, None)

        with self._news:
            event = self._news.wait_for(found, WITHIN_S)
        assert event, f"no {names} {fields} in {self.events}"
        return event

    def count(self, *names: str) -> int:
        return sum(event["event"] in names for event in self.events)

    def order(self, do: str, **fields: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()

    def start(
        self, *verbs: str, run: str = "r1", lives_ms: int = 60_000, argv: object = None, **more: object
    ) -> int:
        """Order a server; return its deadline."""
        deadline = now_ms() + lives_ms
        command = [self.site.python, "-I", "-S", str(SERVER), str(self.site.witness), *verbs]
        order: dict[str, object] = {
            "run": run,
            "argv": command if argv is None else argv,
            "cwd": "/",
            "env": {"PATH": "/usr/bin:/bin"},
            "role": "active",
            "epoch": 7,
            "deadline_at": deadline,
            "kill_margin_ms": 200,
        }
        self.order("start", **order | more)
        return deadline

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def leave(self) -> None:
        """End without a word to the guard."""
        assert self.process.stdin
        self.thaw()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._thread.join(5)
        if self.process.stdout:
            self.process.stdout.close()


def _groups(uid: int | None) -> list[int] | None:
    """Return the supplementary groups of a sidecar: root's as of a login, which tests may run without."""
    if uid is not None:
        return []
    return [0] if os.geteuid() == 0 else None


@dataclass
class Site:
    """One run directory and who works there."""

    folder: Path
    enforcement: str
    uid: int | None
    python: str
    before: tuple[str, ...] = ()
    tree: Path = ROOT  # whose `sidecar` the next sidecar and its guard are
    sidecars: list[Sidecar] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def witness(self) -> Path:
        return self.folder / "witness"

    def sidecar(self, enforcement: str | None = None, idle_exit_ms: int = 60_000) -> Sidecar:
        """Attach a sidecar, with a guard if there is none."""
        sidecar = Sidecar(self, enforcement or self.enforcement, idle_exit_ms)
        self.sidecars.append(sidecar)
        sidecar.wait("attached", "failed")
        return sidecar

    def lives(self) -> list[tuple[str, int]]:
        """Return who wrote to the witness file, and when."""
        if not self.witness.exists():
            return []
        words = [line.split(" ", 1) for line in self.witness.read_text().splitlines()]
        return [(name, int(at.rsplit(" ")[-1])) for name, at in words]

    def said(self, name: str) -> bool:
        return any(word == name for word, _ in self.lives())

    def last_life(self) -> int:
        return max((at for _, at in self.lives()), default=0)

    def beating(self, *names: str) -> None:
        """Wait until all of these have written."""
        wait_until(lambda: all(map(self.said, names)), f"{names} in the witness", WITHIN_S)

    def connect(self) -> socket.socket:
        """Return a raw connection to the guard."""
        sock = wire.seqpacket()
        sock.settimeout(5)
        fd = wire.open_run_dir(str(self.run_dir))
        try:
            sock.connect(wire.address(fd))
        finally:
            os.close(fd)
        return sock

    def guard_pid(self) -> int:
        with self.connect() as sock:
            return wire.peer(sock)[0]

    def deadline(self) -> int | None:
        """Return until when the server may live, by the record; None: there is none."""
        found = record.read(str(self.run_dir))
        return None if found is None else int(str(found["deadline_ms"]))

    def processes(self, *, with_guard: bool = False, least: int = 1) -> Tree:
        """Open pidfds of all below the guard, once they are at least so many."""
        guard = self.guard_pid()
        wait_until(lambda: len(tree.descendants(guard)) >= least, "the tree", WITHIN_S)
        pidfds = {}
        for pid in tree.descendants(guard) + ([guard] if with_guard else []):
            with suppress(ProcessLookupError):  # it has ended since
                pidfds[pid] = os.pidfd_open(pid)
        found = Tree(pidfds)
        self.trees.append(found)
        return found

    def one(self, pid: int) -> Tree:
        """Open the pidfd of one process."""
        found = Tree({pid: os.pidfd_open(pid)})
        self.trees.append(found)
        return found

    def clean(self) -> None:
        """End everything; fails when something of ours is left alive."""
        with suppress(OSError, AssertionError):
            guard = self.one(self.guard_pid())
            guard.send(signal.SIGKILL)
            guard.dead(5000)
        for sidecar in self.sidecars:
            sidecar.leave()
        for each in self.trees:
            each.send(signal.SIGCONT)
            left = [] if each.dead(10_000) else each.alive()
            each.send(signal.SIGKILL)
            each.close()
            assert not left, f"left alive: {left}"
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def site(enforcement: str, *, unprivileged: bool) -> Iterator[Site]:
    """Give a new site; whatever runs there ends with it."""
    root = os.geteuid() == 0
    if not unprivileged and not root:
        unavailable("needs root")
    folder = Path(tempfile.mkdtemp(prefix="guard-"))
    folder.chmod(0o755)
    uid = NOBODY if unprivileged and root else None
    if uid is not None:
        os.chown(folder, uid, uid)
    python = interpreter()
    one = Site(folder, enforcement, uid, python)
    try:
        yield one
    finally:
        one.clean()


def wait_readable(fd: int, within_ms: int) -> bool:
    return bool(select.select([fd], [], [], within_ms / 1000)[0])
