"""What many clusters cost, as a table, as JSON, and as docs/scale.md."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmark.results import DOCS
from benchmark.scale.measure import Growth, Outage, Results

GROWTH = [
    "store",
    "TTL",
    "clusters",
    "nodes",
    "active",
    "renewal median",
    "p99",
    "max",
    "alone: median",
    "max",
    "failed",
    "lost",
    "requests/s",
    "per cluster",
    "CPU store",
    "CPU clients",
    "CPU machine",
    "memory store",
]
OUTAGE = [
    "store",
    "TTL",
    "clusters",
    "fault",
    "away",
    "before",
    "away: mean",
    "max",
    "back: max",
    "answered max",
    "all held after",
    "lost leases",
    "busiest tenth before",
    "after",
]
NAMES = {"etcd": "etcd", "consul": "Consul"}


def text(results: Results) -> str:
    """Return both tables in columns."""
    return "\n\n".join(
        _columns(header, rows) for header, rows in ((GROWTH, _growth(results)), (OUTAGE, _outages(results)))
    )


def document(results: Results, facts: dict[str, Any]) -> str:
    """Return everything as JSON."""
    return json.dumps({"v": 1, "machine": facts, **asdict(results)}, indent=1) + "\n"


def write(results: Results, facts: dict[str, Any]) -> None:
    """Keep the results in docs/."""
    (DOCS / "scale.json").write_text(document(results, facts))
    (DOCS / "scale.md").write_text(page(results, facts))
    print(f"bench: wrote {DOCS}/scale.md and .json", file=sys.stderr)


def page(results: Results, facts: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    return PAGE.format(
        growth=_grid(GROWTH, _growth(results)),
        outages=_grid(OUTAGE, _outages(results)),
        overload="".join(f"- **too much**: {text}.\n" for text in results.limits),
        limits="\n".join(_limits(results)),
        facts="\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()),
    )


def _growth(results: Results) -> list[list[str]]:
    return [_growth_cells(row) for row in results.growth]


def _growth_cells(row: Growth) -> list[str]:
    return [
        NAMES[row.store],
        f"{row.ttl_s} s",
        str(row.clusters),
        str(row.nodes),
        str(row.active),
        *(_ms(value) for value in (row.median_ms, row.p99_ms, row.max_ms)),
        *(_ms(value) for value in (row.probe_median_ms, row.probe_max_ms)),
        str(row.failed_renewals),
        str(row.lost_leases),
        f"{row.requests_per_s:.0f}",
        f"{row.requests_per_s / row.clusters:.2f}",
        *(
            f"{value:.0f} %"
            for value in (row.store_cpu_percent, row.clients_cpu_percent, row.machine_cpu_percent)
        ),
        f"{row.store_mb:.0f} MB",
    ]


def _outages(results: Results) -> list[list[str]]:
    return [_outage_cells(row) for row in results.outages]


def _outage_cells(row: Outage) -> list[str]:
    return [
        NAMES[row.store],
        f"{row.ttl_s} s",
        str(row.clusters),
        row.fault,
        f"{row.away_s} s",
        f"{row.before_mean:.0f}",
        f"{row.away_mean:.0f}",
        str(row.away_max),
        str(row.after_max),
        str(row.answered_max),
        "not in time" if row.all_held_s is None else f"{row.all_held_s:.1f} s",
        str(row.lost_leases),
        *(
            "-" if value is None else f"{value:.0f} %"
            for value in (row.busiest_before_percent, row.busiest_after_percent)
        ),
    ]


def _limits(results: Results) -> list[str]:
    """Return per store and TTL what one cluster costs at the smallest and at the largest size."""
    lines = []
    for store, ttl_s in dict.fromkeys((row.store, row.ttl_s) for row in results.growth):
        rows = [row for row in results.growth if (row.store, row.ttl_s) == (store, ttl_s)]
        first, last = rows[0], rows[-1]
        lines.append(
            f"| {NAMES[store]} | {ttl_s} s | {first.clusters} → {last.clusters} |"
            f" {first.requests_per_s / first.clusters:.2f} → {last.requests_per_s / last.clusters:.2f} |"
            f" {_ms_per_cluster(first)} → {_ms_per_cluster(last)} | {_fits(last)} |"
        )
    return lines


def _ms_per_cluster(row: Growth) -> str:
    return f"{row.store_cpu_percent * 10 / row.clusters:.2f}"


def _fits(row: Growth) -> str:
    """Return how many clusters would keep one core of the store busy, at what each costs here."""
    return f"{100 / row.store_cpu_percent * row.clusters:.0f}" if row.store_cpu_percent else "-"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


PAGE = """\
# Many clusters on one store

