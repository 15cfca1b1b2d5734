"""What time and circumstances ask for, whatever was observed last.

`advance` makes one move and is called until it makes none. The order of the rules is their
priority: the end of the lease comes before everything an operator may want.
"""

from dataclasses import replace
from typing import assert_never

from sidecar.core import state as s
from sidecar.core.candidate import go_at, held_back, paused, stray, willing
from sidecar.core.moves import after_failure, be_lost, give_back, start, start_standby, stop
from sidecar.core.requests import hear
from sidecar.core.units import Instant

KILL_AGAIN_MS = 1_000  # a kill order that did not help is repeated; the kernel's timer stands anyway
KILLS_MAX = 5  # then the lease is left to run out: a tree that cannot be killed must not keep the lock
LEASE_OVER = "the lease could not be renewed in time"


def advance(node: s.Node, now: Instant, policy: s.Policy) -> s.Step:
    """Return the most urgent move, or the node as it is."""
    phase = node.phase
    match phase:
        case s.Finished():
            return s.Step(node)
        case s.Ending():
            return _overdue(node, phase, phase.kill_at, now) or s.Step(node)
        case s.Idle() | s.Standing():
            return _without_lock(node, now, policy)
        case s.Promoting() | s.Starting() | s.Serving() | s.Waiting() | s.Stopping():
            return _with_lock(node, phase, now, policy)
        case _:
            assert_never(phase)


def _overdue(
    node: s.Node, phase: s.Ending | s.Promoting | s.Stopping, kill_at: Instant, now: Instant
) -> s.Step | None:
    if now < kill_at:
        return None
    later: s.Phase = replace(phase, kill_at=Instant(now + KILL_AGAIN_MS))
    if isinstance(later, s.Promoting | s.Stopping):
        later = replace(later, kills=later.kills + 1)
    return s.Step(s.Node(later, node.memory), (s.KillServer(phase.run),))


def _maintenance(memory: s.Memory, policy: s.Policy) -> bool:
    """Tell whether starting a server has to wait; the restart an operator asked for does not."""
    asked = memory.restart_request
    return held_back(memory, policy) and (asked is None or memory.answered == (asked, "failed"))


# With the lock


def _with_lock(node: s.Node, phase: s.Holding, now: Instant, policy: s.Policy) -> s.Step:
    return (
        _lease_over(node, phase, now, policy)
        or _lease_short(node, phase, now, policy)
        or _deathless(node, phase, now, policy)
        or _renew(node, phase, now)
        or _patience_over(node, phase, now, policy)
        or _leave(node, phase, now, policy)
        or hear(node, now, policy)
        or _go_on(node, phase, now, policy)
        or _fail_back(node, phase, now, policy)
        or s.Step(node)
    )


def _lease_over(node: s.Node, phase: s.Holding, now: Instant, policy: s.Policy) -> s.Step | None:
    """The guard kills at this instant too, and the kernel after it; this is the third way."""
    if now < phase.lease.kill_at(policy):
        return None
    step = be_lost(node, phase.lease.epoch, now, policy)
    memory = replace(step.node.memory, trouble=LEASE_OVER)
    return s.Step(s.Node(step.node.phase, memory), step.actions)


def _lease_short(node: s.Node, phase: s.Holding, now: Instant, policy: s.Policy) -> s.Step | None:
    if now < phase.lease.stop_at(policy) or isinstance(phase, s.Stopping):
        return None
    memory = replace(node.memory, trouble=LEASE_OVER)
    if policy.once and memory.quit is None:
        memory = replace(memory, quit=s.Quit(1))
    return stop(s.Node(phase, memory), s.GiveUp("lease ran short"), phase.lease.kill_at(policy))


def _deathless(node: s.Node, phase: s.Holding, now: Instant, policy: s.Policy) -> s.Step | None:
    """Stop renewing for a tree that does not die: without proof, the lease has to run out (S2)."""
    if not isinstance(phase, s.Promoting | s.Stopping) or phase.kills < KILLS_MAX or now < phase.kill_at:
        return None
    step = be_lost(node, phase.lease.epoch, now, policy)
    memory = replace(step.node.memory, trouble="the server cannot be killed")
    return s.Step(s.Node(step.node.phase, memory), step.actions)


def _renew(node: s.Node, phase: s.Holding, now: Instant) -> s.Step | None:
    memory = node.memory
    if memory.call is not None or now < memory.call_at:
        return None
    return s.Step(s.Node(phase, replace(memory, call="renew")), (s.Renew(phase.lease.epoch),))


def _patience_over(node: s.Node, phase: s.Holding, now: Instant, policy: s.Policy) -> s.Step | None:
    if isinstance(phase, s.Promoting | s.Stopping):
        return _overdue(node, phase, phase.kill_at, now)
    if not isinstance(phase, s.Starting) or now < phase.until or paused(node.memory, policy):
        return None
    reason = f"server was not ready within {policy.start_timeout_ms} ms"
    memory, after = after_failure(node.memory, reason, now, policy, starting=True)
    return stop(s.Node(phase, memory), after, Instant(now + policy.stop_grace_ms))


