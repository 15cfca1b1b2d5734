"""The one line per change of role: what happened, why, at which epoch, and how much of the lease was left."""

import logging

from sidecar.core import state as s
from sidecar.core.model import NodeRecord
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.events import RoleChanged


def role_change(
    before: s.Node, after: s.Node, seen: s.Observation, now: Instant, record: NodeRecord
) -> RoleChanged:
    """Describe the step from *before* to *after*, another phase; *record* is what the node says now."""
    old, new = before.phase, after.phase
    lease = _lease(new) or _lease(old)
    taken = after.memory.change if _lease(new) and not _lease(old) else None
    return RoleChanged(
        node=record.node,
        before=type(old).__name__.lower(),
        after=type(new).__name__.lower(),
        cause=type(seen).__name__,
        why=_why(new, after.memory, seen) if taken is None else taken.cause,
        previous=None if taken is None else taken.previous,
        epoch=_owed(old) if lease is None else lease.epoch,
        lease_left_ms=None if lease is None else lease.deadline - now,
        message=record.message,
    )


def level_of(before: s.Node, after: s.Node, seen: s.Observation) -> int:
    """Return the level: information only where neither the lock nor an alarm is in it."""
    concerns = _lease(before.phase) or _lease(after.phase) or isinstance(seen, s.ServerActivated)
    return logging.WARNING if concerns else logging.INFO


def _lease(phase: s.Phase) -> s.Lease | None:
    return phase.lease if isinstance(phase, s.Holding) else None


def _owed(phase: s.Phase) -> Epoch:
    return phase.owes if isinstance(phase, s.Ending) else NO_EPOCH


def _why(phase: s.Phase, memory: s.Memory, seen: s.Observation) -> str | None:
    match phase:
        case s.Stopping(after=s.GiveUp(cause)):
            return cause
        case s.Stopping() | s.Ending(owes=0) if memory.restart_request is not None:
            return "restart asked for"
        case s.Stopping() | s.Waiting():
            return memory.trouble
        case s.Ending(owes=owes):
            return memory.trouble if owes or isinstance(seen, s.ServerActivated) else "stopped"
        case s.Idle() if memory.owed is not None:
            return memory.owed.cause
        case s.Idle() if isinstance(seen, s.ServerGone):
            return memory.trouble
        case _:
            return None
