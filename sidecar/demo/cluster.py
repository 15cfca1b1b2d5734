"""Real sidecars with stand-in servers on one machine, with fault verbs. Shared by demo and tests.

Every node is one ``sidecar run`` process with a configuration, a run and a state folder of its own. What
a node's processes are is found by the guard's hello and by walking the trees; processes are signalled by
the pid they were started or found with, never by name.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.standin import install, witness
from sidecar.standin.record import CLOSE

CLOCK = BootClock()
POLL_S = 0.02
FOUND_MS = 15_000
PORTS = range(10_000, 20_000)  # Linux hands out 32768 and up to outgoing connections
FRESH_NS = 300_000_000
"""A server whose last line is older is not serving: 15 ticks, for busy machines."""


def until(what: str, condition: Callable[[], Any], within_ms: int = FOUND_MS) -> Any:
    """Return the first true answer of *condition*.

    Raises:
        TimeoutError: There was none in time; names *what*.
    """
    deadline = Instant(CLOCK.now() + within_ms)
    pause = threading.Event()
    while CLOCK.now() < deadline:
        if answer := condition():
            return answer
        pause.wait(POLL_S)
    raise TimeoutError(f"not within {within_ms} ms: {what}")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, and that no outgoing connection gets meanwhile."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.sample(PORTS, len(PORTS)):
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free port")


@dataclass
class DemoNode:
    """One node: its files, its sidecar process, and what can be done to it."""

    name: str
    folder: Path
    settings: dict[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    ports: Sequence[int] = ()  # client, web, plain web, admin
    prefix: Sequence[str] = ()  # e.g. ``unshare --time …``
    _guard: psutil.Process | None = field(default=None, repr=False)  # as it was found last

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "sidecar.yml"

    @property
    def log(self) -> Path:
        """What the sidecar said."""
        return self.folder / "sidecar.log"

    @property
    def home(self) -> Path:
        """The stand-in's home."""
        return self.folder / "home"

    @property
    def run_dir(self) -> Path:
        """Where guard and sidecar meet."""
        return Path(str(self.settings["paths"]["run"]))

    def write_config(self) -> None:
        """Write the configuration file."""
        self.config.write_text(yaml.safe_dump(self.settings))

    def start(self, *options: str) -> None:
        """Start ``sidecar run``."""
        self.write_config()
        command = [
            *self.prefix,
            sys.executable,
            "-P",
            "-m",
            "sidecar",
            "run",
            "-c",
            str(self.config),
            *options,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def sidecar(self) -> psutil.Process:
        """Return the sidecar process."""
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def guard_pid(self) -> int | None:
        """Return the guard's pid, found by its command line that names our run directory."""
        if self._guard is not None and self._is_ours(self._guard.pid) and self._guard.is_running():
            return int(self._guard.pid)
        self._guard = None
        ours = {pid for pid in psutil.pids() if self._is_ours(pid)}
        for pid in ours:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.ppid() not in ours:  # the keeper is forked from the guard and has its command line
                    self._guard = process
                    return pid
        return None

    def _is_ours(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return str(self.run_dir).encode() in words and any(word.endswith(b"guard.py") for word in words)

    def tree(self) -> list[psutil.Process]:
        """Return guard, keeper and the whole server tree, the guard first."""
        pid = self.guard_pid()
        if pid is None:
            return []
        with contextlib.suppress(psutil.Error):
            guard = psutil.Process(pid)
            return [guard, *guard.children(recursive=True)]
        return []

    def server(self) -> list[psutil.Process]:
        """Return the server's processes, without guard and keeper."""
        return [p for p in self.tree()[1:] if not self._is_guard(p)]

    @staticmethod
    def _is_guard(process: psutil.Process) -> bool:
        try:
            return any(word.endswith("guard.py") for word in process.cmdline())
        except psutil.Error:
            return False

    def part(self, name: str) -> list[psutil.Process]:
        """Return the living processes of ``sidecar``, ``guard``, ``keeper`` or ``server``; [] for none."""
        if name == "sidecar":
            running = self.process is not None and self.process.poll() is None
            return [self.sidecar()] if running else []
        tree = self.tree()
        if name == "guard":
            return tree[:1]
        return [process for process in tree[1:] if self._is_guard(process) == (name == "keeper")]

    def signal_all(self, number: int, *, server: bool = True) -> None:
        """Signal the sidecar, and with *server* also guard, keeper and server tree."""
        assert self.process is not None
        found = self.tree() if server else []
        for pid in [self.process.pid, *(process.pid for process in found)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def crash(self) -> None:
        """Kill everything of the node at once, as a power cut would."""
        self.signal_all(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def freeze_sidecar(self) -> None:
        """Stop the sidecar alone."""
        self._freeze(server=False)

    def freeze(self) -> None:
        """Stop sidecar, guard, keeper and server."""
        self._freeze(server=True)

    def _freeze(self, *, server: bool) -> None:
        """Stop it, but not within a transaction: on the embedded store all others would wait for it.

        Raises:
            TimeoutError: It was always in the middle of one.
        """

        def stopped_outside() -> bool:
            self.signal_all(signal.SIGSTOP, server=server)
            until("the sidecar to stop", self._has_stopped)
            if not self._writes():
                return True
            self.thaw()
            return False

        until("the sidecar to stop outside of a transaction", stopped_outside)

    def _has_stopped(self) -> bool:
        """Tell whether every thread of the sidecar stands still, or it has ended."""
        assert self.process is not None
        states = []
        for thread in Path(f"/proc/{self.process.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                states.append(thread.read_text().rpartition(")")[2].split()[0])
        return set(states) <= set("TtZX")

    def _writes(self) -> bool:
        """Tell whether the sidecar holds a lock for writing in a file, as SQLite does in a transaction."""
        assert self.process is not None
        # 1: POSIX  ADVISORY  WRITE 4711 fe:01:131 120 120
        found = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        return ["POSIX", "ADVISORY", "WRITE", str(self.process.pid)] in [words[1:5] for words in found]

    def thaw(self) -> None:
        """Let what is stopped go on."""
        self.signal_all(signal.SIGCONT)

    def terminate(self, within_s: float = 20) -> int:
        """End the sidecar and with it the server, in order; return its exit status."""
        assert self.process is not None
        self.thaw()
        self.process.terminate()
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.crash()
            raise

    def clean_up(self) -> None:
        """Leave no process behind, whatever state the node is in."""
        if self.process is None:
            return
        leftover = self.tree()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in leftover:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(leftover, timeout=5)


class Cluster:
    """Several nodes on one backend, and their witness."""

    def __init__(
        self,
        folder: Path,
        backend: Mapping[str, Any],
        *,
        names: Sequence[str] = ("node-a", "node-b", "node-c"),
        cluster: str = "demo",
        ttl: str = "3s",
        settings: Mapping[str, Any] | None = None,
        standin: Mapping[str, Any] | None = None,
        node_type: type[DemoNode] = DemoNode,
    ) -> None:
        self.node_type = node_type
        self.folder = folder
        self.witness = folder / "witness"
        self.nodes = {
            name: self._make(name, cluster, backend, ttl, settings or {}, standin or {}) for name in names
        }

    def _make(
        self,
        name: str,
        cluster: str,
        backend: Mapping[str, Any],
        ttl: str,
        settings: Mapping[str, Any],
        standin: Mapping[str, Any],
    ) -> DemoNode:
        folder = self.folder / name
        folder.mkdir(parents=True)
        client, web, plain, admin = free_ports(4)
        launcher = install(
            folder / "home",
            witness=self.witness,
            client_port=client,
            web_port=web,
            plain_web_port=plain,
            admin_port=admin,
            node=name,
            max_life_ms=int(standin.get("max_life_ms", 600_000)),
            **{key: value for key, value in standin.items() if key != "max_life_ms"},
        )
        found: dict[str, Any] = {
            "cluster": cluster,
            "node": name,
            **backend,
            "lock": {"ttl": ttl},
            "paths": {"state": str(folder / "state"), "run": str(folder / "run")},
            "server": {
                "kind": "aggregate",
                "home": str(folder / "home"),
                "command": [str(launcher)],
                "start_timeout": "20s",
                "stop_timeout": "5s",
                "probes": {"ready": {"every": "50ms"}},
                "restarts": {"backoff": "100ms", "backoff_max": "3s"},
            },
        }
        return self.node_type(name, folder, _merged(found, settings), ports=(client, web, plain, admin))

    def start(self, *options: str) -> None:
        """Start every node with these options of ``sidecar run``."""
        for node in self.nodes.values():
            node.start(*options)

    def __iter__(self) -> Iterator[DemoNode]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> DemoNode:
        return self.nodes[name]

    def sidecar(self, *words: str, within_s: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run a command of the CLI with the configuration of the first node."""
        first = next(iter(self.nodes.values()))
        command = [sys.executable, "-P", "-m", "sidecar", *words, "-c", str(first.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=within_s, check=False)

    def status(self) -> dict[str, Any]:
        """Return ``status -o json``, {} where the backend does not answer."""
        done = self.sidecar("status", "-o", "json")
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def serving(self, but: str | None = None) -> str | None:
        """Return the node whose server wrote the witness's last line, if that was just now."""
        last = witness.last(self.witness)
        if last is None or last.kind == CLOSE or witness.now_ns() - last.at_ns > FRESH_NS:
            return None
        return last.node if last.node != but else None

    def records(self) -> list[witness.Record]:
        """Return the witness's lines."""
        return witness.read(self.witness)

    def await_active(self, but: str | None = None, within_ms: int = FOUND_MS) -> str:
        """Wait until some node other than *but* serves; return its name."""
        return str(until(f"an active other than {but}", lambda: self.serving(but), within_ms))

    def verdict(self) -> list[str]:
        """Return what the witness has against the cluster; [] is good."""
        return witness.verdict(self.records())

    def stop(self) -> None:
        """End every node in order, and whatever is left by force."""
        for node in self:
            if node.process is not None and node.process.poll() is None:
                node.thaw()
                node.process.terminate()
        for node in self:
            if node.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.process.wait(15)
            node.clean_up()


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in over.items():
        known = found.get(key)
        both = isinstance(known, dict) and isinstance(value, Mapping)
        found[key] = _merged(known, value) if both else value  # type: ignore[arg-type]  # checked by `both`
    return found
