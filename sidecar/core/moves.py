"""Moves between phases that several rules share."""

from dataclasses import replace

from sidecar.core import state as s
from sidecar.core.candidate import best_other, held_back, under_way
from sidecar.core.units import Epoch, Instant


def start(memory: s.Memory, lease: s.Lease, now: Instant, policy: s.Policy) -> s.Step:
    """Order an active server under *lease*. The caller knows that no tree exists."""
    run = memory.runs + 1
    starting = s.Starting(lease, run, Instant(now + policy.start_timeout_ms))
    order = s.StartServer(run, "active", lease.epoch, lease.deadline)
    return s.Step(s.Node(starting, replace(memory, runs=run)), (order,))


def start_standby(memory: s.Memory, now: Instant, policy: s.Policy) -> s.Step:
    """Order a standby server. The caller knows that no tree exists."""
    run = memory.runs + 1
    order = s.StartServer(run, "standby", Epoch(0), Instant(now + policy.standby_lifetime_ms))
    return s.Step(s.Node(s.Standing(run), replace(memory, runs=run)), (order,))


def give_back(memory: s.Memory, lease: s.Lease, cause: str) -> s.Memory:
    """Owe *lease* to the store. Only where no active tree of it lives, or ever did (S2)."""
    for earlier in (memory.unsettled, memory.owed):
        if earlier is not None and earlier.epoch == lease.epoch:
            cause = earlier.cause  # the first one is the reason
    return replace(
        memory,
        owed=s.Owed(lease.epoch, cause, lease.deadline),
        spent=max(memory.spent, lease.epoch),
        call_at=Instant(0),
        change=None,
    )


def finish(memory: s.Memory, lease: s.Lease, after: s.After) -> s.Step:
    """Go on after the active tree is proven dead."""
    if isinstance(after, s.Again) and memory.quit is None:
        return s.Step(s.Node(s.Waiting(lease, after.at), memory))
    cause = after.cause if isinstance(after, s.GiveUp) else "stopped"
    return s.Step(s.Node(s.Idle(), give_back(memory, lease, cause)))


def orders(phase: s.Holding, kill_at: Instant) -> tuple[s.Action, ...]:
    """Return the order that ends the tree of *phase*, where it has one."""
    return () if isinstance(phase, s.Waiting) else (s.StopServer(phase.run, kill_at),)


def stop(node: s.Node, after: s.After, kill_at: Instant) -> s.Step:
    """End whatever runs under the lock, gracefully until *kill_at*, and go on with *after*.

    The lease is renewed meanwhile, so its end does not bound *kill_at*: guard and `advance` see to it.
    """
    phase, memory = node
    assert isinstance(phase, s.Holding)
    if isinstance(phase, s.Waiting):
        return finish(memory, phase.lease, after)
    if isinstance(phase, s.Stopping):
        kill_at = min(kill_at, phase.kill_at)
    return s.Step(s.Node(s.Stopping(phase.lease, phase.run, kill_at, after), memory), orders(phase, kill_at))


def be_lost(node: s.Node, epoch: Epoch, now: Instant, policy: s.Policy) -> s.Step:
    """Take in that the lock at *epoch* is not ours any more.

    Whoever has broken it waits out our deadline, so a graceful stop inside it is still safe.
    """
    phase, memory = node
    if memory.owed is not None and memory.owed.epoch == epoch:
        return s.Step(s.Node(phase, replace(memory, owed=None)))
    if not isinstance(phase, s.Holding) or phase.lease.epoch != epoch:
        return s.Step(node)
    memory = replace(memory, spent=max(memory.spent, epoch), change=None, trouble="lost the lock")
    if policy.once and memory.quit is None:
        memory = replace(memory, quit=s.Quit(1))
    if isinstance(phase, s.Waiting):
        owed = s.Owed(epoch, "lost, server proven dead", Instant(now + policy.ttl_ms))
        return s.Step(s.Node(s.Idle(), replace(memory, owed=owed)))
    kill_at = min(Instant(now + policy.stop_grace_ms), phase.lease.kill_at(policy))
    if isinstance(phase, s.Stopping):
        kill_at = min(kill_at, phase.kill_at)
    return s.Step(s.Node(s.Ending(phase.run, kill_at, epoch), memory), orders(phase, kill_at))


def after_failure(
    memory: s.Memory,
    reason: str,
    now: Instant,
    policy: s.Policy,
    *,
    starting: bool = False,
    vetoed: bool = False,
) -> tuple[s.Memory, s.After]:
    """Count a failure of the active server; return whether to start again or to hand over.

    A candidate of a switchover that fails to start hands back at once, a start that was *vetoed* is not
    tried again in place. With nobody to hand over to, the budget does not end: the lock stays, restarts go
    on at the longest pause. In maintenance nothing is handed over, but by a candidate.
    """
    within = Instant(now - policy.restart_within_ms)
    failures = (*(at for at in memory.failures if at > within), now)[-(policy.restart_attempts + 1) :]
    memory = replace(memory, failures=failures, trouble=reason)
    view = memory.view
    request = None if view is None else under_way(view)
    rolls_back = starting and request is not None and request.to == policy.node
    spent = vetoed or len(failures) > policy.restart_attempts
    if held_back(memory, policy) and not rolls_back:
        spent = False  # it stays down, and the lock where it is, until the end of the pause
    other = None if view is None else best_other(view, policy.node)
    if memory.quit is not None or ((spent or rolls_back) and other is not None):
        cool_until = Instant(now + policy.backoff_max_ms)
        after = s.GiveUp(reason) if vetoed else s.GiveUp(f"server failed: {reason}")
        return replace(memory, cool_until=cool_until, gave_up=True), after
    pause_ms = policy.backoff_max_ms
    if not spent:
        pause_ms = min(pause_ms, policy.backoff_ms << min(len(failures) - 1, 20))
    return memory, s.Again(Instant(now + pause_ms))
