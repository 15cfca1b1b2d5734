"""How long nobody serves when a command, a node or a sidecar ends: the sidecar beside its peers."""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.nodes import (
    Node,
    Pair,
    Subject,
    Tail,
    Unmeasured,
    await_first,
    consul_lock,
    etcdctl_lock,
    pairs,
    sidecar_exec,
)
from benchmark.results import Row, limit
from sidecar.standin import witness, worker_command
from sidecar.standin.record import now_ns
from tests.harness.stores import Consul, Etcd

ETCD_OWN_PACE = [
    "--heartbeat-interval",
    "100",
    "--election-timeout",
    "1000",
]  # etcd's defaults, not the harness's
SOON_S = 20.0
CONSUL_LOCK_S = 90.0
FAILURES_MAX = 2  # of one subject; it is not asked for what it does not do any longer
SEED = 20_240_501
QUICK_COOL_DOWN = {
    "SIDECAR_SERVER__RESTARTS__BACKOFF": "100ms",
    "SIDECAR_SERVER__RESTARTS__BACKOFF_MAX": "100ms",
}


def command_killed(folder: Path, quick: bool) -> list[Row]:
    """The active's command is killed and not restarted: the other node starts its own."""
    with Etcd.run(folder / "etcd", extra=ETCD_OWN_PACE) as etcd:
        ours = sidecar_exec(f"etcd://{etcd.address}", 10, "--restarts", "0", **QUICK_COOL_DOWN)
        both = [ours, etcdctl_lock(etcd.url, 10)]
        rows = _in_turn(folder, both, "command killed, etcd", Node.kill_worker, 5 if quick else 40)
    rows[0].target = 20
    with Consul.run(folder / "consul") as consul:
        ours = sidecar_exec(f"consul://{consul.address}", 10, "--restarts", "0", **QUICK_COOL_DOWN)
        both = [ours, consul_lock(consul.url)]
        rows += _in_turn(folder, both, "command killed, Consul", Node.kill_worker, 3 if quick else 20)
    return rows


def own_start(folder: Path, quick: bool) -> list[Row]:
    """The measured command alone, without any lock: what its interpreter adds to every takeover here."""
    row = Row("start of the measured command alone", "no lock", "ms")
    for number in range(5 if quick else 40):
        path = folder / f"witness-{number}"
        tail, begun = Tail(path), now_ns()
        with subprocess.Popen(worker_command(path), env={**os.environ, "SIDECAR_NODE": "none"}) as worker:
            try:
                row.samples.append((await_first(tail).at_ns - begun) / 1e6)
            finally:
                worker.kill()
    return [row]


def terminated(folder: Path, quick: bool) -> list[Row]:
    """The active gets SIGTERM: the other node starts its command."""
    with Etcd.run(folder / "etcd", extra=ETCD_OWN_PACE) as etcd:
        both = [sidecar_exec(f"etcd://{etcd.address}", 10), etcdctl_lock(etcd.url, 10)]
        rows = _in_turn(folder, both, "SIGTERM, etcd", Node.terminate, 4 if quick else 20)
    with Consul.run(folder / "consul") as consul:
        both = [sidecar_exec(f"consul://{consul.address}", 10), consul_lock(consul.url)]
        rows += _in_turn(folder, both, "SIGTERM, Consul", Node.terminate, 3 if quick else 10)
    return rows


def _in_turn(
    folder: Path, subjects: Sequence[Subject], measure: str, fault: Callable[[Node], int], times: int
) -> list[Row]:
    """Do *fault* to every subject in turn, *times* each."""
    rows = [Row(measure, subject.name, "ms") for subject in subjects]
    with pairs(folder / measure.replace(" ", "-").replace(",", ""), subjects) as started:
        for _ in range(times):
            for row, pair in zip(rows, started, strict=True):
                if len(row.failures) < FAILURES_MAX:
                    _sample(row, pair, fault, SOON_S)
        for row, pair in zip(rows, started, strict=True):
            _judge(row, pair)
    return rows


