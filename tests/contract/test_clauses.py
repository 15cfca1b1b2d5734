"""The clauses of `sidecar.ports.Backend`, one test or more each, over every real store.

Method: two or three backends on one cluster stand for as many nodes; time is the store's own, with its
shortest TTL. No fixed sleeps: what must happen is waited for, what must not is asked for until it may.
Not covered here: a store or network that fails (test_faults.py), what one store alone has (test_etcd.py, …).
"""

import json
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest

from sidecar.clock import BootClock
from sidecar.core.model import EpochRecord, Settings
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.documents import encode
from sidecar.errors import BackendError, BadDocument, ConfigError, Conflict, EpochBehind, NotHolder, NotSent
from sidecar.plugins import load_backend
from sidecar.ports import Backend, BackendSettings, Grant
from tests.contract.conftest import Connect
from tests.contract.steps import (
    Doing,
    crack,
    entry,
    every_call,
    give,
    node,
    now,
    order,
    refused,
    take,
    take_when_free,
)
from tests.contract.stores import LocalStore, Store, soon

CLOSED_WITHIN_MS = 1_000 + 1_000
"""The clause, and what a busy machine may take to run a thread again."""


def test_c1_each_acquisition_gets_a_larger_epoch(a: Backend, b: Backend, store: Store) -> None:
    epochs = []
    for name, backend in [("a", a), ("b", b), ("a", a)]:
        grant = take(backend, name, store.ttl_ms)
        assert a.read(deadline=soon()).epoch == EpochRecord(grant.hold.epoch, name)
        epochs.append(grant.hold.epoch)
        give(backend, grant.hold, "handed over")

    assert epochs == sorted(set(epochs))
    assert b.read(deadline=soon()).epoch == EpochRecord(epochs[-1], "a", "handed over")


def test_c1_the_epoch_outlives_an_expired_lock(a: Backend, b: Backend, store: Store) -> None:
    first = take(a, "a", store.ttl_ms)
    second, _ = take_when_free(b, "b", store.ttl_ms, first.ttl_ms + store.late_ms)

    assert second.hold.epoch > first.hold.epoch


def test_c2_asking_again_while_holding_keeps_the_epoch(a: Backend, store: Store) -> None:
    first = take(a, "a", store.ttl_ms)
    asked_at = now()
    again = take(a, "a", store.ttl_ms)

    assert again.hold.epoch == first.hold.epoch
    assert again.ttl_ms == first.ttl_ms
    assert again.sent_at >= asked_at  # the full TTL, not the rest of the first


