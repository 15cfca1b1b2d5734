"""The epoch high-water mark: which epochs were seen, whose they were, and which can never be ours."""

from sidecar.core.model import NOBODY, View
from sidecar.core.state import Memory, Policy
from sidecar.core.units import NO_EPOCH, Epoch


def newest(view: View) -> tuple[Epoch, str | None]:
    """Return the highest epoch that the store, or a node in it, shows, and who got it.

    No node has seen a higher one than the store in which it says so, unless that was wiped or restored.
    """
    got = (view.epoch.epoch, view.epoch.node)
    if view.lock is not None and view.lock.epoch > view.epoch.epoch:
        got = (view.lock.epoch, view.lock.node)
    return got if view.mark <= got[0] else (view.mark, None)


def marked(memory: Memory, epoch: Epoch, node: str | None) -> tuple[Epoch, str | None]:
    """Return the highest epoch ever seen, and who got it, now that *epoch* is shown as that of *node*.

    One that was given to two nodes is of two stores: a late request has made the later one look as new as
    the one before. So it counts as one that is behind.
    """
    owner = None if node == NOBODY else node
    if epoch != memory.mark:
        return max((memory.mark, memory.marked), (epoch, owner), key=lambda one: one[0])
    if None not in (memory.marked, owner) and memory.marked != owner:
        return Epoch(memory.mark + 1), None
    return memory.mark, memory.marked or owner


def taken_by_others(view: View, policy: Policy) -> Epoch:
    """Return the highest epoch that somebody else has had.

    A store that was wiped counts anew: a late request of ours may be given such an epoch there once more.
    """
    lock, last = view.lock, view.epoch
    held = lock.epoch if lock is not None and lock.instance != policy.instance else NO_EPOCH
    return max(held, last.epoch if last.node != policy.node else NO_EPOCH)
