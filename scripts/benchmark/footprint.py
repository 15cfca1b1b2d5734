"""What a node costs while nothing happens: memory and CPU time of an active one at TTL 10 s."""

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from benchmark.nodes import Node, Subject, consul_lock, etcdctl_lock, pairs, sidecar_exec
from benchmark.results import Row
from benchmark.takeover import ETCD_OWN_PACE
from tests.harness.stores import Consul, Etcd

WARM_UP_S = 5.0
KB = 1_024
MB = 1_000_000


def footprint(folder: Path, quick: bool) -> list[Row]:
    """Memory, then CPU time over a minute, of the sidecar and its peers side by side."""
    with Etcd.run(folder / "etcd", extra=ETCD_OWN_PACE) as etcd, Consul.run(folder / "consul") as consul:
        subjects = [
            sidecar_exec(f"etcd://{etcd.address}", 10),
            sidecar_exec(f"consul://{consul.address}", 10),
            etcdctl_lock(etcd.url, 10),
            consul_lock(consul.url),
        ]
        with pairs(folder / "idle", subjects) as started:
            time.sleep(WARM_UP_S)
            nodes = [(pair.subject, pair.active()) for pair in started]
            idle = _idle_cpu(nodes, 15 if quick else 60)
            return [row for subject, node in nodes for row in _memory(subject, node)] + idle


def _parts(subject: Subject, node: Node) -> dict[str, psutil.Process]:
    """Return the node's own processes by what they are: not the command it runs."""
    if not subject.is_sidecar:
        return {"all": node.main()}
    guard, keeper = _guard_and_keeper(node.guards())
    return {"sidecar": node.main(), "guard": guard, "keeper": keeper}


def _guard_and_keeper(found: list[psutil.Process]) -> tuple[psutil.Process, psutil.Process]:
    pids = {process.pid for process in found}
    guard = next(process for process in found if process.ppid() not in pids)
    keeper = next(process for process in found if process.ppid() in pids)
    return guard, keeper


def _memory(subject: Subject, node: Node) -> list[Row]:
    rows, sums = [], {"PSS": 0.0, "RSS": 0.0}
    parts = _parts(subject, node)
    for name, process in parts.items():
        sizes = _rollup(process.pid)
        for kind in sums:
            sums[kind] += sizes[kind]
        if len(parts) > 1:
            rows.append(_size(subject, f"memory (PSS) of the {name}", sizes["PSS"]))
    rows += [_size(subject, f"memory ({kind}) in all", value) for kind, value in sums.items()]
    if subject.is_sidecar and subject.store == "etcd":
        rows[-2].target = 60
    return rows


def pss_mb(node: Node) -> float:
    """Return the memory of sidecar, guard and keeper."""
    return sum(_rollup(process.pid)["PSS"] for process in [node.main(), *node.guards()])


def _size(subject: Subject, measure: str, value: float) -> Row:
    return Row(f"{measure}, {subject.store}", subject.name, "MB", samples=[value])


def _rollup(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split()[0].rstrip(":").upper(): int(line.split()[1]) * KB / MB for line in lines}
    return {kind: sizes[kind] for kind in ("PSS", "RSS")}


def _idle_cpu(nodes: list[tuple[Subject, Node]], seconds: float) -> list[Row]:
    parts = [_parts(subject, node).values() for subject, node in nodes]
    before, begun = [_spent(processes) for processes in parts], time.monotonic()
    time.sleep(seconds)
    after, length = [_spent(processes) for processes in parts], time.monotonic() - begun
    rows = []
    for (subject, _), spent, earlier in zip(nodes, after, before, strict=True):
        share = (spent - earlier) / length * 100
        row = Row(f"CPU of an idle active node, {subject.store}", subject.name, "%", samples=[share])
        row.target = 0.5 if subject.is_sidecar and subject.store == "etcd" else None
        rows.append(row)
    return rows


def _spent(processes: Iterable[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
