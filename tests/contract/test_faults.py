"""The clauses about time and uncertainty (C8, C9, C10) while the store or the network fails.

Method: faults are verbs of the store or of a TCP proxy in front of it; deadlines are measured. Where the
same fault must mean the same for every store, it is here; a store's own ways to fail are in its own file.
Not covered: loss between the members of a cluster (system tests).
"""

from collections.abc import Callable
from contextlib import suppress

import pytest

from sidecar.core.model import View
from sidecar.core.units import NO_EPOCH, Instant
from sidecar.errors import BackendError, EpochBehind, NotHolder, NotSent, OutcomeUnknown
from sidecar.ports import Backend, Grant
from tests.contract.conftest import Connect
from tests.contract.steps import (
    WRITES,
    Doing,
    every_call,
    give,
    node,
    now,
    order,
    take,
    take_when_free,
)
from tests.contract.stores import Store, soon

GRACE_MS = 200  # C8
BUDGET_MS = 300
EFFECTS = (NotSent, OutcomeUnknown)


def _every_call_ends(backend: Backend, grant: Grant) -> dict[str, BackendError]:
    """Make each call with a short deadline; return how each ended, all of them in time."""
    errors = {}
    for name, call in every_call(backend, grant.hold).items():
        deadline = Instant(now() + BUDGET_MS)
        with pytest.raises(EFFECTS) as caught:
            call(deadline)
        assert now() - deadline <= GRACE_MS, name
        assert "\n" not in str(caught.value)
        errors[name] = caught.value
    with pytest.raises(NotSent):
        backend.await_change(10**9, deadline=Instant(now() + BUDGET_MS))
    return errors


def test_c8_a_frozen_store_costs_no_more_than_the_deadline(a: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms * 20)
    store.freeze()
    errors = _calls_while_frozen(a, grant)
    store.thaw()
    assert [name for name in errors if name not in WRITES and not isinstance(errors[name], NotSent)] == []
    assert a.renew(grant.hold, deadline=soon()).hold == grant.hold


def _calls_while_frozen(backend: Backend, grant: Grant) -> dict[str, BackendError]:
    errors: dict[str, BackendError] = {}
    for name, call in every_call(backend, grant.hold).items():
        if name in ("release", "break_lock", "raise_epoch"):  # may be carried out after the thaw
            continue
        deadline = Instant(now() + BUDGET_MS)
        try:
            call(deadline)
        except EFFECTS as error:
            errors[name] = error
        assert now() - deadline <= GRACE_MS, name
    return errors


def test_c8_a_black_hole_costs_no_more_than_the_deadline(
    connect: Connect, store: Store, namespace: str
) -> None:
    with store.proxy() as proxy:
        backend = connect(through=proxy)
        grant = take(backend, "a", store.ttl_ms * 20)
        proxy.blackhole()
        errors = _every_call_ends(backend, grant)
        assert isinstance(errors["read"], NotSent)


def test_c8_a_new_connection_into_a_black_hole_sends_nothing(connect: Connect, store: Store) -> None:
    with store.proxy() as proxy:
        proxy.blackhole()
        backend = connect(through=proxy)
        hold = take(connect(), "a", store.ttl_ms * 20).hold
        for name, call in every_call(backend, hold).items():
            deadline = Instant(now() + BUDGET_MS)
            with pytest.raises(EFFECTS):
                call(deadline)
            assert now() - deadline <= GRACE_MS, name


def test_c8_a_refused_connection_is_not_sent_and_says_where(connect: Connect, store: Store) -> None:
    hold = take(connect(), "a", store.ttl_ms * 20).hold
    with store.proxy() as proxy:
        proxy.refuse()
        backend = connect(through=proxy)
        calls = every_call(backend, hold)
        for name in ("info", "acquire", "renew", "read", "write"):
            call, asked_at = calls[name], now()
            with pytest.raises(NotSent, match=str(proxy.port)) as caught:
                call(soon(2_000))
            assert now() - asked_at <= 2_000 + GRACE_MS, name
            assert "refused" in str(caught.value)
        proxy.heal()
        assert backend.renew(hold, deadline=soon()).hold == hold