def test_c2_asking_again_is_a_renewal_in_the_store_too(a: Backend, b: Backend, store: Store) -> None:
    first = take(a, "a", store.ttl_ms)
    half_over = Instant(first.sent_at + first.ttl_ms * 3 // 5)
    with suppress(BackendError):
        a.await_change(a.read(deadline=soon()).revision + 10**6, deadline=half_over)
    again = take(a, "a", store.ttl_ms)
    take_when_free(b, "b", store.ttl_ms, again.ttl_ms + store.late_ms)

    assert now() - again.sent_at >= again.ttl_ms


def test_c2_a_new_connection_of_the_same_instance_holds_too(a: Backend, b: Backend, store: Store) -> None:
    first = take(a, "a", store.ttl_ms)
    again = take(b, "a", store.ttl_ms)

    assert again.hold.epoch == first.hold.epoch
    assert b.renew(first.hold, deadline=soon()).hold.epoch == first.hold.epoch


def test_c2_another_instance_of_the_node_is_somebody_else(a: Backend, b: Backend, store: Store) -> None:
    take(a, "a", store.ttl_ms)
    answer = b.acquire("a", "a-2", store.ttl_ms, floor=NO_EPOCH, deadline=soon())

    assert not isinstance(answer, Grant)


def test_c3_a_lost_race_names_the_holder_and_changes_nothing(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms)
    before = a.read(deadline=soon())
    answer = refused(b, "b", store.ttl_ms)

    assert (answer.node, answer.epoch) == ("a", grant.hold.epoch)
    assert a.read(deadline=soon()).lock == before.lock
    a.renew(grant.hold, deadline=soon())


def test_c3_release_frees_the_lock_at_once(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms)
    give(a, grant.hold)

    assert b.read(deadline=soon()).vacant
    take(b, "b", store.ttl_ms)


def test_c3_expiry_is_never_early_and_not_late(a: Backend, b: Backend, store: Store) -> None:
    """The lock is free only when the last renewal is a TTL old, counted from its ``sent_at``."""
    first = take(a, "a", store.ttl_ms)
    b.read(deadline=soon())  # watching
    renewed = a.renew(first.hold, deadline=soon())
    second, asked_at = take_when_free(b, "b", store.ttl_ms, renewed.ttl_ms + store.late_ms)
    free_at = now()

    assert free_at >= renewed.deadline
    assert free_at - renewed.sent_at >= renewed.ttl_ms
    assert asked_at - renewed.sent_at <= renewed.ttl_ms + store.late_ms
    assert second.hold.epoch > first.hold.epoch
    with pytest.raises(NotHolder):
        a.renew(first.hold, deadline=soon())


def test_c3_renewals_keep_the_lock_beyond_its_ttl(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms)
    until = now() + grant.ttl_ms * 3 // 2
    while now() < until:
        a.renew(grant.hold, deadline=soon())
        refused(b, "b", store.ttl_ms)
        b.await_change(b.read(deadline=soon()).revision, deadline=soon(grant.ttl_ms // 8))


def _compete(
    configured: tuple[str, dict[str, object]], cluster: str, name: str, start_at: Instant, ttl_ms: int
) -> bool:
    backend_name, options = configured
    backend = load_backend(backend_name)(BackendSettings(cluster, options), BootClock())
    backend.read(deadline=soon(10_000))
    while now() < start_at:
        pass
    answer = backend.acquire(name, f"{name}-1", ttl_ms, floor=NO_EPOCH, deadline=soon(10_000))
    backend.close()
    return isinstance(answer, Grant)


def test_c3_of_several_processes_one_wins(a: Backend, store: Store, namespace: str) -> None:
    ttl_ms = store.ttl_ms * 10
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        for _ in range(2):
            jobs = [
                pool.apply_async(_compete, (store.configured(), namespace, f"n{i}", soon(1_500), ttl_ms))
                for i in range(3)
            ]
            assert sorted(job.get(30) for job in jobs) == [False, False, True]
            lock = a.read(deadline=soon()).lock
            assert lock is not None
            give(a, take(a, lock.node, ttl_ms).hold)


@pytest.mark.parametrize("verb", ["renew", "release"])
def test_c4_an_old_hold_changes_nothing(a: Backend, b: Backend, store: Store, verb: str) -> None:
    old = take(a, "a", store.ttl_ms)
    give(a, old.hold)
    new = take(b, "b", store.ttl_ms)
    calls: dict[str, Callable[[], object]] = {
        "renew": lambda: a.renew(old.hold, deadline=soon()),
        "release": lambda: give(a, old.hold),
    }

    with pytest.raises(NotHolder):
        calls[verb]()

    assert b.renew(new.hold, deadline=soon()).hold == new.hold


@pytest.mark.parametrize("verb", ["renew", "release"])
def test_c4_the_same_instance_at_another_epoch_is_not_that_hold(a: Backend, store: Store, verb: str) -> None:
    old = take(a, "a", store.ttl_ms)
    give(a, old.hold)
    new = take(a, "a", store.ttl_ms)
    calls: dict[str, Callable[[], object]] = {
        "renew": lambda: a.renew(old.hold, deadline=soon()),
        "release": lambda: give(a, old.hold),
    }

    with pytest.raises(NotHolder):
        calls[verb]()

    assert a.renew(new.hold, deadline=soon()).hold == new.hold


def test_c4_a_lock_overwritten_by_somebody_is_not_ours(a: Backend, store: Store, namespace: str) -> None:
    grant = take(a, "a", store.ttl_ms)
    store.put(namespace, "lock", "garbage")

    with pytest.raises(NotHolder):
        a.renew(grant.hold, deadline=soon())
    with pytest.raises(NotHolder):
        give(a, grant.hold)
    assert a.read(deadline=soon()).lock_unreadable


def test_c5_a_grant_counts_from_before_it_was_sent(store: Store, namespace: str) -> None:
    slow_ms, half_ms = 150, 75
    with store.slow(namespace, slow_ms) as (backend, hinder):
        hinder()
        asked_at = now()
        grant = take(backend, "a", store.ttl_ms)
        assert asked_at <= grant.sent_at <= now() - half_ms
        hinder()
        asked_at = now()
        renewed = backend.renew(grant.hold, deadline=soon())
        assert asked_at <= renewed.sent_at <= now() - half_ms


def test_c6_a_broken_lock_stops_the_holder_and_is_not_free(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms)
    crack(b, grant.hold.epoch, store.ttl_ms)

    with pytest.raises(NotHolder):
        a.renew(grant.hold, deadline=soon())
    lock = b.read(deadline=soon()).lock
    assert lock is not None
    assert (lock.state, lock.epoch, lock.to, lock.by) == ("broken", grant.hold.epoch, "b", "operator")
    refused(b, "b", store.ttl_ms)
    refused(a, "a", store.ttl_ms)  # C2 does not revive it


def test_c6_a_full_ttl_passes_from_the_break(a: Backend, b: Backend, store: Store) -> None:
    """Nothing is heard of the holder, whose own lease has little left."""
    grant = take(a, "a", store.ttl_ms)
    view = b.read(deadline=soon())
    until = Instant(now() + grant.ttl_ms * 3 // 5)
    while now() < until:
        view = b.await_change(view.revision, deadline=until) or view
    broken_at = now()
    crack(b, grant.hold.epoch, store.ttl_ms)
    second, _ = take_when_free(b, "b", store.ttl_ms, grant.ttl_ms + store.late_ms)

    assert now() - broken_at >= grant.ttl_ms
    assert second.hold.epoch > grant.hold.epoch


def test_c6_the_old_holder_may_release_a_broken_lock(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms)
    crack(b, grant.hold.epoch, store.ttl_ms)
    give(a, grant.hold, "proven dead")

    assert take(b, "b", store.ttl_ms).hold.epoch > grant.hold.epoch


def test_c6_only_at_exactly_that_epoch(a: Backend, b: Backend, store: Store) -> None:
    with pytest.raises(Conflict):
        crack(b, 1)
    grant = take(a, "a", store.ttl_ms * 5)
    for epoch in (grant.hold.epoch + 1, grant.hold.epoch - 1):
        with pytest.raises(Conflict):
            crack(b, epoch)
    assert a.renew(grant.hold, deadline=soon()).hold == grant.hold


def test_c6_breaking_again_does_not_extend_the_wait(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms)
    crack(b, grant.hold.epoch)
    version = b.read(deadline=soon()).lock
    crack(b, grant.hold.epoch)  # the same order, asked again after an unknown outcome
    with pytest.raises(Conflict):
        crack(b, grant.hold.epoch, by="somebody else")
    assert b.read(deadline=soon()).lock == version


def test_c7_a_store_behind_the_floor_is_refused(a: Backend, store: Store) -> None:
    with pytest.raises(EpochBehind):
        a.acquire("a", "a-1", store.ttl_ms, floor=Epoch(7), deadline=soon())
    view = a.read(deadline=soon())
    assert view.lock is None
    assert view.epoch.epoch == NO_EPOCH


def test_c7_the_floor_itself_is_enough(a: Backend, store: Store) -> None:
    first = take(a, "a", store.ttl_ms)
    give(a, first.hold)
    assert take(a, "a", store.ttl_ms, floor=first.hold.epoch).hold.epoch > first.hold.epoch


def test_c7_raising_the_epoch_waits_a_full_ttl(a: Backend, b: Backend, store: Store) -> None:
    b.read(deadline=soon())
    raised_at = now()
    assert a.raise_epoch(Epoch(41), ttl_ms=store.ttl_ms, by="operator", deadline=soon()) == 41
    refused(b, "b", store.ttl_ms)
    grant, _ = take_when_free(b, "b", store.ttl_ms, store.ttl_ms + store.late_ms)

    assert now() - raised_at >= store.ttl_ms
    assert grant.hold.epoch == 42


def test_c7_raising_never_lowers_and_needs_a_vacant_lock(a: Backend, b: Backend, store: Store) -> None:
    for _ in range(2):
        held = take(a, "a", store.ttl_ms * 5)
        with pytest.raises(Conflict):
            b.raise_epoch(Epoch(9), ttl_ms=store.ttl_ms, by="operator", deadline=soon())
        give(a, held.hold)
    assert b.raise_epoch(Epoch(1), ttl_ms=store.ttl_ms, by="operator", deadline=soon()) >= held.hold.epoch
    assert a.read(deadline=soon()).epoch.epoch >= held.hold.epoch


def test_c8_a_deadline_that_has_passed_sends_nothing(a: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms * 5)
    before = a.read(deadline=soon())
    for name, call in every_call(a, grant.hold).items():
        with pytest.raises(BackendError) as caught:
            call(Instant(now() - 1))
        assert caught.value.effect.value == "none", name
    after = a.read(deadline=soon())
    assert (after.lock, after.nodes, after.request) == (before.lock, before.nodes, before.request)


def test_c10_a_change_wakes_whoever_waits(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms * 10)
    view = b.read(deadline=soon())
    verbs: list[Callable[[], object]] = [
        lambda: a.publish(node("a"), ttl_ms=60_000, deadline=soon()),
        lambda: a.write(order(), expected=0, deadline=soon()),
        lambda: give(a, grant.hold),
    ]
    for verb in verbs:
        waiting = Doing(partial(b.await_change, view.revision, deadline=soon(5_000)))
        verb()
        changed_at = now()
        newer = waiting.result()
        assert newer is not None
        assert newer.revision > view.revision
        assert waiting.ended_at - changed_at < 4_000
        view = newer
    assert view.vacant
    assert view.request == order()
    assert [record.node for record in view.nodes] == ["a"]


def test_c10_nothing_new_is_none_at_the_deadline(a: Backend, b: Backend, store: Store) -> None:
    take(a, "a", store.ttl_ms * 10)
    view = b.read(deadline=soon())
    while (newer := b.await_change(view.revision, deadline=soon(400))) is not None:
        view = newer  # a store may count its own housekeeping
    asked_at = now()
    assert b.await_change(view.revision, deadline=soon(300)) is None
    assert 290 <= now() - asked_at <= 3_000


def test_c10_the_first_change_of_a_quiet_cluster_wakes_at_once(a: Backend, b: Backend) -> None:
    view = b.read(deadline=soon())
    b.await_change(view.revision, deadline=soon(200))
    waiting = Doing(lambda: b.await_change(view.revision, deadline=soon()))
    a.write(order(), expected=0, deadline=soon())
    changed_at = now()
    newer = waiting.result()
    assert newer is not None
    assert newer.request == order()
    assert waiting.ended_at - changed_at < 2_500


def test_c10_changes_between_two_calls_are_not_missed(a: Backend, b: Backend, store: Store) -> None:
    view = b.read(deadline=soon())
    b.await_change(view.revision, deadline=soon(100))
    version = 0
    for i in range(20):
        version = a.write(order(f"r-{i}"), expected=version, deadline=soon())
    newer = view
    while newer.request is None or newer.request.id != "r-19":
        found = b.await_change(newer.revision, deadline=soon())
        assert found is not None
        newer = found


def test_c10_the_end_of_a_lease_wakes_whoever_waits(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms)
    view = b.read(deadline=soon())
    until = Instant(grant.sent_at + grant.ttl_ms + store.late_ms)
    while not view.vacant:
        newer = b.await_change(view.revision, deadline=until)
        assert newer is not None, "the lock's end was not shown"
        view = newer
    assert now() - grant.sent_at >= grant.ttl_ms


def test_c10_a_view_never_goes_back(a: Backend, b: Backend, store: Store) -> None:
    def write() -> None:
        for i in range(50):
            a.publish(node("a", message=str(i)), ttl_ms=60_000, deadline=soon())

    writer = Doing(write)
    seen, revision = -1, 0
    while writer.running():
        for view in (b.read(deadline=soon()), b.await_change(revision, deadline=soon(30))):
            if view is not None and view.revision >= revision:
                revision = view.revision
                record = view.node("a")
                assert record is None or int(record.message) >= seen
                seen = int(record.message) if record is not None else seen
    writer.result()


def test_c11_write_is_compare_and_set(a: Backend, b: Backend) -> None:
    first = a.write(order(), expected=0, deadline=soon())
    with pytest.raises(Conflict):
        b.write(order("r-2"), expected=0, deadline=soon())
    assert a.read(deadline=soon()).versions["request"] == first
    second = b.write(order("r-2"), expected=first, deadline=soon())
    with pytest.raises(Conflict):
        a.write(order("r-3"), expected=first, deadline=soon())
    view = a.read(deadline=soon())
    assert (view.versions["request"], view.request) == (second, order("r-2"))
    assert second != first


def test_c11_request_and_settings_are_apart(a: Backend) -> None:
    a.write(order(), expected=0, deadline=soon())
    a.write(Settings(paused=True), expected=0, deadline=soon())
    view = a.read(deadline=soon())
    assert view.request == order()
    assert view.settings == Settings(paused=True)


def test_c11_with_a_hold_only_while_it_is_valid(a: Backend, b: Backend, store: Store) -> None:
    old = take(a, "a", store.ttl_ms * 5)
    version = a.write(order(), expected=0, hold=old.hold, deadline=soon())
    a.append_history(old.hold, entry(old.hold.epoch), deadline=soon())
    give(a, old.hold)
    with pytest.raises(NotHolder):
        a.write(order("late"), expected=version, hold=old.hold, deadline=soon())
    new = take(b, "b", store.ttl_ms * 5)
    for late in (
        lambda: a.write(order("late"), expected=version, hold=old.hold, deadline=soon()),
        lambda: a.append_history(old.hold, entry(99), deadline=soon()),
    ):
        with pytest.raises(NotHolder):
            late()
    crack(a, new.hold.epoch)
    with pytest.raises(NotHolder):
        b.write(order("broken"), expected=version, hold=new.hold, deadline=soon())
    assert a.read(deadline=soon()).request == order()
    assert [found.epoch for found in a.read_history(10, deadline=soon())] == [old.hold.epoch]


def test_c12_a_silent_node_disappears_and_others_stay(a: Backend, b: Backend, store: Store) -> None:
    a.publish(node("a"), ttl_ms=store.ttl_ms, deadline=soon())
    published_at = now()
    until = published_at + store.ttl_ms + store.presence_late_ms
    while (view := b.read(deadline=soon())).node("a") is not None:
        b.publish(node("b"), ttl_ms=store.ttl_ms, deadline=soon())
        b.await_change(view.revision, deadline=soon(store.ttl_ms // 4))
        assert now() < until
    assert now() - published_at >= store.ttl_ms * 9 // 10
    assert view.node("b") is not None


def test_c12_withdraw_takes_back_ones_own_alone(a: Backend, b: Backend) -> None:
    a.publish(node("a", "2"), ttl_ms=60_000, deadline=soon())
    b.withdraw("a", "a-1", deadline=soon())
    b.withdraw("nobody", "x", deadline=soon())
    assert b.read(deadline=soon()).node("a") == node("a", "2")
    a.withdraw("a", "a-2", deadline=soon())
    assert b.read(deadline=soon()).node("a") is None
    a.publish(node("a", "3"), ttl_ms=60_000, deadline=soon())
    assert b.read(deadline=soon()).node("a") == node("a", "3")


BAD = {
    "garbage": "\x00garbage",
    "future": json.dumps({"v": 2}),
    "mistyped": json.dumps({"v": 1, "epoch": "x", "paused": "x"}),
}


@pytest.mark.parametrize("text", list(BAD.values()), ids=list(BAD))
def test_c13_unreadable_keys_are_named_and_the_rest_is_shown(
    a: Backend, b: Backend, store: Store, namespace: str, text: str
) -> None:
    a.publish(node("good"), ttl_ms=60_000, deadline=soon())
    a.write(order(), expected=0, deadline=soon())
    a.read(deadline=soon())
    view = b.read(deadline=soon())
    keys = ("lock", "epoch", "nodes/x", "request", "settings")
    for key in keys:
        store.put(namespace, key, text)
    while len(view.unreadable) < len(keys):
        newer = b.await_change(view.revision, deadline=soon())
        assert newer is not None
        view = newer
    assert set(view.unreadable) == set(keys)
    assert view.lock is None
    assert not view.vacant
    assert view.request == order()  # the last good value
    assert view.node("good") is not None
    fresh = a.read(deadline=soon())
    assert set(fresh.unreadable) == set(keys)
    changed = a.write(order("mended"), expected=fresh.versions["request"], deadline=soon())
    assert a.read(deadline=soon()).versions["request"] == changed


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"state": "draining"}, 5),
        ({"v": 2, "epoch": None}, 5),
        ({"mark": "5"}, 0),
        ({"state": "draining", "mark": 10**17}, 0),
    ],
    ids=str,
)
def test_c13_the_mark_of_a_node_whose_record_cannot_be_read_is_shown(
    a: Backend, store: Store, namespace: str, changes: dict[str, object], mark: int
) -> None:
    """Of a newer version, say. A node that knows nothing would believe a store that was wiped."""
    written = json.loads(encode(replace(node("x"), mark=Epoch(5))))
    store.put(namespace, "nodes/x", json.dumps(written | changes))

    view = a.read(deadline=soon())

    assert view.unreadable == ("nodes/x",)
    assert view.mark == view.mark_unreadable == mark


HELD = {"v": 1, "node": "a", "instance": "a-1", "epoch": 7, "ttl_ms": 1_000, "state": "held"}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("lock", "garbage"),
        ("lock", json.dumps(HELD | {"epoch": 10**17})),
        ("lock", json.dumps(HELD | {"ttl_ms": 10**15})),
        ("epoch", "garbage"),
        ("epoch", json.dumps({"v": 1, "epoch": 10**17})),
    ],
)
def test_c13_an_unreadable_lock_or_epoch_is_not_free(
    a: Backend, store: Store, namespace: str, key: str, text: str
) -> None:
    give(a, take(a, "a", store.ttl_ms).hold)
    store.put(namespace, key, text)
    with pytest.raises(BadDocument, match=key):
        a.acquire("a", "a-1", store.ttl_ms, floor=NO_EPOCH, deadline=soon())


