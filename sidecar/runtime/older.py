"""Notices a store that is older than what this node has seen, which only a person can set right.

Nobody becomes active in it until ``sidecar failover --raise-epoch``. The node's message says so too, but that
is seen only by who looks.

Who holds the lock at its mark has the store's word for it with each renewal, and loses the lock where the
store has forgotten it: to it a view is only late.
"""

from sidecar import events
from sidecar.core.outlook import older_store
from sidecar.core.state import Holding, Node
from sidecar.core.units import Epoch


class OlderStore:
    """Raises an alarm for each pair of the store's epoch and this node's mark above it, once."""

    def __init__(self) -> None:
        self._told: tuple[Epoch, Epoch] | None = None

    def look(self, node: Node) -> None:
        """Look at what this node knows now."""
        phase, memory = node
        view, mark = memory.view, memory.mark
        older = older_store(memory)
        if older is None or view is None or "epoch" in view.unreadable:
            return
        if isinstance(phase, Holding) and phase.lease.epoch == mark:
            return
        if (view.epoch.epoch, mark) == self._told:
            return
        self._told = (view.epoch.epoch, mark)
        events.emit(events.Raised(text=f"{older}; no node that has seen that becomes active"))
