"""Contenders for a lock: the sidecar and its peers, two nodes of each, with fault verbs and one owner.

Every node has a folder of its own, which is also its TMPDIR: so the guard of ``sidecar exec`` is found by its
command line, which names the folder. Pids are host pids: the witness tells those inside a PID namespace.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sidecar.standin import worker_command
from sidecar.standin.record import LINE_BYTES, OPEN, now_ns
from tests.harness.tools import need

SIDECAR = str(Path(sys.executable).with_name("sidecar"))
TICK_MS = 5
POLL_S = 0.03
FIRST_WITHIN_S = 60.0
SETTLE_S = 1.0
GONE_WITHIN_S = 10.0


class Unmeasured(Exception):
    """A measurement could not be made; says why."""


@dataclass(frozen=True)
class Opened:
    """A server began to serve."""

    at_ns: int
    node: str


class Tail:
    """Reads the ``open`` lines of a growing witness, each once."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.opens: list[Opened] = []

    def read(self) -> list[Opened]:
        """Return all of them so far."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
            whole = len(data) // LINE_BYTES * LINE_BYTES
            for at in range(0, whole, LINE_BYTES):
                at_ns, kind, _epoch, _run, _pid, node = data[at : at + LINE_BYTES].decode("ascii").split()
                if kind == OPEN:
                    self.opens.append(Opened(int(at_ns), node))
            self._offset += whole
        return self.opens


@dataclass
class Node:
    """One contender: a process, and whatever it has started."""

    name: str
    folder: Path
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it, if it does not run."""
        if self.process is not None and self.process.poll() is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.folder), **self.environment},
                start_new_session=True,
                cwd=self.folder,
            )

    def main(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def guards(self) -> list[psutil.Process]:
        """Return guard and keeper, which has its command line; none for a peer."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if any(w.endswith("guard.py") for w in words) and any(self._own(w) for w in words):
                found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def _own(self, word: str) -> bool:
        return word.startswith(f"{self.folder}/")

    def processes(self) -> list[psutil.Process]:
        """Return all of the node's processes, each once."""
        roots = self.guards()
        if self.process is not None and self.process.poll() is None:
            roots.insert(0, self.main())
        found = {process.pid: process for process in roots}
        for root in roots:
            with contextlib.suppress(psutil.Error):
                found |= {child.pid: child for child in root.children(recursive=True)}
        return list(found.values())

    def worker(self) -> psutil.Process:
        """Return the started command.

        Raises:
            Unmeasured: There is none.
        """
        assert self.process is not None
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                # the contender itself has the command among its arguments
                if process.pid != self.process.pid and "worker" in process.cmdline():
                    return process
        raise Unmeasured(f"{self.name}: its command does not run; see {self.folder}/log")

    def crash(self) -> int:
        """Kill everything at once, as a power cut would; return when."""
        pids = [process.pid for process in self.processes()]
        at_ns = now_ns()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reap()
        return at_ns

    def kill_worker(self) -> int:
        """Kill the started command alone; return when."""
        pid = self.worker().pid
        at_ns = now_ns()
        os.kill(pid, signal.SIGKILL)
        return at_ns

    def terminate(self) -> int:
        """Ask it to end; return when."""
        at_ns = now_ns()
        self.main().terminate()
        return at_ns

    def await_end(self) -> None:
        """Wait until it has ended by itself, and make sure of it.

        Raises:
            Unmeasured: It has not.
        """
        assert self.process is not None
        try:
            self.process.wait(GONE_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.clean_up()
            raise Unmeasured(f"{self.name}: does not end; see {self.folder}/log") from None
        self.clean_up()

    def clean_up(self) -> None:
        """Leave no process behind, whatever state the node is in."""
        until = time.monotonic() + GONE_WITHIN_S
        while (found := self.processes()) and time.monotonic() < until:
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._reap()
            psutil.wait_procs(found, timeout=1)

    def _reap(self) -> None:
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GONE_WITHIN_S)


class Pair:
    """Two nodes that compete for one lock, and their witness."""

    def __init__(self, folder: Path, subject: "Subject") -> None:
        self.subject = subject
        folder.mkdir(parents=True)
        self.witness = folder / "witness"
        self.tail = Tail(self.witness)
        self.nodes = {
            name: Node(name, folder / name, *subject.program(f"{folder.name}", name, _worker(self.witness)))
            for name in ("node-a", "node-b")
        }

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            node.clean_up()

    def start(self) -> None:
        """Start both, and return when one of them serves and the other one waits."""
        begun = now_ns()
        missing = [
            node for node in self.nodes.values() if node.process is None or node.process.poll() is not None
        ]
        idle = len(missing) == len(self.nodes)
        for node in missing:
            node.start()
        if idle:
            self.await_open(begun, FIRST_WITHIN_S)
        if missing:
            _until(
                "both nodes are up", lambda: all(map(self.subject.up, self.nodes.values())), FIRST_WITHIN_S
            )
        time.sleep(random.uniform(SETTLE_S, 2 * SETTLE_S))  # else in step with what is done every second

    def active(self) -> Node:
        """Return the node whose command was started last."""
        return self.nodes[self.tail.read()[-1].node]

    def await_open(self, since_ns: int, within_s: float, but: str = "") -> Opened:
        """Return the first start after *since_ns*, which must not be that of *but*.

        Raises:
            Unmeasured: There was none, or it was *but*'s.
        """

        def first() -> Opened | None:
            return next((opened for opened in self.tail.read() if opened.at_ns > since_ns), None)

        opened = _until(f"{self.subject.name}: the other node takes over", first, within_s)
        assert isinstance(opened, Opened)
        if opened.node == but:
            raise Unmeasured(f"{self.subject.name}: {but} itself took the lock again")
        return opened

    def takeover_ms(self, fault: Callable[[Node], int], within_s: float) -> float:
        """Do *fault* to the active; return how long after it the other node's command ran."""
        active = self.active()
        at_ns = fault(active)
        return (self.await_open(at_ns, within_s, but=active.name).at_ns - at_ns) / 1e6


def await_first(tail: Tail) -> Opened:
    """Return the first start that *tail* sees.

    Raises:
        Unmeasured: There was none.
    """
    opened = _until("a first line of the command", lambda: next(iter(tail.read()), None), GONE_WITHIN_S)
    assert isinstance(opened, Opened)
    return opened


def _worker(witness: Path) -> list[str]:
    return worker_command(witness, "--tick-ms", str(TICK_MS))


def _until(what: str, condition: Callable[[], object], within_s: float) -> object:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if answer := condition():
            return answer
        time.sleep(POLL_S)
    raise Unmeasured(f"not within {within_s:.0f} s: {what}")


Program = tuple[list[str], dict[str, str]]


@dataclass(frozen=True)
class Subject:
    """What is measured: how it is started for one lock, node and command."""

    name: str
    store: str
    program: Callable[[str, str, list[str]], Program]
    is_sidecar: bool = False

    def up(self, node: Node) -> bool:
        """Tell whether a node competes, as far as can be seen from outside."""
        return bool(node.guards()) if self.is_sidecar else node.main().is_running()


def sidecar_exec(url: str, ttl_s: int, *options: str, name: str = "sidecar exec", **settings: str) -> Subject:
    """Return ``sidecar exec`` on the store *url* (``etcd://…``); *settings* are environment."""

    def program(lock: str, node: str, command: list[str]) -> Program:
        words = [SIDECAR, "exec", "--backend", url, "--cluster", lock, "--node", node]
        return [*words, "--ttl", f"{ttl_s}s", *options, "--", *command], settings

    return Subject(name, url.partition(":")[0], program, is_sidecar=True)


def etcdctl_lock(url: str, ttl_s: int) -> Subject:
    """Return ``etcdctl lock`` on the store *url* (``http://…``)."""

    def program(lock: str, node: str, command: list[str]) -> Program:
        words = [str(need("etcdctl-3.4")), "--endpoints", url, "lock", "--ttl", str(ttl_s), lock, "--"]
        return [*words, *command], {"ETCDCTL_API": "3", "SIDECAR_NODE": node, "SIDECAR_EPOCH": "0"}

    return Subject("etcdctl lock", "etcd", program)


def consul_lock(url: str) -> Subject:
    """Return ``consul lock``, which lets no TTL be chosen."""

    def program(lock: str, node: str, command: list[str]) -> Program:
        words = [str(need("consul")), "lock", "-http-addr", url, "-shell=false", f"bench/{lock}"]
        return [*words, *command], {"SIDECAR_NODE": node, "SIDECAR_EPOCH": "0"}

    return Subject("consul lock", "consul", program)


@contextlib.contextmanager
def pairs(folder: Path, subjects: Sequence[Subject], each: int = 1) -> Iterator[list[Pair]]:
    """Start *each* pairs of every subject, and leave nothing of them behind."""
    with contextlib.ExitStack() as stack:
        found = []
        for subject in subjects:
            for number in range(each):
                name = f"{subject.name}-{subject.store}-{number}".translate(str.maketrans(" ,=/", "----"))
                pair = stack.enter_context(Pair(folder / name, subject))
                pair.start()
                found.append(pair)
        yield found
