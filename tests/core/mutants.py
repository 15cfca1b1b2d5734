"""Edits that the tests of the core must catch.  Run: ``python -m tests.core.mutants [NAME…]``.

Each edit breaks one rule of the core on purpose. A mutant that survives means that the tests are
blind there: mend them, not this list. Every mutant is run twice, against the simulation and against
the unit tests, to see who catches it; one of them has to.
"""

# ruff: noqa: E501 - one mutant, one line

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("MUTANT_SEEDS", "300"))  # of the simulation, until one fails
PARTS = ("sidecar", "tests/core", "tests/__init__.py")


class Mutant(NamedTuple):
    file: str
    old: str
    new: str


MUTANTS = {
    # units: what a lease is worth
    "lease counted from too late": Mutant("units", "(sent_at + usable", "(sent_at + 900 + usable"),
    "clock drift ignored": Mutant("units", "DRIFT_PERMILLE = 10", "DRIFT_PERMILLE = -40"),
    "silence cut short": Mutant("units", "return ttl_ms + -(-ttl_ms *", "return ttl_ms * 3 // 4 + -(-ttl_ms *"),
    "deadline of a lease doubled": Mutant("units", "sent_at + usable_ms", "sent_at + 2 * usable_ms"),
    # taking the lock
    "spent epoch believed": Mutant("decide", "grant.epoch > memory.spent and ", ""),
    "epoch mark ignored for grants": Mutant("decide", " and grant.epoch >= memory.mark", ""),
    "mark not raised by views": Mutant("decide", "view.epoch.epoch, view.lock.epoch if", "NO_EPOCH, NO_EPOCH if"),
    "mark not saved": Mutant("decide", "if node.memory.mark > mark:", "if False:"),
    "store behind not noticed": Mutant("candidate", "memory.view.epoch.epoch < memory.mark", "False"),
    "floor of the acquisition forgotten": Mutant("advance", "s.Acquire(memory.mark)", "s.Acquire(s.NO_EPOCH)"),
    "restart believes its old hold": Mutant("decide", "mark=mark, spent=mark", "mark=mark"),
    "late grant used": Mutant("decide", "unwanted or now >= lease.stop_at(policy)", "unwanted"),
    "unwanted grant kept": Mutant("decide", "not believed or unwanted or", "not believed or"),
    "promoting starts before the standby is gone": Mutant(
        "decide",
        "return s.Step(s.Node(promoting, memory), (s.StopServer(phase.run, kill_at),))",
        "return start(memory, lease, now, policy)",
    ),
    "rank ignored": Mutant("candidate", "rank(memory.view, policy) * policy", "0 * policy"),
    "cool-down ignored": Mutant("candidate", "and now >= memory.cool_until", ""),
    "pause ignored by candidates": Mutant("candidate", "and not paused(memory, policy)", ""),
    # keeping it
    "never renewed": Mutant("advance", "or _renew(node, phase, now)", ""),
    "never leaves before the end": Mutant("advance", "or _lease_short(node, phase, now, policy)", ""),
    "end of the lease not noticed": Mutant("advance", "_lease_over(node, phase, now, policy)\n        or", ""),
    "stop begins later": Mutant("state", "self.kill_at(policy) - policy.stop_grace_ms", "self.kill_at(policy)"),
    "renewal shortens the lease": Mutant("decide", "grant.deadline <= phase.lease.deadline", "False"),
    "guard is not told of the renewal": Mutant("decide", "return s.Step(s.Node(replace(phase, lease=lease), memory), orders)", "return s.Step(s.Node(replace(phase, lease=lease), memory))"),
    "late grant revives what was lost": Mutant("decide", "ending = replace(phase, owes=max(phase.owes, grant.epoch))", "ending: s.Phase = s.Serving(lease, phase.run)"),
    # losing it
    "lost ignored": Mutant("moves", "phase.lease.epoch != epoch:", "phase.lease.epoch != epoch or True:"),
    "broken lock ignored": Mutant("decide", 'lock.state == "broken" and lock', "False and lock"),
    "lost lock believed again": Mutant("moves", "memory = replace(memory, spent=max(memory.spent, epoch), change=None", "memory = replace(memory, change=None"),
    "graceful beyond the lease": Mutant("moves", "min(Instant(now + policy.stop_grace_ms), phase.lease.kill_at(policy))", "Instant(now + 9 * policy.stop_grace_ms)"),
    "kill forgotten": Mutant("advance", "(s.KillServer(phase.run),)", "()"),
    "released before proof": Mutant("decide", "return _stop_asked(node, now, keep=keep)", "return s.Step(s.Node(s.Idle(), replace(memory, owed=s.Owed(memory.mark, '', Instant(now + 9999)))))"),
    "owed before proof": Mutant("moves", "return s.Step(s.Node(s.Ending(phase.run, kill_at, epoch), memory), orders(phase, kill_at))", "return s.Step(s.Node(s.Ending(phase.run, kill_at), replace(memory, call='release')), (*orders(phase, kill_at), s.Release(epoch, '')))"),
    "nothing owed after proof": Mutant("decide", "if owes != NO_EPOCH:", "if False:"),
    "any death is proof": Mutant("decide", "or phase.run != gone.run:", ":"),
    "self-activation ignored": Mutant("decide", "return _activated(node, run, now)", "return s.Step(node)"),
    "self-activation ignored while ending": Mutant("decide", "s.Standing | s.Promoting | s.Stopping | s.Ending) or", "s.Standing) or"),
    "hold of a tree that cannot die": Mutant("advance", "phase.kills < KILLS_MAX", "True"),
    # the server
    "budget of restarts ignored": Mutant("moves", "spent = len(failures) > policy.restart_attempts", "spent = False"),
    "no restart in place": Mutant("moves", "if memory.quit is not None or ((spent or rolls_back) and", "if True or ((spent or rolls_back) and"),
    "candidate does not hand back": Mutant("moves", "(spent or rolls_back)", "spent"),
    "paused node starts servers": Mutant("advance", "or _maintenance(node.memory, policy):\n        return None\n    return start(", "or False:\n        return None\n    return start("),
    "once ignored": Mutant("decide", "if policy.once:", "if False:"),
    "once ignored when lost": Mutant("moves", "if policy.once and memory.quit is None:", "if False:"),
    # requests
    "confirmation not needed": Mutant("requests", 'case "accepted":\n            return _abandon(node, request, "the command did not confirm it", now, policy)\n        case _:\n            if held', 'case _:\n            if held'),
    "pause leaves a hand-over half done": Mutant("candidate", "return held_back(memory, policy) and not _needed(memory.view, policy.node)", "return held_back(memory, policy)"),
    "a hand-over frees every paused node": Mutant("candidate", "return node in (request.source, request.to) or node not in view.settings.paused_nodes", "return True"),
    "restart in maintenance tries for ever": Mutant("requests", "if isinstance(phase, s.Waiting) and held_back(memory, policy):", "if False:"),
    "switchover begun in maintenance": Mutant("requests", "if held_back(node.memory, policy) or", "if False and"),
    "pause gives the lock away": Mutant("moves", "if held_back(memory, policy) and not rolls_back:", "if False:"),
    "failback to a node that gave up": Mutant("outlook", "policy.failback and not memory.gave_up", "policy.failback"),
    "asked is enough": Mutant("requests", 'match request.state:\n        case "asked":\n            reason', 'match request.state:\n        case "never":\n            reason'),
    "abandoned request carried out": Mutant("requests", "request.state in FINISHED or memory", "memory"),
    "request of another epoch carried out": Mutant("requests", "if request.epoch < phase.lease.epoch:", "if False:"),
    "rolled back called done": Mutant("requests", "request.to in (None, policy.node) and request.source != policy.node", "True"),
    "failed answer not repeated": Mutant("decide", "memory, answered=None, answer_at=", "memory, answer_at="),
    "unconfirmed called done": Mutant("requests", 'request.kind == "switchover" and request.state != "confirmed"', "False"),
    "failback at once": Mutant("advance", "memory.better[1] + policy.ttl_ms", "memory.better[1]"),
    # leaving
    "exits with the lock": Mutant("advance", "settled = memory.owed is None and memory.call is None", "settled = True"),
}  # fmt: skip

