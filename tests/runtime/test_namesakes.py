"""Another sidecar of this node's name is an alarm, once; this node's own past is none.

Method: views made by hand, as a store shows two that publish in turn.
"""

from dataclasses import replace

import pytest

from sidecar.core.model import View
from sidecar.events import Event, Raised, listening
from sidecar.runtime.namesakes import Namesakes
from tests.core import made


def shows(instance: str, at_ms: int) -> View:
    """Return what the store shows after *instance* has published itself as node a."""
    api = "http://10.0.0.9:8009"
    return made.view(nodes=(made.other("a", instance=instance, seen_at_unix_ms=at_ms, api=api),))


def alarms(*views: View) -> list[str]:
    namesakes, told = Namesakes(), list[Event]()
    with listening(told.append):
        for view in views:
            namesakes.seen(view, "a", "mine")
    return [event.text for event in told if isinstance(event, Raised)]


def test_two_that_publish_in_turn_are_told_once_for_each_other_one() -> None:
    both = [shows("mine", 0), shows("other", 1), shows("mine", 2), shows("other", 3), shows("other", 5)]

    assert alarms(*both) == [
        "another sidecar is called a, too (its API: http://10.0.0.9:8009): give each its own node"
    ]
    assert len(alarms(*both, shows("third", 6), shows("third", 7))) == 2


@pytest.mark.parametrize(
    "views",
    [
        (shows("before", 0), shows("before", 1), shows("mine", 2), shows("mine", 3)),
        (shows("mine", 5), shows("before", 0), shows("before", 0), shows("mine", 6), shows("before", 0)),
        (shows("mine", 0), made.view(), shows("mine", 1)),
        (shows("mine", 0), replace(shows("mine", 1), nodes=(made.other("b", instance="b"),))),
    ],
    ids=["before ours", "a restored store", "ours expired", "another node"],
)
def test_what_is_no_namesake(views: tuple[View, ...]) -> None:
    assert alarms(*views) == []


def test_one_without_an_api_is_told_of_as_well() -> None:
    bare = [made.view(nodes=(made.other("a", instance="x", seen_at_unix_ms=n, api=None),)) for n in (1, 2)]

    assert alarms(shows("mine", 0), *bare) == ["another sidecar is called a, too: give each its own node"]