def _leave(node: s.Node, phase: s.Holding, now: Instant, policy: s.Policy) -> s.Step | None:
    memory = node.memory
    if memory.quit is None:
        return None
    if memory.quit.keep_server and isinstance(phase, s.Starting | s.Serving):
        return _exit(memory, kept=True)
    if isinstance(phase, s.Stopping) and isinstance(phase.after, s.GiveUp):
        return None
    return stop(node, s.GiveUp("stopped"), Instant(now + policy.stop_timeout_ms))


def _go_on(node: s.Node, phase: s.Holding, now: Instant, policy: s.Policy) -> s.Step | None:
    if not isinstance(phase, s.Waiting) or now < phase.until or node.memory.clearing is not None:
        return None
    if _maintenance(node.memory, policy):
        return None
    return start(node.memory, phase.lease, now, policy)


def _fail_back(node: s.Node, phase: s.Holding, now: Instant, policy: s.Policy) -> s.Step | None:
    """Hand over to a preferred node that asks for it (``failback``) and has been able for a TTL."""
    memory = node.memory
    if not isinstance(phase, s.Serving) or memory.view is None or held_back(memory, policy):
        return None
    better = [
        record.node
        for record in memory.view.nodes
        if record.failback
        and record.available
        and record.priority > policy.priority
        and record.node != memory.declined
    ]
    name = min(better, default=None)
    if name is None:
        return None if memory.better is None else s.Step(s.Node(phase, replace(memory, better=None)))
    if memory.better is None or memory.better[0] != name:
        return s.Step(s.Node(phase, replace(memory, better=(name, now))))
    if now < memory.better[1] + policy.ttl_ms:
        return None
    after = s.GiveUp(f"failback to {name}")
    kill_at = Instant(now + policy.stop_timeout_ms)
    return stop(s.Node(phase, replace(memory, better=None, declined=name)), after, kill_at)


# Without the lock


def _without_lock(node: s.Node, now: Instant, policy: s.Policy) -> s.Step:
    phase = node.phase
    assert isinstance(phase, s.Idle | s.Standing)
    return (
        _settle(node, now)
        or _quit(node, phase, now, policy)
        or hear(node, now, policy)
        or _campaign(node, now, policy)
        or _stand_by(node, now, policy)
        or s.Step(node)
    )


def _settle(node: s.Node, now: Instant) -> s.Step | None:
    """Give back what is owed, when ``after_stop`` is over, until it is over by itself."""
    phase, memory = node
    if memory.owed is None:
        return None
    if now >= memory.owed.until:
        return s.Step(s.Node(phase, replace(memory, owed=None, unsettled=memory.owed)))
    if memory.call is not None or now < memory.call_at or memory.clearing is not None:
        return None
    order = s.Release(memory.owed.epoch, memory.owed.cause)
    return s.Step(s.Node(phase, replace(memory, call="release")), (order,))


def _quit(node: s.Node, phase: s.Idle | s.Standing, now: Instant, policy: s.Policy) -> s.Step | None:
    memory = node.memory
    if memory.quit is None:
        return None
    settled = memory.owed is None and memory.call is None and memory.clearing is None
    if isinstance(phase, s.Standing):
        if memory.quit.keep_server:
            return _exit(memory, kept=True) if settled else None
        kill_at = Instant(now + policy.stop_timeout_ms)
        return s.Step(s.Node(s.Ending(phase.run, kill_at), memory), (s.StopServer(phase.run, kill_at),))
    return _exit(memory, kept=False) if settled else None


def _exit(memory: s.Memory, *, kept: bool) -> s.Step:
    status = 0 if memory.quit is None else memory.quit.status
    return s.Step(s.Node(s.Finished(status, kept), memory), (s.Exit(status, kept),))


def _campaign(node: s.Node, now: Instant, policy: s.Policy) -> s.Step | None:
    phase, memory = node
    if memory.call is not None or now < memory.call_at or memory.owed is not None:
        return None
    forgotten = stray(memory, policy)
    if not willing(phase, memory, now, policy):
        lock = memory.view.lock if forgotten and memory.view is not None else None
        if lock is None:
            return None
        lease = s.Lease(lock.epoch, Instant(now + policy.ttl_ms))
        return s.Step(s.Node(phase, give_back(memory, lease, "not needed")))
    turn = go_at(memory, policy)
    if not forgotten and (turn is None or now < turn):
        return None
    if not forgotten and memory.view is not None:  # what is forgotten was sought before
        memory = replace(memory, sought=s.Vacancy(memory.view.epoch, memory.vacant_since, memory.sign_at))
    return s.Step(s.Node(phase, replace(memory, call="acquire")), (s.Acquire(memory.mark),))


def _stand_by(node: s.Node, now: Instant, policy: s.Policy) -> s.Step | None:
    """Start the standby tree, except where the lock is about to be had."""
    phase, memory = node
    if policy.standby == "stopped" or isinstance(phase, s.Standing) or memory.quit is not None:
        return None
    if now < memory.standby_at or memory.clearing is not None or _maintenance(memory, policy):
        return None
    if memory.view is None and now < memory.born_at + policy.ttl_ms:
        return None
    since = memory.vacant_since
    if since is not None and willing(phase, memory, now, policy) and now < since + policy.ttl_ms:
        return None
    return start_standby(memory, now, policy)
