"""A store that is older than what this node has seen is an alarm, once; a view that is late is none.

Method: nodes made by hand, as the deciding thread knows itself after a turn.
"""

from dataclasses import replace

import pytest

from sidecar.core import state as s
from sidecar.core.outlook import VIEW_LAG_MS
from sidecar.core.units import Epoch, Instant
from sidecar.events import Event, Raised, listening
from sidecar.runtime.older import OlderStore
from tests.core import made


def standby(epoch: int, mark: int = 7, mark_at: int = 0) -> s.Node:
    """Return a standby that has seen *mark*, and now a store at *epoch*."""
    view = made.view(epoch=epoch)
    return s.Node(s.Idle(), s.Memory(view=view, view_at=made.NOW, mark=Epoch(mark), mark_at=Instant(mark_at)))


def alarms(*nodes: s.Node) -> list[str]:
    older, told = OlderStore(), list[Event]()
    with listening(told.append):
        for node in nodes:
            older.look(node)
    return [event.text for event in told if isinstance(event, Raised)]


def test_bug_a_wiped_or_restored_store_left_nothing_in_the_log() -> None:
    assert alarms(standby(7), standby(3), standby(3)) == [
        "the store's epoch 3 is behind 7: it was wiped or restored, or this node uses another store than the "
        "others did; no node that has seen that becomes active"
    ]
    assert len(alarms(standby(3), standby(2), standby(3, mark=8))) == 3, "each is another one"


def test_who_has_lost_its_lock_to_an_older_store_tells_it() -> None:
    serving = s.Node(made.serving(), standby(3).memory)
    lost = s.Node(s.Idle(), serving.memory)

    assert len(alarms(serving, lost)) == 1


def test_an_active_that_others_have_outrun_tells_it() -> None:
    """It serves in a store that was wiped, and somebody comes who has seen more."""
    assert len(alarms(s.Node(made.serving(), standby(7, mark=17).memory))) == 1


@pytest.mark.parametrize(
    "node",
    [
        standby(7),
        standby(6, mark_at=made.NOW - VIEW_LAG_MS + 1),
        s.Node(s.Idle(), replace(standby(6, mark_at=made.NOW - 60_000).memory, view_at=Instant(0))),
        s.Node(made.serving(), standby(6).memory),
        s.Node(s.Idle(), s.Memory(mark=Epoch(7))),
        s.Node(s.Idle(), replace(standby(0).memory, view=replace(made.view(epoch=0), unreadable=("epoch",)))),
    ],
    ids=[
        "as new",
        "a view that came a moment later",
        "none that came later",
        "a late view of a holder",
        "no view yet",
        "an unreadable epoch",
    ],
)
def test_what_is_no_older_store(node: s.Node) -> None:
    assert alarms(node) == []
