"""Sentences about a view that several operations need: who is there, and what stands in the way."""

from sidecar.core.candidate import NOT_ELIGIBLE
from sidecar.core.model import LockRecord, NodeRecord, Request, Settings, View

CLOCKS_AGREE_MS = 60_000
NODES = "nodes/"
"""What the keys begin with in which nodes speak of themselves."""


def stored_key(backend: str, cluster: str, name: str) -> str:
    """Return what the store calls a key, for whoever has to look at it there."""
    return f"{'/' if backend == 'etcd' else ''}aggregate-sidecar/{cluster}/{name}"


def span(ms: int) -> str:
    """Return a duration for people."""
    if ms < 100_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms / 60_000:.0f} min" if ms < 100 * 60_000 else f"{ms / 3_600_000:.0f} h"


def clocks_differ(record: NodeRecord, now_unix_ms: int, ttl_ms: int) -> bool:
    """Tell whether *record*, just read from the store, shows that its machine's clock is not as this one's.

    A record ends about a TTL after it was written, so one that seems to be much older is not: a tolerance of
    three times that, and of NTP's worst days.
    """
    age_ms = now_unix_ms - record.seen_at_unix_ms
    return age_ms > max(CLOCKS_AGREE_MS, 3 * ttl_ms) or age_ms < -CLOCKS_AGREE_MS


def names(view: View) -> str:
    """Return the nodes that are there."""
    silent = [f"{node} (cannot be read here)" for node in unread(view)]
    return ", ".join(sorted([record.node for record in view.nodes] + silent)) or "none"


def unread(view: View) -> list[str]:
    """Return the nodes that are there, and of which nothing can be read here: of a newer version, mostly."""
    found = [key.removeprefix(NODES) for key in view.unreadable if key.startswith(NODES)]
    return [node for node in found if view.node(node) is None]


def absent(view: View, node: str) -> str:
    """Say why nothing is known of *node*."""
    if node in unread(view):
        return f"{node} is there, but what it says cannot be read here: is it of a newer version?"
    return f"{node} is not there; there are: {names(view)}"


def silence(view: View, node: str) -> str:
    """Say of *node*, of which nothing is known, what that may mean."""
    return "says nothing that can be read here" if node in unread(view) else "shows no sign of life"


def unheard(view: View, node: str) -> str:
    """Say that nobody here can see whether *node* has heard of a change."""
    return f"{node} {silence(view, node)}: whether it has heard is not known"


def who_broke(lock: LockRecord) -> str:
    """Say whose lock was taken by whom."""
    whose = f"the lock of {lock.node}" if lock.node and lock.instance else "the lock"
    return f"{whose} was broken" + (f" by {lock.by}" if lock.by else "")


def until_free(lock: LockRecord) -> str:
    """Say how long a broken lock stands."""
    return f"within {span(lock.ttl_ms)} of that, sooner if the old node proves its server dead"


def describe(request: Request) -> str:
    """Say which request this is."""
    to = f" to {request.to}" if request.to else ""
    whose = f" of {request.source}" if request.kind == "restart" and request.source else ""
    return f"{request.kind}{whose}{to} (id {request.id[:8]}, by {request.by}, {request.state})"


def nobody_active(view: View) -> str | None:
    """Return why there is no active to ask, and what would help; None when there is one."""
    if view.holder is not None:
        return None
    if view.lock_unreadable:
        return "the lock cannot be read, so nobody can be asked; `sidecar failover` replaces it"
    if view.lock is not None and view.lock.state == "broken":
        return f"nobody is active: {who_broke(view.lock)}; it is free again {until_free(view.lock)}"
    return "nobody is active; `sidecar status` shows why no node takes over"


def who_paused(settings: Settings) -> str | None:
    """Return who has paused the cluster; an older version names who made the last change alone."""
    found = [author.by for author in settings.authors if (author.setting, author.node) == ("paused", None)]
    return found[0] if found else None if settings.authors else settings.by


def paused(view: View, *nodes: str, key: str = "settings") -> str | None:
    """Return that the cluster, or one of *nodes*, is in maintenance, and what would help; else None.

    *key*: what the settings are called in the store.
    """
    settings = view.settings
    if "settings" in view.unreadable:
        return f"the key {key} cannot be read: it may say that the cluster is paused; restore or delete it"
    if settings.paused:
        by = who_paused(settings)
        return f"the cluster is paused{f' by {by}' if by else ''}; `sidecar resume` first"
    held = [node for node in nodes if node in settings.paused_nodes]
    return f"{held[0]} is paused; `sidecar resume --node {held[0]}` first" if held else None


def unfit(view: View, to: str | None, active: str | None, *, planned: bool = False) -> str | None:
    """Return why no node, or not *to*, can take over from *active*, and what would help; else None.

    *planned*: the active serves well, and is not given up for a node whose standby server fails.
    """

    def able(record: NodeRecord) -> bool:
        return record.fit if planned else record.available

    if to is None:
        others = [record for record in view.nodes if record.node != active]
        if any(able(record) for record in others):
            return None
        why = [f"{record.node}: {_why_not(record)}" for record in others]
        why += [f"{node} {silence(view, node)}" for node in unread(view) if node != active]
        return f"no other node is able to take over ({'; '.join(why) or 'there is none'})"
    record = view.node(to)
    if to == active:
        return f"{to} is active already"
    if record is None:
        return absent(view, to)
    if not able(record):
        return f"{to} is not able to take over: {_why_not(record)}"
    return None


def _why_not(record: NodeRecord) -> str:
    return record.message if record.eligible else f"it is {NOT_ELIGIBLE}"