def _sample(row: Row, pair: Pair, fault: Callable[[Node], int], within_s: float) -> None:
    """Take one sample and bring the pair back into order."""
    try:
        active = pair.active()
        row.samples.append(pair.takeover_ms(fault, within_s))
        if fault is Node.terminate:
            active.await_end()
        elif not pair.subject.is_sidecar:
            time.sleep(0.3)  # a peer ends with its command
        pair.start()
    except (Unmeasured, OSError) as error:
        row.failures.append(str(error))
        _again(pair)
        print(f"bench: {row.measure}, {row.subject}: {error}", file=sys.stderr)


def _again(pair: Pair) -> None:
    """Start a pair afresh that is in a state nobody foresaw."""
    for node in pair.nodes.values():
        node.clean_up()
    with contextlib.suppress(Unmeasured):
        pair.start()


def _judge(row: Row, pair: Pair) -> None:
    """A fast takeover that let two serve at once is none."""
    if pair.subject.is_sidecar:
        row.failures += witness.verdict(witness.read(pair.witness))


def crash(folder: Path, quick: bool) -> list[Row]:
    """Everything of the active's node is killed at once, at a random instant between two renewals."""
    rows: list[Row] = []
    with Etcd.run(folder / "etcd", extra=ETCD_OWN_PACE) as etcd:
        for ttl_s in (3, 10):
            rarely = sidecar_exec(
                f"etcd://{etcd.address}",
                ttl_s,
                name="sidecar exec, renew_every ttl/3",
                SIDECAR_LOCK__RENEW_EVERY=f"{ttl_s * 1000 // 3}ms",
            )
            subjects = [sidecar_exec(f"etcd://{etcd.address}", ttl_s), rarely, etcdctl_lock(etcd.url, ttl_s)]
            made = _at_once(
                folder / f"crash-{ttl_s}",
                subjects,
                f"node crash, etcd, TTL {ttl_s} s",
                ttl_s,
                each=2 if quick else 4,
                times=1 if quick else 6,
            )
            for subject in subjects[:2]:
                limit(made, subject.name, "etcdctl lock", 1.05)
            if ttl_s == 3:
                made.insert(1, replace(made[0], measure=f"{made[0].measure}, in itself", target=3_800))
            rows += made
    return rows


def crash_consul(folder: Path, quick: bool) -> list[Row]:
    """The same over Consul, where `consul lock` has no TTL to choose."""
    with Consul.run(folder / "consul") as consul:
        measure = "node crash, Consul, TTL 3 s"
        ours = [sidecar_exec(f"consul://{consul.address}", 3)]
        each, times = (2, 1) if quick else (4, 5)
        rows = _at_once(folder / "crash-consul", ours, measure, 3, each=each, times=times)
        rows[0].target = 4_000
        peers = [consul_lock(consul.url)]
        measure = "node crash, Consul, no TTL"
        rows += _at_once(folder / "crash-consul", peers, measure, 3, each=2 if quick else 5, times=1)
    return rows


def _at_once(
    folder: Path, subjects: Sequence[Subject], measure: str, ttl_s: int, *, each: int, times: int
) -> list[Row]:
    """Crash *each* pairs of every subject side by side, *times* each: most of it is waiting."""
    rows = {subject.name: Row(measure, subject.name, "ms") for subject in subjects}
    with pairs(folder, subjects, each) as started:
        threads = []
        for number, pair in enumerate(started):
            waits = random.Random(SEED + ttl_s * 100 + number % each)  # the same for all subjects
            pauses = [waits.uniform(0, ttl_s) for _ in range(times)]
            work = (rows[pair.subject.name], pair, pauses)
            threads.append(threading.Thread(target=_crashes, args=work))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for pair in started:
            _judge(rows[pair.subject.name], pair)
    return list(rows.values())


def _crashes(row: Row, pair: Pair, pauses: Sequence[float]) -> None:
    for pause_s in pauses:
        time.sleep(pause_s)
        _sample(row, pair, Node.crash, CONSUL_LOCK_S)