def test_c8_a_lost_answer_is_unknown_and_asking_again_tells(connect: Connect, store: Store) -> None:
    """C2: the first request did take the lock; the second finds that out and keeps the epoch."""
    other = connect()
    with store.proxy() as proxy:
        backend = connect(through=proxy)
        give(backend, take(backend, "a", store.ttl_ms * 5).hold)
        backend.publish(node("a"), ttl_ms=store.ttl_ms * 5, deadline=soon())  # keeps a lease ready
        version = backend.write(order("r-0"), expected=0, deadline=soon())
        proxy.drop_replies()
        with pytest.raises(OutcomeUnknown):
            backend.acquire("a", "a-1", store.ttl_ms * 5, floor=NO_EPOCH, deadline=soon(500))
        proxy.heal()
        lock = other.read(deadline=soon()).lock
        again = take(backend, "a", store.ttl_ms * 5)
        assert lock is not None
        assert lock.epoch == again.hold.epoch

        proxy.drop_replies()
        with pytest.raises(OutcomeUnknown):
            backend.write(order("r-1"), expected=version, deadline=soon(500))
        proxy.heal()
        assert other.read(deadline=soon()).request == order("r-1")
        backend.read(deadline=soon())  # connected again: else release would not even be sent

        proxy.drop_replies()
        with pytest.raises(OutcomeUnknown):
            backend.release(again.hold, cause="test", deadline=soon(500))
        proxy.heal()
        with pytest.raises(NotHolder):
            backend.release(again.hold, cause="test", deadline=soon())
        assert other.read(deadline=soon()).vacant


@pytest.mark.parametrize("verb", ["break_lock", "raise_epoch", "append_history"])
def test_c8_a_write_whose_answer_alone_is_lost_is_unknown_and_asking_again_tells(
    connect: Connect, store: Store, verb: str
) -> None:
    """What the call reads before it writes is answered."""
    other = connect()
    hold = take(other, "a", store.ttl_ms * 20).hold
    if verb == "raise_epoch":
        give(other, hold)

    def written() -> bool:
        view = other.read(deadline=soon())
        return {
            "break_lock": view.lock is not None and view.lock.state == "broken",
            "raise_epoch": view.epoch.epoch == 99,
            "append_history": [one.epoch for one in other.read_history(5, deadline=soon())] == [hold.epoch],
        }[verb]

    with store.proxy() as proxy:
        backend = connect(through=proxy)
        call = every_call(backend, hold)[verb]
        backend.read(deadline=soon())
        assert not written()
        proxy.drop_replies(after=store.document)
        with pytest.raises(OutcomeUnknown):
            call(soon(1_000))
        assert written()
        proxy.heal()
        call(soon())
        assert written()
    if verb == "break_lock":
        with pytest.raises(NotHolder):
            other.renew(hold, deadline=soon())


def test_c8_a_write_that_may_still_arrive_is_never_not_sent(connect: Connect, store: Store) -> None:
    """A black hole delivers late: whatever was `NotSent` must not be there after it has healed."""
    other = connect()
    with store.proxy() as proxy:
        backend = connect(through=proxy)
        version = backend.write(order("r-0"), expected=0, deadline=soon())
        for i in range(1, 4):
            proxy.blackhole()
            with pytest.raises(EFFECTS) as caught:
                backend.write(order(f"r-{i}"), expected=version, deadline=soon(300))
            proxy.heal()
            backend.read(deadline=soon())
            late = Instant(now() + 300)
            while now() < late:
                view = other.read(deadline=soon())
                other.await_change(view.revision, deadline=late)
            view = other.read(deadline=soon())
            if isinstance(caught.value, NotSent):
                assert view.versions["request"] == version
            version = view.versions["request"]


def test_c10_a_cut_connection_misses_no_change(connect: Connect, store: Store) -> None:
    other = connect()
    with store.proxy() as proxy:
        backend = connect(through=proxy)
        view = backend.read(deadline=soon())
        waiting = Doing(lambda: backend.await_change(view.revision, deadline=soon(8_000)))
        proxy.cut()
        proxy.refuse()
        other.write(order(), expected=0, deadline=soon())
        proxy.heal()
        newer = waiting.result(10)
        assert newer is not None
        while newer.request is None:
            found = backend.await_change(newer.revision, deadline=soon())
            assert found is not None
            newer = found


