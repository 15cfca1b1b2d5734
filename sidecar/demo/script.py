"""The scripted demo: faults one after the other, what each cost, and what proves it."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from sidecar.demo.cluster import Cluster, DemoNode, until
from sidecar.standin import witness

SETTLED_MS = 10_000


@dataclass(frozen=True, slots=True)
class Result:
    """One act of the script."""

    act: str
    before: str
    after: str
    without_ms: float  # time without an active server, by the witness
    proof: str


def play(cluster: Cluster) -> int:
    """Play every act, print a table, and return 0 only if the witness saw no overlap."""
    _say("Three stand-in AggreGate Servers, one embedded lock store, lease 3 s.")
    cluster.start()
    active = cluster.await_active()
    _settle(cluster, active)
    _say(f"{active} is active, the others show: Monitoring Master Server Status\n")
    acts = (_crash, _freeze_sidecar, _freeze_everything, _switchover, _failover)
    results = [act(cluster) for act in acts]
    _table(results)
    found = cluster.verdict()
    for fault in found:
        _say(f"OVERLAP: {fault}")
    servers = len(witness.active_intervals(cluster.records()))
    _say(
        f"\nWitness: {len(cluster.records())} lines of {servers} active servers, "
        + (f"{len(found)} faults" if found else "never two active at once, epochs only grew")
    )
    return 1 if found else 0


def _crash(cluster: Cluster) -> Result:
    def crash(node: DemoNode) -> None:
        node.crash()

    result, node = _take_away(cluster, "node crash: everything kill -9", crash, "lease expired in the store")
    _prove("the lock was taken after its lease", lambda: _cause(cluster) == "lease expired")
    node.start()
    return result


def _freeze_sidecar(cluster: Cluster) -> Result:
    result, node = _take_away(
        cluster,
        "sidecar frozen (SIGSTOP)",
        lambda node: node.freeze_sidecar(),
        "guard killed the server before the lease ended",
    )
    _prove(
        "the server is dead, its guard lives, its sidecar is frozen",
        lambda: _stopped(node) and not node.server() and node.guard_pid() is not None,
    )
    node.thaw()
    return result


def _freeze_everything(cluster: Cluster) -> Result:
    result, node = _take_away(
        cluster,
        "all of the node frozen (SIGSTOP)",
        lambda node: node.freeze(),
        "kernel timer killed the frozen guard and its namespace",
    )
    _prove("the frozen guard is dead, with its tree", lambda: _stopped(node) and not node.tree())
    node.thaw()
    return result


def _switchover(cluster: Cluster) -> Result:
    before = _settled(cluster)
    to = sorted(set(cluster.nodes) - {before})[0]
    _say(f"… sidecar switchover --to {to} --yes")
    done = cluster.sidecar("switchover", "--to", to, "--yes")
    _say(f"  exit {done.returncode}: {(done.stdout or done.stderr).strip().splitlines()[-1]}")
    if done.returncode != 0:
        raise TimeoutError(f"switchover to {to}: exit {done.returncode}: {done.stderr.strip()}")
    cluster.await_active(before)
    _prove("the lock was handed over", lambda: _cause(cluster) == f"switchover to {to}")
    proof = "server proven dead, lock released, then taken"
    return Result("planned switchover", before, to, _last_gap(cluster), proof)


def _failover(cluster: Cluster) -> Result:
    before = _settled(cluster)
    to = sorted(set(cluster.nodes) - {before})[-1]
    _say(f"… {before}: sidecar frozen, then sidecar failover --to {to} --yes")
    cluster[before].freeze_sidecar()
    done = cluster.sidecar("failover", "--to", to, "--yes")
    _say(f"  exit {done.returncode}: {(done.stdout or done.stderr).strip().splitlines()[-1]}")
    if done.returncode != 0:
        raise TimeoutError(f"failover to {to}: exit {done.returncode}: {done.stderr.strip()}")
    after = cluster.await_active(before)
    _prove("the lock was broken", lambda: _cause(cluster).startswith("failover by "))
    cluster[before].thaw()
    proof = "lock broken, old deadline waited out"
    return Result("forced failover", before, after, _last_gap(cluster), proof)


def _take_away(
    cluster: Cluster, act: str, fault: Callable[[DemoNode], None], proof: str
) -> tuple[Result, DemoNode]:
    before = _settled(cluster)
    _say(f"… {before}: {act}")
    fault(cluster[before])
    after = cluster.await_active(before)
    return Result(act, before, after, _last_gap(cluster), proof), cluster[before]


def _prove(what: str, seen: Callable[[], bool]) -> None:
    """Look at what the table is going to claim; raise TimeoutError when it is not to be seen."""
    until(what, seen, SETTLED_MS)


def _stopped(node: DemoNode) -> bool:
    return bool(node.sidecar().status() == psutil.STATUS_STOPPED)


def _cause(cluster: Cluster) -> str:
    """Return why the lock changed hands last, as ``sidecar history`` has it."""
    done = cluster.sidecar("history", "-n", "1", "-o", "json")
    entries = json.loads(done.stdout or "[]")
    return str(entries[0]["cause"]) if entries else ""


def _settled(cluster: Cluster) -> str:
    active = cluster.await_active()
    _settle(cluster, active)
    return active


def _settle(cluster: Cluster, active: str) -> None:
    """Wait until every other node could take over."""

    def monitoring() -> bool:
        nodes = cluster.status().get("nodes", [])
        states = {node["node"]: node["state"] for node in nodes}
        return states == {name: "running" if name == active else "monitoring" for name in cluster.nodes}

    until(f"{active} running and the others monitoring", monitoring, SETTLED_MS)


def _last_gap(cluster: Cluster) -> float:
    found = witness.gaps(cluster.records())
    return found[-1].length_ms if found else 0.0


def _table(results: list[Result]) -> None:
    _say(f"\n{'act':<34} {'from':<7} {'to':<7} {'no active':>10}  proof")
    for result in results:
        _say(
            f"{result.act:<34} {result.before:<7} {result.after:<7} "
            f"{result.without_ms / 1000:>8.2f} s  {result.proof}"
        )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's own output
