"""``failover``: takes the lock from an active that does not answer.

Breaking a lock starts nothing. Nobody can acquire it before the old holder's TTL has passed on the store's
clock, or the old holder has proved its server dead. So a broken lock costs availability, never safety.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from sidecar.clock import wall_ms
from sidecar.core.model import FINISHED, LockRecord, NodeRecord, Request, RequestState, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import BackendError, Conflict, Failed, Interrupted, OutcomeUnknown, Refused, TimedOut
from sidecar.operate import words
from sidecar.operate.asking import (
    UNSURE,
    Done,
    Gap,
    Tell,
    Verdict,
    new_request,
    settled,
    so_far,
    under_way,
)
from sidecar.operate.desk import LOOK_MS, PAUSE_MS, READ_WITHIN_MS, Desk, Follower, pause
from sidecar.operate.handover import judge_takeover

BREAK_WITHIN_MS = 10_000
"""How long a break whose outcome is unknown is asked about, and asked again."""


class Plan(NamedTuple):
    """What a failover would do, to be shown before it is done."""

    view: View
    epoch: Epoch  # of the lock to break; 0: it cannot be read
    source: str | None
    to: str | None
    ttl_ms: int
    risks: tuple[str, ...]


def plan(desk: Desk, view: View, to: str | None) -> Plan:
    """Return what breaking the lock would mean.

    Raises:
        Refused: It makes no sense now; says what would allow it.
    """
    holder = view.holder
    if holder is None and not view.lock_unreadable:
        raise Refused(f"nobody holds the lock: {words.nobody_active(view)}")
    source = holder.node if holder is not None else None
    held = words.paused(view, *([to] if to else []), key=desk.key("settings"))
    reason = held or words.unfit(view, to, source)
    if reason is not None:
        raise Refused(reason)
    ttl_ms = holder.ttl_ms if holder is not None else desk.ttl_ms
    epoch = holder.epoch if holder is not None else NO_EPOCH
    risks = _risks(view, holder, ttl_ms)
    if (pending := under_way(view)) is not None:
        risks += (f"what is under way is overtaken: {words.describe(pending)}",)
    if "request" in view.unreadable:
        risks += (f"the key {desk.key('request')} cannot be read: whatever is asked for there is replaced",)
    return Plan(view, epoch, source, to, ttl_ms, risks)


def _risks(view: View, holder: LockRecord | None, ttl_ms: int) -> tuple[str, ...]:
    record = view.node(holder.node) if holder is not None else None
    who = (
        f"{holder.node} is active at epoch {holder.epoch}, {_last_seen(view, holder.node, ttl_ms)}"
        if holder is not None
        else "the lock cannot be read: somebody unknown may be active"
    )
    name = holder.node if holder is not None else "the active"
    well = record is not None and _well(record, ttl_ms)
    hint = [f"{name} looks healthy: try `sidecar switchover` first, which loses nothing"] if well else []
    return (
        who,
        *hint,
        f"the server of {name} is ended, killed if it does not stop in time: what it has not written is lost",
        f"nobody is active until it is proven dead, or for {words.span(ttl_ms)}; then another one starts",
        f"if the whole machine of {name} was frozen and wakes up later, only the epoch keeps its server out",
    )


def _last_seen(view: View, node: str, ttl_ms: int) -> str:
    record = view.node(node)
    if record is None:
        return f"and {words.silence(view, node)}"
    if words.clocks_differ(record, wall_ms(), ttl_ms):
        return f"seen by the store, when is not known: its clock is not as this one's ({record.message})"
    age_ms = max(0, wall_ms() - record.seen_at_unix_ms)
    return f"last seen {words.span(age_ms)} ago ({record.message})"


def _well(record: NodeRecord, ttl_ms: int) -> bool:
    """Tell whether it has lately said that it serves. A node says so three times in a TTL."""
    age_ms = wall_ms() - record.seen_at_unix_ms
    lately = age_ms < ttl_ms * 2 // 3 or words.clocks_differ(record, wall_ms(), ttl_ms)
    return record.state == "running" and lately


def failover(desk: Desk, what: Plan, timeout_ms: int, tell: Tell) -> Done:
    """Break the lock of *what* and wait until another node serves.

    The user may have thought for an hour: what made *what* possible has to be so still.

    Raises:
        Refused: It makes no sense any more.
        Failed: The lock changed hands meanwhile, or the wrong node has taken it.
        Interrupted: The user has had enough before it was broken.
        TimedOut: It is broken, or may be, and nobody was seen to have taken over.
        BackendError: The store does not answer, and the lock is not broken.
    """
    until = desk.after(timeout_ms)
    follower, gap = Follower(desk, desk.read(until)), Gap(desk)
    gap.see(follower.view)
    _still(follower.view, what)
    plan(desk, follower.view, what.to)
    request = new_request(desk, what.view, "failover", what.source, what.to)
    _note(desk, follower, request, "asked", until)
    overtaken = under_way(follower.view)  # stands until the lock is broken: until then nothing overtakes it
    broken = _break(desk, follower, what, request, until)
    over = overtaken if broken else None
    _note(desk, follower, request, "confirmed", _a_moment_at_least(desk, until), over=over)
    lock = f"the lock of {what.source or 'nobody known'}"
    tell(
        f"{lock} is broken (id {request.id[:8]}); it is free in at most {words.span(what.ttl_ms)}"
        if broken
        else f"{lock} may be broken (id {request.id[:8]}): the answer was lost, and it has changed since"
    )

    def judge(view: View) -> Verdict:
        return judge_takeover(view, request)

    goes_on = f"the lock {'is' if broken else 'may be'} broken and the failover goes on"
    done = await_takeover(desk, follower, gap, judge, until, timeout_ms, "failover", goes_on, tell)
    noted = follower.view.request
    if noted is not None and (noted.id, noted.state) == (request.id, "abandoned"):
        # The active gave it up while the break was on its way.
        _note(desk, follower, request, "done", _a_moment_at_least(desk, until), f"{done.node} is active")
    return done


def _still(view: View, what: Plan) -> None:
    """Raise Failed when lock or request is not any more what the user was asked about."""
    epoch = view.holder.epoch if view.holder is not None else NO_EPOCH
    if (epoch, view.lock_unreadable) != (what.epoch, what.view.lock_unreadable):
        state = so_far(view, None)
        raise Failed(f"failover: the lock changed hands meanwhile: {state}; nothing was broken")
    if "request" in set(view.unreadable) - set(what.view.unreadable):
        raise Failed("failover: a request that cannot be read was made meanwhile; nothing was broken")


def _a_moment_at_least(desk: Desk, until: Instant) -> Instant:
    """Return when to leave off telling the others what was done, also where no time is left for it."""
    return max(until, desk.after(LOOK_MS))


def _note(
    desk: Desk,
    follower: Follower,
    request: Request,
    state: RequestState,
    until: Instant,
    reason: str = "",
    over: Request | None = None,
) -> None:
    """Write where the failover stands, for the others to see. It does not depend on that.

    Only the first note must succeed, so that two failovers do not both begin unseen; it replaces no request
    that is confirmed. A later one replaces none but its own, while that is not over, and *over*.
    """
    first, until = state == "asked", min(until, desk.after(READ_WITHIN_MS))
    while True:
        view = follower.view
        expected = view.versions.get("request", 0)
        found = view.request
        if found is not None and (found.id, found.state) == (request.id, state):
            return
        if found is None or found.id not in (request.id, over.id if over is not None else None):
            if not first or under_way(view) is not None:
                return  # somebody else's by now
        elif found.state in FINISHED and state == "confirmed":
            return  # the next active was quicker
        new, written = replace(request, state=state, reason=reason or None), False
        try:
            desk.backend.write(new, expected=expected, deadline=until)
            written = True
        except Conflict:
            pass
        except BackendError as error:
            follower.trouble = error
            if not first:
                return
            if not error.retry or desk.halted() or desk.clock.now() >= until:
                raise
            pause(PAUSE_MS)
        try:
            follower.refresh(until)
        except BackendError:
            if first and not written:
                raise
            return
        if written:
            return


def _break(desk: Desk, follower: Follower, what: Plan, request: Request, until: Instant) -> bool:
    """Break the lock; return whether that is known to have been done, False: it may have been.

    Raises:
        Failed, Interrupted, BackendError: It is not broken.
        TimedOut: It may be.
    """
    if desk.halted():
        _note(desk, follower, request, "abandoned", _a_moment_at_least(desk, until), "interrupted")
        raise Interrupted("failover: interrupted; the lock is not broken, nothing will happen")
    until, unsure = min(until, desk.after(BREAK_WITHIN_MS)), False
    while True:
        try:
            desk.backend.break_lock(
                what.epoch,
                to=what.to,
                by=desk.by,
                request=request.id,
                ttl_ms=what.ttl_ms,
                deadline=min(until, desk.after(READ_WITHIN_MS)),
            )
        except Conflict as error:
            _refresh(follower, until, unsure, error)
            broken = _is_broken(follower.view, request)
            if unsure or broken:
                return broken  # a try whose answer was lost may have done it: what follows will show
            reason = f"the lock changed hands meanwhile: {so_far(follower.view, None)}"
            _note(desk, follower, request, "failed", _a_moment_at_least(desk, until), reason)
            raise Failed(f"failover: {reason}; nothing was broken") from error
        except BackendError as error:
            unsure = unsure or isinstance(error, OutcomeUnknown)
            over = not error.retry or desk.halted() or desk.clock.now() >= until
            if over and unsure:
                raise TimedOut(
                    f"failover: it is unknown whether the lock is broken: {error}; {UNSURE}"
                ) from error
            if over:
                raise type(error)(f"{error}; the lock is not broken") from error
            pause(PAUSE_MS)
        else:
            return True


def _refresh(follower: Follower, until: Instant, unsure: bool, conflict: Conflict) -> None:
    """Look what the lock is, now that it is not what it was. Nothing was broken, unless by an earlier try."""
    try:
        follower.refresh(until)
    except BackendError as error:
        if unsure:
            raise TimedOut(
                f"failover: it is unknown whether the lock is broken: {error}; {UNSURE}"
            ) from error
        raise Failed(f"failover: {conflict}; nothing was broken") from error


def _is_broken(view: View, request: Request) -> bool:
    """Tell whether it was this request that broke the lock, at the latest look."""
    return view.lock is not None and view.lock.state == "broken" and view.lock.request == request.id


def await_takeover(
    desk: Desk,
    follower: Follower,
    gap: Gap,
    judge: Callable[[View], Verdict],
    until: Instant,
    timeout_ms: int,
    what: str,
    goes_on: str,
    tell: Tell,
) -> Done:
    """Wait until *judge* has seen what came of *what*, of which *goes_on* says what is done already.

    Raises:
        Failed: It did not come about.
        TimedOut: That is not known at *until*, or when the user has had enough.
    """
    told = False
    while True:
        gap.see(follower.view)
        done = settled(judge(follower.view), what, gap)
        if done is not None:
            return done
        trouble = follower.trouble
        state = f"the backend does not answer: {trouble}" if trouble else so_far(follower.view, None)
        if desk.halted():
            raise TimedOut(f"interrupted; {goes_on} ({state}): {UNSURE}")
        if desk.clock.now() >= until:
            raise TimedOut(
                f"{what}: nobody was seen to take over within {words.span(timeout_ms)} ({state}); {UNSURE}"
            )
        follower.newer(until)
        if follower.trouble is not None and not told:
            tell(f"the backend does not answer, still trying: {follower.trouble}")
        told = follower.trouble is not None
