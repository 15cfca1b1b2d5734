"""What a node does next.

Rule 1.  Every change of a node's phase is in this package, and starts here.
Rule 2.  Nothing here reads a clock, draws a random number, logs or does I/O.
Rule 3.  An observation is a fact. A call whose outcome is unknown is not one about the lock:
         it changes nothing, and the lease runs on towards its end.

    Idle ⇄ Standing ──Granted──▶ Promoting ──ServerGone──▶ Starting ──ServerReady──▶ Serving
     ▲         │                                             ▲  │                      │
     │      Ending ◀──────────── Lost, lease over ───────────┼──┴──────────────────────┤
     │         │                                          Waiting ◀─ServerGone─────────┤
     └─────────┴── ServerGone (proof), then the lock is given back ◀── Stopping ◀──────┘

`decide` first takes the observation in (this file), then does what time and circumstances ask for
(`sidecar.core.advance`) until nothing changes any more.
"""

from dataclasses import replace
from typing import assert_never

from sidecar.core import marks
from sidecar.core import state as s
from sidecar.core.advance import LEASE_OVER, advance
from sidecar.core.candidate import held_back, paused
from sidecar.core.model import FINISHED, View
from sidecar.core.moves import after_failure, be_lost, finish, give_back, start
from sidecar.core.units import NO_EPOCH, Epoch, Instant

ROUNDS_MAX = 8  # advance comes to rest after at most four; more is a bug


def begin(
    policy: s.Policy,
    now: Instant,
    mark: s.Mark,
    found: s.StartServer | None = None,
    *,
    stopping: bool = False,
    ready: bool = False,
) -> s.Node:
    """Return the first state: nothing runs, or the server of run 0 that the guard still had.

    *found* tells its role, epoch and deadline. It is *ready* where the sidecar before us knew that it is,
    else when a probe says so: one that has hung since is found out as any other. Where no active server was
    found, no hold from before is believed again: an earlier life of this sidecar may have sent its release,
    and the store may carry that out at any time.
    """
    memory = s.Memory(born_at=now, mark=mark.epoch, marked=mark.node, spent=mark.epoch)
    if found is None:
        return s.Node(s.Idle(), memory)
    if found.role == "standby":
        return s.Node(s.Standing(found.run), memory)
    lease = s.Lease(found.epoch, found.deadline)
    if found.epoch > mark.epoch:
        memory = replace(memory, mark=found.epoch, marked=policy.node)
    memory = replace(memory, spent=Epoch(found.epoch - 1))
    if stopping:
        return s.Node(s.Stopping(lease, found.run, lease.kill_at(policy), s.Again(now)), memory)
    if ready:
        return s.Node(s.Serving(lease, found.run), memory)
    return s.Node(s.Starting(lease, found.run, Instant(now + policy.start_timeout_ms)), memory)


def decide(node: s.Node, seen: s.Observation, now: Instant, policy: s.Policy) -> s.Step:
    """Return the next state and the orders that lead to it. Pure and total."""
    known = node.memory
    if isinstance(node.phase, s.Finished):
        return s.Step(node)
    node, actions = _react(node, seen, now, policy)
    for _ in range(ROUNDS_MAX):
        step = advance(node, now, policy)
        if step == s.Step(node):
            break
        node, actions = step.node, actions + step.actions
    else:
        raise AssertionError(f"no rest after {ROUNDS_MAX} rounds: {node}")
    memory = node.memory
    learnt = memory.marked not in (None, known.marked)
    if memory.mark > known.mark or learnt:  # first of all, before anything runs under the new epoch
        actions = (s.SaveMark(s.Mark(memory.mark, memory.marked)), *actions)
    return s.Step(node, actions)


