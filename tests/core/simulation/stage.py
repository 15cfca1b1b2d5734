"""Puts simulated threads, clocks, guards and stores in the place of real ones, in the program's own modules.

The program's code is run as it is. What it gets for ``threading``, ``SimpleQueue``, ``uuid`` and so on looks
up the simulated process it is called from, so one set serves all processes.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import psutil

from sidecar import clock, events
from sidecar.core import advance as core_advance
from sidecar.core import candidate as core_candidate
from sidecar.core import decide as core_decide
from sidecar.core import moves as core_moves
from sidecar.core import requests as core_requests
from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.units import Instant
from sidecar.operate import asking, desk, failover, settings
from sidecar.runtime import hooks, lanes, locking, main, probing, serving, shell, watching
from tests.core.simulation import swift, threads
from tests.core.simulation.guarding import GuardClient
from tests.core.simulation.hooking import Errand
from tests.core.simulation.loop import Violation
from tests.core.simulation.node import Marks, Node
from tests.core.simulation.threads import SimpleQueue, current

WALL_FROM_MS = 1_700_000_000_000


def _node() -> Node:
    process = current().process
    assert isinstance(process, Node)
    return process


class _Log:
    """The program's logger: an internal error is a violation, the rest is not of interest."""

    def exception(self, text: str) -> None:
        error = sys.exc_info()[1]
        process = current().process
        if not isinstance(error, Violation):
            violation = Violation(f"internal error in {process.name}: {error!r}")
            violation.__cause__ = error
            process.loop.fail(violation)

    def debug(self, *_: object, **__: object) -> None:
        pass

    def setLevel(self, _level: str) -> None:  # noqa: N802 - as logging has it
        pass


class _Random:
    @staticmethod
    def uniform(low: float, high: float) -> float:
        return current().process.loop.random.uniform(low, high)


def _uuid4() -> Any:
    process = current().process
    process.names += 1
    return SimpleNamespace(hex=f"{process.names:06x}{process.name}{process.born_at}")


def _wall_ms() -> int:
    return WALL_FROM_MS + current().process.loop.now


def _emit(event: events.Event, level: int | None = None) -> None:
    process = current().process
    if isinstance(process, Node):
        process.emitted(event)


def _decide(node: s.Node, seen: s.Observation, now: Instant, policy: s.Policy) -> s.Step:
    step = decide(node, seen, now, policy)
    process = _node()
    process.on_decided(process, seen, node, step, now)
    return step


class _Shell(shell.Shell):
    """The real shell; something may happen just before each of its orders is carried out."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        node = _node()
        node.shell, node.began_at = self, node.loop.now

    def _carry_out(self, action: s.Action) -> None:
        process = _node()
        process.before_order(process, action)
        if not process.alive or process.frozen:
            current().wait(0)
        super()._carry_out(action)


def _no_process(pid: int) -> None:
    raise psutil.NoSuchProcess(pid)


_THREADING = SimpleNamespace(Thread=threads.Thread, Event=threads.Event, Lock=Lock)
_PSUTIL = SimpleNamespace(Process=_no_process, Error=psutil.Error, NoSuchProcess=psutil.NoSuchProcess)
_LOG = _Log()


def _signal(number: int, handler: Any) -> None:
    _node().handlers[number] = handler


PUT = (
    (core_decide, {"replace": swift.replace}),
    (core_advance, {"replace": swift.replace}),
    (core_moves, {"replace": swift.replace}),
    (core_requests, {"replace": swift.replace}),
    (core_candidate, {"replace": swift.replace}),
    (lanes, {"threading": _THREADING, "SimpleQueue": SimpleQueue, "emit": _emit, "LOG": _LOG}),
    (locking, {"LOG": _LOG}),
    (clock, {"random": _Random}),
    (watching, {"threading": _THREADING, "LOG": _LOG, "random": _Random}),
    (probing, {"threading": _THREADING, "emit": _emit, "LOG": _LOG}),
    (serving, {"GuardClient": GuardClient, "Event": threads.Event, "emit": _emit, "LOG": _LOG}),
    (hooks, {"Errand": Errand, "Event": threads.Event, "emit": _emit}),
    (
        shell,
        {
            "threading": _THREADING,
            "emit": _emit,
            "LOG": _LOG,
            "wall_ms": _wall_ms,
            "psutil": _PSUTIL,
            "decide": _decide,
            "replace": swift.replace,
        },
    ),
    (
        main,
        {
            "SimpleQueue": SimpleQueue,
            "BootClock": lambda: _node().clock,
            "kind_of": lambda _config: _node().kind(),
            "watching_of": lambda *_: _node().watching(),
            "load_backend": lambda _name: lambda _settings, _clock: _node().connect(_node()),
            "MarkFile": lambda *_: Marks(_node().host),
            "Shell": _Shell,
            "uuid": SimpleNamespace(uuid4=_uuid4),
            "signal": SimpleNamespace(signal=_signal, SIGTERM=15, SIGINT=2, SIGHUP=1, SIGUSR1=10),
        },
    ),
    (events, {"emit": _emit, "LOG": _LOG}),
    (desk, {"threading": _THREADING}),
    (asking, {"wall_ms": _wall_ms, "uuid": SimpleNamespace(uuid4=_uuid4)}),
    (failover, {"wall_ms": _wall_ms}),
    (settings, {"wall_ms": _wall_ms}),
)


@contextmanager
def staged() -> Iterator[None]:
    """Let the program run in simulated processes, while this lasts."""
    patches = [patch.object(module, name, value) for module, put in PUT for name, value in put.items()]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in reversed(patches):
            one.stop()
