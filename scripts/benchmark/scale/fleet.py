"""The nodes of many clusters in one process: real core, lanes and backend, no guard and no server.

Each node has the threads that deal with the store, as `sidecar run` has: lock lane, watcher, publisher, and
what the backend starts. One thread decides for all nodes of the process, and one lane writes their history:
as processes of 30 MB and more, 3,000 nodes would need over 90 GB. A fleet ends with its process.
"""

import heapq
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

from benchmark.scale.traffic import Traffic
from sidecar.clock import BootClock, left_s, wall_ms
from sidecar.config import for_exec
from sidecar.core import state as s
from sidecar.core.decide import begin, decide
from sidecar.core.model import HistoryEntry, NodeRecord, View
from sidecar.core.outlook import describe, wake_at
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import BackendError
from sidecar.events import LOG
from sidecar.plugins import load_backend
from sidecar.ports import Backend, Connect, Grant, HeldBy, Hold
from sidecar.runtime.lanes import Lane
from sidecar.runtime.locking import LockLane
from sidecar.runtime.policy import kind_of, policy_of
from sidecar.runtime.watching import Publisher, Watcher

CLOCK = BootClock()
NODES = ("a", "b", "c")
IDLE_MS = 1_000  # a node with nothing due decides again after this at the latest ...
IDLE_HERE_MS = (
    5_000  # ... here after this: 3,000 nodes a second would be a third of a core, of no use to anybody
)
K = TypeVar("K")


@dataclass
class Span:
    """One active server that there would have been: from its start to its end, at most its deadline."""

    node: str
    began: Instant
    deadline: Instant
    ended: Instant | None = None

    @property
    def over(self) -> Instant:
        return self.deadline if self.ended is None else min(self.ended, self.deadline)


@dataclass
class Tally:
    """What one process has seen since it was last asked. Instants in ms of CLOCK_BOOTTIME."""

    nodes: int = 0
    active: int = 0
    lost: int = 0  # active servers that had to end
    overlaps: list[str] = field(default_factory=list)
    renewals: list[tuple[str, int, float]] = field(default_factory=list)  # cluster, sent at, took ms
    failed_renewals: int = 0
    grants: list[tuple[str, int]] = field(
        default_factory=list
    )  # cluster, when it had a lease granted or renewed
    tried: dict[int, int] = field(default_factory=dict)  # requests per 100 ms, by the number of the 100 ms
    answered: dict[int, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)  # requests by method

    def plus(self, later: "Tally") -> "Tally":
        """Return both together: of several processes, or of one and what came later."""
        return Tally(
            nodes=self.nodes + later.nodes,
            active=self.active + later.active,
            lost=self.lost + later.lost,
            overlaps=self.overlaps + later.overlaps,
            renewals=self.renewals + later.renewals,
            failed_renewals=self.failed_renewals + later.failed_renewals,
            grants=self.grants + later.grants,
            tried=_sum(self.tried, later.tried),
            answered=_sum(self.answered, later.answered),
            kinds=_sum(self.kinds, later.kinds),
        )


def _sum(first: Mapping[K, int], then: Mapping[K, int]) -> dict[K, int]:
    return dict(Counter(first) + Counter(then))


class _Timed:
    """The part of a backend that the lock lane uses, with a stopwatch."""

    def __init__(self, backend: Backend, cluster: str, seen: "Fleet") -> None:
        self._backend, self._cluster, self._seen = backend, cluster, seen
        self.release = backend.release

    def acquire(
        self, node: str, instance: str, ttl_ms: int, *, floor: Epoch, deadline: Instant
    ) -> Grant | HeldBy:
        answer = self._backend.acquire(node, instance, ttl_ms, floor=floor, deadline=deadline)
        if isinstance(answer, Grant):
            self._seen.grants.append((self._cluster, CLOCK.now()))
        return answer

    def renew(self, hold: Hold, *, deadline: Instant) -> Grant:
        begun = time.perf_counter()
        try:
            grant = self._backend.renew(hold, deadline=deadline)
        except BackendError:
            self._seen.failed.append(1)
            raise
        took_ms = (time.perf_counter() - begun) * 1000
        self._seen.grants.append((self._cluster, CLOCK.now()))
        self._seen.renewals.append((self._cluster, grant.sent_at, round(took_ms, 3)))
        return grant


