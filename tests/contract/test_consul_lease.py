"""Goal: on a real Consul, nobody takes over before the holder has been silent for its TTL, and then soon.

Method: several backends in one process play nodes and sidecars; renewals, answers and the server itself
are lost on purpose; times are compared on this machine's one CLOCK_BOOTTIME, which the backends
themselves never do. No sleeps: tests wait by watching.

Not covered: clocks at different rates (the simulation), several Consul servers (system tests), and the
clauses every backend shares, which tests/contract runs over Consul too.
"""

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from backends.consul import ConsulBackend, connect
from sidecar.clock import BootClock
from sidecar.core.model import HistoryEntry, NodeRecord, Settings, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant, silence_ms
from sidecar.documents import encode
from sidecar.errors import (
    BadDocument,
    Conflict,
    EpochBehind,
    NotHolder,
    NotSent,
    OutcomeUnknown,
)
from sidecar.ports import BackendSettings, Grant, HeldBy
from tests.harness.proxy import Proxy
from tests.harness.stores import Consul, Store

TTL_MS = 1_000
LATE_MS = 500  # a takeover comes within this after the silence, on two busy cores
CLOCK = BootClock()

Node = Callable[..., ConsulBackend]


@pytest.fixture
def backend(consul: Consul, namespace: str) -> Iterator[Node]:
    made = []

    def make(url: str = consul.url) -> ConsulBackend:
        made.append(connect(BackendSettings(namespace, {"address": url}), CLOCK))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def lock_index(consul: Consul, namespace: str) -> Callable[[], int]:
    def index() -> int:
        found = json.loads(consul.call("GET", f"/v1/kv/aggregate-sidecar/{namespace}/lock?consistent"))
        return int(found[0]["ModifyIndex"])

    return index


def soon(ms: int = 3_000) -> Instant:
    return Instant(CLOCK.now() + ms)


def take(node: ConsulBackend, name: str = "a", ttl_ms: int = TTL_MS, floor: int = 0) -> Grant:
    answer = node.acquire(name, f"{name}-1", ttl_ms, floor=Epoch(floor), deadline=soon())
    assert isinstance(answer, Grant), answer
    return answer


def refused(node: ConsulBackend, name: str = "b", floor: int = 0) -> HeldBy:
    answer = node.acquire(name, f"{name}-1", TTL_MS, floor=Epoch(floor), deadline=soon())
    assert isinstance(answer, HeldBy), answer
    return answer


def watch(node: ConsulBackend, until: Callable[[View], bool], within_ms: int = 5_000) -> View:
    deadline = soon(within_ms)
    view = node.read(deadline=deadline)
    while not until(view):
        newer = node.await_change(view.revision, deadline=deadline)
        assert newer is not None, f"never seen: {view}"
        view = newer
    return view


def vacant(view: View) -> bool:
    return view.vacant


def test_takeover_only_after_the_silence_and_then_at_once(backend: Node) -> None:
    holder, other = backend(), backend()
    grant = take(holder)
    other.read(deadline=soon())
    for _ in range(3):
        grant = holder.renew(grant.hold, deadline=soon())

    view = watch(other, vacant)
    taken = take(other, "b")

    assert view.lock_expired
    assert taken.sent_at >= grant.sent_at + silence_ms(TTL_MS)
    assert taken.sent_at > grant.deadline
    assert taken.sent_at <= grant.sent_at + silence_ms(TTL_MS) + LATE_MS
    assert taken.hold.epoch == grant.hold.epoch + 1


