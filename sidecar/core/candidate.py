"""May this node ask for the lock, and how long does it let better ones go first?"""

from dataclasses import replace
from typing import NamedTuple

from sidecar.core.model import LockRecord, NodeRecord, Request, Settings, View
from sidecar.core.state import Idle, Memory, Phase, Policy, Standing
from sidecar.core.units import Epoch, Instant

ABSENT_CANDIDATE_RANKS = 4
"""How many ranks everybody waits for the node a command has named, before they go without it."""

NOT_ELIGIBLE = "not eligible (node_options.eligible, or `sidecar set`)"


def in_force(policy: Policy, settings: Settings) -> Policy:
    """Return the configured *policy* with what was set of this node at run time over it."""
    found = settings.override(policy.node)
    priority = policy.priority if found.priority is None else found.priority
    eligible = policy.eligible if found.eligible is None else found.eligible
    return replace(policy, priority=priority, eligible=eligible)


class Wish(NamedTuple):
    """Who is to have the lock next, as an operator has said."""

    source: str | None  # who is to give it up
    to: str | None  # None: whoever is best
    epoch: Epoch  # of the source
    forced: bool  # the source goes last: a `failover` has broken its lock


def under_way(view: View) -> Request | None:
    """Return the hand-over that is being carried out: the confirmed one; one that cannot be read is none."""
    request = view.request
    if request is None or request.kind == "restart" or "request" in view.unreadable:
        return None
    return request if request.state == "confirmed" else None


def wish(view: View, broken: LockRecord | None) -> Wish | None:
    """Return whose wishes count at a vacancy. *broken*: the last lock that was seen broken.

    Before every request those of who has broken the lock: a request tells what somebody is about to do, and
    may be overwritten by one who is too late to break anything.
    """
    if broken is not None and broken.node and broken.epoch == view.epoch.epoch:
        return Wish(broken.node, broken.to, broken.epoch, forced=True)
    request = under_way(view)
    if request is None:
        return None
    return Wish(request.source, request.to, request.epoch, forced=request.kind == "failover")


def held_back(memory: Memory, policy: Policy) -> bool:
    """Tell whether an operator has put this node into maintenance."""
    return memory.view is not None and memory.view.settings.holds_back(policy.node)


def paused(memory: Memory, policy: Policy) -> bool:
    """Tell whether this node must not take the lock, being in maintenance.

    Not where it is needed to finish a hand-over: a pause that comes after its confirmation would leave
    it half done, with nobody active. A node that is paused by itself is needed only when it is named.
    """
    return held_back(memory, policy) and not _needed(memory.view, policy.node)


def _needed(view: View | None, node: str) -> bool:
    request = None if view is None else under_way(view)
    if view is None or request is None:
        return False
    return node in (request.source, request.to) or node not in view.settings.paused_nodes


def epoch_behind(memory: Memory) -> bool:
    """Tell whether the store is older than what this node has already seen."""
    return memory.view is not None and memory.view.epoch.epoch < memory.mark


def willing(phase: Phase, memory: Memory, now: Instant, policy: Policy) -> bool:
    """Tell whether this node would take the lock if it were free."""
    return (
        isinstance(phase, Idle | Standing)
        and policy.eligible
        and memory.quit is None
        and memory.owed is None
        and memory.clearing is None
        and now >= memory.cool_until
        and memory.view is not None
        and not paused(memory, policy)
        and not epoch_behind(memory)
    )


def stray(memory: Memory, policy: Policy) -> bool:
    """Tell whether the store shows a hold of this instance that never reached it as a grant."""
    lock = None if memory.view is None else memory.view.holder
    return lock is not None and lock.instance == policy.instance and lock.epoch > memory.spent


def go_at(memory: Memory, policy: Policy) -> Instant | None:
    """Return when this node may ask for the lock by rank; None while it is not free."""
    if memory.view is None or memory.vacant_since is None:
        return None
    return Instant(memory.vacant_since + rank(memory.view, memory.broken, policy) * policy.hold_back_ms)


def rank(view: View, broken: LockRecord | None, policy: Policy) -> int:
    """Return how many steps this node lets others go first. All who see the same compute the same order."""
    gone = view.epoch.node if view.epoch.released is None else None  # it did not leave, it died
    others = [r for r in view.nodes if r.available and r.node not in (policy.node, gone)]
    wished = wish(view, broken)
    mine = _preference(wished, policy.node, policy.priority, healthy=True)
    before = sum(_preference_of(wished, other) < mine for other in others)
    named_elsewhere = wished is not None and wished.to not in (None, policy.node)
    candidate_gave_up = wished is not None and view.epoch.epoch > wished.epoch
    return before + (ABSENT_CANDIDATE_RANKS if named_elsewhere and not candidate_gave_up else 0)


def best_other(view: View, node: str, *, planned: bool = False) -> NodeRecord | None:
    """Return the node that would take over from *node* now, if there is one.

    *planned*: from a node that serves well. One whose standby server fails is then no reason to stop.
    """
    others = [r for r in view.nodes if r.node != node and (r.fit if planned else r.available)]
    return min(others, key=lambda record: _preference_of(None, record), default=None)


def _preference_of(wished: Wish | None, record: NodeRecord) -> tuple[int, int, bool, str]:
    return _preference(wished, record.node, record.priority, healthy=record.state != "failed")


def _preference(
    wished: Wish | None, node: str, priority: int, *, healthy: bool
) -> tuple[int, int, bool, str]:
    named = 2
    if wished is not None:
        named = 0 if node == wished.to else 1 if node == wished.source else 2
        if wished.forced and named == 1:
            named = 3  # the one that was forced out goes last
    return named, -priority, not healthy, node
