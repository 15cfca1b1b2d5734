"""Goal: a node asks a store that is away seldom and from one place, and an idle one costs it little.

Method: backends on a port where nobody listens, or on a real etcd; the requests that leave are
counted where every request passes. What many nodes do together is measured by ``./scripts/bench scale``.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from backends import _consul_transport, _etcd_channel
from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.errors import BackendError
from sidecar.plugins import load_backend
from sidecar.ports import Backend, BackendSettings
from tests.contract.steps import node, now
from tests.contract.stores import soon
from tests.harness.process import free_port
from tests.harness.stores import Etcd

Backends = Callable[[str, dict[str, object]], Backend]


@pytest.fixture
def connect(namespace: str) -> Iterator[Backends]:
    made = []

    def make(name: str, options: dict[str, object]) -> Backend:
        made.append(load_backend(name)(BackendSettings(namespace, options), BootClock()))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> list[str]:
    """Return the growing list of the threads that called this method."""
    original, calls = getattr(owner, method), list[str]()

    def call(*args: Any, **named: Any) -> Any:
        calls.append(threading.current_thread().name)
        return original(*args, **named)

    monkeypatch.setattr(owner, method, call)
    return calls


def watch(backend: Backend, revision: int, for_ms: int) -> None:
    """Wait for changes all that time, as the watcher does."""
    until = now() + for_ms
    while now() < until:
        with suppress(BackendError):
            view = backend.await_change(revision, deadline=Instant(until))
            revision = revision if view is None else view.revision


def test_a_consul_that_is_away_is_tried_more_and_more_seldom(
    connect: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = counted(monkeypatch, _consul_transport.Transport, "get")

    watch(connect("consul", {"address": f"http://127.0.0.1:{free_port()}"}), 0, for_ms=3_000)

    # first 50 ms, then longer up to 500 ms: never as often as every 100 ms, never given up
    assert 5 <= len(tries) <= 20


def test_an_etcd_that_is_away_is_asked_by_one_thread_of_a_watching_node(
    connect: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = counted(monkeypatch, _etcd_channel.Endpoint, "send")

    watch(connect("etcd", {"endpoints": [f"http://127.0.0.1:{free_port()}"]}), 0, for_ms=3_000)

    assert set(tries) == {"etcd-watch"}


def test_a_slow_answer_of_the_only_etcd_does_not_begin_the_watch_again(
    connect: Backends, etcd34: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches = counted(monkeypatch, _etcd_channel.Endpoint, "watch")
    backend = connect("etcd", {"endpoints": [etcd34.url]})
    backend.publish(node("a"), ttl_ms=5_000, deadline=soon())
    view = backend.read(deadline=soon())
    backend.await_change(view.revision, deadline=soon(300))
    etcd34.freeze()
    for _ in range(3):
        with pytest.raises(BackendError):
            backend.publish(node("a"), ttl_ms=5_000, deadline=soon(200))
    etcd34.thaw()

    backend.publish(node("a", message="again"), ttl_ms=5_000, deadline=soon())
    changed = backend.await_change(view.revision, deadline=soon())

    assert changed is not None, "the watch goes on"
    assert len(watches) == 1


@pytest.mark.parametrize(("ttl_ms", "checks"), [(5_000, range(1, 5)), (60_000, range(1))])
def test_an_idle_node_with_a_long_ttl_asks_etcd_seldom(
    connect: Backends, etcd34: Etcd, monkeypatch: pytest.MonkeyPatch, ttl_ms: int, checks: range
) -> None:
    backend = connect("etcd", {"endpoints": [etcd34.url]})
    backend.publish(node("a"), ttl_ms=ttl_ms, deadline=soon())
    view = backend.read(deadline=soon())
    backend.await_change(view.revision, deadline=soon(300))  # the watch stands
    asked = counted(monkeypatch, _etcd_channel.Endpoint, "send")

    watch(backend, view.revision, for_ms=3_300)

    assert len(asked) in checks
