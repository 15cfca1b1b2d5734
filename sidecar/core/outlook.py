"""When the next decision is due, and what a node says of itself."""

from typing import assert_never

from sidecar.core import state as s
from sidecar.core.candidate import epoch_behind, go_at, paused
from sidecar.core.model import Enforcement, NodeRecord, Role, ServerState, ServerStats
from sidecar.core.units import NO_EPOCH, Instant

MONITORING = "Monitoring Master Server Status"
"""What the product shows on a standby's splash screen."""

VIEW_LAG_MS = 1_000
"""How much later than the mark a view may come that does not show it, before the store looks older."""


def wake_at(node: s.Node, now: Instant, policy: s.Policy) -> Instant:
    """Return the next instant at which `decide` may find something to do, at most 1 s away."""
    phase, memory = node
    instants = [memory.call_at, memory.cool_until, memory.standby_at, memory.answer_at]
    instants += [Instant(memory.request_since + policy.confirm_within_ms)]
    turn = go_at(memory, policy)
    instants += [turn] if turn is not None else []
    instants += [memory.owed.until] if memory.owed is not None else []
    if isinstance(phase, s.Holding):
        instants += [phase.lease.stop_at(policy), phase.lease.kill_at(policy)]
    if isinstance(phase, s.Starting | s.Waiting):
        instants.append(phase.until)
    if isinstance(phase, s.Promoting | s.Stopping | s.Ending):
        instants.append(phase.kill_at)
    return min([at for at in instants if at > now] + [Instant(now + 1_000)])


def describe(
    node: s.Node,
    now: Instant,
    policy: s.Policy,
    *,
    enforcement: Enforcement,
    version: str,
    unix_ms: int,
    server: ServerStats | None,
) -> NodeRecord:
    """Return what the others and ``status`` get to know of this node."""
    phase, memory = node
    role, state, message = _summary(node, now, policy)
    lease = phase.lease if isinstance(phase, s.Holding) else None
    free = isinstance(phase, s.Idle | s.Standing) and memory.owed is None and memory.quit is None
    free = free and memory.clearing is None
    able = policy.eligible and now >= memory.cool_until and not paused(memory, policy)
    return NodeRecord(
        node=policy.node,
        instance=policy.instance,
        role=role,
        state=state,
        message=message,
        epoch=NO_EPOCH if lease is None else lease.epoch,
        mark=memory.mark,
        enforcement=enforcement,
        priority=policy.priority,
        eligible=policy.eligible,
        available=free and able and not epoch_behind(memory),
        failback=policy.failback and not memory.gave_up,
        version=version,
        seen_at_unix_ms=unix_ms,
        lease_left_ms=None if lease is None else max(0, lease.deadline - now),
        server=server,
        heard=0 if memory.view is None else memory.view.versions.get("settings", 0),
    )


def _summary(node: s.Node, now: Instant, policy: s.Policy) -> tuple[Role, ServerState, str]:
    phase, memory = node
    maintenance = paused(memory, policy)
    match phase:
        case s.Serving():
            message = policy.serving_message + (" (paused)" if maintenance else "")
            return "active", "paused" if maintenance else "running", message
        case s.Starting():
            return "active", "starting", "Starting the active server"
        case s.Promoting():
            return "active", "starting", "Ending the standby server before starting as active"
        case s.Waiting():
            if maintenance:
                return "active", "paused", f"Server is down and stays down while paused: {memory.trouble}"
            return "active", "starting", f"Restarting in place: {memory.trouble}"
        case s.Stopping(after=after):
            return "active", "stopping", after.cause if isinstance(after, s.GiveUp) else "Restarting"
        case s.Ending(owes=owes):
            why = "Lost the lock; ending the server" if owes else "Ending the standby server"
            return "standby", "stopping", why
        case s.Finished():
            return "standby", "stopped", "Stopped"
        case s.Idle() | s.Standing():
            return "standby", *_waiting(node, now, policy)
        case _:
            assert_never(phase)


def older_store(memory: s.Memory) -> str | None:
    """Say that the store is older than what this node has seen; None where it is not.

    A view that came before the mark, or a moment after it, is only late.
    """
    if memory.view is None or not epoch_behind(memory) or memory.view_at < memory.mark_at + VIEW_LAG_MS:
        return None
    return (
        f"the store's epoch {memory.view.epoch.epoch} is behind {memory.mark}: it was wiped or restored, or "
        "this node uses another store than the others did"
    )


def _waiting(node: s.Node, now: Instant, policy: s.Policy) -> tuple[ServerState, str]:
    phase, memory = node
    if memory.clearing is not None:
        return "stopping", "The server is down, after_stop runs"
    if (older := older_store(memory)) is not None:
        return "failed", f"{older}; see `sidecar failover --raise-epoch`"
    if paused(memory, policy):
        return "paused", "Paused"
    if now < memory.cool_until:
        return "failed", f"Cooling down: {memory.trouble}"
    if memory.quit is not None:
        return "stopped", "Stopping"
    if policy.standby == "monitoring" and isinstance(phase, s.Idle):
        return (
            ("failed", memory.trouble)
            if memory.standby_failures and memory.trouble
            else ("starting", "Starting the standby server")
        )
    if isinstance(phase, s.Standing) and not phase.ready:
        return "starting", "Starting the standby server"
    return "monitoring", MONITORING