def _react(node: s.Node, seen: s.Observation, now: Instant, policy: s.Policy) -> s.Step:
    phase, memory = node
    match seen:
        case s.Tick():
            return s.Step(node)
        case s.Seen(view):
            return _seen(node, view, now, policy)
        case s.Granted():
            if isinstance(phase, s.Serving):
                memory = replace(memory, trouble=None)
            return _granted(s.Node(phase, replace(memory, call=None)), seen, now, policy)
        case s.Taken(epoch, holder):
            retry_at = Instant(now + policy.retry_ms)
            mark, marked = marks.marked(memory, epoch, holder)
            mark_at = now if mark > memory.mark else memory.mark_at
            spent = max(memory.spent, epoch)
            memory = replace(memory, mark=mark, marked=marked, mark_at=mark_at, spent=spent)
            return s.Step(s.Node(phase, replace(memory, call=None, call_at=retry_at)))
        case s.Lost(epoch):
            if memory.call == "renew" and not isinstance(phase, s.Holding):
                # a broken lock cannot be renewed, but given back: what is owed stays so
                return s.Step(s.Node(phase, replace(memory, call=None, call_at=now)))
            return be_lost(s.Node(phase, replace(memory, call=None, call_at=now)), epoch, now, policy)
        case s.Released(epoch):
            owed = None if memory.owed is not None and memory.owed.epoch == epoch else memory.owed
            return s.Step(s.Node(phase, replace(memory, call=None, call_at=now, owed=owed)))
        case s.CallFailed(reason, lasting):
            pause_ms = policy.renew_every_ms if lasting else policy.retry_ms
            memory = replace(memory, call=None, call_at=Instant(now + pause_ms))
            if not isinstance(phase, s.Starting | s.Waiting | s.Stopping):  # there it is of the server
                memory = replace(memory, trouble=reason)
            return s.Step(s.Node(phase, memory))
        case s.ServerReady(run):
            return _ready(node, run, now)
        case s.ServerSick(run, reason):
            return _sick(node, run, reason, now, policy)
        case s.ServerActivated(run):
            return _activated(node, run, now)
        case s.ServerGone():
            return _gone(node, seen, now, policy)
        case s.Cleared(run):
            clearing = None if memory.clearing == run else memory.clearing
            return s.Step(s.Node(phase, replace(memory, clearing=clearing)))
        case s.StopAsked(keep):
            return _stop_asked(node, now, policy, keep=keep)
        case s.AnswerFailed():
            memory = replace(memory, answered=None, answer_at=Instant(now + policy.retry_ms))
            return s.Step(s.Node(phase, memory))
        case _:
            assert_never(seen)


def _seen(node: s.Node, view: View, now: Instant, policy: s.Policy) -> s.Step:
    phase, memory = node
    known = memory.view
    asked_anew = known is None or known.request != view.request
    mark, marked = marks.marked(memory, *marks.newest(view))
    memory = replace(
        memory,
        view=view,
        view_at=now,
        mark=mark,
        marked=marked,
        vacant_since=_vacant_since(memory, view, now),
        sign_at=now if _gave_sign(known, view) else memory.sign_at,
        broken=view.lock if view.lock is not None and view.lock.state == "broken" else memory.broken,
        request_since=now if asked_anew else memory.request_since,
        answered=None if asked_anew else memory.answered,
        spent=max(memory.spent, marks.taken_by_others(view, policy)),
        declined=memory.declined if _still_declines(memory.declined, view) else None,
    )
    request = view.request
    if request is None or request.id != memory.restart_request or request.state in FINISHED:
        memory = replace(memory, restart_request=None)
    node = s.Node(phase, memory)
    if not isinstance(phase, s.Holding):
        return s.Step(node)
    lock = view.lock
    if lock is not None and lock.state == "broken" and lock.epoch == phase.lease.epoch:
        return be_lost(node, lock.epoch, now, policy)
    if lock is None or lock.epoch > phase.lease.epoch:  # an old view, or we have lost: find out now
        memory = replace(memory, call_at=min(memory.call_at, now))
    return s.Step(s.Node(phase, memory))


def _vacant_since(memory: s.Memory, view: View, now: Instant) -> Instant | None:
    if not view.vacant:
        return None
    same = memory.view is not None and memory.view.epoch == view.epoch
    return memory.vacant_since if same and memory.vacant_since is not None else now


def _still_declines(node: str | None, view: View) -> bool:
    """Tell whether *node* is there as it was when it did not take the lock that was left to it."""
    record = None if node is None else view.node(node)
    held = view.lock is not None and view.lock.node == node
    return record is not None and record.available and not held


def _gave_sign(known: View | None, view: View) -> bool:
    """Tell whether the holder has shown itself since *known*: by the lock, or by saying that it holds it."""
    if view.lock is None:
        return False
    if known is None or known.lock != view.lock:
        return True
    record = view.node(view.lock.node)  # one that has expired is no sign
    return record is not None and record.epoch == view.lock.epoch and record != known.node(record.node)


