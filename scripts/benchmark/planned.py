"""Switchover: how long nobody serves, and how long the command takes that asked for it."""

import subprocess
import time
from pathlib import Path

import yaml

from benchmark.nodes import SETTLE_S, SIDECAR, Pair, Program, Subject, Unmeasured
from benchmark.results import Row
from benchmark.takeover import ETCD_OWN_PACE
from sidecar.standin import witness
from tests.harness.stores import Etcd

COMMAND_WITHIN_S = 60.0


def switchover(folder: Path, quick: bool) -> list[Row]:
    """A healthy active hands over to the other node, back and forth."""
    gap = Row("switchover, time without an active, etcd", "sidecar run", "ms", 50)
    wall = Row("switchover, the command's wall time, etcd", "sidecar switchover", "ms")
    with (
        Etcd.run(folder / "etcd", extra=ETCD_OWN_PACE) as etcd,
        Pair(folder / "pair", _run(folder, etcd.url)) as pair,
    ):
        pair.start()
        config = folder / "pair" / "node-a.yml"
        for _ in range(4 if quick else 30):
            try:
                begun = witness.now_ns()
                wall.samples.append(_command("switchover", "--yes", "-c", str(config)))
                pair.await_open(begun, COMMAND_WITHIN_S)
            except Unmeasured as error:
                wall.failures.append(str(error))
            time.sleep(SETTLE_S)
        records = witness.read(pair.witness)
        gap.samples = [found.length_ms for found in witness.gaps(records)]
        gap.failures = witness.verdict(records) + wall.failures
    return [gap, wall]


def _run(folder: Path, url: str) -> Subject:
    """Return ``sidecar run`` with a configuration for each node."""

    def program(lock: str, node: str, command: list[str]) -> Program:
        paths = {"state": str(folder / lock / node / "state"), "run": str(folder / lock / node / "run")}
        settings = {
            "cluster": lock,
            "node": node,
            "backend": "etcd",
            "etcd": {"endpoints": [url]},
            "lock": {"ttl": "10s"},
            "paths": paths,
            "server": {"kind": "command", "command": command, "standby": "stopped"},
        }
        file = folder / lock / f"{node}.yml"
        file.write_text(yaml.safe_dump(settings))
        return [SIDECAR, "run", "-c", str(file)], {}

    return Subject("sidecar run", "etcd", program, is_sidecar=True)


def _command(*words: str) -> float:
    """Run a command of the CLI; return its wall time in ms."""
    begun = time.monotonic()
    done = subprocess.run(
        [SIDECAR, *words],
        capture_output=True,
        text=True,
        timeout=COMMAND_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise Unmeasured(f"{words[0]}: exit {done.returncode}: {done.stderr.strip()}")
    return (time.monotonic() - begun) * 1000


def command_line(folder: Path, quick: bool) -> list[Row]:
    """Wall time of short commands, with two nodes running."""
    times = 5 if quick else 30
    rows = [
        Row("wall time of `--help`", "sidecar", "ms", 100),
        Row("wall time of `version`", "sidecar", "ms"),
        Row("wall time of `status`, etcd", "sidecar", "ms", 300),
    ]
    with (
        Etcd.run(folder / "etcd", extra=ETCD_OWN_PACE) as etcd,
        Pair(folder / "pair", _run(folder, etcd.url)) as pair,
    ):
        pair.start()
        status = ["status", "-c", str(folder / "pair" / "node-a.yml")]
        for _ in range(times):
            for row, words in zip(rows, (["--help"], ["version"], status), strict=True):
                try:
                    row.samples.append(_command(*words))
                except Unmeasured as error:
                    row.failures.append(str(error))
    return rows
