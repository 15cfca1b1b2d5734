"""The watcher shows every view and misses none after a failure; the publisher never lets its record expire.

Method: the real threads over a scripted store. Not covered: whether a store tells all changes (C10).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from sidecar.clock import BootClock
from sidecar.core.model import NodeRecord, View
from sidecar.errors import Denied, NotSent
from sidecar.runtime.watching import LONG_POLL_MS, Publisher, Watcher, publish_pause_s
from tests.core.made import other
from tests.runtime.stubs import NOW, WITHIN_S, Inbox, Store, clock

READ_MS = 4_000


def view(revision: int) -> View:
    return View(revision=revision)


def waits(*_args: object, **_given: object) -> None:
    """Be a store in which nothing changes: `closed` ends it."""
    closed.wait(WITHIN_S)
    raise NotSent("closed")


closed = threading.Event()


@contextmanager
def watching(store: Store, inbox: Inbox) -> Iterator[None]:
    closed.clear()
    watcher = Watcher(store.backend, clock(), inbox.put, READ_MS)
    try:
        yield
    finally:
        watcher.close()
        closed.set()
        watcher.join()


def test_each_view_is_shown_and_the_next_is_asked_for_after_it() -> None:
    store, inbox = Store(), Inbox()
    store.script("read", view(3))
    store.script("await_change", view(5), view(9), waits)

    with watching(store, inbox):
        assert [inbox.next().revision for _ in range(3)] == [3, 5, 9]
        asked = store.await_calls("await_change", 3)

    assert [given["args"] for given in asked] == [(3,), (5,), (9,)]
    assert {given["deadline"] for given in asked} == {NOW + LONG_POLL_MS}
    assert store.calls("read") == [{"args": (), "deadline": NOW + READ_MS}]


def test_no_news_are_not_shown_and_asked_for_again() -> None:
    store, inbox = Store(), Inbox()
    store.script("read", view(3))
    store.script("await_change", None, view(5), waits)

    with watching(store, inbox):
        assert [inbox.next().revision for _ in range(2)] == [3, 5]
        store.await_calls("await_change", 3)

    assert [given["args"] for given in store.calls("await_change")] == [(3,), (3,), (5,)]
    assert inbox.rest() == []


@pytest.mark.parametrize("error", [NotSent("x"), Denied("x"), ZeroDivisionError("x")], ids=repr)
def test_after_any_failure_all_is_read_anew(error: Exception) -> None:
    """What changed meanwhile may be in no later change: a store that was replaced counts anew."""
    store, inbox = Store(), Inbox()
    store.script("read", view(3), error, view(2))
    store.script("await_change", error, waits)

    with watching(store, inbox):
        assert [inbox.next().revision for _ in range(2)] == [3, 2]
        assert [given["args"] for given in store.await_calls("await_change", 2)] == [(3,), (2,)]


def test_a_store_that_is_down_is_asked_less_and_less_often() -> None:
    """The pauses double, with jitter, up to 1 s: 6 tries take at least half of 50 + … + 800 ms."""
    store, inbox = Store(), Inbox()
    store.script("read", NotSent("x"))
    began = BootClock().now()

    with watching(store, inbox):
        store.await_calls("read", 6)

    assert BootClock().now() - began >= (50 + 100 + 200 + 400 + 800) // 2


@contextmanager
def publishing(store: Store, ttl_ms: int) -> Iterator[Publisher]:
    publisher = Publisher(store.backend, BootClock(), record, ttl_ms, 1_000)
    try:
        yield publisher
    finally:
        publisher.close()


def record() -> NodeRecord:
    return other("a")


@pytest.mark.parametrize("error", [None, NotSent("x"), ZeroDivisionError("x")], ids=repr)
def test_a_record_is_shown_again_before_it_expires_whatever_failed(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    store, pauses_s = Store(), list[float]()
    store.script("publish", None, error, None)

    def pause_s(ttl_ms: int) -> float:
        pauses_s.append(publish_pause_s(ttl_ms))
        return 0.01

    monkeypatch.setattr("sidecar.runtime.watching.publish_pause_s", pause_s)
    with publishing(store, ttl_ms=1_500):
        store.await_calls("publish", 20)

    assert all(one_s + next_s < 1.5 for one_s, next_s in pairwise(pauses_s)), "one may fail"
    assert store.calls("publish")[0]["args"] == (record(),)


def test_a_change_is_shown_at_once() -> None:
    store = Store()
    store.script("publish", None)

    with publishing(store, ttl_ms=600_000) as publisher:
        store.await_calls("publish", 1)
        publisher.changed()
        store.await_calls("publish", 2)


def test_bug_a_publisher_that_was_closed_as_it_began_anew_waited_for_its_next_turn() -> None:
    store = Store()
    store.script("publish", None)
    publisher = Publisher(store.backend, BootClock(), record, 600_000, 1_000)
    store.await_calls("publish", 1)

    class ClosedBefore(threading.Event):
        def clear(self) -> None:
            publisher._closing.set()
            self.set()
            super().clear()

    old, publisher._changed = publisher._changed, ClosedBefore()
    old.set()
    publisher._thread.join(WITHIN_S)

    assert not publisher._thread.is_alive()
