"""What a node does about the ``request`` key: switchover, forced failover, restart in place.

    command: asked ──▶ node: accepted ──▶ command: confirmed ──▶ node acts ──▶ done, rolled_back, failed
                  └──▶ node: refused            └ not in time ──▶ node: abandoned

The active that was asked answers a switchover; whoever is active afterwards concludes it, by
what it observes: itself. The node that is to be restarted answers and concludes a restart.
"""

from dataclasses import replace

from sidecar.core import state as s
from sidecar.core.candidate import NOT_ELIGIBLE, best_other, epoch_behind, held_back
from sidecar.core.model import FINISHED, Request, RequestState, View
from sidecar.core.moves import start, stop
from sidecar.core.units import Instant


def hear(node: s.Node, now: Instant, policy: s.Policy) -> s.Step | None:
    """Return the move that the pending request asks of this node, if any."""
    phase, memory = node
    request = None if memory.view is None else memory.view.request
    if request is None or request.state in FINISHED or memory.view is None or now < memory.answer_at:
        return None
    if "request" in memory.view.unreadable:
        return None  # there is another one by now, of a newer version
    if epoch_behind(memory):
        return None  # a store restored from an older snapshot has requests back that were concluded
    if request.kind == "restart":
        return _restart(node, request, now, policy) if request.source == policy.node else None
    if not isinstance(phase, s.Serving):
        return None
    if request.epoch < phase.lease.epoch:
        return _conclude(node, request, memory.view, now, policy)
    if request.epoch > phase.lease.epoch:
        return None
    if request.kind == "failover":
        return _abandon(node, request, "the lock was not broken", now, policy)
    return _switchover(node, request, now, policy)


def answer(
    node: s.Node,
    request: Request,
    state: RequestState,
    now: Instant,
    policy: s.Policy,
    reason: str | None = None,
    *,
    to: str | None = None,
) -> s.Step | None:
    """Write the request's new state: once, and again if it is not shown within a TTL.

    A store that was restored meanwhile may not have it; one that has it refuses what was not read there.
    """
    phase, memory = node
    if memory.view is None or (memory.answered == (request.id, state) and now < memory.answered_until):
        return None
    order = s.Answer(
        replace(request, state=state, reason=reason, to=to or request.to),
        memory.view.versions.get("request", 0),
    )
    told = replace(memory, answered=(request.id, state), answered_until=Instant(now + policy.ttl_ms))
    return s.Step(s.Node(phase, told), (order,))


def _abandon(node: s.Node, request: Request, reason: str, now: Instant, policy: s.Policy) -> s.Step | None:
    if now < node.memory.request_since + policy.confirm_within_ms:
        return None
    return answer(node, request, "abandoned", now, policy, reason)


def _switchover(node: s.Node, request: Request, now: Instant, policy: s.Policy) -> s.Step | None:
    view = node.memory.view
    assert view is not None
    match request.state:
        case "asked":
            reason = objection(request, view, node.memory, policy)
            if reason is not None:
                return answer(node, request, "refused", now, policy, reason)
            other = best_other(view, policy.node, planned=True)
            to = request.to or (other.node if other is not None else None)
            return answer(node, request, "accepted", now, policy, to=to)
        case "accepted":
            return _abandon(node, request, "the command did not confirm it", now, policy)
        case _:
            if held_back(node.memory, policy) or view.settings.holds_back(request.to or policy.node):
                return answer(
                    node, request, "failed", now, policy, "paused before it began; nothing was stopped"
                )
            kill_at = Instant(now + policy.stop_timeout_ms)
            return stop(node, s.GiveUp(f"switchover to {request.to}"), kill_at)


def objection(request: Request, view: View, memory: s.Memory, policy: s.Policy) -> str | None:
    """Return why this active will not hand over, or None."""
    if held_back(memory, policy):
        return "automatic changes are paused; resume first"
    if request.source != policy.node:
        return f"{policy.node} is active, not {request.source}"
    if request.to is None:
        return None if best_other(view, policy.node, planned=True) else "no other node is able to take over"
    candidate = view.node(request.to)
    if request.to == policy.node:
        return f"{request.to} is active already"
    if candidate is None:
        return f"{request.to} is not there; see `sidecar status` for the nodes that are"
    if not candidate.eligible:
        return f"{request.to} is {NOT_ELIGIBLE}"
    if not candidate.fit:
        return f"{request.to} is not able to take over now: {candidate.message}"
    return None


def _conclude(node: s.Node, request: Request, view: View, now: Instant, policy: s.Policy) -> s.Step | None:
    """Say what became of a hand-over that was asked of an earlier active."""
    broken = node.memory.broken
    begun = request.state == "confirmed" or (broken is not None and broken.request == request.id)
    if not begun:
        return answer(node, request, "abandoned", now, policy, f"{policy.node} became active meanwhile")
    if request.to in (None, policy.node) and request.source != policy.node:
        return answer(node, request, "done", now, policy, f"{policy.node} is active")
    if request.source == policy.node:
        if request.to is None:
            return answer(node, request, "rolled_back", now, policy, "nobody else took over")
        candidate = view.node(request.to)
        why = "it did not take over" if candidate is None else candidate.message
        return answer(node, request, "rolled_back", now, policy, f"{request.to}: {why}")
    return answer(node, request, "failed", now, policy, f"{policy.node} took over instead of {request.to}")


def _restart(node: s.Node, request: Request, now: Instant, policy: s.Policy) -> s.Step | None:
    phase, memory = node
    if memory.restart_request == request.id:
        return _restarted(node, request, now, policy)
    running = isinstance(phase, s.Serving | s.Waiting | s.Standing)
    match request.state:
        case "asked":
            if not running:
                return answer(node, request, "refused", now, policy, "no server runs there to be restarted")
            return answer(node, request, "accepted", now, policy)
        case "accepted":
            return _abandon(node, request, "the command did not confirm it", now, policy)
    memory = replace(memory, restart_request=request.id)
    kill_at = Instant(now + policy.stop_timeout_ms)
    match phase:
        case s.Serving():
            return stop(s.Node(phase, memory), s.Again(now), kill_at)
        case s.Waiting(lease=lease) if memory.clearing is None:
            return start(memory, lease, now, policy)
        case s.Standing(run=run):
            return s.Step(s.Node(s.Ending(run, kill_at), memory), (s.StopServer(run, kill_at),))
        case s.Idle():
            return answer(node, request, "failed", now, policy, "no server runs there to be restarted")
        case _:
            return None


def _restarted(node: s.Node, request: Request, now: Instant, policy: s.Policy) -> s.Step | None:
    phase, memory = node
    if isinstance(phase, s.Serving) or (isinstance(phase, s.Standing) and phase.ready):
        return answer(node, request, "done", now, policy)
    failed = bool(memory.failures) and memory.failures[-1] >= memory.request_since
    gave_up = isinstance(phase, s.Idle) and (
        (failed and now < memory.cool_until)  # one that cools down for an older failure starts its standby
        or now < memory.standby_at
        or policy.standby == "stopped"
    )
    if isinstance(phase, s.Waiting) and held_back(memory, policy):  # where one try is all it gets
        gave_up = failed
    return (
        answer(node, request, "failed", now, policy, memory.trouble or "the server did not start")
        if gave_up
        else None
    )
