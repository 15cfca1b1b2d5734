"""``failover``: takes the lock from an active that does not answer; or raises the epoch of an old store.

Breaking a lock starts nothing. Nobody can acquire it before the old holder's TTL has passed on the store's
clock, or the old holder has proved its server dead. So a broken lock costs availability, never safety.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from sidecar.clock import wall_ms
from sidecar.core.model import LockRecord, NodeRecord, Request, RequestState, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant, silence_ms
from sidecar.documents import EPOCH_MAX
from sidecar.errors import BackendError, Conflict, Failed, OutcomeUnknown, Refused, TimedOut
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
from sidecar.operate.handover import judge_takeover, serves

BREAK_WITHIN_MS = 10_000
"""How long a break whose outcome is unknown is asked about, and asked again."""
UNSEEN = 1_000
"""How many epochs are left out when the epoch is raised: a node that is not there may have had some, and the
next active must get none that another has had, or whoever checks epochs could not tell the two apart."""
EXPIRY_MS = 3_000
"""How much later than its time a lock may end: the store takes a second, and the news travels."""


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
        f"the server of {name} is killed: what it has not written yet is lost",
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
        TimedOut: It is broken, or may be, and nobody was seen to have taken over.
        BackendError: The store does not answer, and the lock is not broken.
    """
    follower, gap = Follower(desk, desk.read()), Gap(desk)
    gap.see(follower.view)
    until = desk.after(timeout_ms)
    _still(follower.view, what)
    plan(desk, follower.view, what.to)
    request = new_request(desk, what.view, "failover", what.source, what.to)
    overtaken = under_way(follower.view)  # stands until the lock is broken: until then nothing overtakes it
    if overtaken is None:
        _note(desk, follower, request, "asked", until)
    _break(desk, follower, what, request, until)
    _note(desk, follower, request, "confirmed", _a_moment_at_least(desk, until), over=overtaken)
    tell(
        f"the lock of {what.source or 'nobody known'} is broken (id {request.id[:8]}); "
        f"it is free in at most {words.span(what.ttl_ms)}"
    )

    def judge(view: View) -> Verdict:
        return judge_takeover(view, request)

    done = _await(desk, follower, gap, judge, until, timeout_ms, "failover", tell)
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

    Only the first note must succeed, so that two failovers do not both begin unseen. A later one replaces no
    request but its own and *over*.
    """
    first, until = state == "asked", min(until, desk.after(READ_WITHIN_MS))
    while True:
        view = follower.view
        expected = view.versions.get("request", 0)
        found = view.request
        if found is not None and (found.id, found.state) == (request.id, state):
            return
        ours = found is not None and found.id in (request.id, over.id if over is not None else None)
        if not first and not ours:
            return  # somebody else's by now
        new, written = replace(request, state=state, reason=reason or None), False
        try:
            desk.backend.write(new, expected=expected, deadline=until)
            written = True
        except Conflict:
            pass
        except BackendError as error:
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


def _break(desk: Desk, follower: Follower, what: Plan, request: Request, until: Instant) -> None:
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
            if unsure or _is_broken(follower.view, request):
                return  # a try whose answer was lost may have done it: what follows will show
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
            return


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


def _await(
    desk: Desk,
    follower: Follower,
    gap: Gap,
    judge: Callable[[View], Verdict],
    until: Instant,
    timeout_ms: int,
    what: str,
    tell: Tell,
) -> Done:
    told = False
    while True:
        gap.see(follower.view)
        done = settled(judge(follower.view), what, gap)
        if done is not None:
            return done
        state = so_far(follower.view, None)
        if desk.halted():
            raise TimedOut(f"interrupted; the lock is broken and the {what} goes on ({state}): {UNSURE}")
        if desk.clock.now() >= until:
            raise TimedOut(
                f"{what}: nobody was seen to take over within {words.span(timeout_ms)} ({state}); {UNSURE}"
            )
        follower.newer(until)
        if follower.trouble is not None and not told:
            tell(f"the backend does not answer, still trying: {follower.trouble}")
        told = follower.trouble is not None


class RaisePlan(NamedTuple):
    """What raising the epoch would do."""

    view: View
    floor: Epoch
    risks: tuple[str, ...]


def await_free(desk: Desk, view: View, own_mark: Epoch, tell: Tell) -> View:
    """Watch the lock of a store whose epoch must be raised until it is free, or its holder has shown itself.

    A restored store may hold the lock of somebody who is gone. Where it keeps no leases (Consul) only who
    watches can tell, and no node takes over from an older epoch, or one that cannot be read: without this
    it would stand for ever.
    """
    lock = view.lock
    known = "epoch" not in view.unreadable and _floor(view, own_mark) <= view.epoch.epoch
    if lock is None or view.vacant or known:
        return view
    within_ms = silence_ms(lock.ttl_ms) + EXPIRY_MS
    tell(
        f"{lock.node or 'somebody'} has the lock at epoch {lock.epoch}; "
        f"watching for {words.span(within_ms)} whether it is still renewed"
    )
    follower, until = Follower(desk, view), desk.after(within_ms)
    while not follower.view.vacant and desk.clock.now() < until and not desk.halted():
        follower.newer(until)
    return follower.view


def _floor(view: View, own_mark: Epoch) -> Epoch:
    return max(own_mark, view.mark)


def plan_raise(view: View, own_mark: Epoch) -> RaisePlan:
    """Return to what the store's epoch has to be raised.

    Raises:
        Refused: It is not behind, or somebody holds the lock.
    """
    floor = _floor(view, own_mark)
    store = view.epoch.epoch
    holder = view.holder
    if holder is not None:
        held = f"{holder.node} holds the lock at epoch {holder.epoch}"
        raise Refused(f"{held}; stop its sidecar first, then raise the epoch")
    if (reason := words.paused(view)) is not None:
        raise Refused(reason)
    if view.lock is not None and not view.lock_expired:
        raise Refused(words.nobody_active(view) or "the lock is not free")
    if view.lock_unreadable:
        raise Refused("the lock cannot be read; `sidecar failover` replaces it, raise the epoch after that")
    if floor <= store and "epoch" not in view.unreadable:
        raise Refused(
            f"the store's epoch {store} is not behind: the highest seen by a node that is there is {floor}"
        )
    told = sorted((record.node, record.mark) for record in view.nodes)
    seen = [f"{node} has seen {mark}" for node, mark in told]
    if not view.nodes and not words.unread(view):
        seen.append("no node is there")
    if view.mark_unreadable:
        seen.append(f"a node whose record cannot be read has seen {view.mark_unreadable}")
    if own_mark:
        seen.append(f"this node {own_mark}")
    return RaisePlan(
        view,
        floor,
        (
            f"the store is at epoch {store}; {', '.join(seen)}: it was wiped, restored or replaced",
            "a node that is not there may have seen a higher one, or may be active unknown to this store",
            "make sure that no server of this cluster runs elsewhere, nor a sidecar that uses another store",
        ),
    )


def raise_epoch(desk: Desk, what: RaisePlan, timeout_ms: int, tell: Tell) -> Done:
    """Raise the store's epoch and wait until a node serves.

    Raises:
        As `failover`.
    """
    what = plan_raise(desk.read(), what.floor)
    follower = Follower(desk, what.view)
    until = desk.after(timeout_ms)
    beyond = Epoch(min(what.floor + UNSEEN, EPOCH_MAX))
    epoch = _raise(desk, beyond, min(until, desk.after(BREAK_WITHIN_MS)))
    tell(f"the epoch is {epoch}; the lock is free in at most {words.span(desk.ttl_ms)}")

    def judge(view: View) -> Verdict:
        holder = view.holder
        if holder is None or holder.epoch <= epoch or not serves(view):
            return None
        return Done(holder.node, holder.epoch)

    return _await(desk, follower, Gap(desk), judge, until, timeout_ms, "raising the epoch", tell)


def _raise(desk: Desk, floor: Epoch, until: Instant) -> Epoch:
    unsure = False
    while True:
        try:
            return desk.backend.raise_epoch(floor, ttl_ms=desk.ttl_ms, by=desk.by, deadline=until)
        except Conflict as error:
            if unsure:  # a try whose answer was lost may have done it, and others have gone on from there
                raise TimedOut(f"it is unknown whether the epoch is raised: {error}; {UNSURE}") from error
            raise Failed(f"the epoch is not raised: {error}") from error
        except BackendError as error:
            unsure = unsure or isinstance(error, OutcomeUnknown)
            if not error.retry or desk.halted() or desk.clock.now() >= until:
                if unsure:
                    raise TimedOut(f"it is unknown whether the epoch is raised: {error}; {UNSURE}") from error
                raise
            pause(PAUSE_MS)
