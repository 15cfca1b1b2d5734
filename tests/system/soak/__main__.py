"""``./scripts/soak``: random faults at real clusters side by side, judged by the witness.

The seed decides which faults come in which order; processes and kernel decide the rest, so a seed replays the
plan, not the run. Exit 0 only if no two servers were ever active at once, somebody was active again in time
after each fault, nothing of ours has crashed, and at least one fault was injected. A peer (``--subject``) is
measured: its overlaps end nothing.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from sidecar import __version__
from tests.harness.cells import Unavailable, isolated
from tests.harness.fabric import Fabric
from tests.system.soak import build, report, steady
from tests.system.soak.arena import Arena
from tests.system.soak.deck import ROLES, share
from tests.system.soak.nodes import pause

JUDGED_EVERY_S = 120
TOLD_EVERY_S = 60
INSIDE = "SIDECAR_SOAK_INSIDE"
"""In the environment of the run that is in its own namespaces."""
UNAVAILABLE = 77
"""Exit status: this machine cannot do it. As automake's skipped tests."""


class Run:
    """All clusters of one run, and when it ends."""

    def __init__(
        self, arenas: Sequence[Arena], minutes: float | None, faults: int | None, forgiving: bool
    ) -> None:
        self.arenas, self.faults, self.forgiving = arenas, faults, forgiving
        self.begun = time.monotonic()
        self._until = self.begun + minutes * 60 if minutes is not None else float("inf")
        self._halt = threading.Event()

    def count(self) -> int:
        """Return how many faults have been injected so far."""
        return sum(o.missed is None for arena in self.arenas for o in list(arena.findings.outcomes))

    def over(self) -> bool:
        """Tell whether to play no more cards."""
        enough = self.faults is not None and self.count() >= self.faults
        return self._halt.is_set() or enough or time.monotonic() >= self._until

    def play(self) -> None:
        """Play all clusters side by side until it is over."""
        threads = [threading.Thread(target=self._one, args=(arena,)) for arena in self.arenas]
        for thread in threads:
            thread.start()
        told = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            pause(0.2)
            if time.monotonic() - told > TOLD_EVERY_S:
                told = time.monotonic()
                print(f"soak: {(told - self.begun) / 60:.0f} min, {self.count()} faults", flush=True)

    def _one(self, arena: Arena) -> None:
        judged = time.monotonic()
        try:
            arena.begin()
            while not self.over() and arena.round():
                bad = bool(arena.findings.stuck)
                if time.monotonic() - judged > JUDGED_EVERY_S:
                    judged = time.monotonic()
                    arena.judge()
                    bad = bad or bool(arena.findings.overlaps)
                if bad and not self.forgiving:
                    self._halt.set()  # what was found is to be looked at, not buried
        except Exception:  # the outermost frame of a thread: the harness itself failed, and says so
            arena.findings.errors.append(traceback.format_exc())
            self._halt.set()
        finally:
            for last in (arena.stop, arena.judge):  # whatever came of the one before
                try:
                    last()
                except Exception:
                    arena.findings.errors.append(traceback.format_exc())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./scripts/soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="so long")
    length.add_argument("--each", action="store_true", help="until each kind was played once, in any role")
    length.add_argument("--faults", type=int, help="until so many faults were injected")
    length.add_argument("--steady", type=float, metavar="MINUTES", help="no faults: does anything grow?")
    parser.add_argument("--backend", choices=("etcd", "consul", "local"), help="default: the subject's")
    parser.add_argument("--subject", choices=build.SUBJECTS, default="sidecar")
    parser.add_argument("--clusters", type=int, default=3, help="side by side, each with a store of its own")
    parser.add_argument("--nodes", type=int, default=3, help="of each cluster")
    parser.add_argument(
        "--ttl", type=float, default=2.0, help="in s; the lease. More where the machine is busy"
    )
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--kinds", default="", help="only these faults, by name, separated by commas")
    parser.add_argument("--roles", default="", help="only in these roles: " + ", ".join(ROLES))
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--keep", action="store_true", help="keep logs and witness even of a good run")
    parser.add_argument("--broken", action="store_true", help="a guard without deadline: must be caught")
    options = parser.parse_args(arguments)
    own = {"etcdctl": "etcd", "consul-lock": "consul"}.get(options.subject)
    if own is not None and options.backend not in (None, own):
        parser.error(f"{options.subject} works with {own} alone")
    options.backend = options.backend or own
    if options.backend is None:
        parser.error("--backend: etcd, consul or local")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run, report, and return the exit status."""
    asked = parse(arguments)
    if asked.steady is not None:
        return steady.run(asked.backend, asked.steady, asked.ttl, asked.json)
    if INSIDE not in os.environ:
        command = [sys.executable, "-m", "tests.system.soak", *arguments]
        try:
            return isolated(command, {**os.environ, INSIDE: "1"})
        except Unavailable as why:
            print(f"soak: not here: {why}", file=sys.stderr)
            return UNAVAILABLE
    memory = Path("/dev/shm")  # where the disk is slow the stores measure the disk, and nothing else
    folder = Path(tempfile.mkdtemp(prefix="sidecar-soak-", dir=memory if memory.is_dir() else None))
    started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    options = build.Options(
        folder,
        asked.backend,
        asked.subject,
        asked.nodes,
        asked.seed,
        round(asked.ttl * 1000),
        broken=build.broken_build(folder / "broken") if asked.broken else None,
        kinds=_words(asked.kinds),
        roles=_words(asked.roles) or ROLES,
        each=asked.each,
    )
    print(
        f"soak: {asked.subject} on {asked.backend}, {asked.clusters} clusters, seed {asked.seed}", flush=True
    )
    with ExitStack() as stack:
        fabric = Fabric()
        stack.callback(fabric.close)
        tools = build.make_tools(folder, options.skipped)
        arenas = []
        for index in range(asked.clusters):
            made = build.arena(index, options, fabric, tools)
            stack.callback(made.close)
            arenas.append(made)
        if asked.each:
            share([arena.deck for arena in arenas])
        run = Run(arenas, asked.minutes, asked.faults, forgiving=asked.subject != "sidecar")
        run.play()
        facts: dict[str, Any] = {
            "command": "./scripts/soak " + shlex.join(arguments),
            "seed": asked.seed,
            "backend": asked.backend,
            "subject": asked.subject + (" (broken: no guard deadline)" if asked.broken else ""),
            "clusters": asked.clusters,
            "nodes": asked.nodes,
            "ttl_s": asked.ttl,
            "version": __version__,
            "commit": _commit(),
            "machine": f"{os.cpu_count()} cores, Linux {platform.release()}",
            "started_at": started_at,
            "duration_s": round(time.monotonic() - run.begun),
            "skipped": options.skipped,
        }
        found = report.summary([arena.findings for arena in arenas], facts)
    print(report.show(found))
    if asked.json:
        report.write(found, asked.json)
    bad = found["overlaps"] or found["stuck"] or found["harness_errors"] or found["crashes"]
    good = found["faults"] and not bad
    if good and not asked.keep:
        shutil.rmtree(folder)
    else:
        print(f"soak: logs and witness in {folder}")
    return 0 if good else 1


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _commit() -> str:
    root = Path(__file__).parents[3]
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