def _granted(node: s.Node, grant: s.Granted, now: Instant, policy: s.Policy) -> s.Step:
    phase, memory = node
    lease = s.Lease(grant.epoch, grant.deadline)
    believed = grant.epoch > memory.spent and grant.epoch >= memory.mark
    memory = replace(
        memory,
        mark=max(memory.mark, grant.epoch),
        marked=policy.node if grant.epoch > memory.mark else memory.marked,
        mark_at=now if grant.epoch > memory.mark else memory.mark_at,
        call_at=max(now, Instant(grant.sent_at + policy.renew_every_ms)),
    )
    match phase:
        case s.Idle() | s.Standing():
            unwanted = memory.quit is not None or paused(memory, policy)
            if not believed or unwanted or now >= lease.stop_at(policy):
                return s.Step(s.Node(phase, give_back(memory, lease, "not needed")))
            memory = replace(memory, change=_change(memory, grant.epoch, now), trouble=None)
            if isinstance(phase, s.Idle):
                return start(memory, lease, now, policy)
            kill_at = min(Instant(now + policy.stop_grace_ms), lease.kill_at(policy))
            promoting = s.Promoting(lease, phase.run, kill_at)
            return s.Step(s.Node(promoting, memory), (s.StopServer(phase.run, kill_at),))
        case s.Promoting() | s.Starting() | s.Serving() | s.Waiting() | s.Stopping():
            if grant.epoch != phase.lease.epoch:  # our hold ended and began again behind our back
                step = be_lost(s.Node(phase, memory), phase.lease.epoch, now, policy)
                return _owe_too(step, grant.epoch)
            if grant.deadline <= phase.lease.deadline:  # never shortens what was proven
                return s.Step(s.Node(phase, memory))
            extend = () if isinstance(phase, s.Promoting | s.Waiting) else (phase.run,)
            orders = tuple(s.ExtendServer(run, lease.deadline) for run in extend)
            return s.Step(s.Node(replace(phase, lease=lease), memory), orders)
        case s.Ending():
            spent = max(memory.spent, grant.epoch)
            ending = replace(phase, owes=max(phase.owes, grant.epoch))
            return s.Step(s.Node(ending, replace(memory, spent=spent)))
        case s.Finished():
            raise AssertionError("decide has returned already")
        case _:
            assert_never(phase)


def _owe_too(step: s.Step, epoch: Epoch) -> s.Step:
    phase, memory = step.node
    memory = replace(memory, spent=max(memory.spent, epoch))
    if isinstance(phase, s.Ending):
        return s.Step(s.Node(replace(phase, owes=max(phase.owes, epoch)), memory), step.actions)
    owed = memory.owed and replace(memory.owed, epoch=max(memory.owed.epoch, epoch))
    return s.Step(s.Node(phase, replace(memory, owed=owed)), step.actions)


def _change(memory: s.Memory, epoch: Epoch, now: Instant) -> s.Change:
    vacancy = _vacancy(memory, epoch)
    if vacancy is None or vacancy.record.epoch == NO_EPOCH:
        previous, cause, detect_ms = None, "first start", None
    else:
        previous = vacancy.record.node
        cause = _forced(memory, vacancy) or vacancy.record.released or "lease expired"
        told = vacancy.record.released is not None  # then there was nothing to detect
        silent_ms = _between(vacancy.sign_at, vacancy.since)
        detect_ms = 0 if told else silent_ms
    lock_ms = None if vacancy is None else _between(vacancy.since, now)
    return s.Change(previous, cause, detect_ms, lock_ms, now)


def _forced(memory: s.Memory, vacancy: s.Vacancy) -> str | None:
    broken = memory.broken
    return f"failover by {broken.by}" if broken is not None and broken.epoch == vacancy.record.epoch else None


def _vacancy(memory: s.Memory, epoch: Epoch) -> s.Vacancy | None:
    """Return what came before *epoch*; the newest view may show the acquisition already."""
    view, sought = memory.view, memory.sought
    newer = view is not None and (sought is None or view.epoch.epoch > sought.record.epoch)
    if view is not None and newer and view.epoch.epoch < epoch:
        return s.Vacancy(view.epoch, memory.vacant_since, memory.sign_at)
    return sought if sought is not None and sought.record.epoch < epoch else None


def _between(earlier: Instant | None, later: Instant | None) -> int | None:
    return None if earlier is None or later is None else max(0, later - earlier)


def _ready(node: s.Node, run: s.Run, now: Instant) -> s.Step:
    phase, memory = node
    match phase:
        case s.Standing(run=mine) if mine == run:
            return s.Step(s.Node(s.Standing(run, ready=True), replace(memory, standby_failures=0)))
        case s.Starting(lease, mine) if mine == run:
            serving = s.Node(s.Serving(lease, run), replace(memory, change=None, trouble=None, gave_up=False))
            if memory.change is None:
                return s.Step(serving)
            start_ms = now - memory.change.granted_at
            return s.Step(serving, (s.RecordChange(lease.epoch, memory.change, start_ms),))
        case _:
            return s.Step(node)


