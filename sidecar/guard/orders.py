"""What each order does. A refused order changes nothing, and says why."""

from __future__ import annotations

from sidecar.guard import kernel, wire
from sidecar.guard.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.guard.daemon import Guard


class Refused(Exception):
    """An order that changes nothing; the message is the reason."""


def _the_run(guard: Guard, frame: wire.Frame) -> Run:
    if guard.run is None or guard.run.id != wire.text(frame, "run"):
        now = f"run {guard.run.id!r}" if guard.run else "no run"
        raise Refused(f"run {frame['run']!r}: not here, there is {now}")
    return guard.run


def start(guard: Guard, frame: wire.Frame) -> None:
    """Order: start a server. A refusal proves that nothing of it runs."""
    run = Run(frame, kernel.now_ms())
    if guard.run:
        raise Refused(f"run {guard.run.id!r} is not over")
    if guard.leaving:
        raise Refused("the guard is leaving")
    if run.terms.too_late(run.started_at_ms):
        raise Refused("too late: its deadline has come")
    if run.own_output:
        if len(guard.door.given) != 2:
            raise Refused("its stdout and stderr did not come with the order")
        run.outlets, guard.door.given = guard.door.given, []
    guard.finished = None
    guard.run = run
    if guard.cage is None:
        guard.prepare()
    elif guard.cage.ready:
        guard.launch(run, guard.cage)


def extend(guard: Guard, frame: wire.Frame) -> wire.Frame:
    """Order: move the deadline back."""
    run = _the_run(guard, frame)
    deadline_ms = wire.whole(frame, "deadline_ms")
    note = wire.note(frame)
    if run.killed_by or run.terms.too_late(kernel.now_ms()):
        raise Refused("too late: the kill is due")
    run.terms.extend(deadline_ms)
    if "note" in frame:
        run.note = note
    guard.extend(run)
    return {"deadline_ms": run.terms.deadline_ms}


def stop(guard: Guard, frame: wire.Frame) -> wire.Frame:
    """Order: stop gracefully, kill at an instant."""
    run = _the_run(guard, frame)
    run.terms.stop(wire.whole(frame, "kill_at_ms"))
    if not run.stopping:
        run.stopping = True
        if guard.cage and guard.cage.told_go:
            guard.cage.stop()
        else:
            guard.kill(run, "order")
    return {"kill_at_ms": run.terms.kill_ms}


def kill(guard: Guard, frame: wire.Frame) -> None:
    """Order: end it now."""
    guard.kill(_the_run(guard, frame), "order")


def note(guard: Guard, frame: wire.Frame) -> None:
    """Order: keep this for the next client."""
    _the_run(guard, frame).note = wire.note(frame)


def ack(guard: Guard, frame: wire.Frame) -> None:
    """Order: the end of this run is known."""
    if guard.finished and guard.finished["run"] == wire.text(frame, "run"):
        guard.finished = None


def shutdown(guard: Guard, _frame: wire.Frame) -> None:
    """Order: leave when no server runs."""
    guard.leaving = True


def ping(_guard: Guard, _frame: wire.Frame) -> None:
    """Order: answer."""


ORDERS: dict[str, Callable[[Guard, wire.Frame], wire.Frame | None]] = {
    "start": start,
    "extend": extend,
    "stop": stop,
    "kill": kill,
    "note": note,
    "ack": ack,
    "shutdown": shutdown,
    "ping": ping,
}
