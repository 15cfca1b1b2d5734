"""Two actives, as the records in the store would show them.

A node that is gone leaves its record saying *active* for a while, and one publishing may still be under way
when its lock is over. So only who says so anew, twice, after somebody else has got the lock counts.

Not guaranteed: a node that cannot publish is not seen. What excludes overlap is the deadline, never this.
"""

from dataclasses import dataclass

from sidecar.core.model import NodeRecord, View
from sidecar.core.units import Epoch

SAID_AGAIN = 2


@dataclass(frozen=True, slots=True)
class _Claim:
    epoch: Epoch
    said_at_unix_ms: int
    times: int


class Overlaps:
    """Follows the views of one cluster."""

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}

    def look(self, view: View) -> int:
        """Return how many nodes go on as active although the lock is somebody else's at a later epoch."""
        self._claims = {r.node: self._claim(r) for r in view.nodes if _overtaken(r, view)}
        return sum(claim.times >= SAID_AGAIN for claim in self._claims.values())

    def _claim(self, record: NodeRecord) -> _Claim:
        known = self._claims.get(record.node)
        if known is None or known.epoch != record.epoch:
            return _Claim(record.epoch, record.seen_at_unix_ms, 0)
        again = record.seen_at_unix_ms != known.said_at_unix_ms
        return _Claim(record.epoch, record.seen_at_unix_ms, known.times + again)


def _overtaken(record: NodeRecord, view: View) -> bool:
    lock = view.holder
    if lock is None or record.role != "active":
        return False
    return record.node != lock.node and record.epoch < lock.epoch
