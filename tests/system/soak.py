"""``./scripts/soak``: random faults at a real cluster, judged by the witness.

Method: rounds of up to five random faults at random nodes and at the store, overlapping in time, then
everything is healed and somebody has to be active within `ALIVE_WITHIN_MS`. The seed decides which faults
and when; processes and kernel decide the rest, so a seed replays the plan, not the run. Not covered:
networks between hosts.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from sidecar.demo.cluster import CLOCK, Cluster, DemoNode
from sidecar.standin import clear_faults, set_faults, witness
from tests.harness.stores import Consul, Etcd, Store
from tests.system.clusters import section_of

ALIVE_WITHIN_MS = 45_000
"""After the last fault is healed: a lease, a cool-down of 3 s, a start, and what two busy cores take."""
TTL_MS = 2_000
PAUSE = threading.Event()


class Soak:
    """One cluster under fire."""

    def __init__(self, cluster: Cluster, store: Store | None, seed: int) -> None:
        self.cluster = cluster
        self.store = store
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.stuck: list[str] = []
        self.slowest_ms = 0
        self._said = cluster.folder / "commands.log"
        self._frozen: list[DemoNode] = []
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def round(self) -> None:
        """Throw a few faults, heal, and wait for an active."""
        for _ in range(self.random.randint(1, 5)):
            fault = self.random.choice(self._choices())
            name = fault.__name__.lstrip("_")
            self.faults[name] += 1
            fault()
            PAUSE.wait(self.random.choice((0, 0.05, 0.3, 1.0, 2.5)))
        self.heal()
        healed_at = CLOCK.now()
        try:
            self.cluster.await_active(within_ms=ALIVE_WITHIN_MS)
        except TimeoutError:
            self.stuck.append(f"nobody active {ALIVE_WITHIN_MS} ms after healing: {self.cluster.status()}")
        self.slowest_ms = max(self.slowest_ms, CLOCK.now() - healed_at)
        self._await_commands()

    def heal(self) -> None:
        """Undo every fault that is still in force."""
        if self.store is not None:
            self.store.heal()
        for node in self.cluster:
            node.thaw()
            clear_faults(node.home)
            if node.process is not None and node.process.poll() is not None:
                node.start()
        for name, command in self._running:
            if name == "pause":  # one that comes after the resume would stay in force
                self._end(command)
        self._end(self.command("resume"))

    def _await_commands(self) -> None:
        """Every command that was started has to end by itself."""
        for name, command in self._running:
            self._end(command)
            self.commands[f"{name} {command.returncode}"] += 1
        self._running = []

    def _end(self, command: "subprocess.Popen[bytes]") -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(30)
        if command.poll() is None:
            command.send_signal(signal.SIGABRT)  # says where it is (PYTHONFAULTHANDLER)
            command.wait()
            where = self._said.read_text(errors="replace").partition("Fatal Python error")[2]
            self.stuck.append(f"command does not end: {command.args!r}: {where}")

    def command(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command of the CLI; its end is awaited at the healing."""
        config = str(self.random.choice(list(self.cluster)).config)
        with self._said.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sidecar", *words, "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )
        self._running.append((words[0], process))
        return process

    def _choices(self) -> list[Callable[[], None]]:
        node = [
            self._crash_node,
            self._freeze_sidecar,
            self._freeze_node,
            self._kill_sidecar_and_restart,
            self._kill_guard,
            self._kill_keeper,
            self._kill_server,
            self._freeze_guard,
            self._deaf_server,
            self._failing_start,
            self._stop_and_start,
            self._switchover,
            self._killed_switchover,
            self._failover,
            self._pause,
        ]
        store = [self._freeze_store, self._kill_store, self._restart_store] if self.store is not None else []
        return node + store

    def _node(self) -> DemoNode:
        """Return a node, the active one more often than not."""
        serving = self.cluster.serving()
        if serving is not None and self.random.random() < 0.6:
            return self.cluster[serving]
        return self.random.choice(list(self.cluster))

    def _crash_node(self) -> None:
        node = self._node()
        node.crash()
        if self.random.random() < 0.5:
            node.start()

    def _freeze_sidecar(self) -> None:
        self._node().freeze_sidecar()

    def _freeze_node(self) -> None:
        self._node().freeze()

    def _freeze_guard(self) -> None:
        tree = self._node().tree()
        if tree:
            _signal(tree[0], signal.SIGSTOP)

    def _kill_sidecar_and_restart(self) -> None:
        node = self._node()
        assert node.process is not None
        node.process.kill()
        node.process.wait()
        node.start()

    def _kill_guard(self) -> None:
        tree = self._node().tree()
        if tree:
            _signal(tree[0], signal.SIGKILL)

    def _kill_keeper(self) -> None:
        tree = self._node().tree()
        if len(tree) > 1:
            _signal(tree[1], signal.SIGKILL)

    def _kill_server(self) -> None:
        for process in self._node().server():
            _signal(process, signal.SIGKILL)

    def _deaf_server(self) -> None:
        set_faults(self._node().home, deaf_to_sigterm=True)

    def _failing_start(self) -> None:
        set_faults(self._node().home, start_fails=True)

    def _stop_and_start(self) -> None:
        node = self._node()
        assert node.process is not None
        node.thaw()
        node.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.process.wait(15)
        if node.process.poll() is not None:
            node.start()

    def _switchover(self) -> None:
        self.command("switchover", "--yes", "--timeout", "20s")

    def _killed_switchover(self) -> None:
        process = self.command("switchover", "--yes", "--timeout", "20s")
        PAUSE.wait(self.random.uniform(0.1, 0.8))
        process.kill()

    def _failover(self) -> None:
        self.command("failover", "--yes", "--timeout", "20s")

    def _pause(self) -> None:
        self.command("pause")

    def _freeze_store(self) -> None:
        assert self.store is not None
        self.store.freeze()
        PAUSE.wait(self.random.uniform(0.2, 2 * TTL_MS / 1000))
        self.store.thaw()

    def _kill_store(self) -> None:
        assert self.store is not None
        self.store.kill()
        PAUSE.wait(self.random.uniform(0, TTL_MS / 1000))
        self.store.heal()

    def _restart_store(self) -> None:
        assert self.store is not None
        self.store.restart()


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


