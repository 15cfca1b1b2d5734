"""Notices another sidecar that goes by this node's name.

The two are one row in ``status``, now the one and now the other. The lock is as safe from them as from any
other two, since it names an instance and not a node.

An older record of this node is no namesake: that of the sidecar before this one stands until our first
publishing, one in a restored store until our next. So what counts is another instance that publishes twice
after ours was seen.

Not noticed: two that never run at the same time.
"""

from sidecar.core.model import View
from sidecar.events import Raised, emit


class Namesakes:
    """Raises an alarm for each instance under this node's name that is not this sidecar, once."""

    def __init__(self) -> None:
        self._shown = False  # whether this sidecar's own record was seen
        self._first: dict[str, int] = {}  # instance: when the first of its records was made, by its clock
        self._told: set[str] = set()

    def seen(self, view: View, node: str, instance: str) -> None:
        """Look at a new view."""
        record = view.node(node)
        if record is None:
            return
        if record.instance == instance:
            self._shown = True
        elif self._shown and record.instance not in self._told:
            first = self._first.setdefault(record.instance, record.seen_at_unix_ms)
            if record.seen_at_unix_ms != first:
                self._told.add(record.instance)
                where = f" (its API: {record.api})" if record.api else ""
                emit(Raised(text=f"another sidecar is called {node}, too{where}: give each its own node"))
