"""Goal: nonsense in the keys of a real store is never an exception but ours, and never a way to the lock.

Method: every fixed piece of nonsense that can be text, under every key, behind the back of a backend that has
seen the good one and of one that has not. Not covered: the codec by thousands (tests/core/test_garbage.py).
"""

from collections.abc import Callable

from sidecar.core.model import EpochRecord, LockRecord
from sidecar.core.units import Epoch
from sidecar.documents import encode
from sidecar.errors import BadDocument
from sidecar.ports import Backend, Grant, HeldBy
from tests.contract.stores import Store, soon
from tests.core.garbage import FIXED

TEXTS = sorted({raw.decode(errors="replace") for raw in FIXED} - {'{"v": 1}'})
CALM = ("request", "settings", "nodes/n", "history/000000000001", "history/x", "lockx")


def test_nonsense_is_no_way_to_the_lock(store: Store, connect: Callable[[], Backend], namespace: str) -> None:
    holder, other = connect(), connect()
    grant = holder.acquire("a", "a-1", 60_000, floor=Epoch(0), deadline=soon())
    assert isinstance(grant, Grant)
    for text in TEXTS:
        for key in CALM:
            store.put(namespace, key, text)
        view = connect().read(deadline=soon())
        assert {"request", "nodes/n"} <= set(view.unreadable)
        assert view.holder is not None
        holder.read_history(10, deadline=soon())
        holder.withdraw("n", "n-1", deadline=soon())
        assert holder.renew(grant.hold, deadline=soon()).hold.epoch == grant.hold.epoch
        store.put(namespace, "epoch", text)
        _refused(other, grant.hold.epoch)

    holder.release(grant.hold, cause="test", deadline=soon())
    for text in TEXTS:
        store.put(namespace, "epoch", text)
        _refused(other, None)
        _refused(connect(), None)
    store.put(namespace, "epoch", encode(EpochRecord(Epoch(5))).decode())
    for text in TEXTS:
        store.put(namespace, "lock", text)
        _refused(other, None)
    store.put(namespace, "lock", encode(LockRecord("x", "x-1", Epoch(5), 60_000)).decode())
    assert isinstance(other.acquire("b", "b-1", 1_000, floor=Epoch(0), deadline=soon()), HeldBy)


def _refused(backend: Backend, held: Epoch | None) -> None:
    """Try to acquire: an answer that somebody holds it, or our own word for what cannot be read."""
    try:
        found = backend.acquire("b", "b-1", 60_000, floor=Epoch(0), deadline=soon())
    except BadDocument:
        return
    assert isinstance(found, HeldBy)
    assert found.epoch == held