@cache
def _connect(name: str) -> Connect:
    return load_backend(name)  # 10 ms, which each real node needs once


class _Node:
    """One node: what `sidecar.runtime.shell.Shell` does, without a thread of its own."""

    def __init__(self, fleet: "Fleet", url: str, cluster: str, name: str, ttl_ms: int) -> None:
        config = for_exec(url, cluster, name, ttl_ms, 3, ["none"], False, Path("/nowhere"), environ={})
        kind = kind_of(config)
        self.cluster, self._fleet = cluster, fleet
        self.policy = policy_of(config, kind, f"{name}-{cluster}")
        self.node = begin(self.policy, CLOCK.now(), s.Mark())
        self.wake_at = Instant(0)
        self.spans = fleet.spans.setdefault(cluster, [])
        self._shown: object = None
        self._backend = _connect(config.backend)(config.backend_settings(), CLOCK)
        timeout_ms = config.lock.request_timeout_ms
        timed = cast(Backend, _Timed(self._backend, cluster, fleet))
        self._locks = LockLane(timed, CLOCK, self.post, lambda: timeout_ms)
        self._publisher = Publisher(self._backend, CLOCK, self._record, ttl_ms, timeout_ms)
        self._watcher = Watcher(self._backend, CLOCK, self._saw, ttl_ms)

    def post(self, seen: s.Observation) -> None:
        self._fleet.inbox.put((self, seen))

    def _saw(self, view: View) -> None:
        self.post(s.Seen(view))

    def take(self, seen: s.Observation) -> None:
        """Decide; on the fleet's thread."""
        now = CLOCK.now()
        self.node, actions = decide(self.node, seen, now, self.policy)
        for action in actions:
            self._carry_out(action, now)
        due_at = wake_at(self.node, now, self.policy)
        self.wake_at = Instant(now + IDLE_HERE_MS) if due_at - now == IDLE_MS else due_at
        shape = (type(self.node.phase), self._lease_epoch())
        if shape != self._shown:
            self._shown = shape
            self._publisher.changed()

    def _carry_out(self, action: s.Action, now: Instant) -> None:
        match action:
            case s.Acquire(floor):
                self._locks.acquire(self.policy, floor)
            case s.Renew(epoch):
                self._locks.renew(epoch)
            case s.Release(epoch, cause):
                self._locks.release(self.policy, epoch, self.node.memory.mark, cause)
            case s.StartServer(run, _, _, deadline):
                self.spans.append(Span(self.policy.node, now, deadline))
                self.post(s.ServerReady(run))
            case s.ExtendServer(_, deadline):
                self.spans[-1].deadline = deadline
            case s.StopServer(run) | s.KillServer(run):
                self._end(run, now)
            case s.RecordChange(epoch, change, start_ms):
                self._fleet.desk.put(lambda: self._history(epoch, change, start_ms))
            case _:
                pass  # marks are not kept, nobody asks for anything

    def _end(self, run: int, now: Instant) -> None:
        mine = [span for span in self.spans if span.node == self.policy.node and span.ended is None]
        for span in mine:
            span.ended = now
        self._fleet.lost += len(mine)
        self.post(s.ServerGone(run, 0))

    def _history(self, epoch: Epoch, change: s.Change, start_ms: int) -> None:
        hold = self._locks.hold(epoch)
        if hold is None:
            return
        entry = HistoryEntry(
            epoch,
            self.policy.node,
            change.previous,
            change.cause,
            wall_ms(),
            change.detect_ms,
            change.lock_ms,
            start_ms,
        )
        try:
            deadline = Instant(CLOCK.now() + self.policy.request_timeout_ms)
            self._backend.append_history(hold, entry, deadline=deadline)
        except BackendError:
            LOG.debug("history", exc_info=True)

    def _lease_epoch(self) -> Epoch:
        phase = self.node.phase
        return phase.lease.epoch if isinstance(phase, s.Holding) else NO_EPOCH

    def _record(self) -> NodeRecord:
        return describe(
            self.node,
            CLOCK.now(),
            self.policy,
            enforcement="none",
            version="0",
            unix_ms=wall_ms(),
            server=None,
        )


