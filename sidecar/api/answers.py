"""What a load balancer gets to know: pure functions of the last turn and the present instant.

Each returns why the answer is no, for people, or None for yes.

``/active`` ends at the instant at which the guard kills, `Lease.kill_at`, not at the lease's own end: from
then on the server is on its way out. One that is known to be dead ends it sooner, whatever the turn said.
"""

from collections.abc import Callable

from sidecar.core import state as s
from sidecar.core.candidate import NOT_ELIGIBLE
from sidecar.core.model import Enforcement, NodeRecord
from sidecar.core.outlook import describe
from sidecar.core.units import Instant
from sidecar.runtime.turn import Turn

LIVE_WITHIN_MS = 5_000
"""A loop that has not turned for so long is stuck: it turns at least once a second."""

NOT_YET = "the sidecar is starting"

Runs = Callable[[s.Run], bool]
"""Tells whether that server run is not known to be over."""


def why_not_live(turn: Turn | None, now: Instant) -> str | None:
    """Return why the deciding loop counts as stuck."""
    if turn is None:
        return NOT_YET
    if now - turn.at < LIVE_WITHIN_MS:
        return None
    return f"the sidecar's loop has not turned for {(now - turn.at) / 1000:.1f} s"


def why_not_active(turn: Turn | None, runs: Runs, now: Instant) -> str | None:
    """Return why this node is not active at this instant."""
    if turn is None:
        return NOT_YET
    phase = turn.node.phase
    if not isinstance(phase, s.Serving):
        return own_record(turn, now).message
    if now >= phase.lease.kill_at(turn.policy):
        return "the lease was not renewed in time: the guard ends the server"
    return None if runs(phase.run) else "the server is dead"


def why_not_standby(turn: Turn | None, now: Instant) -> str | None:
    """Return why this node is not standby: it has the lock, its active server may live, or it leaves."""
    if turn is None:
        return NOT_YET
    if (stuck := why_not_live(turn, now)) is not None:
        return stuck
    phase, memory = turn.node
    if isinstance(phase, s.Idle | s.Standing) and memory.quit is None:
        return None
    return own_record(turn, now).message


def why_not_ready(turn: Turn | None, runs: Runs, view_age_ms: int | None, now: Instant) -> str | None:
    """Return why this node could not serve: as active it does not, as standby it could not take over."""
    if turn is None or isinstance(turn.node.phase, s.Holding):
        return why_not_active(turn, runs, now)
    if (reason := why_not_standby(turn, now)) is not None:
        return reason
    record = own_record(turn, now)
    if not record.eligible:
        return f"it is {NOT_ELIGIBLE}"
    if not record.available or record.state != "monitoring":
        return record.message
    if view_age_ms is None or view_age_ms > turn.policy.ttl_ms:
        age = "yet" if view_age_ms is None else f"for {view_age_ms / 1000:.1f} s"
        return f"the store has shown nothing new {age}"
    return None


def own_record(turn: Turn, now: Instant, enforcement: Enforcement = "none", unix_ms: int = 0) -> NodeRecord:
    """Return what this node is by its last turn."""
    return describe(
        turn.node, now, turn.policy, enforcement=enforcement, version="", unix_ms=unix_ms, server=None
    )
