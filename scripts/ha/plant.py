"""The set-up of compose/ha, running: what it says of itself, and what the trial needs to do to it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired
from typing import Any, Self

from ha.client import Client
from sidecar.standin.witness import Record
from tests.harness.containers import ROOT, Compose
from tests.harness.process import wait_until

HA = ROOT / "compose" / "ha"
NODES = ("node-a", "node-b", "node-c")
STORES = {"etcd": ("etcd1", "etcd2", "etcd3"), "consul": ("consul1", "consul2", "consul3")}
SETTLED_WITHIN_S = 120.0
STEADY_S = 1.0
WITNESS = "select at_ns, kind, epoch, run, pid, node from witness order by at_ns"
UP = "http://prometheus:9090/api/v1/query?query=up"


def files(backend: str) -> tuple[Path, Path]:
    """Return the Compose files of the set-up on *backend*."""
    return HA / "docker-compose.yml", HA / f"{backend}.yml"


def now_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Plant:
    """Everything in it, and the client that asks all the time."""

    def __init__(self, compose: Compose, backend: str) -> None:
        self.compose, self.backend, self.stores = compose, backend, STORES[backend]
        self.client = Client(compose.id("client"))

    @classmethod
    @contextmanager
    def run(cls, backend: str, cpu_shares: int, say: Callable[[str], None]) -> Iterator[Self]:
        """Bring it up for the ``with`` block, each container with *cpu_shares*."""
        say("building what is not there yet, bringing it up …")
        with Compose.run(["etcd", "tools", "ha"], [], files(backend), f"ha-{backend}") as compose:
            compose.limit(cpu_shares)
            plant = cls(compose, backend)
            try:
                yield plant
            except (TimeoutError, CalledProcessError) as error:
                error.add_note("\n".join(compose.logs(node, 20) for node in (*NODES, "haproxy", "postgres")))
                raise
            finally:
                plant.client.close()

    def sidecar(self, *words: str, via: str = "") -> Any:
        """Return what a read command of the sidecar prints on the first node that can tell, as JSON."""
        for node in (via,) if via else NODES:
            with suppress(CalledProcessError, TimeoutExpired):
                return json.loads(self.compose.exec(node, "sidecar", *words, "-o", "json", within_s=20))
        return {}

    def settled(self) -> bool:
        """Tell whether one node is active, the two others watch it, and the client gets answers from it."""
        status = self.sidecar("status")
        states = sorted((node["role"], node["state"]) for node in status.get("nodes", []))
        if states != [("active", "running")] + [("standby", "monitoring")] * 2:
            return False
        answers = self.client.answers[-1:]
        return bool(answers) and answers[0].epoch == status["epoch"] and now_ms() - answers[0].at_ms < 1_000

    def settle(self) -> tuple[str, int]:
        """Wait until it is at rest; return the active node and its epoch."""
        wait_until(self.settled, "one active, two watching, the client served", SETTLED_WITHIN_S)
        last = self.client.answers[-1]
        return last.node, last.epoch

    def answered(self, since_ms: int, epoch: int | None = None) -> bool:
        """Tell whether the client had an answer after *since_ms*, of another epoch than *epoch*."""
        last = self.client.answers[-1]
        return last.at_ms > since_ms and last.epoch != epoch

    def figures(self) -> dict[str, float]:
        """Return the worst cases that the sidecar computes from its configuration, in s."""
        found = self.sidecar("validate")["failover"]
        return {figure["name"]: figure["worst_s"] or 0.0 for figure in found}

    def longest_start_s(self) -> float:
        """Return the longest start of a server in the history; the first also waits for the database."""
        history = self.sidecar("history")
        starts = [entry["start_s"] or 0.0 for entry in history]
        return max(starts[:-1] or starts)

    def leader(self) -> str:
        """Return the store's leader, once there is one."""
        if self.backend == "etcd":
            return self.compose.etcd_leader(self.stores)
        found: list[str] = []

        def agreed() -> bool:
            with suppress(CalledProcessError, StopIteration):
                peers = self.compose.exec(self.stores[0], "consul", "operator", "raft", "list-peers")
                found[:] = [next(line.split()[0] for line in peers.splitlines() if " leader " in line)]
            return bool(found)

        wait_until(agreed, "Consul has a leader", SETTLED_WITHIN_S)
        return found[0]

    def says_active(self, node: str) -> bool:
        """Tell whether the sidecar of *node* answers 200 to /active."""
        return '"ok":true' in self._get(f"http://{node}:8009/active")

    def kill_process(self, node: str, pattern: str) -> None:
        """Kill the oldest process of *node* whose command line matches; there must be one."""
        self.compose.exec(node, "pkill", "-KILL", "-o", "-f", pattern)

    def records(self) -> list[Record]:
        """Return the witness, from PostgreSQL, in the order of its instants."""
        rows = self.compose.exec("client", "psql", "-AtF ", "-c", WITNESS).splitlines()
        return [_record(line, row.split(" ")) for line, row in enumerate(rows)]

    def refuses_older(self) -> bool:
        """Tell whether the database turns a server of an older epoch away, before it opens a port.

        It leaves a line in the witness: read that before.
        """
        words = ("env", "SIDECAR_EPOCH=0", "timeout", "30", "/opt/ha/node/ag_server_console")
        try:
            self.compose.exec("client", *words)
        except CalledProcessError as error:
            return "a later epoch than 0" in error.stderr and "Server started" not in error.stdout
        return False

    def keep_logs(self, folder: Path) -> None:
        """Write what each container has said to *folder*."""
        folder.mkdir(parents=True, exist_ok=True)
        for service in (*NODES, *self.stores, "haproxy", "postgres", "prometheus"):
            (folder / f"{service}.log").write_text(self.compose.logs(service, 5_000))

    def scraped(self) -> str | None:
        """Return how many sidecars Prometheus reaches; None where they keep no metrics."""
        if "404" in self._get("http://node-a:8009/metrics"):
            return None
        series = json.loads(self._get(UP))["data"]["result"]
        return f"{sum(one['value'][1] == '1' for one in series)} of {len(series)}"

    def _get(self, url: str) -> str:
        code = (
            "import sys, urllib.request as r, urllib.error as e\n"
            "try: print(r.urlopen(sys.argv[1], timeout=5).read().decode())\n"
            "except e.URLError as error: print(getattr(error, 'code', error))"
        )
        return self.compose.exec("client", "python3", "-c", code, url)


def _record(line: int, row: list[str]) -> Record:
    at_ns, kind, epoch, run, pid, node = row
    return Record(line, int(at_ns), kind, int(epoch), run, int(pid), node)
