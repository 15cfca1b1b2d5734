"""Notices a store that is older than what this node has seen, which only a person can set right.

Nobody becomes active in it until ``sidecar failover --raise-epoch``. The node's message says so too, but that
is seen only by who looks.

A view may be older than a grant by a moment, which is no older store: who holds the lock at its mark has the
store's word for it with each renewal, and loses the lock where the store has forgotten it.
"""

from sidecar import events
from sidecar.core.candidate import epoch_behind
from sidecar.core.outlook import VIEW_LAG_MS
from sidecar.core.state import Holding, Node
from sidecar.core.units import Epoch, Instant


class OlderStore:
    """Raises an alarm for each pair of the store's epoch and this node's mark above it, once."""

    def __init__(self) -> None:
        self._told: tuple[Epoch, Epoch] | None = None

    def look(self, node: Node, now: Instant) -> None:
        """Look at what this node knows now."""
        phase, memory = node
        view, mark = memory.view, memory.mark
        if view is None or not epoch_behind(memory) or "epoch" in view.unreadable:
            return
        if now < memory.mark_at + VIEW_LAG_MS or (isinstance(phase, Holding) and phase.lease.epoch == mark):
            return
        shown = view.epoch.epoch
        if (shown, mark) == self._told:
            return
        self._told = (shown, mark)
        events.emit(
            events.Raised(
                text=f"the store's epoch {shown} is behind {mark}: it was wiped or restored, or this node "
                "uses another store than the others did; no node that has seen that becomes active"
            )
        )