def test_c13_breaking_at_epoch_0_replaces_an_unreadable_lock(
    a: Backend, b: Backend, store: Store, namespace: str
) -> None:
    grant = take(a, "a", store.ttl_ms)
    store.put(namespace, "lock", "garbage")
    with pytest.raises(BadDocument):
        crack(b, grant.hold.epoch, store.ttl_ms)
    b.read(deadline=soon())
    broken_at = now()
    crack(b, 0, store.ttl_ms)
    refused(b, "b", store.ttl_ms)
    second, _ = take_when_free(b, "b", store.ttl_ms, store.ttl_ms + store.late_ms)
    assert now() - broken_at >= store.ttl_ms
    assert second.hold.epoch > grant.hold.epoch


def test_c13_a_readable_lock_is_not_broken_at_epoch_0(a: Backend, b: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms * 5)
    with pytest.raises(Conflict):
        crack(b, 0)
    a.renew(grant.hold, deadline=soon())


@pytest.mark.parametrize("text", ["garbage", '{"v": 1, "epoch": 100000000000000000}'])
def test_c13_raising_mends_an_unreadable_epoch(a: Backend, store: Store, namespace: str, text: str) -> None:
    store.put(namespace, "epoch", text)
    assert a.raise_epoch(Epoch(5), ttl_ms=store.ttl_ms, by="operator", deadline=soon()) == 5
    assert a.read(deadline=soon()).epoch.epoch == 5