@contextlib.contextmanager
def store_of(name: str, folder: Path) -> Iterator[tuple[dict[str, Any], Store | None]]:
    """Run a store of that kind; yield the configuration that leads to it, and the store."""
    if name == "local":
        yield {"backend": "local", "local": {"path": str(folder / "store.db")}}, None
        return
    kind: type[Etcd] | type[Consul] = Etcd if name == "etcd" else Consul
    with kind.run(folder) as store:
        yield section_of(store), store


def main() -> int:
    """Soak and report; 0 only without overlap and with nobody stuck."""
    parser = argparse.ArgumentParser(
        prog="./scripts/soak", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--backend", choices=("etcd", "consul", "local"), required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep logs and witness")
    options = parser.parse_args()
    print(
        f"soak: {options.minutes:g} minutes on {options.backend}, {options.nodes} nodes, seed {options.seed}"
    )
    folder = Path(tempfile.mkdtemp(prefix="sidecar-soak-"))
    (folder / "store").mkdir()
    names = [f"node-{letter}" for letter in "abcdefgh"[: options.nodes]]
    with store_of(options.backend, folder / "store") as (backend, store):
        cluster = Cluster(folder / "c", backend, names=names, ttl=f"{TTL_MS}ms", cluster="soak")
        soak = Soak(cluster, store, options.seed)
        try:
            cluster.start()
            cluster.await_active()
            return _run(soak, options.minutes)
        finally:
            cluster.stop()
            if options.keep:
                print(f"soak: logs and witness in {folder}")


def _run(soak: Soak, minutes: float) -> int:
    begun_at = CLOCK.now()
    told_at = begun_at
    found: list[str] = []
    while CLOCK.now() - begun_at < minutes * 60_000 and not found and not soak.stuck:
        soak.round()
        if CLOCK.now() - told_at > 60_000:
            found = soak.cluster.verdict()
            told_at = CLOCK.now()
            print(f"soak: {(told_at - begun_at) // 60_000} min, {soak.faults.total()} faults", flush=True)
    records = soak.cluster.records()
    found = witness.verdict(records)
    actives = witness.active_intervals(records)
    print(f"faults        {soak.faults.total()}: {dict(soak.faults.most_common())}")
    print(f"commands      {dict(soak.commands)}")
    print(f"actives       {len(actives)}, epochs up to {max((one.epoch for one in actives), default=0)}")
    print(f"slowest       {soak.slowest_ms} ms from healing to an active")
    print(f"overlaps      {len(found)}")
    print(f"stuck         {len(soak.stuck)}")
    for fault in (*found, *soak.stuck):
        print(f"  {fault}")
    return 1 if found or soak.stuck else 0


if __name__ == "__main__":
    sys.exit(main())
