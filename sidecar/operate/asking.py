"""One request to a node, from asked to its outcome: what ``switchover`` and ``restart`` have in common.

    command: asked ──▶ node: accepted ──▶ command: confirmed ──▶ node acts ──▶ done, rolled_back, failed

Rules
- The node acts only after ``confirmed``, and only a living command writes that. So a command that is killed,
  or gives up, before it has confirmed leaves nothing that could happen later; what it left in the key
  may be overwritten by the next command.
- Every write is compare-and-set on the version last read. After an unknown outcome the key is read again
  before anything is said or written.
- ``done`` is said only after the cluster was seen as it should be.

Not guaranteed: that a node which has accepted still lives when it is confirmed. Then the outcome is what the
others make of it, or unknown at the time limit.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from sidecar.clock import wall_ms
from sidecar.core.model import FINISHED, Request, RequestKind, RequestState, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import (
    BackendError,
    Conflict,
    Failed,
    Interrupted,
    OutcomeUnknown,
    Refused,
    SidecarError,
    TimedOut,
)
from sidecar.operate.desk import PAUSE_MS, READ_WITHIN_MS, Desk, Follower, pause
from sidecar.operate.words import describe, silence, span, unread

WITHDRAW_WITHIN_MS = 2_000
CONCLUDE_WITHIN_MS = 5_000
"""How long an active that runs has to write the outcome of the hand-over that made it active."""

UNSURE = "`sidecar status` and `sidecar history` show what becomes of it"

Tell = Callable[[str], None]
Make = Callable[[View], Request]


class Done(NamedTuple):
    """Observed: it came about."""

    node: str
    epoch: Epoch
    without_active_ms: int | None = None  # as seen from here; None: not seen


class Not(NamedTuple):
    """Observed: it did not come about, and will not by this request."""

    reason: str


class Unsure(NamedTuple):
    """Observed too late: what became of it was over before it could be seen."""

    reason: str


Verdict = Done | Not | Unsure | None
Judge = Callable[[View, Request, bool], Verdict]
"""(view, request, at the time limit) → what is observed."""


def new_request(desk: Desk, view: View, kind: RequestKind, source: str | None, to: str | None) -> Request:
    """Return a request that nobody has seen yet."""
    epoch = view.holder.epoch if view.holder is not None else view.epoch.epoch
    return Request(
        id=uuid.uuid4().hex,
        kind=kind,
        state="asked",
        epoch=epoch or NO_EPOCH,
        source=source,
        to=to,
        by=desk.by,
        asked_at_unix_ms=wall_ms(),
    )


def under_way(view: View) -> Request | None:
    """Return the confirmed request that somebody is still carrying out, which nothing may overtake."""
    request, holder = view.request, view.holder
    if request is None or request.state != "confirmed":
        return None
    if request.kind == "restart":
        there = request.source and (view.node(request.source) is not None or request.source in unread(view))
        return request if there else None
    if holder is None or holder.epoch <= request.epoch:
        return request
    record = view.node(holder.node)
    runs = record is not None and record.role == "active" and record.state == "running"
    return None if runs else request  # one that runs has had its time to conclude: see `await_conclusion`


def await_conclusion(desk: Desk, follower: Follower) -> None:
    """Give an active that has just begun to run the time to conclude the hand-over that led to it."""
    until = desk.after(CONCLUDE_WITHIN_MS)
    while (found := follower.view.request) is not None and found.state == "confirmed":
        settled = found.kind == "restart" or under_way(follower.view) is not None
        if settled or desk.clock.now() >= until or desk.halted():
            return
        follower.newer(until)


def refuse_second(desk: Desk, view: View) -> None:
    """Raise Refused while another request is being carried out, or when that cannot be known."""
    if "request" in view.unreadable:
        key = desk.key("request")
        raise Refused(f"the key {key} cannot be read; upgrade this sidecar, or delete the key")
    other = under_way(view)
    if other is not None:
        raise Refused(f"a {describe(other)} is under way; wait for its end: `sidecar status`")


@dataclass(slots=True)
class Asking:
    """A request of this command in the store."""

    desk: Desk
    follower: Follower
    tell: Tell
    request: Request
    unsure: bool = False  # a write of it may have happened, or may yet happen

    @classmethod
    def place(cls, desk: Desk, follower: Follower, make: Make, tell: Tell) -> "Asking":
        """Write the request that *make* makes of the view, which may refuse to.

        Raises:
            Refused: By *make*; nothing was written.
            BackendError: The store does not answer. Even if it was written, it is never confirmed.
        """
        await_conclusion(desk, follower)
        asking = cls(desk, follower, tell, make(follower.view))
        until = desk.after(READ_WITHIN_MS)
        try:
            while not asking._placed(until):  # somebody else was quicker, or it is not known
                asking.request = replace(make(follower.view), id=asking.request.id)
        except BackendError as error:
            raise _harmless(error) from error
        asking.unsure = False
        return asking

    def _placed(self, until: Instant) -> bool:
        placed, expected = False, self.follower.view.versions.get("request", 0)
        try:
            self.desk.backend.write(self.request, expected=expected, deadline=until)
            placed = True
        except BackendError as error:
            self._failed(error, until)
        self.follower.refresh(until)
        return placed or self.current is not None

    @property
    def current(self) -> Request | None:
        """Return our request as it is in the view; None when another has taken its place."""
        found = self.follower.view.request
        return found if found is not None and found.id == self.request.id else None

    def await_answer(self, limit: Instant) -> Request:
        """Wait until the node has accepted, until *limit* at the latest.

        Raises:
            Refused: It said no, and why.
            Failed: It said nothing in time, or another command came in between. Nothing will happen.
            BackendError: The store went away. Nothing will happen either.
        """
        lock = self.follower.view.lock
        patience_ms = max(self.desk.answer_within_ms, lock.ttl_ms if lock is not None else self.desk.ttl_ms)
        since = self.desk.clock.now()
        until = min(Instant(since + patience_ms), limit)
        while True:
            found = self.current
            if found is None:
                raise Failed(f"{_overtaken(self.follower.view)}; nothing will happen for this one")
            if found.state == "refused":
                raise Refused(f"{found.source} refuses: {found.reason}")
            if found.state in FINISHED:
                raise Failed(f"not done: {found.reason or found.state}")
            if self.desk.halted():
                self._withdraw("interrupted", ("asked", "accepted"))
                raise Interrupted(
                    "interrupted before it began; the request is withdrawn, nothing will happen"
                )
            if found.state != "asked" and self.desk.clock.now() < limit:
                return found
            if self.desk.clock.now() >= until:
                over = self.desk.clock.now() >= limit  # then an acceptance comes too late as well
                answered = self._withdraw("no answer in time", ("asked", "accepted") if over else ("asked",))
                if answered is None or answered.state in ("asked", "abandoned"):
                    raise Failed(self._too_late(found, self.desk.clock.now() - since, patience_ms))
                continue
            self.follower.newer(until)

    def confirm(self) -> Request | None:
        """Say that this command still lives: from now on the node acts.

        Raises:
            Failed: The node or another command has ended the request first. Nothing will happen.
            TimedOut: It may be confirmed, and it may not.
            BackendError: The store went away before. Nothing will happen.
        """
        try:
            found = self._rewrite("confirmed", ("accepted",), self.desk.after(READ_WITHIN_MS))
        except BackendError as error:
            if self.unsure:
                raise TimedOut(f"it is unknown whether it has begun: {error}; {UNSURE}") from error
            raise _harmless(error) from error
        if found is None:
            if self.unsure:  # confirmed, finished and overwritten, for all we know
                return None
            raise Failed(f"{_overtaken(self.follower.view)}; nothing will happen for this one")
        if found.state in ("refused", "abandoned"):
            raise Failed(f"not done: {found.reason or found.state}")
        return found

    def await_outcome(self, judge: Judge, until: Instant, timeout_ms: int) -> Done:
        """Wait until *judge* has seen how it ended.

        Raises:
            Failed: It did not come about.
            TimedOut: That is not known at *until*, or when the user has had enough.
        """
        what, gap = self.request.kind, Gap(self.desk)
        while True:
            view = self.follower.view
            over = self.desk.clock.now() >= until
            gap.see(view)
            done = settled(judge(view, self.current or self.request, over), what, gap)
            if done is not None:
                return done
            if self.desk.halted():
                raise TimedOut(f"interrupted; the {what} goes on without this command: {UNSURE}")
            if over:
                trouble = self.follower.trouble
                why = f"the backend does not answer: {trouble}" if trouble else so_far(view, self.current)
                raise TimedOut(f"{what}: outcome unknown after {span(timeout_ms)} ({why}); {UNSURE}")
            self.follower.newer(until)
            if self.follower.trouble is not None:
                self.tell(f"the backend does not answer, still trying: {self.follower.trouble}")
                self._ride_out(until)

    def _ride_out(self, until: Instant) -> None:
        while self.follower.trouble is not None and self.desk.clock.now() < until and not self.desk.halted():
            self.follower.newer(until)

    def _withdraw(self, reason: str, states: tuple[RequestState, ...]) -> Request | None:
        """End the request before it was confirmed, so that the key says so."""
        try:
            return self._rewrite("abandoned", states, self.desk.after(WITHDRAW_WITHIN_MS), reason)
        except BackendError as error:
            raise _harmless(error) from error

    def _rewrite(
        self,
        state: RequestState,
        only_from: tuple[RequestState, ...],
        until: Instant,
        reason: str | None = None,
    ) -> Request | None:
        """Rewrite our request while it is in a state of *only_from*; return what is there at the end."""
        while True:
            found = self.current
            if found is None or found.state not in only_from:
                return found
            try:
                version = self.follower.view.versions.get("request", 0)
                new = replace(found, state=state, reason=reason)
                self.desk.backend.write(new, expected=version, deadline=until)
            except BackendError as error:
                self._failed(error, until)
            else:
                self.request = new
                return new
            self.follower.refresh(until)

    def _failed(self, error: BackendError, until: Instant) -> None:
        """Return if it makes sense to look and try again."""
        if isinstance(error, Conflict):
            return
        self.unsure = self.unsure or isinstance(error, OutcomeUnknown)
        if not error.retry or self.desk.halted() or self.desk.clock.now() >= until:
            raise error
        pause(PAUSE_MS)

    def _too_late(self, request: Request, waited_ms: int, patience_ms: int) -> str:
        if request.state != "asked":
            return f"{request.source} has accepted too late; the request is withdrawn, nothing will happen"
        view, source = self.follower.view, request.source or ""
        record = view.node(source)
        says = f" ({record.message})" if record is not None else f" and {silence(view, source)}"
        if record is None and source not in unread(view) and request.kind == "switchover":  # its lease ends
            hint = "; another node takes over when its lease ends, if one is able: see `sidecar status`"
        elif waited_ms < patience_ms:  # says nothing of the node
            hint = f"; give it more time: an answer may take {span(patience_ms)}"
        else:
            hint = "; see `sidecar failover`" if request.kind == "switchover" else ""
        return (
            f"{request.source} has not answered within {span(waited_ms)}{says}; "
            f"the request is withdrawn, nothing will happen for it{hint}"
        )


class Gap:
    """Measures how long nobody served, as far as that can be seen from here.

    Where nobody did from the first it is not known since when, and nothing is measured.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._served = False
        self._since: Instant | None = None
        self.length_ms: int | None = None

    def see(self, view: View) -> None:
        """Take in what is seen now."""
        serves = _serves(view)
        if serves and self._since is not None:
            self.length_ms = (self.length_ms or 0) + self._desk.clock.now() - self._since
            self._since = None
        elif not serves and self._served and self._since is None:
            self._since = self._desk.clock.now()
        self._served = self._served or serves