def test_a_holder_that_renews_is_never_taken_over_however_old_its_record(backend: Node) -> None:
    holder, other = backend(), backend()
    grant = take(holder)
    view = other.read(deadline=soon())
    ends = soon(2 * silence_ms(TTL_MS))
    while CLOCK.now() < ends:
        grant = holder.renew(grant.hold, deadline=soon())
        assert not view.vacant
        assert refused(other) == HeldBy("a", grant.hold.epoch)
        view = other.await_change(view.revision, deadline=soon(TTL_MS // 5)) or view


def test_a_renewal_unseen_by_the_watch_still_stops_the_takeover(backend: Node) -> None:
    """The other's view is old: it believes in silence, and the compare-and-set knows better."""
    holder, other = backend(), backend()
    take(holder)
    other.read(deadline=soon())
    ends = soon(silence_ms(TTL_MS) + 10)
    grant = None
    while CLOCK.now() < ends:
        grant = holder.acquire("a", "a-1", TTL_MS, floor=NO_EPOCH, deadline=soon())

    assert isinstance(grant, Grant)
    assert refused(other) == HeldBy("a", grant.hold.epoch)
    assert holder.renew(grant.hold, deadline=soon()).hold == grant.hold


def test_a_process_that_just_started_knows_of_no_silence(backend: Node) -> None:
    holder, other = backend(), backend()
    grant = take(holder)
    watch(other, vacant)

    fresh = backend()
    first_seen_at = CLOCK.now()
    assert refused(fresh, "c") == HeldBy("a", grant.hold.epoch)
    assert not fresh.read(deadline=soon()).lock_expired
    watch(fresh, vacant)
    assert take(fresh, "c").sent_at >= first_seen_at + silence_ms(TTL_MS)


def test_the_end_of_the_silence_is_announced_at_its_instant(backend: Node) -> None:
    holder, other = backend(), backend()
    grant = take(holder)
    answered_at = CLOCK.now()
    watch(other, lambda view: view.lock is not None)
    seen_at = CLOCK.now()
    watch(other, vacant)
    announced_at = CLOCK.now()

    assert grant.sent_at <= answered_at <= seen_at
    assert grant.sent_at + silence_ms(TTL_MS) <= announced_at <= seen_at + silence_ms(TTL_MS) + 100


def test_silence_counts_from_the_answer_and_not_from_the_question(
    backend: Node, consul: Consul, proxy: Callable[[Store], Proxy]
) -> None:
    """A renewal sent while the question was on its way is in the answer: it is younger than the question."""
    line = proxy(consul)
    holder, other = backend(), backend(line.url)
    grant = take(holder)
    view = holder.read(deadline=soon())
    other.read(deadline=soon())  # connected
    line.delay(250)
    question = threading.Thread(target=lambda: other.read(deadline=soon()))
    question.start()
    assert holder.await_change(view.revision, deadline=soon(150)) is None
    grant = holder.renew(grant.hold, deadline=soon())
    question.join()
    line.heal()

    watch(other, vacant)
    assert CLOCK.now() >= grant.sent_at + silence_ms(TTL_MS)
    assert take(other, "b").sent_at > grant.deadline


def test_every_renewal_changes_the_index_that_the_others_watch(
    backend: Node, lock_index: Callable[[], int]
) -> None:
    holder = backend()
    grant = take(holder)
    seen = [lock_index()]
    for _ in range(3):
        grant = holder.renew(grant.hold, deadline=soon())
        seen.append(lock_index())

    assert seen == sorted(set(seen))


def test_a_view_is_not_renewed_by_renewals(backend: Node) -> None:
    holder, other = backend(), backend()
    grant = take(holder)
    view = other.read(deadline=soon())
    holder.renew(grant.hold, deadline=soon())

    assert other.await_change(view.revision, deadline=soon(200)) is None


def test_the_lock_of_another_is_never_overwritten_by_a_late_renewal(
    backend: Node, lock_index: Callable[[], int]
) -> None:
    holder, other = backend(), backend()
    old = take(holder)
    watch(other, vacant)
    new = take(other, "b", ttl_ms=5_000)
    index = lock_index()

    for verb in (holder.renew, backend().renew):
        with pytest.raises(NotHolder):
            verb(old.hold, deadline=soon())
    with pytest.raises(NotHolder):
        holder.release(old.hold, cause="late", deadline=soon())

    assert lock_index() == index
    assert other.renew(new.hold, deadline=soon()).hold == new.hold


def test_a_broken_lock_is_not_renewed_by_a_holder_that_has_not_heard_of_it(backend: Node) -> None:
    holder, operator = backend(), backend()
    grant = take(holder, ttl_ms=5_000)
    operator.break_lock(grant.hold.epoch, to="b", by="me", request=None, ttl_ms=5_000, deadline=soon())

    with pytest.raises(NotHolder):
        holder.renew(grant.hold, deadline=soon())
    assert refused(backend()).epoch == grant.hold.epoch
    holder.release(grant.hold, cause="dead", deadline=soon())
    assert take(backend(), "b").hold.epoch == grant.hold.epoch + 1


def test_a_grant_counts_from_before_its_request(
    backend: Node, consul: Consul, proxy: Callable[[Store], Proxy]
) -> None:
    slow = proxy(consul)
    holder = backend(slow.url)
    grant = take(holder, ttl_ms=5_000)
    slow.delay(100)  # 200 ms there and back
    asks: list[Callable[[], Grant]] = [
        lambda: holder.renew(grant.hold, deadline=soon()),
        lambda: take(holder, ttl_ms=5_000),
    ]
    for ask in asks:
        asked_at = CLOCK.now()
        again = ask()
        assert CLOCK.now() - asked_at >= 200
        assert again.sent_at >= asked_at
        assert CLOCK.now() - again.sent_at >= 200


def test_the_grant_of_a_second_attempt_counts_from_that_one(
    backend: Node, consul: Consul, proxy: Callable[[Store], Proxy]
) -> None:
    """A restarted sidecar renews once; the first one's index is old: read, then compare again."""
    slow = proxy(consul)
    holder = backend(slow.url)
    grant = take(holder, ttl_ms=5_000)
    backend().renew(grant.hold, deadline=soon())
    slow.delay(50)
    asked_at = CLOCK.now()
    again = holder.renew(grant.hold, deadline=soon())

    assert again.hold == grant.hold
    assert again.sent_at >= asked_at + 200  # one rejection and one reading, 100 ms each


def test_renewals_whose_answers_are_lost_keep_the_lock(
    backend: Node, consul: Consul, proxy: Callable[[Store], Proxy], lock_index: Callable[[], int]
) -> None:
    line = proxy(consul)
    holder, other = backend(line.url), backend()
    grant = take(holder)
    for _ in range(4):
        index = lock_index()
        line.drop_replies()
        with pytest.raises(OutcomeUnknown):
            holder.renew(grant.hold, deadline=soon(200))
        assert lock_index() > index  # it did happen
        line.heal()
        again = holder.renew(grant.hold, deadline=soon())
        assert again.hold == grant.hold
        assert refused(other) == HeldBy("a", grant.hold.epoch)


def test_an_acquisition_whose_answer_is_lost_is_found_again(
    backend: Node, consul: Consul, proxy: Callable[[Store], Proxy]
) -> None:
    line = proxy(consul)
    holder = backend(line.url)
    holder.read(deadline=soon())
    line.drop_replies()
    with pytest.raises(OutcomeUnknown):
        holder.acquire("a", "a-1", 5_000, floor=NO_EPOCH, deadline=soon(200))
    line.heal()

    assert take(holder, ttl_ms=5_000).hold.epoch == 1
    assert refused(backend()) == HeldBy("a", Epoch(1))


def test_a_release_whose_answer_is_lost_has_released(
    backend: Node, consul: Consul, proxy: Callable[[Store], Proxy]
) -> None:
    line = proxy(consul)
    holder = backend(line.url)
    grant = take(holder, ttl_ms=5_000)
    line.drop_replies()
    with pytest.raises(OutcomeUnknown):
        holder.release(grant.hold, cause="stop", deadline=soon(200))
    line.heal()
    with pytest.raises(NotHolder):
        holder.release(grant.hold, cause="stop", deadline=soon())

    assert take(backend(), "b").hold.epoch == 2


def test_what_arrives_after_a_partition_takes_nothing_back(
    backend: Node, consul: Consul, proxy: Callable[[Store], Proxy]
) -> None:
    """A renewal held back by the network arrives when somebody else holds the lock."""
    line = proxy(consul)
    holder, other = backend(line.url), backend()
    grant = take(holder)
    line.blackhole()
    with pytest.raises(OutcomeUnknown):
        holder.renew(grant.hold, deadline=soon(200))
    watch(other, vacant)
    taken = take(other, "b", ttl_ms=5_000)
    line.heal()

    with pytest.raises(NotHolder):
        holder.renew(grant.hold, deadline=soon())
    assert taken.sent_at > grant.deadline
    assert other.renew(taken.hold, deadline=soon()).hold == taken.hold


def test_release_wakes_the_watchers_at_once(backend: Node) -> None:
    holder, other = backend(), backend()
    grant = take(holder, ttl_ms=10_000)
    view = watch(other, lambda v: v.holder is not None)
    holder.release(grant.hold, cause="stop", deadline=soon())
    released_at = CLOCK.now()
    view = watch(other, vacant)

    assert CLOCK.now() - released_at < 200
    assert view.lock is None
    assert view.epoch.released == "stop"


def test_a_frozen_server_costs_no_more_than_the_deadline(backend: Node, consul: Consul) -> None:
    holder, other = backend(), backend()
    grant = take(holder, ttl_ms=10_000)
    view = other.read(deadline=soon())
    consul.freeze()
    for error, call in (
        (OutcomeUnknown, lambda at: holder.renew(grant.hold, deadline=at)),
        (OutcomeUnknown, lambda at: holder.release(grant.hold, cause="stop", deadline=at)),
        (NotSent, lambda at: other.read(deadline=at)),
        (NotSent, lambda at: other.await_change(view.revision, deadline=at)),
    ):
        asked_at = CLOCK.now()
        with pytest.raises(error):
            call(soon(300))
        assert CLOCK.now() - asked_at < 500
    consul.thaw()
    with suppress(NotHolder):  # both had arrived and one has come true now, nobody knows which
        holder.release(grant.hold, cause="stop", deadline=soon())
    assert watch(other, vacant).epoch.released == "stop"


def test_a_renewal_after_a_freeze_goes_on(backend: Node, consul: Consul) -> None:
    holder = backend()
    grant = take(holder, ttl_ms=10_000)
    consul.freeze()
    with pytest.raises(OutcomeUnknown):
        holder.renew(grant.hold, deadline=soon(200))
    consul.thaw()

    assert holder.renew(grant.hold, deadline=soon()).hold == grant.hold


def test_a_restarted_server_keeps_the_lock_and_the_silence_goes_on(backend: Node, consul: Consul) -> None:
    holder, other = backend(), backend()
    grant = take(holder, ttl_ms=20_000)
    view = other.read(deadline=soon())
    consul.kill()
    with pytest.raises(NotSent):
        holder.renew(grant.hold, deadline=soon(300))
    with pytest.raises(NotSent):
        other.await_change(view.revision, deadline=soon(300))
    consul.start()

    assert holder.renew(grant.hold, deadline=soon()).hold == grant.hold
    assert refused(other) == HeldBy("a", grant.hold.epoch)


def test_a_wiped_server_is_not_believed(backend: Node, consul: Consul) -> None:
    holder, other = backend(), backend()
    grant = take(holder)
    holder.release(grant.hold, cause="stop", deadline=soon())
    grant = take(holder)
    other.read(deadline=soon())
    consul.wipe()

    with pytest.raises(NotHolder):
        holder.renew(grant.hold, deadline=soon())
    for node in (other, backend()):
        with pytest.raises(EpochBehind):
            node.acquire("b", "b-1", TTL_MS, floor=grant.hold.epoch, deadline=soon())
    assert other.read(deadline=soon()).epoch.epoch == NO_EPOCH
    raised_at = CLOCK.now()
    raised = backend().raise_epoch(grant.hold.epoch, ttl_ms=TTL_MS, by="me", deadline=soon())
    assert raised == grant.hold.epoch
    refused(other, floor=raised)
    watch(other, vacant)
    taken = take(other, "b", floor=raised)
    assert taken.hold.epoch == raised + 1
    assert taken.sent_at >= raised_at + silence_ms(TTL_MS)


def test_a_holder_of_a_wiped_server_releases_nobody_elses_lock(
    backend: Node, consul: Consul, namespace: str
) -> None:
    """It has not looked since, so all it knows of is its own lock."""
    holder, other = backend(), backend()
    grant = take(holder, ttl_ms=30_000)
    consul.call("DELETE", f"/v1/kv/aggregate-sidecar/{namespace}/?recurse")
    taken = take(other, "b")

    with pytest.raises(NotHolder):
        holder.release(grant.hold, cause="stop", deadline=soon())

    lock = other.read(deadline=soon()).lock
    assert lock is not None
    assert (lock.node, lock.epoch) == ("b", taken.hold.epoch)


def test_a_watch_that_was_cut_off_starts_anew(backend: Node, consul: Consul) -> None:
    """The new store counts from the beginning: asked for what follows the old index it would just wait."""
    holder, other = backend(), backend()
    for _ in range(50):
        take(holder, ttl_ms=60_000)
    view = watch(other, lambda v: v.holder is not None)
    assert other.await_change(view.revision, deadline=soon(100)) is None
    seen: list[View | None] = []
    thread = threading.Thread(
        target=lambda: seen.append(other.await_change(view.revision, deadline=soon(20_000)))
    )
    thread.start()
    consul.wipe()
    back_at = CLOCK.now()
    thread.join()
    assert CLOCK.now() - back_at < 1_500
    assert seen[0] is not None
    assert (seen[0].epoch.epoch, seen[0].lock) == (NO_EPOCH, None)
    assert seen[0].revision > view.revision


def test_a_lock_key_deleted_under_its_holder_is_waited_out(
    backend: Node, consul: Consul, namespace: str
) -> None:
    holder, other = backend(), backend()
    grant = take(holder)
    consul.call("DELETE", f"/v1/kv/aggregate-sidecar/{namespace}/lock")

    assert refused(other) == HeldBy("a", grant.hold.epoch)
    with pytest.raises(NotHolder):
        holder.renew(grant.hold, deadline=soon())
    watch(other, vacant)
    taken = take(other, "b")
    assert taken.sent_at > grant.deadline
    assert taken.hold.epoch == grant.hold.epoch + 1


@pytest.mark.parametrize("ttl_ms", [0, -1, 10**15])
def test_a_lock_with_an_impossible_ttl_is_unreadable_and_not_free(
    backend: Node, consul: Consul, namespace: str, ttl_ms: int
) -> None:
    take(backend())
    key = f"aggregate-sidecar/{namespace}/lock"
    consul.put(key, json.dumps(json.loads(consul.get(key) or "") | {"ttl_ms": ttl_ms}))

    other = backend()
    assert other.read(deadline=soon()).lock_unreadable
    with pytest.raises(BadDocument):
        other.acquire("b", "b-1", TTL_MS, floor=NO_EPOCH, deadline=soon())


def test_a_document_is_written_while_the_holder_renews(backend: Node) -> None:
    holder = backend()
    grant = take(holder, ttl_ms=5_000)
    backend().renew(grant.hold, deadline=soon())  # as the renewing thread of a busy sidecar would

    version = holder.write(Settings(paused=True), expected=0, hold=grant.hold, deadline=soon())
    with pytest.raises(Conflict):
        holder.write(Settings(), expected=0, hold=grant.hold, deadline=soon())
    assert holder.read(deadline=soon()).versions["settings"] == version


def test_presence_is_bound_to_a_session_of_its_own(backend: Node, consul: Consul) -> None:
    node, other = backend(), backend()
    record = NodeRecord(
        "a", "a-1", "standby", "monitoring", "", NO_EPOCH, NO_EPOCH, "kernel", 100, True, True, False, "0", 0
    )
    node.publish(record, ttl_ms=10_000, deadline=soon())
    restarted = backend()  # its predecessor's session still holds the key
    restarted.publish(replace(record, instance="a-2"), ttl_ms=10_000, deadline=soon())
    assert other.read(deadline=soon()).nodes == (replace(record, instance="a-2"),)

    node.withdraw("a", "a-1", deadline=soon())  # not its own any more
    assert other.read(deadline=soon()).nodes != ()
    sessions = json.loads(consul.call("GET", "/v1/session/list"))
    ours = [s for s in sessions if s["Name"] == "aggregate-sidecar a"]
    assert [(s["TTL"], s["Behavior"], s["LockDelay"], s["NodeChecks"]) for s in ours] == [
        ("10s", "delete", 0, [])
    ]
    view = other.read(deadline=soon())
    consul.call("PUT", f"/v1/session/destroy/{ours[0]['ID']}")  # what Consul does 20 s after the last word
    gone = other.await_change(view.revision, deadline=soon())
    assert gone is not None
    assert gone.nodes == ()
    restarted.publish(replace(record, instance="a-2"), ttl_ms=10_000, deadline=soon())
    assert other.read(deadline=soon()).nodes != ()
    restarted.withdraw("a", "a-2", deadline=soon())
    assert other.read(deadline=soon()).nodes == ()


def test_history_keeps_the_newest_1000(backend: Node, consul: Consul, namespace: str) -> None:
    holder = backend()
    grant = take(holder, ttl_ms=60_000)
    entry = HistoryEntry(Epoch(1), "a", None, "test", 0, None, None, None)
    for start in range(1, 1_050, 60):
        epochs = range(start, min(start + 60, 1_050))
        puts = [
            {
                "Verb": "set",
                "Key": f"aggregate-sidecar/{namespace}/history/{epoch:012d}",
                "Value": b64encode(encode(replace(entry, epoch=Epoch(epoch)))).decode(),
            }
            for epoch in epochs
        ]
        consul.call("PUT", "/v1/txn", json.dumps([{"KV": put} for put in puts]).encode())

    holder.append_history(grant.hold, replace(entry, epoch=Epoch(2_000)), deadline=soon())

    found = [item.epoch for item in holder.read_history(2_000, deadline=soon())]
    assert found == [2_000, *range(1_049, 50, -1)]
