"""Loads one store with more and more clusters, then takes it away and gives it back."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmark.scale.fleet import CLOCK, Tally
from benchmark.scale.traffic import BIN_MS
from benchmark.scale.workers import Crowd, crowd, file_limit, prefer
from benchmark.takeover import ETCD_OWN_PACE
from tests.harness.stores import Consul, Etcd, Store

ACTIVE_WITHIN_S = 60.0
HELD_WITHIN_S = 90.0
POLL_S = 0.25
PROCESSES_PER_CORE = 4  # of the load: the fewer threads wait for one interpreter's lock, the better
SPARE_FILES = 1_000
PHASES = 10  # parts of a renewal's period, to see whether all nodes renew in the same one
OBSERVED_S = 12.0  # before and after an outage, or one period of renewals where that is shorter
RENEWALS_PER_TTL = 5  # the default of lock.renew_every


@dataclass(frozen=True)
class Plan:
    """How one store is measured at one TTL."""

    ttl_s: int
    sizes: tuple[int, ...]  # numbers of clusters, growing
    settle_s: float
    window_s: float  # of each measurement
    outages: tuple[tuple[str, float], ...]  # at the last size: frozen (SIGSTOP) or killed, and for how long

    @property
    def renew_every_s(self) -> float:
        return self.ttl_s / RENEWALS_PER_TTL

    @property
    def observed_s(self) -> float:
        return min(OBSERVED_S, self.renew_every_s)


FULL = (
    Plan(
        10, (10, 30, 100), settle_s=3, window_s=15, outages=(("frozen", 1.5), ("killed", 0), ("frozen", 13))
    ),
    # no outages: 3,000 clients on one machine starve in one, and the store with them
    Plan(180, (10, 100, 300, 1000), settle_s=3, window_s=18, outages=()),
)
QUICK = (Plan(3, (1, 3), settle_s=0.5, window_s=2, outages=(("frozen", 0.6), ("killed", 0))),)


@dataclass
class Growth:
    """One number of clusters. Times in ms, CPU in percent of one core."""

    store: str
    ttl_s: int
    clusters: int
    nodes: int
    active: int  # clusters with an active server at the end
    renewals: int
    median_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    probe_median_ms: float | None  # of the cluster that has a process to itself
    probe_max_ms: float | None
    failed_renewals: int
    lost_leases: int
    requests_per_s: float
    requests_per_s_by_kind: dict[str, float]
    store_cpu_percent: float
    clients_cpu_percent: float
    machine_cpu_percent: float  # of all cores, whoever uses it; 100: nothing is left
    store_mb: float
    client_threads: int
    overlaps: list[str] = field(default_factory=list)


@dataclass
class Outage:
    """The store is taken away and given back. Requests are per 100 ms, counted where they are sent."""

    store: str
    ttl_s: int
    clusters: int
    fault: str
    away_s: float
    before_mean: float  # requests answered, in quiet
    away_mean: float  # tried, while it was away
    away_max: int
    after_max: int  # tried, once it was back
    answered_max: int
    all_held_s: float | None  # from the store's return until the last cluster had a lease granted or renewed
    lost_leases: int
    busiest_before_percent: (
        float | None
    )  # renewals in the busiest tenth of a period; None: not observed whole
    busiest_after_percent: float | None
    overlaps: list[str] = field(default_factory=list)


@dataclass
class Results:
    """Everything of one run."""

    growth: list[Growth] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)  # where store or clients did not keep up

    @property
    def overlaps(self) -> list[str]:
        rows: list[Growth | Outage] = [*self.growth, *self.outages]
        return [text for row in rows for text in row.overlaps]


def _etcd(folder: Path) -> AbstractContextManager[Store]:
    return Etcd.run(folder, extra=ETCD_OWN_PACE)


def _consul(folder: Path) -> AbstractContextManager[Store]:
    # Its default of 200 connections from one address is meant for one host, not for 3,000 nodes on one.
    limits = {"http_max_conns_per_client": file_limit() - SPARE_FILES}
    return Consul.run(folder, extra={"limits": limits})


STORES: dict[str, Callable[[Path], AbstractContextManager[Store]]] = {"etcd": _etcd, "consul": _consul}


def measure(name: str, plan: Plan, folder: Path, results: Results) -> None:
    """Add what *plan* finds of the store called *name* to *results*."""
    processes = PROCESSES_PER_CORE * (os.cpu_count() or 1)
    with (
        STORES[name](folder) as store,
        crowd(f"{name}://{store.address}", plan.ttl_s * 1000, processes) as load,
    ):
        prefer(store.process.pid)
        run = _Run(name, plan, store, load)
        for size in plan.sizes:
            row = run.grow(size)
            results.growth.append(row)
            _say(row)
            if row.active < size:
                results.limits.append(
                    f"{name}, TTL {plan.ttl_s} s: {size} clusters are more than this machine could do, "
                    f"{row.active} had an active server; no more were tried, nor outages"
                )
                return
        for fault, away_s in plan.outages:
            results.outages.append(run.outage(fault, away_s))
            _say(results.outages[-1])


def _say(row: Growth | Outage) -> None:
    print(f"bench: {row}", file=sys.stderr)


class _Run:
    """One store under one plan."""

    def __init__(self, name: str, plan: Plan, store: Store, load: Crowd) -> None:
        self._name, self._plan, self._store, self._load = name, plan, store, load
        self._quiet: Tally | None = None  # what was seen just before the next outage

    def grow(self, size: int) -> Growth:
        """Have *size* clusters and measure them in quiet."""
        self._load.grow(size)
        self._await_active()
        time.sleep(self._plan.settle_s)
        self._load.tally()
        server = psutil.Process(self._store.process.pid)
        begun, before = time.monotonic(), (_cpu_s(server), self._load.cpu_s(), _busy())
        time.sleep(self._plan.window_s)
        took_s = time.monotonic() - begun
        after = (_cpu_s(server), self._load.cpu_s(), _busy())
        everyone, probe = self._load.tally()
        times, alone = _times(everyone), _times(probe)
        busy_s, total_s = after[2][0] - before[2][0], after[2][1] - before[2][1]
        return Growth(
            store=self._name,
            ttl_s=self._plan.ttl_s,
            clusters=size,
            nodes=everyone.nodes,
            active=everyone.active,
            renewals=len(times),
            median_ms=quantile(times, 0.5),
            p99_ms=quantile(times, 0.99),
            max_ms=quantile(times, 1),
            probe_median_ms=quantile(alone, 0.5),
            probe_max_ms=quantile(alone, 1),
            failed_renewals=everyone.failed_renewals,
            lost_leases=everyone.lost,
            requests_per_s=round(sum(everyone.answered.values()) / took_s, 1),
            requests_per_s_by_kind={k: round(n / took_s, 1) for k, n in sorted(everyone.kinds.items())},
            store_cpu_percent=round((after[0] - before[0]) / took_s * 100, 1),
            clients_cpu_percent=round((after[1] - before[1]) / took_s * 100, 1),
            machine_cpu_percent=round(busy_s / total_s * 100, 1),
            store_mb=round(server.memory_info().rss / 1e6, 1),
            client_threads=self._load.threads(),
            overlaps=everyone.overlaps,
        )

    def outage(self, fault: str, away_s: float) -> Outage:
        """Take the store away for *away_s* and watch what happens until all is well again."""
        cycle_s = self._plan.observed_s
        quiet = self._quiet or self._cycle()
        gone_at = CLOCK.now()
        back_at = self._take_away(fault, away_s)
        seen, all_held_s = self._await_grants(back_at)
        until = CLOCK.now()
        later = self._quiet = self._cycle()
        away = [seen.tried.get(number, 0) for number in range(gone_at // BIN_MS, back_at // BIN_MS)]
        after = range(back_at // BIN_MS, until // BIN_MS + 1)
        return Outage(
            store=self._name,
            ttl_s=self._plan.ttl_s,
            clusters=self._load.clusters,
            fault=fault,
            away_s=round((back_at - gone_at) / 1000, 1),
            before_mean=round(sum(quiet.answered.values()) / (cycle_s * 1000 / BIN_MS), 1),
            away_mean=round(sum(away) / max(1, len(away)), 1),
            away_max=max(away, default=0),
            after_max=max((seen.tried.get(number, 0) for number in after), default=0),
            answered_max=max((seen.answered.get(number, 0) for number in after), default=0),
            all_held_s=all_held_s,
            lost_leases=seen.lost + later.lost,
            busiest_before_percent=self._busiest(quiet),
            busiest_after_percent=self._busiest(later),
            overlaps=seen.overlaps + later.overlaps,
        )

    def _busiest(self, seen: Tally) -> float | None:
        if self._plan.observed_s < self._plan.renew_every_s:
            return None
        return busiest_percent((at for _, at, _ in seen.renewals), self._plan.renew_every_s)

    def _cycle(self) -> Tally:
        """Return what is seen in a while, once every cluster has an active server."""
        self._await_active()
        meanwhile, _ = self._load.tally()
        time.sleep(self._plan.observed_s)
        seen, _ = self._load.tally()
        seen.lost += meanwhile.lost
        return seen

    def _take_away(self, fault: str, away_s: float) -> int:
        """Return when the store was back: runs on, or answers after its start."""
        if fault == "frozen":
            self._store.freeze()
            time.sleep(away_s)
            back_at = CLOCK.now()
            self._store.thaw()
            return back_at
        self._store.kill()
        time.sleep(away_s)
        self._store.start()
        prefer(self._store.process.pid)
        return CLOCK.now()

    def _await_active(self) -> None:
        """Wait for an active server in every cluster; who measures then counts those that have none."""
        until = time.monotonic() + ACTIVE_WITHIN_S
        while self._load.active() < self._load.clusters and time.monotonic() < until:
            time.sleep(POLL_S)

    def _await_grants(self, back_at: int) -> tuple[Tally, float | None]:
        """Return what was seen until every cluster had a grant since *back_at*, and when the last one had."""
        whole, first = Tally(), dict[str, int]()
        until = time.monotonic() + HELD_WITHIN_S
        while True:
            seen, _ = self._load.tally()
            whole = whole.plus(seen)
            for cluster, at in seen.grants:
                if at >= back_at:
                    first.setdefault(cluster, at - back_at)
            if len(first) == self._load.clusters:
                return whole, round(max(first.values()) / 1000, 2)
            if time.monotonic() >= until:
                return whole, None
            time.sleep(POLL_S)


def quantile(values: Sequence[float], part: float) -> float | None:
    """Return the smallest of *values* that *part* of them do not exceed."""
    if not values:
        return None
    in_order = sorted(values)
    return round(in_order[max(0, -(-len(in_order) * int(part * 100) // 100) - 1)], 2)


def busiest_percent(sent_at_ms: Iterable[int], period_s: float) -> float:
    """Return how many of these renewals were sent in the busiest tenth of their period. Even: 10."""
    phases = Counter(int(at % (period_s * 1000) * PHASES / (period_s * 1000)) for at in sent_at_ms)
    return round(max(phases.values()) / phases.total() * 100, 1) if phases else 0.0


def _times(tally: Tally) -> list[float]:
    return [took_ms for _, _, took_ms in tally.renewals]


def _cpu_s(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def _busy() -> tuple[float, float]:
    """Return CPU seconds of the whole machine: used, and all there were."""
    times = psutil.cpu_times()
    total = sum(times[:8])
    return total - times.idle - times.iowait, total
