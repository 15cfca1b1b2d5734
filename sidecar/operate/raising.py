"""``failover --raise-epoch``: makes a store usable again that is older than what the nodes have seen."""

from typing import NamedTuple

from sidecar.core.model import View
from sidecar.core.units import Epoch, Instant, silence_ms
from sidecar.documents import EPOCH_MAX
from sidecar.errors import BackendError, Conflict, Failed, OutcomeUnknown, Refused, TimedOut
from sidecar.operate import words
from sidecar.operate.asking import UNSURE, Done, Gap, Tell, Verdict
from sidecar.operate.desk import PAUSE_MS, Desk, Follower, pause
from sidecar.operate.failover import BREAK_WITHIN_MS, await_takeover
from sidecar.operate.handover import serves

UNSEEN = 1_000
"""How many epochs are left out when the epoch is raised: a node that is not there may have had some, and the
next active must get none that another has had, or whoever checks epochs could not tell the two apart."""
EXPIRY_MS = 3_000
"""How much later than its time a lock may end: the store takes a second, and the news travels."""


class RaisePlan(NamedTuple):
    """What raising the epoch would do."""

    view: View
    floor: Epoch
    risks: tuple[str, ...]


def await_free(desk: Desk, view: View, own_mark: Epoch, tell: Tell) -> View:
    """Watch the lock of a store whose epoch must be raised until it is free, or its holder has shown itself.

    A restored store may hold the lock of somebody who is gone. Where it keeps no leases (Consul) only who
    watches can tell, and no node takes over from an older epoch, or one that cannot be read: without this
    it would stand for ever.
    """
    lock = view.lock
    known = "epoch" not in view.unreadable and _floor(view, own_mark) <= view.epoch.epoch
    if lock is None or view.vacant or known:
        return view
    within_ms = silence_ms(lock.ttl_ms) + EXPIRY_MS
    tell(
        f"{lock.node or 'somebody'} has the lock at epoch {lock.epoch}; "
        f"watching for {words.span(within_ms)} whether it is still renewed"
    )
    follower, until = Follower(desk, view), desk.after(within_ms)
    while not follower.view.vacant and desk.clock.now() < until and not desk.halted():
        follower.newer(until)
    return follower.view


def _floor(view: View, own_mark: Epoch) -> Epoch:
    return max(own_mark, view.mark)


def plan_raise(view: View, own_mark: Epoch) -> RaisePlan:
    """Return to what the store's epoch has to be raised.

    Raises:
        Refused: It is not behind, or somebody holds the lock.
    """
    floor = _floor(view, own_mark)
    store = view.epoch.epoch
    holder = view.holder
    if holder is not None:
        held = f"{holder.node} holds the lock at epoch {holder.epoch}"
        raise Refused(f"{held}; stop its sidecar first, then raise the epoch")
    if (reason := words.paused(view)) is not None:
        raise Refused(reason)
    if view.lock is not None and not view.lock_expired:
        raise Refused(words.nobody_active(view) or "the lock is not free")
    if view.lock_unreadable:
        raise Refused("the lock cannot be read; `sidecar failover` replaces it, raise the epoch after that")
    if floor <= store and "epoch" not in view.unreadable:
        raise Refused(
            f"the store's epoch {store} is not behind: the highest seen by a node that is there is {floor}"
        )
    told = sorted((record.node, record.mark) for record in view.nodes)
    seen = [f"{node} has seen {mark}" for node, mark in told]
    if not view.nodes and not words.unread(view):
        seen.append("no node is there")
    if view.mark_unreadable:
        seen.append(f"a node whose record cannot be read has seen {view.mark_unreadable}")
    if own_mark:
        seen.append(f"this node {own_mark}")
    return RaisePlan(
        view,
        floor,
        (
            f"the store is at epoch {store}; {', '.join(seen)}: it was wiped, restored or replaced",
            "a node that is not there may have seen a higher one, or may be active unknown to this store",
            "make sure that no server of this cluster runs elsewhere, nor a sidecar that uses another store",
        ),
    )


def raise_epoch(desk: Desk, what: RaisePlan, timeout_ms: int, tell: Tell) -> Done:
    """Raise the store's epoch and wait until a node serves.

    Raises:
        As `failover`.
    """
    until = desk.after(timeout_ms)
    what = plan_raise(desk.read(until), what.floor)
    follower = Follower(desk, what.view)
    beyond = Epoch(min(what.floor + UNSEEN, EPOCH_MAX))
    epoch = _raise(desk, beyond, min(until, desk.after(BREAK_WITHIN_MS)))
    tell(f"the epoch is {epoch}; the lock is free in at most {words.span(desk.ttl_ms)}")

    def judge(view: View) -> Verdict:
        holder = view.holder
        if holder is None or holder.epoch <= epoch or not serves(view):
            return None
        return Done(holder.node, holder.epoch)

    return await_takeover(
        desk, follower, Gap(desk), judge, until, timeout_ms, "raising the epoch", "the epoch is raised", tell
    )


def _raise(desk: Desk, floor: Epoch, until: Instant) -> Epoch:
    unsure = False
    while True:
        try:
            return desk.backend.raise_epoch(floor, ttl_ms=desk.ttl_ms, by=desk.by, deadline=until)
        except Conflict as error:
            if unsure:  # a try whose answer was lost may have done it, and others have gone on from there
                raise TimedOut(f"it is unknown whether the epoch is raised: {error}; {UNSURE}") from error
            raise Failed(f"the epoch is not raised: {error}") from error
        except BackendError as error:
            unsure = unsure or isinstance(error, OutcomeUnknown)
            if not error.retry or desk.halted() or desk.clock.now() >= until:
                if unsure:
                    raise TimedOut(f"it is unknown whether the epoch is raised: {error}; {UNSURE}") from error
                raise
            pause(PAUSE_MS)
