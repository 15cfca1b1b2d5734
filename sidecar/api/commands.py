"""The commands by HTTP: JSON in, the operations of `sidecar.operate`, what was observed as JSON out.

Runs on a thread of its own, with a backend of its own. A client that goes away ends nothing: what becomes of
its command is in ``/status``, ``/events`` and the history.

A command's exit status is part of every answer; the status of HTTP follows from it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from sidecar.config import Config
from sidecar.config.kinds import Duration, Name
from sidecar.core.units import Epoch
from sidecar.documents import prepared
from sidecar.errors import Refused, SidecarError, UsageError
from sidecar.events import LOG
from sidecar.operate import failover, handover, maintenance, outcome, raising
from sidecar.operate.asking import Done
from sidecar.operate.desk import Desk, open_desk
from sidecar.operate.settings import Changed

Document = dict[str, object]

OUTCOMES = {0: "done", 1: "failed", 2: "bad_request", 3: "unreachable", 4: "refused", 5: "unknown"}
HTTP = {0: 200, 1: 409, 2: 400, 3: 503, 4: 409, 5: 504}
"""409: the cluster is against it; the body says whether it was tried. 503, 504: the store, or time, was."""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """What may be asked for. A field that is not known is an error: it was meant to do something."""


class Switchover(_Body):
    """``POST /switchover``."""

    to: str | None = None
    timeout: str | None = None


class Failover(_Body):
    """``POST /failover``."""

    to: str | None = None
    timeout: str | None = None
    force: bool = False
    raise_epoch: bool = False


class Maintenance(_Body):
    """``POST /pause`` and ``/resume``."""

    node: str | None = None


class Restart(_Body):
    """``POST /restart``."""

    node: str | None = None
    timeout: str | None = None


class Context(NamedTuple):
    """What a command needs besides its body."""

    config: Config
    mark: Epoch  # the highest epoch this node has seen
    by: str
    halted: Callable[[], bool]


class Told:
    """Collects what a command says while it works."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Take in one sentence."""
        self.lines.append(text)


def run(command: str, body: bytes, context: Context) -> tuple[int, Document]:
    """Carry out *command*; return HTTP's status and the answer. Never raises."""
    told, risks = Told(), list[str]()
    try:
        kind, operation = COMMANDS[command]
        asked = _parse(body, kind)
        desk = replace(open_desk(context.config), by=context.by, halted=context.halted)
        with desk:
            found: Document = operation(desk, asked, context, told, risks)
        code = 0
    except SidecarError as error:
        code, found = error.exit_code, {"message": str(error)}
    except Exception as error:  # the outermost frame of a command
        LOG.debug("api: %s", command, exc_info=True)
        code, found = 1, {"message": f"internal error: {type(error).__name__}"}
    answer: Document = {"command": command, "outcome": OUTCOMES[code], "exit_code": code}
    answer |= found | {"said": told.lines} | ({"risks": risks} if risks else {})
    return HTTP[code], answer


def bad_request(command: str, message: str) -> Document:
    """Return the answer to a command that was not understood."""
    return {"command": command, "outcome": OUTCOMES[2], "exit_code": 2, "message": message, "said": []}


def _parse(body: bytes, kind: type[_Body]) -> _Body:
    try:
        found = msgspec.json.decode(body.strip() or b"{}", type=prepared(kind))
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise UsageError(f"the body: {error}") from None
    for name in ("to", "node"):
        try:
            if getattr(found, name, None) is not None:
                Name().parse(getattr(found, name))
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None
    return found


def _patience_ms(asked: Any, config: Config) -> int:
    if asked.timeout is None:
        return outcome.patience_ms(config)
    try:
        return Duration(1).parse(asked.timeout)
    except ValueError as error:
        raise UsageError(f"timeout: {error}") from None


def _switchover(desk: Desk, asked: Any, context: Context, told: Told, risks: list[str]) -> Document:
    done = handover.switchover(desk, asked.to, _patience_ms(asked, context.config), told.say)
    return _done(done, outcome.became(done))


def _restart(desk: Desk, asked: Any, context: Context, told: Told, risks: list[str]) -> Document:
    node = asked.node or context.config.node
    done = handover.restart(desk, node, _patience_ms(asked, context.config), told.say)
    return _done(done, outcome.restarted(done))


def _failover(desk: Desk, asked: Any, context: Context, told: Told, risks: list[str]) -> Document:
    patience_ms = _patience_ms(asked, context.config)
    if asked.raise_epoch:
        return _raise_epoch(desk, asked, context, told, risks)
    plan = failover.plan(desk, desk.read(), asked.to)
    risks += plan.risks
    if not asked.force:
        raise Refused(
            f'nothing was done; send "force": true to break the lock of {plan.source or "nobody known"}'
        )
    done = failover.failover(desk, plan, patience_ms, told.say)
    return _done(done, outcome.became(done))


def _raise_epoch(desk: Desk, asked: Any, context: Context, told: Told, risks: list[str]) -> Document:
    if asked.to is not None:
        raise UsageError("raise_epoch does not choose a node: leave out to")
    plan = raising.plan_raise(raising.await_free(desk, desk.read(), context.mark, told.say), context.mark)
    risks += plan.risks
    if not asked.force:
        raise Refused(f'nothing was done; send "force": true to raise the epoch to at least {plan.floor}')
    done = raising.raise_epoch(desk, plan, _patience_ms(asked, context.config), told.say)
    return _done(done, outcome.became(done))


def _pause(desk: Desk, asked: Any, context: Context, told: Told, risks: list[str]) -> Document:
    return _maintained(desk, asked, maintenance.pause_cluster(desk, asked.node), "paused")


def _resume(desk: Desk, asked: Any, context: Context, told: Told, risks: list[str]) -> Document:
    return _maintained(desk, asked, maintenance.resume_cluster(desk, asked.node), "resumed")


def _done(done: Done, message: str) -> Document:
    gap_ms = done.without_active_ms
    gap_s = None if gap_ms is None else gap_ms / 1000
    return {"message": message, "node": done.node, "epoch": done.epoch, "without_active_s": gap_s}


def _maintained(desk: Desk, asked: Any, found: Changed, how: str) -> Document:
    lines = outcome.maintained(found, asked.node or f"cluster {desk.cluster}", how)
    warning = outcome.unheard(found)
    return {
        "message": "; ".join([*lines, *([warning] if warning else [])]),
        "changed": found.changed,
        "not_heard_by": list(found.silent),
    }


Operation = Callable[[Desk, Any, Context, Told, list[str]], Document]
COMMANDS: dict[str, tuple[type[_Body], Operation]] = {
    "switchover": (Switchover, _switchover),
    "failover": (Failover, _failover),
    "pause": (Maintenance, _pause),
    "resume": (Maintenance, _resume),
    "restart": (Restart, _restart),
}