FAST = (
    "lease counted from too late",
    "spent epoch believed",
    "promoting starts before the standby is gone",
    "end of the lease not noticed",
    "lost ignored",
    "kill forgotten",
    "owed before proof",
    "any death is proof",
    "confirmation not needed",
    "rolled back called done",
)


def plant(mutant: Mutant, tree: Path) -> None:
    """Copy what the tests of the core need to *tree*, with the edit made."""
    for part in PARTS:
        source, target = ROOT / part, tree / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    target = tree / "sidecar" / "core" / f"{mutant.file}.py"
    text = target.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file}.py no longer has exactly one {mutant.old!r}"
    target.write_text(text.replace(mutant.old, mutant.new))


def caught_by_simulation(tree: Path, seeds: int) -> str | None:
    """Return the number of the failing seed and the property that it breaks."""
    command = [sys.executable, "-m", "tests.core.simulation", "--no-shrink", "--schedules", str(seeds)]
    result = _run(command, tree)
    if result.returncode == 0:
        return None
    lines = [line for line in result.stdout.splitlines() if line.startswith("schedule ")]
    if not lines:
        return "raises " + result.stderr.strip().splitlines()[-1][:40]
    schedule, _, text = lines[0].partition(" fails: ")
    return f"{schedule}: {text[:44]}"


def caught_by_units(tree: Path) -> str | None:
    """Return the first test that fails."""
    files = [
        name
        for name in ("test_decide.py", "test_table.py", "test_requests.py")
        if (tree / "tests/core" / name).exists()
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header"]
    result = _run([*command, *(str(tree / "tests" / "core" / name) for name in files)], tree)
    assert result.returncode in (0, 1), result.stdout + result.stderr
    failed = [
        line.split("::")[1].split(" ")[0] for line in result.stdout.splitlines() if line[:6] == "FAILED"
    ]
    return failed[0].partition("[")[0] if failed else None


def _run(command: list[str], tree: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def main(names: list[str]) -> int:
    survivors = 0
    for name in names or MUTANTS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            plant(MUTANTS[name], Path(folder))
            units = caught_by_units(Path(folder))
            seed = caught_by_simulation(Path(folder), SEEDS)
        survivors += not (seed or units)
        took_s = time.monotonic() - began
        print(f"{name:<44} | {seed or '-':<56} | {units or '-'} ({took_s:.0f} s)", flush=True)
    print(f"{survivors} survive" if survivors else "all caught")
    return survivors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
