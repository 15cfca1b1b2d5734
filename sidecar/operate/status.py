"""What ``status`` and ``GET /status`` say: plain values in the order and with the names of docs/cli.md.

Seconds since a node was last seen compare that node's wall clock with ours. They are for people; nothing is
decided by them, and clocks that disagree make them wrong. They are never below 0.
"""

from dataclasses import asdict
from datetime import UTC, datetime

from sidecar.core.model import FINISHED, HistoryEntry, LockRecord, NodeRecord, Request, Settings, View
from sidecar.operate.settings import Stated, stated
from sidecar.operate.words import clocks_differ, silence, span, unread, until_free, who_broke

Document = dict[str, object]


def status(view: View, *, cluster: str, backend: str, now_unix_ms: int, just_read: bool = False) -> Document:
    """Return the document of ``status -o json``. *just_read*: the view is the store's newest."""
    clocks = _clocks(view, now_unix_ms) if just_read else []
    return {
        "cluster": cluster,
        "backend": backend,
        "paused": None if "settings" in view.unreadable else view.settings.paused,
        "active": view.holder.node if view.holder is not None else None,
        "epoch": _epoch(view),
        "pending": _pending(view.request, now_unix_ms),
        "nodes": [_node(r, now_unix_ms) for r in sorted(view.nodes, key=lambda record: record.node)],
        "paused_nodes": sorted(view.settings.paused_nodes),
        "settings": [_stated(one) for one in stated(view.settings)],
        "notices": notices(view, now_unix_ms) + clocks,
    }


def _clocks(view: View, now_unix_ms: int) -> list[str]:
    if view.lock is None:
        return []  # then nobody's TTL is known
    ttl_ms = view.lock.ttl_ms
    off = sorted(record.node for record in view.nodes if clocks_differ(record, now_unix_ms, ttl_ms))
    if not off:
        return []
    whose = "all nodes" if len(off) == len(view.nodes) > 1 else ", ".join(off)
    return [f"the wall clocks of this machine and of {whose} differ: only SEEN and LEASE are wrong by that"]


def _epoch(view: View) -> int | None:
    """Return the epoch of the lock while it is held, which knows best, else the last one given out."""
    if view.holder is not None:
        return view.holder.epoch
    return None if "epoch" in view.unreadable else view.epoch.epoch


def notices(view: View, now_unix_ms: int) -> list[str]:
    """Return what an operator should know at a glance, one sentence each."""
    found = [f"the key {key} holds nothing this sidecar can read" for key in view.unreadable]
    found += _set(view.settings)
    found += _nobody(view)
    holder = view.holder
    if holder is not None and view.node(holder.node) is None:
        what = silence(view, holder.node)
        found.append(f"{holder.node} holds the lock at epoch {holder.epoch} but {what}")
    if holder is not None:
        found += _ends(view, holder)
    found += [
        _without_the_lock(record, now_unix_ms)
        for record in view.nodes
        if record.role == "active" and record.state != "stopping"  # which it may, a moment longer
        if holder is None or holder.node != record.node
    ]
    return found


def _ends(view: View, holder: LockRecord) -> list[str]:
    """Return what to know of a holder that does not serve, or that the nodes would not follow."""
    over = _is_over(view, holder)
    if (older := behind(view)) is not None:
        return [f"nobody is active: {older}" if over else older]
    until = f"the lock is free within about {span(holder.ttl_ms)} of the store's return"
    held = f"{holder.node} holds the lock at epoch {holder.epoch}"
    return [f"{held} but does not serve any more: {until}"] if over else []


def _is_over(view: View, holder: LockRecord) -> bool:
    """Tell whether the holder counts its hold as over: it had the lock, by its mark, and is standby again.

    So it is after a store was away too long and has come back with the lock still in it.
    """
    record = view.node(holder.node)
    return record is not None and record.role == "standby" and record.mark >= holder.epoch


def _without_the_lock(record: NodeRecord, now_unix_ms: int) -> str:
    """Say what an active is without the lock; the record of one that is dead may outlast its deadline."""
    ago_ms = now_unix_ms - record.seen_at_unix_ms
    left_ms = record.lease_left_ms
    if left_ms is not None and left_ms < ago_ms and not clocks_differ(record, now_unix_ms, left_ms):
        return (
            f"{record.node} was last seen {span(ago_ms)} ago, as active; "
            "it does not hold the lock, and by the clocks its deadline has passed"
        )
    return (
        f"{record.node} was active and does not hold the lock: its server has ended, or ends by its deadline"
    )


