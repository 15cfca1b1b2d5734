"""Goal: knowledge about the lock never goes back by an answer that comes late, however answers overtake.

Method: the board alone, fed by hand in the orders that threads and networks make. Not covered: everything
that a real Consul decides (test_consul_lease.py).
"""

import pytest

from backends._consul_board import Board, Lease
from backends.shared import EPOCH, LOCK, Entry
from sidecar.core.model import EpochRecord
from sidecar.core.units import Epoch, Instant, silence_ms
from sidecar.documents import encode
from sidecar.ports import Hold

TTL_MS = 1_000
HOLD = Hold("a", "a-1", Epoch(3), TTL_MS, "cas")
T0, T1, T2 = Instant(10_000), Instant(10_300), Instant(10_600)
AFTER = silence_ms(TTL_MS) + 1


def keys(index: int, *, node: str = "a", epoch: int = 3, state: str = "held") -> dict[str, Entry]:
    assert state in ("held", "broken", "vacant")
    lease = Lease(node, f"{node}-1", Epoch(epoch), TTL_MS, state, renewals=index)  # type: ignore[arg-type]
    return {
        LOCK: Entry(encode(lease), index),
        EPOCH: Entry(encode(EpochRecord(Epoch(epoch), node)), 5),
    }


def known(index: int, at: Instant = T0) -> Board:
    board = Board()
    assert board.take(board.begin(), keys(index), at)
    return board


def test_nothing_is_known_before_the_first_answer() -> None:
    board = Board()
    assert board.standing(T0) is None
    assert board.view(T0).revision == 0
    board.wrote(keys(10), T0)  # a write alone is not the whole
    assert board.standing(T0) is None


def test_a_read_that_began_earlier_and_ended_later_is_refused() -> None:
    board = Board()
    slow, quick = board.begin(), board.begin()
    assert board.take(quick, keys(11), T1)
    assert not board.take(slow, keys(10), T2)
    standing = board.standing(T2)
    assert standing is not None
    assert standing.lease_index == 11


def test_bug_a_read_that_overlaps_another_took_the_view_back() -> None:
    """It began later, and was carried out earlier: a takeover was taken back, and called a restored store."""
    board = Board()
    first, second = board.begin(), board.begin()
    assert board.take(first, keys(11), T1)
    assert not board.take(second, keys(10), T2), "read it again"
    assert board.take(board.begin(), keys(12), T2)


def test_a_read_that_began_before_our_own_write_ended_is_refused() -> None:
    board = known(10)
    began = board.begin()
    board.wrote(keys(11), T1)
    assert not board.take(began, keys(10), T2)
    assert board.take(board.begin(), keys(11), T2)


def test_an_answer_to_a_write_that_others_have_followed_changes_nothing() -> None:
    board = known(10)
    assert board.take(board.begin(), keys(20, node="b", epoch=4), T1)
    board.wrote(keys(11), T2)
    standing = board.standing(T2)
    assert standing is not None
    assert (standing.lease_index, standing.epoch) == (20, 4)
    assert not standing.is_of(HOLD)


def test_the_silence_ends_to_the_millisecond_and_changes_the_view_once() -> None:
    board = known(10)
    held = board.view(Instant(T0 + AFTER - 1))
    assert not held.vacant
    assert board.expires_at(T0) == T0 + AFTER
    free = board.view(Instant(T0 + AFTER))
    assert free.lock_expired
    assert free.revision > held.revision
    assert board.view(Instant(T0 + AFTER + 5)) == free
    assert board.expires_at(Instant(T0 + AFTER)) is None


@pytest.mark.parametrize("ours", [True, False])
def test_each_new_index_starts_the_silence_again(ours: bool) -> None:
    board = known(10)
    if ours:
        board.wrote(keys(11), T1)
    else:
        assert board.take(board.begin(), keys(11), T1)
    assert board.take(board.begin(), keys(11), T2)  # seen again: no news
    assert board.expires_at(T2) == T1 + AFTER


def test_a_renewal_is_no_news_and_an_end_taken_back_is() -> None:
    board = known(10)
    first = board.view(T0)
    assert board.take(board.begin(), keys(11), T1)
    assert board.view(T1) == first
    late = Instant(T1 + AFTER)
    assert board.view(late).vacant
    assert board.take(board.begin(), keys(12), late)
    again = board.view(late)
    assert not again.vacant
    assert again.revision > first.revision + 1


def test_a_hold_that_was_silent_for_its_whole_time_does_not_count() -> None:
    board = known(10)
    before, after = board.standing(Instant(T0 + AFTER - 1)), board.standing(Instant(T0 + AFTER))
    assert before is not None
    assert before.is_of(HOLD)
    assert after is not None
    assert not after.is_of(HOLD)
    assert after.next_lease("a", "a-1", TTL_MS).epoch == 4


def test_the_lock_remembers_the_epoch_that_its_own_key_lost() -> None:
    board = Board()
    assert board.take(board.begin(), {LOCK: keys(10, epoch=9, state="vacant")[LOCK]}, T0)
    standing = board.standing(T0)
    assert standing is not None
    assert standing.next_lease("b", "b-1", TTL_MS).epoch == 10
    assert board.view(T0).epoch.epoch == 9
