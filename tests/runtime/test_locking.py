"""The lock lane: each order is answered once, by what the store said of exactly that hold.

Method: the real lane and its thread over a scripted store and a clock that stands still.
Not covered: stores (tests/contract) and what the answers lead to (tests/core).
"""

import json
from collections.abc import Iterator

import pytest

from sidecar.core import state as s
from sidecar.core.units import Epoch, Instant
from sidecar.errors import Denied, NotHolder, NotSent, OutcomeUnknown
from sidecar.ports import HeldBy
from sidecar.runtime.locking import Kept, LockLane, from_note, to_note
from tests.core.made import POLICY
from tests.runtime.stubs import NOW, Inbox, Store, clock, grant, hold

TIMEOUT_MS = 1_500


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def lane(store: Store, inbox: Inbox) -> Iterator[LockLane]:
    made = LockLane(store.backend, clock(), inbox.put, lambda: TIMEOUT_MS)
    yield made
    made.close()


def test_a_grant_is_told_as_of_the_sending_of_its_request(lane: LockLane, store: Store, inbox: Inbox) -> None:
    store.script("acquire", grant(7, sent_at=NOW - 400))
    store.script("renew", grant(7, sent_at=NOW - 300))

    lane.acquire(POLICY, Epoch(5))
    lane.renew(Epoch(7))

    assert inbox.next() == s.Granted(Epoch(7), Instant(NOW - 400), Instant(NOW - 400 + 9_900))
    assert inbox.next() == s.Granted(Epoch(7), Instant(NOW - 300), Instant(NOW - 300 + 9_900))
    asked = store.calls("acquire")[0]
    assert (asked["args"], asked["floor"]) == (("a", "a/1", 10_000), 5)


def test_each_call_has_the_time_limit_of_a_request(lane: LockLane, store: Store, inbox: Inbox) -> None:
    store.script("acquire", grant())
    store.script("renew", grant())
    store.script("release", None)

    lane.acquire(POLICY, Epoch(0))
    lane.renew(Epoch(7))
    lane.release(POLICY, Epoch(7), Epoch(7), "test")

    inbox.until(s.Released)
    assert [given["deadline"] for given in store.calls("acquire", "renew", "release")] == [
        NOW + TIMEOUT_MS
    ] * 3


def test_who_has_the_lock_is_an_answer(lane: LockLane, store: Store, inbox: Inbox) -> None:
    store.script("acquire", HeldBy("b", Epoch(6)))

    lane.acquire(POLICY, Epoch(0))

    assert inbox.next() == s.Taken(Epoch(6), "b")


def test_a_hold_of_another_epoch_is_never_renewed(lane: LockLane, store: Store, inbox: Inbox) -> None:
    store.script("acquire", grant(6), grant(7))
    lane.acquire(POLICY, Epoch(0))
    lane.acquire(POLICY, Epoch(0))

    lane.renew(Epoch(6))

    inbox.next(), inbox.next()
    assert inbox.next() == s.Lost(Epoch(6))
    assert lane.hold(Epoch(6)) is None, "the hold of before is spent"


def test_a_definite_no_is_the_loss_of_that_epoch(lane: LockLane, store: Store, inbox: Inbox) -> None:
    lane.adopt(hold(7))
    store.script("renew", NotHolder("lock: vacant"))

    lane.renew(Epoch(7))

    assert inbox.next() == s.Lost(Epoch(7))


@pytest.mark.parametrize(
    ("error", "lasting"), [(NotSent("x"), False), (OutcomeUnknown("x"), False), (Denied("x"), True)]
)
def test_an_error_is_a_failed_call_and_never_a_loss(
    lane: LockLane, store: Store, inbox: Inbox, error: Exception, lasting: bool
) -> None:
    lane.adopt(hold(7))
    store.script("renew", error)

    lane.renew(Epoch(7))

    assert inbox.next() == s.CallFailed("x", lasting=lasting)
    assert lane.hold(Epoch(7)) is not None


def test_an_unexpected_exception_is_a_failed_call_and_the_lane_lives_on(
    lane: LockLane, store: Store, inbox: Inbox
) -> None:
    lane.adopt(hold(7))
    store.script("renew", ZeroDivisionError("x"), grant(7))

    lane.renew(Epoch(7))
    lane.renew(Epoch(7))

    assert inbox.next() == s.CallFailed("internal error: x")
    assert isinstance(inbox.next(), s.Granted)


def test_a_release_gives_up_exactly_its_hold_and_forgets_it(
    lane: LockLane, store: Store, inbox: Inbox
) -> None:
    lane.adopt(hold(7))
    store.script("release", None)

    lane.release(POLICY, Epoch(7), Epoch(7), "it is time")

    assert inbox.next() == s.Released(Epoch(7))
    asked = store.calls("release")[0]
    assert (asked["args"], asked["cause"]) == ((hold(7),), "it is time")
    assert lane.hold(Epoch(7)) is None


def test_a_release_that_may_have_failed_keeps_its_hold_for_the_next_try(
    lane: LockLane, store: Store, inbox: Inbox
) -> None:
    lane.adopt(hold(7))
    store.script("release", OutcomeUnknown("x"), None)

    lane.release(POLICY, Epoch(7), Epoch(7), "test")
    lane.release(POLICY, Epoch(7), Epoch(7), "test")

    assert isinstance(inbox.next(), s.CallFailed)
    assert inbox.next() == s.Released(Epoch(7))
    assert store.calls("acquire") == []


def test_a_release_whose_grant_never_came_asks_for_it_again(
    lane: LockLane, store: Store, inbox: Inbox
) -> None:
    store.script("acquire", grant(7))
    store.script("release", None)

    lane.release(POLICY, Epoch(7), Epoch(8), "test")

    assert inbox.next() == s.Released(Epoch(7))
    assert store.calls("release")[0]["args"] == (hold(7),)
    assert store.calls("acquire")[0]["floor"] == 8, (
        "a wiped store gives nothing, which nobody would give back"
    )


def test_a_release_whose_grant_never_came_releases_nothing_else(
    lane: LockLane, store: Store, inbox: Inbox
) -> None:
    store.script("acquire", HeldBy("b", Epoch(7)))
    store.script("release", None)

    lane.release(POLICY, Epoch(7), Epoch(7), "test")

    assert inbox.next() == s.Lost(Epoch(7))
    assert store.calls("release") == []


@pytest.mark.parametrize("ready", [True, False])
def test_a_note_gives_back_what_was_kept(ready: bool) -> None:
    kept = Kept("plant-7", hold(), ready)

    assert from_note(to_note(kept)) == kept


def test_a_note_of_a_version_that_does_not_say_is_of_a_server_that_is_not_ready() -> None:
    said = json.loads(to_note(Kept("plant-7", hold(), ready=True)))
    del said["ready"]

    assert from_note(json.dumps(said)) == Kept("plant-7", hold(), ready=False)


@pytest.mark.parametrize(
    "note",
    ["", "{", "[]", "{}", '{"v": 1}', '{"v": 2, "cluster": "c"}', '{"v": 1, "cluster": "c", "node": "a"}'],
)
def test_what_is_no_note_of_ours_is_refused(note: str) -> None:
    with pytest.raises(ValueError):
        from_note(note)


def test_a_note_of_a_later_version_is_refused() -> None:
    later = json.dumps(json.loads(to_note(Kept("plant-7", hold(), ready=False))) | {"v": 2})

    with pytest.raises(ValueError, match="version 2 is not known"):
        from_note(later)