def _serves(view: View) -> bool:
    """Tell whether the holder of the lock says that it serves; last words of a dead node do not count."""
    holder = view.holder
    record = view.node(holder.node) if holder is not None else None
    if holder is None or record is None:
        return False
    return (record.role, record.state, record.epoch) == ("active", "running", holder.epoch)


def settled(verdict: Verdict, what: str, gap: Gap) -> Done | None:
    """Return what has come about, None while that is open.

    Raises:
        Failed: It did not come about.
        TimedOut: It cannot be known any more.
    """
    match verdict:
        case Done():
            return verdict._replace(without_active_ms=gap.length_ms)
        case Not(reason):
            raise Failed(f"{what}: {reason}")
        case Unsure(reason):
            raise TimedOut(f"{what}: outcome unknown: {reason}; {UNSURE}")
        case None:
            return None


def so_far(view: View, request: Request | None) -> str:
    """Say in a few words how things stand."""
    holder = view.holder
    record = view.node(holder.node) if holder is not None else None
    state = f", {record.message}" if record is not None else ""
    active = f"{holder.node} holds the lock at epoch {holder.epoch}{state}" if holder else "nobody is active"
    return active if request is None else f"{active}; the request is {request.state}"


def _overtaken(view: View) -> str:
    return f"overtaken by a {describe(view.request)}" if view.request else "the request was removed"


def _harmless(error: BackendError) -> SidecarError:
    return type(error)(f"{error}; the request was not confirmed, so nothing will happen")