def _sick(node: s.Node, run: s.Run, reason: str, now: Instant, policy: s.Policy) -> s.Step:
    phase, memory = node
    if not isinstance(phase, s.Serving) or phase.run != run or held_back(memory, policy):
        return s.Step(node)
    memory, after = after_failure(memory, reason, now, policy)
    kill_at = min(Instant(now + policy.stop_grace_ms), phase.lease.kill_at(policy))
    return s.Step(s.Node(s.Stopping(phase.lease, run, kill_at, after), memory), (s.StopServer(run, kill_at),))


def _activated(node: s.Node, run: s.Run, now: Instant) -> s.Step:
    phase, memory = node
    if not isinstance(phase, s.Standing | s.Promoting | s.Stopping | s.Ending) or phase.run != run:
        return s.Step(node)
    text = "the standby server has activated itself; killing it"
    memory = replace(memory, trouble=text)
    if isinstance(phase, s.Standing):
        phase = s.Ending(run, now)
    else:  # it is being ended: no more patience
        phase = replace(phase, kill_at=min(phase.kill_at, now))
    return s.Step(s.Node(phase, memory), (s.Alarm(text),))


def _gone(node: s.Node, gone: s.ServerGone, now: Instant, policy: s.Policy) -> s.Step:
    phase, memory = node
    if isinstance(phase, s.Idle | s.Waiting | s.Finished) or phase.run != gone.run:
        return s.Step(node)  # an earlier run: known already
    memory = replace(memory, clearing=gone.run if gone.clearing else memory.clearing)
    match phase:
        case s.Standing():
            pause_ms = min(policy.backoff_max_ms, policy.backoff_ms << min(memory.standby_failures, 20))
            memory = replace(
                memory,
                standby_failures=memory.standby_failures + 1,
                standby_at=Instant(now + pause_ms),
                trouble=gone.reason or f"standby server ended with status {gone.status}",
            )
            return s.Step(s.Node(s.Idle(), memory))
        case s.Ending(owes=owes):
            if owes != NO_EPOCH:
                until = Instant(now + policy.ttl_ms)
                memory = replace(memory, owed=s.Owed(owes, "lost, server proven dead", until), call_at=now)
            return s.Step(s.Node(s.Idle(), memory))
        case s.Promoting(lease=lease):
            if now >= lease.stop_at(policy):  # too late to be of use
                return finish(memory, lease, s.GiveUp(LEASE_OVER))
            return start(memory, lease, now, policy)
        case s.Starting() | s.Serving():
            return _failed(phase, memory, gone, now, policy)
        case s.Stopping(lease=lease, after=after):
            if policy.once and memory.quit is not None and after == s.GiveUp("stopped"):
                memory = replace(memory, quit=replace(memory.quit, status=_code(gone)))
            return finish(memory, lease, after)
        case _:
            assert_never(phase)


def _code(gone: s.ServerGone) -> int:
    """Return how a command ended as a shell tells it; 1 where that is not known."""
    status = gone.status if gone.status is not None else 1
    return 128 - status if status < 0 else status


def _failed(
    phase: s.Starting | s.Serving, memory: s.Memory, gone: s.ServerGone, now: Instant, policy: s.Policy
) -> s.Step:
    if policy.once:
        memory = replace(memory, quit=memory.quit or s.Quit(_code(gone)))
        return finish(memory, phase.lease, s.GiveUp("command ended"))
    reason = gone.reason or f"server ended with status {gone.status}"
    starting = isinstance(phase, s.Starting)
    memory, after = after_failure(memory, reason, now, policy, starting=starting, vetoed=gone.vetoed)
    return finish(memory, phase.lease, after)


def _stop_asked(node: s.Node, now: Instant, policy: s.Policy, *, keep: bool) -> s.Step:
    phase, memory = node
    # with once, 1 until its command has ended
    status = memory.quit.status if memory.quit else int(policy.once)
    again = memory.quit is not None and isinstance(phase, s.Stopping | s.Ending)
    memory = replace(memory, quit=s.Quit(status, keep_server=keep))
    if again:  # asked twice: no more patience
        phase = replace(phase, kill_at=now)  # type: ignore[arg-type]  # narrowed by `again`
    return s.Step(s.Node(phase, memory))