def test_c10_a_watch_that_fell_silent_is_noticed(connect: Connect, store: Store) -> None:
    """The connection stays open and says nothing, as after a firewall dropped its state."""
    other = connect()
    with store.proxy() as proxy:
        backend = connect(through=proxy)
        view = backend.read(deadline=soon())
        assert backend.await_change(view.revision, deadline=soon(200)) is None
        proxy.blackhole()
        other.write(order(), expected=0, deadline=soon())
        with pytest.raises(NotSent):  # not None: that would claim that nothing happened
            _until_it_speaks(backend, view.revision)
        proxy.heal()
        newer = _until_it_speaks(backend, view.revision)
        assert newer is not None


def _until_it_speaks(backend: Backend, revision: int) -> object:
    """Wait through at most 4 s of "nothing new"."""
    until = soon(4_000)
    while now() < until:
        found = backend.await_change(revision, deadline=Instant(min(until, now() + 1_500)))
        if found is not None:
            return found
    return None


def _watch(backend: Backend, revision: int, until: Callable[[View], bool]) -> View:
    """Watch as a node does: a store whose files go one after the other may be refused in between."""
    deadline = soon(15_000)
    while True:
        with suppress(NotSent):
            view = backend.await_change(revision, deadline=deadline)
            assert view is not None
            revision = view.revision
            if until(view):
                return view
        assert now() < deadline


def test_a_restarted_store_loses_nothing(a: Backend, b: Backend, store: Store) -> None:
    if not store.has_server:
        pytest.skip("an embedded store has nothing to restart")
    grant = take(a, "a", store.ttl_ms * 10)
    version = a.write(order(), expected=0, deadline=soon())
    view = b.read(deadline=soon())
    waiting = Doing(lambda: b.await_change(view.revision, deadline=soon(15_000)))
    store.restart()
    assert a.renew(grant.hold, deadline=soon(5_000)).hold == grant.hold
    a.write(order("after"), expected=version, deadline=soon(5_000))
    newer = waiting.result(20)
    assert newer is not None
    while newer.request != order("after"):
        found = b.await_change(newer.revision, deadline=soon(5_000))
        assert found is not None
        newer = found


def test_a_killed_store_costs_the_lock_only_when_the_lease_ends(a: Backend, b: Backend, store: Store) -> None:
    if not store.has_server:
        pytest.skip("an embedded store cannot be killed")
    grant = take(a, "a", store.ttl_ms * 10)
    store.kill()
    with pytest.raises(EFFECTS):
        a.renew(grant.hold, deadline=soon(500))
    store.restart()
    assert a.renew(grant.hold, deadline=soon(5_000)).hold == grant.hold


def test_s3_a_wiped_store_is_noticed_and_refused(a: Backend, b: Backend, store: Store) -> None:
    """C10: the view shows the lower epoch; C7: nobody acquires until the epoch was raised."""
    for _ in range(3):
        give(a, take(a, "a", store.ttl_ms).hold)
    grant = take(a, "a", store.ttl_ms)
    mark = grant.hold.epoch
    before = b.read(deadline=soon())
    assert before.epoch.epoch == mark
    waiting = Doing(lambda: _watch(b, before.revision, lambda view: view.epoch.epoch != mark))
    store.wipe()

    view = waiting.result(20)
    assert view.epoch.epoch == NO_EPOCH
    assert view.vacant
    assert view.revision > before.revision
    with pytest.raises(NotHolder):
        a.renew(grant.hold, deadline=soon())
    with pytest.raises(EpochBehind):
        b.acquire("b", "b-1", store.ttl_ms, floor=mark, deadline=soon())
    raised_at = now()
    assert b.raise_epoch(mark, ttl_ms=store.ttl_ms, by="operator", deadline=soon()) == mark
    second, _ = take_when_free(b, "b", store.ttl_ms, store.ttl_ms + store.late_ms)
    assert now() - raised_at >= store.ttl_ms
    assert second.hold.epoch > mark
    b.publish(node("b"), ttl_ms=store.ttl_ms, deadline=soon())
    assert b.read(deadline=soon()).node("b") is not None


def test_l2_a_store_that_comes_back_in_time_costs_nothing(a: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms * 5)
    for _ in range(3):
        store.freeze()
        with pytest.raises(EFFECTS):
            a.renew(grant.hold, deadline=soon(150))
        store.thaw()
        assert a.renew(grant.hold, deadline=soon()).hold == grant.hold