def test_c14_clusters_do_not_see_each_other(connect: Connect, store: Store, namespace: str) -> None:
    names = [namespace, namespace + "x", namespace[:-1], namespace + "-1"]
    clusters = [connect(name) for name in names]
    views = [cluster.read(deadline=soon()) for cluster in clusters]
    for index, cluster in enumerate(clusters):
        grant = take(cluster, f"n{index}", store.ttl_ms * 10)
        cluster.publish(node(f"n{index}"), ttl_ms=60_000, deadline=soon())
        cluster.write(order(f"r-{index}"), expected=0, deadline=soon())
        cluster.append_history(grant.hold, entry(grant.hold.epoch), deadline=soon())
    for index, cluster in enumerate(clusters):
        view = cluster.read(deadline=soon())
        assert view.lock is not None
        assert view.lock.node == f"n{index}"
        assert [record.node for record in view.nodes] == [f"n{index}"]
        assert view.request == order(f"r-{index}")
        assert len(cluster.read_history(10, deadline=soon())) == 1
        assert view.revision > views[index].revision


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a\n"])
def test_c14_a_name_that_reaches_into_others_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="cluster"):
        store.connect(name)


def test_c15_close_ends_what_is_under_way_and_may_be_repeated(connect: Connect, store: Store) -> None:
    backend = connect()
    view = backend.read(deadline=soon())
    waiting = Doing(lambda: backend.await_change(view.revision + 10**6, deadline=soon(30_000)))
    store.freeze()
    hanging = Doing(lambda: backend.write(order(), expected=0, deadline=soon(30_000)))
    closed_at = now()
    backend.close()
    backend.close()
    assert now() - closed_at <= CLOSED_WITHIN_MS
    for doing in (waiting, hanging):
        with pytest.raises(BackendError):
            doing.result()
        assert doing.ended_at - closed_at <= CLOSED_WITHIN_MS
    store.thaw()
    with pytest.raises(BackendError):
        backend.read(deadline=soon())