class Fleet:
    """All nodes of this process."""

    def __init__(self, url: str) -> None:
        LOG.setLevel(logging.CRITICAL)  # a store that is taken away would be told by every node
        self.inbox: SimpleQueue[tuple[_Node, s.Observation]] = SimpleQueue()
        self.desk = Lane("desk")
        self.spans: dict[str, list[Span]] = {}
        self.lost = 0
        self.renewals: list[tuple[str, int, float]] = []
        self.failed: list[int] = []
        self.grants: list[tuple[str, int]] = []
        self._url = url
        self._nodes: list[_Node] = []
        self._traffic = Traffic()
        self._wakes: list[tuple[Instant, int, _Node]] = []
        self._number = 0
        self._thread = threading.Thread(target=self._decide, name="decide", daemon=True)
        self._thread.start()

    def grow(self, clusters: list[str], ttl_ms: int, over_s: float) -> None:
        """Start these clusters, their nodes evenly over *over_s*."""
        begun, number = time.monotonic(), 0
        for name in NODES:
            for cluster in clusters:
                time.sleep(
                    max(0.0, begun + over_s * number / (len(clusters) * len(NODES)) - time.monotonic())
                )
                node = _Node(self, self._url, cluster, name, ttl_ms)
                self._nodes.append(node)
                node.post(s.Tick())
                number += 1

    def active(self) -> int:
        """Return how many clusters have an active server now."""
        return len({node.cluster for node in self._nodes if isinstance(node.node.phase, s.Serving)})

    def tally(self) -> Tally:
        """Return what was seen since the last time."""
        renewals, self.renewals = self.renewals, []
        failed, self.failed = self.failed, []
        grants, self.grants = self.grants, []
        lost, self.lost = self.lost, 0
        tried, answered, kinds = self._traffic.take()
        overlaps = [text for cluster, spans in self.spans.items() for text in overlapping(cluster, spans)]
        return Tally(
            nodes=len(self._nodes),
            active=self.active(),
            lost=lost,
            overlaps=overlaps,
            renewals=renewals,
            failed_renewals=len(failed),
            grants=grants,
            tried=tried,
            answered=answered,
            kinds=kinds,
        )

    def _decide(self) -> None:
        while True:
            timeout_s = left_s(self._wakes[0][0], CLOCK) if self._wakes else None
            with suppress(Empty):
                self._take(*self.inbox.get(timeout=timeout_s))
            now = CLOCK.now()
            while self._wakes and self._wakes[0][0] <= now:
                at, _, node = heapq.heappop(self._wakes)
                if at == node.wake_at:  # else it has decided since, and is in the heap again
                    self._take(node, s.Tick())

    def _take(self, node: _Node, seen: s.Observation) -> None:
        node.take(seen)
        self._number += 1
        heapq.heappush(self._wakes, (node.wake_at, self._number, node))


def overlapping(cluster: str, spans: list[Span]) -> list[str]:
    """Return where two nodes would have been active at once."""
    in_order = sorted(spans, key=lambda span: span.began)
    return [
        f"{cluster}: {first.node} until {first.over}, {then.node} from {then.began}"
        for first, then in pairwise(in_order)
        if first.over > then.began
    ]
