"""What the guard says, checked field by field: the sidecar's side trusts the guard, and no message.

Every function raises `wire.BadFrame` for what this version's guard never says.
"""

from typing import cast

from sidecar.core.units import Epoch, Instant
from sidecar.guard import record, wire
from sidecar.guard.events import AdoptedRun, Enforcement, Exited, Output, StartFailed


def check(state: wire.Frame) -> None:
    """Check what the guard answers to ``control``."""
    enforcement(state)
    adopted_run(state)
    traces_of_run(state)
    finished(state)


def enforcement(state: wire.Frame) -> Enforcement:
    """Return who enforces the deadline."""
    found = state.get("enforcement")
    if found not in ("kernel", "process"):
        raise wire.BadFrame("enforcement: neither kernel nor process")
    return found


def adopted_run(state: wire.Frame) -> AdoptedRun | None:
    """Return the server that runs there."""
    frame = _object(state, "run")
    if frame is None:
        return None
    return AdoptedRun(
        run=wire.text(frame, "run"),
        role=wire.text(frame, "role"),
        epoch=Epoch(wire.whole(frame, "epoch")),
        deadline_at=Instant(wire.whole(frame, "deadline_ms")),
        started_at=Instant(wire.whole(frame, "started_at_ms")),
        server_pid=_pid(frame, "server_pid"),
        keeper_pid=_pid(frame, "keeper_pid"),
        note=frame.get("note"),
        stopping=wire.text(frame, "state") == "stopping",
    )


def traces(frame: wire.Frame) -> record.Record | None:
    """Return what the tree of *frame*'s server is found by; None where its guard does not say."""
    if frame.get("token") is None:
        return None
    cgroup = None if frame.get("cgroup") is None else wire.text(frame, "cgroup")
    keeper_pid = wire.whole(frame, "keeper_pid", low=1)
    return {"keeper_pid": keeper_pid, "token": wire.text(frame, "token"), "cgroup": cgroup}


def traces_of_run(state: wire.Frame) -> record.Record | None:
    """Return the same of the server that runs there."""
    frame = _object(state, "run")
    return None if frame is None or frame.get("keeper_pid") is None else traces(frame)


def finished(state: wire.Frame) -> Exited | StartFailed | None:
    """Return how the run before ended, where nobody has acknowledged that yet."""
    frame = _object(state, "finished")
    return None if frame is None else end_of_run(frame)


def end_of_run(frame: wire.Frame) -> Exited | StartFailed:
    """Return what ``exited`` or ``start_failed`` says."""
    name = wire.text(frame, "run")
    if frame.get("type") == "start_failed":
        return StartFailed(name, wire.text(frame, "reason"))
    killed_by = frame.get("killed_by")
    if killed_by not in (None, "deadline", "order", "guard"):
        raise wire.BadFrame("killed_by: unknown")
    return Exited(name, wire.whole(frame, "status", -(1 << 31), 1 << 31), killed_by)


def output(frame: wire.Frame) -> list[Output]:
    """Return the lines the server printed."""
    run, dropped, stream = wire.text(frame, "run"), wire.whole(frame, "dropped"), frame.get("stream")
    lines = frame.get("lines")
    if type(lines) is not list or any(type(line) is not str for line in lines):
        raise wire.BadFrame("lines: not a list of strings")
    if stream not in ("stdout", "stderr"):
        raise wire.BadFrame("stream: unknown")
    return [Output(run, stream, line, 0 if number else dropped) for number, line in enumerate(lines)]


def _object(state: wire.Frame, key: str) -> wire.Frame | None:
    found = state.get(key)
    if key not in state or not (found is None or type(found) is dict):
        raise wire.BadFrame(f"{key}: neither an object nor null")
    return cast(wire.Frame | None, found)


def _pid(frame: wire.Frame, key: str) -> int | None:
    return None if frame.get(key) is None else wire.whole(frame, key, low=1)
