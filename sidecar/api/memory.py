"""What the API answers from: the last turn, the age of what the store has shown, the history as last read.

How old another node's words are is counted here on our own clock, from when the store showed them, unlike
in `sidecar.operate.status`: whoever watches sees a lease run down even where the clocks of two machines
disagree. What was there when this sidecar began counts as fresh; nodes publish thrice in a TTL.
"""

from dataclasses import replace

from sidecar import __version__
from sidecar.api.answers import own_record
from sidecar.clock import Clock, wall_ms
from sidecar.core.model import Enforcement, HistoryEntry, NodeRecord, View
from sidecar.core.outlook import older_store
from sidecar.core.units import Instant
from sidecar.operate import status
from sidecar.runtime.turn import Turn

UNSEEN = View(revision=0)


class Memory:
    """Written by the deciding thread (`take`) and the API's own; every value is replaced as a whole."""

    def __init__(self, clock: Clock, cluster: str, store: str, node: str, url: str) -> None:
        self._clock = clock
        self._cluster, self._store, self._node, self._url = cluster, store, node, url
        self.enforcement: Enforcement = "none"
        self.turn: Turn | None = None
        self.history: tuple[HistoryEntry, ...] | None = None  # newest first; None: not read yet
        self._history_at = Instant(0)
        self._heard: dict[str, tuple[NodeRecord, Instant]] = {}  # each node's last words, and since when

    def take(self, turn: Turn) -> None:
        """Keep the newest turn. On the deciding thread."""
        before = None if self.turn is None else self.turn.node.memory.view
        view = turn.node.memory.view
        if view is not None and view is not before:
            self._heard = {record.node: self._hear(record, turn.at) for record in view.nodes}
        self.turn = turn

    def _hear(self, record: NodeRecord, now: Instant) -> tuple[NodeRecord, Instant]:
        last = self._heard.get(record.node)
        return last if last is not None and last[0] == record else (record, now)

    def keep_history(self, entries: tuple[HistoryEntry, ...]) -> None:
        """Keep what was just read."""
        self.history, self._history_at = entries, self._clock.now()

    @property
    def view(self) -> View | None:
        """Return what the store showed last."""
        return None if self.turn is None else self.turn.node.memory.view

    @property
    def view_age_ms(self) -> int | None:
        """Return for how long it has shown nothing new; None: it never did. Nodes publish thrice in a TTL."""
        if self.turn is None or self.turn.node.memory.view is None:
            return None
        return max(0, self._clock.now() - self.turn.node.memory.view_at)

    @property
    def history_age_ms(self) -> int:
        """Return how long ago the history was read. It is read again after every change of active."""
        return max(0, self._clock.now() - self._history_at)

    def status(self) -> status.Document:
        """Return the document of ``status -o json``, with this node as it is now, and how old the rest is."""
        view, turn = self.view or UNSEEN, self.turn
        if turn is not None:
            others = tuple(self._aged(record) for record in view.nodes if record.node != self._node)
            view = replace(view, nodes=(*others, self._own(turn, view)))
        found = status.status(view, cluster=self._cluster, backend=self._store, now_unix_ms=wall_ms())
        age_ms = self.view_age_ms
        found["node"] = self._node
        found["view_age_s"] = None if age_ms is None else age_ms / 1000
        if (trouble := self._trouble(turn, age_ms)) is not None:
            found["notices"] = [trouble, *(status.notices(view, wall_ms()) if age_ms is not None else ())]
        return found

    def _aged(self, record: NodeRecord) -> NodeRecord:
        _, since = self._heard.get(record.node, (record, self._clock.now()))
        return replace(record, seen_at_unix_ms=wall_ms() - max(0, self._clock.now() - since))

    def _trouble(self, turn: Turn | None, age_ms: int | None) -> str | None:
        if age_ms is None:
            return "the store has not answered since this sidecar started: who is active is not known here"
        if turn is not None and age_ms > turn.policy.ttl_ms:
            return (
                f"the store has shown nothing new for {age_ms / 1000:.1f} s: the others are as they were then"
            )
        return None

    def _own(self, turn: Turn, view: View) -> NodeRecord:
        now, published = self._clock.now(), view.node(self._node)
        own = own_record(turn, now, self.enforcement, wall_ms() - max(0, now - turn.at))
        late = older_store(turn.node.memory) is None  # what it has seen since is not in the view yet
        return replace(
            own,
            mark=min(own.mark, view.epoch.epoch) if late else own.mark,
            version=__version__,
            server=None if published is None else published.server,
            api=self._url,
        )