Written by `./scripts/bench scale --write`, which takes a quarter of an hour; everything is in
[scale.json](scale.json). Clusters of three nodes on one etcd member and on one Consul server.

## Growth

{growth}

- **renewal**: from the order to the verified answer, of all clusters (etcd: keep-alive and check, one after
  the other; Consul: one transaction). **alone**: the same of one cluster that has a process to itself.
- **active**: clusters with an active server at the end. **failed**: renewals, tried again in time or not.
  **lost**: active servers that had to end.
- **CPU**: of one core; **machine**: of all cores together, whoever uses them. At 100 % the figures say what
  the machine can do, not what the store can.

What one cluster costs the store, at the smallest and the largest number:

| store | TTL | clusters | requests/s | CPU, ms per second | clusters that would fill a core |
| --- | --- | --- | --- | --- | --- |
{limits}

What one cluster costs would grow with their number if anything were quadratic in it; the rows of a
TTL of 10 s show that it does not. At 180 s a renewal is due every 36 s and a publishing every minute, and
the 18 s that are measured see hardly any of clusters that have just started, all together. A thousand take
minutes to start, so they are spread over those periods: theirs is what a cluster costs at that TTL.

Inside a cluster each node hears of each other one's records, so watching grows with the square of its
nodes: 2 to 5.

## The store goes away and comes back

{outages}

- **frozen**: SIGSTOP, connections stay open. **killed**: SIGKILL, then started on its data; **away** counts
  until it answers. Requests are per 100 ms: **before** the mean of those answered; **away** and **back**
  those tried, which include attempts to connect; **answered max** what the store carried out.
- **all held after**: from the return until the last cluster had its lease renewed, or granted anew. Also in
  quiet that takes up to a renewal's period, ttl / 5.
- **lost leases**: active servers that had to end, as the lease ran short. Surely ridden through is what
  `sidecar validate` says: 1.9 s at TTL 10 s, and in proportion. The outage of 13 s at TTL 10 s outlasts every
  lease: there all of them are lost, and **all held** tells how long until the last cluster was active again.
- **busiest tenth**: which part of the renewals fell into the same tenth of their period. 10 % is even; small
  numbers of clusters are never even. **after** is right after the return: it evens out over the next twenty
  renewals, since each node renews after a period of its own, up to a tenth shorter than configured.

While a store is away each node tries after pauses that are drawn at random. When it is back each node has
one renewal or acquisition, one publishing and one read under way, so the peak is a few requests a node, once.

## What limits it

{overload}- **This machine**: store and 3,000 nodes share its cores, and the clients need more of them than
  the store does. In use every node has a host of its own; then the store's column counts alone. The load
  runs in a few processes at low priority, the lone cluster and the store at normal priority. So the latency
  of all clusters contains the waiting for CPU and for the interpreter's lock of a process with hundreds of
  nodes: that is the harness's limit. The latency of the lone cluster is nearer to what a node would see. The
  long TTL is there for this reason alone: a thousand clusters at 10 s need some ten cores of clients.
- **Overload does not end by itself**: where clients or store get so little CPU, or so slow a disk, that
  renewals take longer than `lock.request_timeout`, each is tried again, and every node of a cluster asks for
  the lock: up to twice the load. So a store needs twice the room that it uses.
- **etcd**: each renewal and publishing is a write through raft with an fsync. Then the reads by which
  an idle node makes sure that its watch still lives.
- **Consul**: each renewal or publishing wakes the cluster's three blocking queries, each of which then reads
  the keys and asks again: most of the requests. And one connection for each query that waits: an agent
  allows 200 from one address by default (`limits.http_max_conns_per_client`), which many nodes behind one
  address can reach.
- **Not measured**: a store of several members, a network, more than 3 nodes in a cluster; an outage
  of a thousand clusters. Two trials ended without a figure: 3,000 nodes that all try again starved on two
  cores, and so did the store that was to start beside them.

## Advice

- TTL is the lever: requests fall in proportion to it. 10 s for up to some hundred clusters on a store with a
  few cores of its own; for a thousand 30 to 60 s, or several stores.
- Keep the store below half of its CPU: when it comes back, all nodes ask at once.
- Give the store its own disk; a slow fsync is in every renewal.

## Machine
{facts}
- `load average` is that at the start, over 1, 5 and 15 minutes.
"""