def behind(view: View) -> str | None:
    """Say that the store is older than what nodes have seen: they refuse it, also once its lock is free."""
    last = view.epoch.epoch
    if view.mark <= last or (view.lock is not None and "epoch" in view.unreadable):
        return None
    seen_by = [record.node for record in view.nodes if record.mark > last]
    seen_by += ["a node that cannot be read here"] if view.mark_unreadable > last else []
    if "epoch" in view.unreadable:
        return (
            f"the store's epoch cannot be read, and {view.mark} was seen by {', '.join(seen_by)}; "
            "see `sidecar failover --raise-epoch`"
        )
    return (
        f"the store's epoch {last} is behind {view.mark}, seen by {', '.join(seen_by)}: it was wiped or "
        "restored, or some nodes use another store than others; see `sidecar failover --raise-epoch`"
    )


def _set(settings: Settings) -> list[str]:
    """Return what is not as the configurations have it, and who made it so."""
    found = []
    for setting, node, value, author in stated(settings):
        by, at, pid = (author.by, author.at_unix_ms, author.pid) if author else (None, None, None)
        if setting == "paused" and not settings.authors:  # by a version that kept the last change alone
            by, at = settings.by, settings.at_unix_ms
        who = _since(by, at, pid)
        if setting != "paused":
            shown = str(value).lower()
            found.append(
                f"{setting} of {node} is {shown}, set{who}; `sidecar unset {node} {setting}` ends that"
            )
        elif node is None:
            found.append(f"paused{who}: no automatic starts, stops, takeovers")
        elif not settings.paused:
            found.append(f"paused: {node}{who}")
    return found


def _stated(one: Stated) -> Document:
    author = one.author
    return {
        "setting": one.setting,
        "node": one.node,
        "value": one.value,
        "by": author.by if author else None,
        "pid": author.pid if author else None,
        "at": utc_time(author.at_unix_ms) if author else None,
    }


def _nobody(view: View) -> list[str]:
    if view.holder is not None:
        return []
    if view.lock_unreadable:
        return ["nobody can become active until the lock can be read; `sidecar failover` replaces it"]
    if (older := behind(view)) is not None:
        return [f"nobody is active: {older}"]
    if view.lock is not None and view.lock.state == "broken":
        return [f"nobody is active: {who_broke(view.lock)}; it is free again {until_free(view.lock)}"]
    silent = unread(view)
    if not view.nodes and not silent:
        return [
            "nobody is active and no node shows itself: is `sidecar run` running, or is the store just back?"
        ]
    if view.settings.paused:
        return ["nobody is active, and nobody takes over while paused"]
    if not silent and not any(record.available for record in view.nodes):
        return ["nobody is active, and no node is able to take over"]
    return ["nobody is active"]


def _since(by: str | None, at_unix_ms: int | None, pid: int | None) -> str:
    process = f" (pid {pid})" if pid else ""
    return (f" by {by}{process}" if by else "") + (f" since {local_time(at_unix_ms)}" if at_unix_ms else "")


def local_time(unix_ms: int) -> str:
    """Return an instant in local time, for people."""
    try:
        return datetime.fromtimestamp(unix_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "?"


def utc_time(unix_ms: int) -> str | None:
    """Return an instant in ISO 8601, for programs; None for what is none."""
    try:
        text = datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None
    return text.replace("+00:00", "Z")


def _pending(request: Request | None, now_unix_ms: int) -> Document | None:
    if request is None or request.state in FINISHED:
        return None
    return {
        "id": request.id,
        "kind": request.kind,
        "state": request.state,
        "from": request.source,
        "to": request.to,
        "epoch": request.epoch,
        "by": request.by,
        "age_s": _s(max(0, now_unix_ms - request.asked_at_unix_ms)),
    }


def _node(record: NodeRecord, now_unix_ms: int) -> Document:
    last_seen_ms = max(0, now_unix_ms - record.seen_at_unix_ms)
    left_ms = None if record.lease_left_ms is None else max(0, record.lease_left_ms - last_seen_ms)
    return {
        "node": record.node,
        "role": record.role,
        "state": record.state,
        "message": record.message,
        "epoch": record.epoch,
        "lease_remaining_s": _s(left_ms),
        "enforcement": record.enforcement,
        "priority": record.priority,
        "eligible": record.eligible,
        "available": record.available,
        "last_seen_s": _s(last_seen_ms),
        "version": record.version,
        "server": None if record.server is None else asdict(record.server),
        "api": record.api,
    }


def history_entry(entry: HistoryEntry) -> Document:
    """Return one change of active as ``history -o json`` shows it."""
    return {
        "at": utc_time(entry.at_unix_ms),
        "epoch": entry.epoch,
        "from": entry.previous,
        "to": entry.node,
        "cause": entry.cause,
        "detect_s": _s(entry.detect_ms),
        "lock_s": _s(entry.lock_ms),
        "start_s": _s(entry.start_ms),
    }


def _s(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
