"""Runs schedules: what `./scripts/simulate` does."""

import json
import multiprocessing
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import click

from tests.core.simulation.loop import Violation
from tests.core.simulation.matrix import render
from tests.core.simulation.shrink import Outcome, outcome, shrink
from tests.core.simulation.world import ALL, Mercy, World

CHUNK = 20  # schedules that one worker takes at a time


class Ran(NamedTuple):
    """What a few schedules have come to."""

    schedules: int
    cpu_s: float
    counts: Counter[str]
    cells: Counter[tuple[str, str]]
    failed: list[Outcome]


def run(seeds: range, mercy: Mercy = ALL) -> Ran:
    """Run these schedules one after the other."""
    began = time.process_time()
    counts: Counter[str] = Counter()
    cells: Counter[tuple[str, str]] = Counter()
    failed: list[Outcome] = []
    for seed in seeds:
        world = World(seed, mercy)
        try:
            world.run()
        except Violation as violation:
            failed.append(outcome(world, violation))
        counts.update(world.loop.counts)
        cells.update(world.loop.cells)
    return Ran(len(seeds), time.process_time() - began, counts, cells, failed)


@click.command()
@click.option("--schedules", "-n", default=1, show_default=True, help="How many schedules to run.")
@click.option("--seed", "-s", default=0, show_default=True, help="Number of the first schedule.")
@click.option("--jobs", "-j", default=1, show_default=True, help="Processes to run them in.")
@click.option("--only", default="", help="Replay a shrunk schedule: what a failure has printed.")
@click.option("--story", is_flag=True, help="Tell what happened, even where nothing fails.")
@click.option("--failures", default=1, show_default=True, help="Stop after so many schedules that fail.")
@click.option("--no-shrink", is_flag=True, help="Say only which schedule fails, and with what.")
@click.option("--matrix", is_flag=True, help="Print how often each observation was made in each state.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(
    schedules: int,
    seed: int,
    jobs: int,
    only: str,
    story: bool,
    failures: int,
    no_shrink: bool,
    matrix: bool,
    json_file: Path | None,
) -> None:
    """Run whole clusters in simulated time and check S1, S2, S3, L1, L2 and T1 at every step.

    A schedule is all that happens to a cluster of 2 to 5 nodes, drawn from its number alone: the same number
    gives the same schedule, always. One that fails is shrunk and told, and how to replay it is printed.
    """
    if only or story:
        _replay(seed, Mercy.parse(only))
        return
    began = time.monotonic()
    chunks = [range(at, min(at + CHUNK, seed + schedules)) for at in range(seed, seed + schedules, CHUNK)]
    total = Ran(0, 0.0, Counter(), Counter(), [])
    with multiprocessing.Pool(max(1, jobs)) as pool:
        for ran in pool.imap_unordered(run, chunks):
            total = _sum(total, ran)
            _progress(total, schedules, began)
            if len(total.failed) >= failures:
                break
        pool.terminate()
    _report(total, time.monotonic() - began, matrix, json_file, seed)
    for failed in total.failed[:failures]:
        if no_shrink:
            click.echo(f"schedule {failed.seed} fails: {failed.text}")
        else:
            _tell(shrink(failed))
    raise SystemExit(1 if total.failed else 0)


def _replay(seed: int, mercy: Mercy) -> None:
    world = World(seed, mercy)
    try:
        world.run()
    except Violation as violation:
        _tell(outcome(world, violation))
        raise SystemExit(1) from None
    click.echo(f"{world.loop.story()}\nschedule {seed}: all properties hold")


def _sum(a: Ran, b: Ran) -> Ran:
    failed = sorted(a.failed + b.failed, key=lambda one: one.seed)
    return Ran(a.schedules + b.schedules, a.cpu_s + b.cpu_s, a.counts + b.counts, a.cells + b.cells, failed)


def _progress(total: Ran, schedules: int, began: float) -> None:
    if total.schedules % (50 * CHUNK) == 0:
        rate = total.schedules / (time.monotonic() - began)
        click.echo(f"{total.schedules} of {schedules}, {rate:.1f}/s, {len(total.failed)} failed", err=True)


def _report(total: Ran, wall_s: float, matrix: bool, json_file: Path | None, seed: int) -> None:
    for name, amount in sorted(total.counts.items()):
        click.echo(f"{amount:>10} {name}")
    if matrix:
        click.echo(render(total.cells))
    click.echo(
        f"{total.schedules} schedules from {seed}: {len(total.failed)} failed; {wall_s:.0f} s, "
        f"{total.schedules / max(wall_s, 0.001):.1f} a second, "
        f"{total.schedules / max(total.cpu_s, 0.001):.1f} a second and core"
    )
    if json_file is not None:
        figures = {
            "commit": _commit(),
            "first": seed,
            "schedules": total.schedules,
            "failed": [one.seed for one in total.failed],
            "wall_s": round(wall_s, 1),
            "cpu_s": round(total.cpu_s, 1),
            "counts": dict(sorted(total.counts.items())),
            "cells": {f"{phase} {seen}": n for (phase, seen), n in sorted(total.cells.items())},
        }
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _tell(failed: Outcome) -> None:
    click.echo(f"\nschedule {failed.seed} fails\n{failed.story}\n{failed.text}\nagain: {failed.command()}")


if __name__ == "__main__":
    main()
