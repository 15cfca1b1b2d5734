"""``switchover`` and ``restart``: requests that a healthy node carries out."""

from sidecar.core.model import Request, View
from sidecar.errors import Refused
from sidecar.operate import words
from sidecar.operate.asking import Asking, Done, Not, Tell, Unsure, Verdict, new_request, refuse_second
from sidecar.operate.desk import Desk, Follower


def check_switchover(desk: Desk, view: View, to: str | None) -> str:
    """Return the active that would be asked.

    Raises:
        Refused: It makes no sense now; says what would allow it.
    """
    holder = view.holder
    if holder is None:
        raise Refused(words.nobody_active(view) or "nobody is active")
    held = words.paused(view, holder.node, *([to] if to else []), key=desk.key("settings"))
    reason = held or words.unfit(view, to, holder.node, planned=True)
    if reason is not None:
        raise Refused(reason)
    record = view.node(holder.node)
    if record is not None and record.state in ("starting", "stopping", "failed"):
        hint = "wait until it runs, or see `sidecar failover`"
        raise Refused(f"{holder.node} is {record.state} ({record.message}); {hint}")
    refuse_second(desk, view)
    return holder.node


def switchover(desk: Desk, to: str | None, timeout_ms: int, tell: Tell) -> Done:
    """Have the active hand over to *to*, or to the best other node, and return what was observed.

    Raises:
        Refused: Not tried, by this command or by the active.
        Failed: Tried, and it did not come about, or was rolled back.
        TimedOut: Not known.
        BackendError: The store does not answer, and nothing will happen.
    """

    def make(view: View) -> Request:
        return new_request(desk, view, "switchover", check_switchover(desk, view, to), to)

    until = desk.after(timeout_ms)
    follower = Follower(desk, desk.read(until))
    asking = Asking.place(desk, follower, make, tell)
    tell(f"asked {asking.request.source} to hand over (id {asking.request.id[:8]})")
    answer = asking.await_answer(until)
    asking.request = answer
    tell(f"{answer.source} hands over to {answer.to or 'another node'}")
    asking.confirm()
    return asking.await_outcome(judge_handover, until, timeout_ms)


def judge_handover(view: View, request: Request, over: bool) -> Verdict:
    """Return what became of a confirmed switchover. *over*: what is seen now has to do."""
    match request.state:
        case "rolled_back":
            return Not(f"rolled back to {request.source}, whose server was restarted: {request.reason}")
        case "failed" | "abandoned" | "refused":
            return Not(f"{request.state}: {request.reason or 'no reason given'}")
    concluded = view.request is None or view.request.id != request.id or request.state == "done"
    holder = view.holder
    if holder is None or holder.epoch <= request.epoch or not serves(view):
        return None
    if not concluded and not over:
        return None  # it is about to be
    wanted = holder.node == request.to or (request.to is None and holder.node != request.source)
    if wanted:
        return Done(holder.node, holder.epoch)
    overtaken = holder.epoch > request.epoch + 1
    if overtaken and request.state == "done":  # by who had taken over, and was gone before it was seen here
        since = f"{holder.node} is active since, at epoch {holder.epoch}"
        return Not(f"{request.to or 'another node'} had taken over, and did not last: {since}")
    if overtaken:
        return Unsure(f"{holder.node} is active at epoch {holder.epoch}, others may have been in between")
    instead = f"{holder.node} is active at epoch {holder.epoch}, not {request.to or 'another node'}"
    # one that nobody has concluded still decides who goes first, should that one fail
    return Not(instead) if concluded else Unsure(f"{instead}, but the request still stands")


def judge_takeover(view: View, request: Request) -> Verdict:
    """Return who has taken over from an active whose lock was broken."""
    holder = view.holder
    if holder is None or holder.epoch <= request.epoch or not serves(view):
        return None
    if holder.node == request.to or (request.to is None and holder.node != request.source):
        return Done(holder.node, holder.epoch)
    if holder.epoch > request.epoch + 1:
        return Unsure(f"{holder.node} is active at epoch {holder.epoch}, others may have been in between")
    what = "active again" if holder.node == request.source else "active"
    instead = f", not {request.to}" if request.to else ""
    return Not(f"{holder.node} is {what} at epoch {holder.epoch}{instead}")


def serves(view: View) -> bool:
    """Tell whether the holder of the lock says that its server runs as active, at the lock's epoch.

    One that was paused meanwhile shows that instead, whether its server runs or not; then it counts that it
    has concluded the hand-over. A later one has not: the next epoch after the request's was another's.
    """
    holder = view.holder
    record = view.node(holder.node) if holder is not None else None
    if holder is None or record is None or (record.role, record.epoch) != ("active", holder.epoch):
        return False
    request = view.request
    concluded = request is not None and request.state == "done" and request.epoch + 1 == holder.epoch
    return record.state == "running" or (record.state == "paused" and concluded)


def restart(desk: Desk, node: str, timeout_ms: int, tell: Tell) -> Done:
    """Have *node* restart its server in place, and return what was observed.

    Raises:
        As `switchover`.
    """

    def make(view: View) -> Request:
        if view.node(node) is None:
            raise Refused(words.absent(view, node))
        refuse_second(desk, view)
        return new_request(desk, view, "restart", node, None)

    until = desk.after(timeout_ms)
    follower = Follower(desk, desk.read(until))
    asking = Asking.place(desk, follower, make, tell)
    tell(f"asked {node} to restart its server (id {asking.request.id[:8]})")
    asking.request = asking.await_answer(until)
    asking.confirm()
    return asking.await_outcome(judge_restart, until, timeout_ms)


def judge_restart(view: View, request: Request, over: bool) -> Verdict:
    """Return what became of a confirmed restart."""
    if request.state in ("failed", "abandoned", "refused", "rolled_back"):
        return Not(request.reason or request.state)
    record = view.node(request.source) if request.source else None
    if request.state != "done" or record is None or record.state in ("starting", "stopping", "failed"):
        return None
    return Done(record.node, record.epoch)
