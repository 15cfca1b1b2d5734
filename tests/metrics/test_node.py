"""The metrics of a real node: its parts put together as `sidecar.runtime.main` does, and measured.

Method: store (embedded), lock lane, guard, server, watcher, publisher and shell are real; the deciding loop
runs on a thread of the test. What is waited for is read from the text of a scrape.
Not covered: HTTP (the API's tests), the other stores (the wrapper knows none).
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from backends.local import connect
from sidecar.clock import BootClock
from sidecar.core import state as s
from sidecar.core.decide import begin
from sidecar.metrics import Metrics
from sidecar.ports import BackendSettings
from sidecar.probes import Finding
from sidecar.runtime.locking import LockLane
from sidecar.runtime.marks import MarkFile
from sidecar.runtime.probing import Watching
from sidecar.runtime.serving import ServerLane, Serving
from sidecar.runtime.shell import Shell
from sidecar.runtime.systemd import Manager
from sidecar.runtime.watching import Publisher, Watcher
from sidecar.servers import CommandKind
from tests.harness.process import wait_until
from tests.harness.tools import need
from tests.metrics.stage import samples, value
from tests.runtime.stubs import WITHIN_S, hooks_of

POLICY = s.Policy(
    node="node-a", instance="node-a-1", ttl_ms=30_000, renew_every_ms=100, request_timeout_ms=10_000,
    stop_grace_ms=500, kill_margin_ms=200, start_timeout_ms=10_000, stop_timeout_ms=2_000,
    restart_attempts=3, restart_within_ms=60_000, backoff_ms=1, backoff_max_ms=10,
)  # fmt: skip
CLOCK = BootClock()


class Alive:
    """A probe whose answer the test gives."""

    def __init__(self) -> None:
        self.ok = True

    def check(self, deadline: int) -> Finding:
        return Finding(self.ok, "" if self.ok else "refused")


class Node:
    """One node of a cluster, without configuration, signals and log."""

    def __init__(self, folder: Path, cluster: str, stack: ExitStack) -> None:
        inbox: SimpleQueue[Any] = SimpleQueue()
        self.alive, self.inbox = Alive(), inbox
        self.metrics = Metrics(cluster, POLICY.node, "local", CLOCK, WITHIN_S)
        stack.callback(self.metrics.close)
        store = connect(BackendSettings(cluster, {"path": str(folder / "store.db")}), CLOCK)
        stack.callback(store.close)
        backend = self.metrics.measured(store)
        self.locks = LockLane(backend, CLOCK, inbox.put, lambda: POLICY.request_timeout_ms)
        stack.callback(self.locks.close)
        watching = Watching(None, self.alive, 20, 500, 20, 500, 3)
        hooks = hooks_of()
        stack.callback(hooks.close)
        self.servers = ServerLane(
            CommandKind(command=("/bin/sleep", "60")),
            Serving(cluster, POLICY.node, None, signal.SIGTERM, None, 200, folder / "run", "auto"),
            CLOCK,
            post=inbox.put,
            note=lambda epoch: self.shell.note(epoch),
            watching=lambda: watching,
            hooks=hooks,
            output=lambda stream, line: None,
            broken=lambda what: None,
        )
        stack.callback(lambda: self.servers.close(kept=False))
        self.metrics.enforcement = self.servers.enforcement
        self.shell = Shell(
            begin(POLICY, CLOCK.now(), s.Mark()),
            POLICY,
            cluster=cluster,
            clock=CLOCK,
            backend=backend,
            locks=self.locks,
            servers=self.servers,
            hooks=hooks,
            manager=Manager({}, CLOCK),
            marks=MarkFile(None, cluster),
            inbox=inbox,
            publish_soon=lambda: publisher.changed(),
            turned=self.metrics.take,
            api=None,
        )
        stack.callback(self.shell.close)
        self.servers.begin(adopt=True)
        publisher = Publisher(backend, CLOCK, self.shell.record, POLICY.ttl_ms, POLICY.request_timeout_ms)
        stack.callback(publisher.close)
        watcher = Watcher(backend, CLOCK, lambda view: inbox.put(s.Seen(view)), POLICY.ttl_ms)
        stack.callback(watcher.close)
        self._thread = threading.Thread(target=self.shell.run, daemon=True)
        self._thread.start()
        stack.callback(self.stop)

    def stop(self) -> None:
        self.inbox.put(s.StopAsked())
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()

    def value(self, name: str, **labels: str) -> float:
        return value(self.metrics.render(), name, **labels) or 0

    def until(self, wanted: float, name: str, **labels: str) -> None:
        wait_until(lambda: self.value(name, **labels) >= wanted, f"{name} {labels} to be {wanted}")


@pytest.fixture
def node(tmp_path: Path, namespace: str) -> Iterator[Node]:
    with ExitStack() as stack:
        yield Node(tmp_path, namespace, stack)


def test_a_node_is_measured_from_its_first_start_to_its_end(node: Node) -> None:
    node.until(1, "state", state="running")
    node.until(3, "renewals_total", outcome="ok")
    node.until(1, "server_resident_memory_bytes")
    text = node.metrics.render()

    assert value(text, "role", role="active") == 1
    assert 0 < (value(text, "lease_remaining_seconds") or 0) <= 30
    assert (value(text, "epoch"), value(text, "store_epoch")) == (1, 1)
    assert (value(text, "loop_age_seconds") or 0) < 30
    assert (value(text, "watch_age_seconds") or 0) < 30
    assert value(text, "enforcement_info", enforcement=node.servers.enforcement) == 1
    assert value(text, "acquisitions_total", cause="first_start") == 1
    assert value(text, "last_takeover_duration_seconds", part="start") is not None
    assert value(text, "server_starts_total", role="active", outcome="ready") == 1
    assert value(text, "renewal_duration_seconds_count") == sum(
        x.value for x in samples(text) if x.name.endswith("_renewals_total")
    )
    assert not any(x.value for x in samples(text) if "backend_errors" in x.name), "a store that is well"
    subprocess.run([need("promtool"), "check", "metrics"], input=text, check=True)

    before = len(samples(text))
    running = node.servers.server()
    assert running is not None
    os.kill(running[0], signal.SIGKILL)
    node.until(1, "server_restarts_total", role="active", outcome="ready")
    assert node.value("server_ends_total", role="active", how="signalled") == 1

    node.alive.ok = False
    node.until(3, "probes_total", probe="alive", result="failed")
    node.alive.ok = True
    node.until(2, "server_restarts_total", role="active", outcome="ready")
    text = node.metrics.render()
    assert value(text, "acquisitions_total", cause="first_start") == 1, "all in place"
    assert len(samples(text)) <= before, "no series is made by what happens"

    node.stop()
    text = node.metrics.render()
    assert value(text, "lease_remaining_seconds") is None
    assert value(text, "backend_requests_total", call="release") == 1
    assert value(text, "state", state="stopped") == 1