def test_history_keeps_the_newest_1000(a: Backend, store: Store) -> None:
    grant = take(a, "a", store.ttl_ms * 100)
    seeded = range(1, 1_001)
    if isinstance(store, LocalStore):
        for epoch in seeded:
            a.append_history(grant.hold, entry(epoch), deadline=soon())
    else:
        pytest.skip("a thousand transactions take long; see test_etcd.py")
    a.append_history(grant.hold, entry(2_000), deadline=soon())
    found = [item.epoch for item in a.read_history(2_000, deadline=soon())]
    assert found == [2_000, *reversed(range(2, 1_001))]
    assert [item.epoch for item in a.read_history(2, deadline=soon())] == [2_000, 1_000]


def test_history_leaves_out_what_cannot_be_read(a: Backend, store: Store, namespace: str) -> None:
    grant = take(a, "a", store.ttl_ms * 10)
    a.append_history(grant.hold, entry(1), deadline=soon())
    store.put(namespace, "history/000000000002", "garbage")
    a.append_history(grant.hold, entry(3), deadline=soon())
    assert [item.epoch for item in a.read_history(10, deadline=soon())] == [3, 1]


def test_info_says_what_is_there(a: Backend, store: Store) -> None:
    info = a.info(deadline=soon())
    assert (info.leader is None) is (info.name == "local")
    assert info.address
    assert info.versions
    assert 0 < info.ttl_min_ms <= store.ttl_ms


def test_a_store_is_reached_at_an_address_of_ipv6(connect: Connect, store: Store) -> None:
    with store.proxy("::1") as proxy:
        a = connect(through=proxy)
        grant = take(a, "a", store.ttl_ms * 10)
        view = a.read(deadline=soon())
        assert view.lock is not None
        assert view.lock.node == "a"
        watching = Doing(lambda: a.await_change(view.revision, deadline=soon(15_000)))
        give(connect(), grant.hold)
        newer = watching.result(20)
        assert newer is not None
        assert newer.vacant
        assert proxy.connections > 0
        proxy.refuse()
        with pytest.raises(NotSent, match=rf"\[::1\]:{proxy.port}"):
            a.read(deadline=soon())
