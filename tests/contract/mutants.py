"""Deliberate bugs in the backends, each of which a contract test must catch. By hand, some minutes:

    python -m tests.contract.mutants [NAME…]

Method: an edit of one source file in a copy of the tree, then the tests named with it, which must fail.
A mutant that survives, or whose text is not found any more, ends with exit code 1.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLAUSES, FAULTS, ETCD = (f"tests/contract/test_{name}.py" for name in ("clauses", "faults", "etcd"))


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: str  # file and -k


MUTANTS = (
    Mutant(
        "etcd: renewal counts from its answer",
        "backends/_etcd_leases.py",
        "return Lease(lease, int(alive.TTL), sent_at), answer",
        "return Lease(lease, int(alive.TTL), self._clock.now()), answer",
        f"{CLAUSES} -k c5 and etcd34",
    ),
    Mutant(
        "etcd: grant counts from its answer",
        "backends/_etcd_leases.py",
        "return Lease(answer.body.ID, int(answer.body.TTL), sent_at)",
        "return Lease(answer.body.ID, int(answer.body.TTL), self._clock.now())",
        f"{ETCD} -k c5",
    ),
    Mutant(
        "etcd: a spare counts from the acquisition",
        "backends/etcd.py",
        "return Grant(hold, lease.since, lease.ttl_s * 1000)",
        "return Grant(hold, self._clock.now(), lease.ttl_s * 1000)",
        f"{CLAUSES} -k c5 and etcd34",
    ),
    Mutant(
        "etcd: renewing is a keep-alive, the check ignored",
        "backends/etcd.py",
        "        if not answer.body.succeeded:\n            raise self._not_holder(hold, answer)\n"
        "        return Grant",
        "        return Grant",
        f"{CLAUSES} -k (c4 or c6) and etcd34",
    ),
    Mutant(
        "etcd: renewing checks the lease, not the revisions",
        "backends/etcd.py",
        "return is_at(self._key(LOCK), create=create, mod=create, lease=lease)",
        "return is_at(self._key(LOCK), lease=lease)",
        f"{CLAUSES} {ETCD} -k (c4 or c6) and (etcd34 or same_lease)",
    ),
    Mutant(
        "etcd: renewing checks the create revision alone",
        "backends/etcd.py",
        "return is_at(self._key(LOCK), create=create, mod=create, lease=lease)",
        "return is_at(self._key(LOCK), create=create)",
        f"{CLAUSES} -k (c4 or c6) and etcd34",
    ),
    Mutant(
        "etcd: release is unconditional",
        "backends/etcd.py",
        "condition, maybe = self._held(create, lease), False",
        "condition, maybe = [], False",
        f"{CLAUSES} -k c4 and etcd34",
    ),
    Mutant(
        "etcd: a broken lock keeps the holder's lease",
        "backends/etcd.py",
        "[put(lock, encode(broken))], [])\n"
        '            answer = self._client.call("Txn", request_, deadline, effect=True)\n'
        "            if answer.body.succeeded:\n"
        "                self._attach(broken, answer.body.header.revision, deadline)\n",
        "[put(lock, encode(broken), keys[LOCK].lease)], [])\n"
        '            answer = self._client.call("Txn", request_, deadline, effect=True)\n'
        "            if answer.body.succeeded:\n",
        f"{CLAUSES} {ETCD} -k c6 and (etcd34 or test_etcd)",
    ),
    Mutant(
        "etcd: a broken lock gets no lease",
        "backends/etcd.py",
        "request = txn(is_at(lock, mod=mod), [put(lock, encode(broken), lease.id)], [])",
        "request = txn(is_at(lock, mod=mod), [put(lock, encode(broken))], [])",
        f"{CLAUSES} -k c6 and etcd34",
    ),
    Mutant(
        "etcd: a broken lock is free",
        "backends/etcd.py",
        "is_at(lock, mod=keys[LOCK].mod), [put(lock, encode(broken))], [])",
        "is_at(lock, mod=keys[LOCK].mod), [delete(lock)], [])",
        f"{CLAUSES} -k c6 and etcd34",
    ),
    Mutant(
        "etcd: acquiring does not compare the epoch",
        "backends/etcd.py",
        "txn(is_at(lock, create=0) + is_at(epoch, mod=at.mod), take",
        "txn(is_at(lock, create=0), take",
        f"{CLAUSES} -k (c1 or c3 or c6) and etcd34",
    ),
    Mutant(
        "etcd: acquiring does not compare the lock",
        "backends/etcd.py",
        "txn(is_at(lock, create=0) + is_at(epoch, mod=at.mod), take",
        "txn(is_at(epoch, mod=at.mod), take",
        f"{CLAUSES} -k (c2 or c3) and etcd34",
    ),
    Mutant(
        "etcd: an unknown acquisition stays the spare",
        "backends/etcd.py",
        "        except OutcomeUnknown:\n            self._known_epoch = None",
        "        except OutcomeUnknown:\n            self._leases.keep_spare(lease)",
        f"{ETCD} -k left_to_expire",
    ),
    Mutant(
        "etcd: old spares are used",
        "backends/_etcd_leases.py",
        "return spare if age_ms * SPARE_AGE_DIVISOR <= spare.ttl_s * 1000 else None",
        "return spare",
        f"{ETCD} -k spare",
    ),
    Mutant(
        "etcd: another cluster's answers count",
        "backends/_etcd_client.py",
        "            if same and not back:",
        "            if True:",
        f"{ETCD} {FAULTS} -k another_cluster or (s3 and etcd34)",
    ),
    Mutant(
        "etcd: no hedge",
        "backends/_etcd_client.py",
        "next_at = Instant(now + min(share_ms, HEDGE_MAX_MS))",
        "next_at = Instant(deadline + share_ms)",
        f"{ETCD} -k black_holed",
    ),
    Mutant(
        "etcd: a lost answer is not sent",
        "backends/_etcd_client.py",
        "        if effect and (maybe or any(attempt.sent for attempt in pending)):",
        "        if effect and maybe:",
        f"{FAULTS} -k (lost_answer or still_arrive) and etcd34",
    ),
    Mutant(
        "etcd: the watch starts one too late",
        "backends/_etcd_watch.py",
        "start_revision=start.revision + 1",
        "start_revision=start.revision + 2",
        f"{CLAUSES} -k c10 and etcd34",
    ),
    Mutant(
        "etcd: nobody checks a silent watch",
        "backends/_etcd_watch.py",
        "            if self._clock.now() >= check_at:\n                self._check(deadline)",
        "",
        f"{FAULTS} {ETCD} -k silent or silence",
    ),
    Mutant(
        "any: the floor is ignored",
        "backends/shared.py",
        "    if epoch < floor:",
        "    if epoch < 0:",
        f"{CLAUSES} -k c7 and (local or etcd34)",
    ),
    Mutant(
        "any: an unreadable lock is vacant",
        "backends/shared.py",
        "            bad.append(key)",
        "            bad.append(key) if key != LOCK else None",
        f"{CLAUSES} -k c13 and (local or etcd34)",
    ),
    Mutant(
        "any: clusters share a prefix",
        "backends/shared.py",
        '{settings.cluster}/"',
        '{settings.cluster[:4]}/"',
        f"{CLAUSES} -k c14 and (local or etcd34)",
    ),
    Mutant(
        "local: a renewal counts from its answer",
        "backends/local.py",
        "            return Grant(hold, sent_at, hold.ttl_ms)",
        "            return Grant(hold, self._clock.now(), hold.ttl_ms)",
        f"{CLAUSES} -k c5 and local",
    ),
    Mutant(
        "local: renewing does not check the hold",
        "backends/local.py",
        "            tx.require(hold)\n            lock = LockRecord",
        "            lock = LockRecord",
        f"{CLAUSES} -k c4 and local",
    ),
    Mutant(
        "local: release is unconditional",
        "backends/local.py",
        "            tx.require(hold, broken_too=True)\n",
        "",
        f"{CLAUSES} -k c4 and local",
    ),
    Mutant(
        "local: a broken lock ends with the holder's lease",
        "backends/local.py",
        "            tx.put(LOCK, encode(broken), lock.ttl_ms)",
        "            tx.put(LOCK, encode(broken), lock.ttl_ms // 3)",
        f"{CLAUSES} -k c6 and local",
    ),
    Mutant(
        "local: a lease ends early",
        "backends/_sqlite.py",
        "self._clock.now() < expires_at",
        "self._clock.now() < expires_at - 40",
        f"{CLAUSES} -k c3 and local",
    ),
    Mutant(
        "local: a replaced file goes unnoticed",
        "backends/_sqlite.py",
        "return self._identities() != self._parts",
        "return False",
        f"{FAULTS} -k s3 and local",
    ),
    Mutant(
        "local: transactions do not exclude each other",
        "backends/local.py",
        'begin = "begin" if how == "read" else "begin immediate"',
        'begin = "begin"',
        f"{CLAUSES} {FAULTS} -k (c3 or c8 or c15) and local",
    ),
    Mutant(
        "etcd: who only waits leaves a broken lock without a lease",
        "backends/etcd.py",
        "unleased = _orphan(latest.keys) is not None",
        "unleased = False",
        f"{ETCD} -k only_waits",
    ),
    Mutant(
        "local: a lock in a copy ends when it did in the original",
        "backends/_sqlite.py",
        "if not moved and",
        "if not moved or",
        "tests/contract/test_local.py -k copy_of_the_same_epoch",
    ),
)


def survives(mutant: Mutant) -> str | None:
    """Return how *mutant* got away, None when a test caught it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("sidecar", "backends", "tests", "pyproject.toml", "setup.cfg"):
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, tree / part)
        path = tree / mutant.file
        text = path.read_text()
        if mutant.old not in text:
            return "its text is not there any more"
        path.write_text(text.replace(mutant.old, mutant.new))
        files, _, names = mutant.tests.partition(" -k ")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", *files.split(), "-k", names]
        env = {"PYTHONPATH": folder, "SIDECAR_TOOLS": str(ROOT / ".cache/tools"), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        print("   ", failed[0][:150] if failed else done.stdout[-300:], flush=True)
        return None if done.returncode == 1 and failed else f"pytest ended with {done.returncode}"


def main(wanted: list[str]) -> int:
    """Try the mutants whose name contains one of *wanted*, or all."""
    escaped = 0
    for mutant in MUTANTS:
        if wanted and not any(word in mutant.name for word in wanted):
            continue
        print(mutant.name, flush=True)
        how = survives(mutant)
        print("    SURVIVED:" if how else "    caught", how or "", flush=True)
        escaped += how is not None
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
