"""The settings of the cluster: what was set by whom, and how they are changed while others change them too.

Every write is compare-and-set on the version last read, so that no change of another command is lost, and
names its author. After an unknown outcome the key is read again before anything is said or written.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from sidecar.clock import wall_ms
from sidecar.core.model import Author, Settings, View
from sidecar.errors import BackendError, Conflict, Interrupted, OutcomeUnknown, Refused, TimedOut
from sidecar.operate import words
from sidecar.operate.desk import LOOK_MS, PAUSE_MS, READ_WITHIN_MS, Desk, Follower, pause

HEARD_WITHIN_MS = 5_000
"""How long the nodes get to show that they have heard; they do at once when they are well."""


class Stated(NamedTuple):
    """One setting that is not as the configuration has it, and who made it so, where that is known."""

    setting: str
    node: str | None  # None: the whole cluster
    value: bool | int
    author: Author | None = None


def stated(settings: Settings) -> list[Stated]:
    """Return everything that is set."""
    authors = {(author.setting, author.node): author for author in settings.authors}
    return [one._replace(author=authors.get((one.setting, one.node))) for one in _all(settings)]


def _all(settings: Settings) -> Iterator[Stated]:
    if settings.paused:
        yield Stated("paused", None, True)
    for node in settings.paused_nodes:
        yield Stated("paused", node, True)
    for found in settings.overrides:
        if found.priority is not None:
            yield Stated("priority", found.node, found.priority)
        if found.eligible is not None:
            yield Stated("eligible", found.node, found.eligible)


class Changed(NamedTuple):
    """What became of it. *changed* False: it was so already."""

    changed: bool
    notes: tuple[str, ...]
    silent: tuple[str, ...]  # nodes that do not show it yet
    trouble: str | None = None  # why that is not known: the store does not answer


Change = Callable[[View], Settings | None]
"""From what is there to what it should be; None: it is so already."""


class Made(NamedTuple):
    """A change, and the cluster as it is seen after it."""

    written: bool  # False: it was so already
    settings: Settings  # in force now
    view: View
    silent: tuple[str, ...]
    trouble: str | None  # why *silent* may be wrong: the store does not answer


Silent = Callable[[View, Settings], tuple[str, ...]]
"""From what is there and what is in force to the nodes that do not show it yet."""


def make(desk: Desk, change: Change, setting: str, node: str | None, silent: Silent, within_ms: int) -> Made:
    """Make *change* as `write` does, and wait *within_ms* for the nodes to show it.

    Raises:
        As `write`.
    """
    follower = Follower(desk, desk.read())
    written = write(desk, follower, change, setting, node)
    settings = written or follower.view.settings
    until = desk.after(within_ms)
    while (left := silent(follower.view, settings)) and desk.clock.now() < until and not desk.halted():
        follower.newer(until)
    if left:
        with suppress(BackendError):  # kept in `trouble`
            follower.refresh(desk.after(LOOK_MS))
        left = silent(follower.view, settings)
    trouble = str(follower.trouble) if left and follower.trouble else None
    return Made(written is not None, settings, follower.view, left, trouble)


def require_known(view: View, node: str | None, also: tuple[str, ...]) -> None:
    """Raise Refused unless *node* is there, or in *also*, or the whole cluster is meant."""
    there = {record.node for record in view.nodes} | set(also)
    if view.lock is not None:
        there.add(view.lock.node)
    if node is not None and node not in there:
        raise Refused(words.absent(view, node))


def write(desk: Desk, follower: Follower, change: Change, setting: str, node: str | None) -> Settings | None:
    """Make *change*, which concerns *setting* of *node*; return what was written, None: nothing to change.

    Raises:
        Refused: By *change*, or what is there cannot be read. Nothing was written.
        Interrupted: The user has had enough before it was written.
        TimedOut: It may be written, and may not.
        BackendError: The store does not answer; nothing is changed.
    """
    until, unsure, wanted = desk.after(READ_WITHIN_MS), False, None
    try:
        while True:
            view = follower.view
            if "settings" in view.unreadable:
                key = desk.key("settings")
                raise Refused(f"the key {key} cannot be read; upgrade this sidecar, or delete the key")
            if wanted is not None and view.settings == wanted:
                return wanted  # written by a try whose answer was lost
            new = change(view)
            if new is None:
                return None
            if desk.halted():
                raise Interrupted("interrupted; nothing was changed")
            wanted = _signed(desk, new, setting, node)
            try:
                desk.backend.write(wanted, expected=view.versions.get("settings", 0), deadline=until)
            except Conflict:
                pass
            except BackendError as error:
                unsure = unsure or isinstance(error, OutcomeUnknown)
                if not error.retry or desk.halted() or desk.clock.now() >= until:
                    raise
                pause(PAUSE_MS)
            else:
                with suppress(BackendError):  # it is written: what goes wrong from here on changes nothing
                    follower.refresh(until)
                return wanted
            follower.refresh(until)
    except (BackendError, Refused, Interrupted) as error:
        if unsure:  # refused perhaps because an earlier try of ours has done it
            raise TimedOut(f"it is unknown whether it is written: {error}; see `sidecar status`") from error
        raise


def _signed(desk: Desk, settings: Settings, setting: str, node: str | None) -> Settings:
    """Name the author of the change; only what is still set keeps one."""
    now_unix_ms = wall_ms()
    still = {(one.setting, one.node) for one in _all(settings)}
    others = [a for a in settings.authors if (a.setting, a.node) in still - {(setting, node)}]
    mine = [Author(setting, node, desk.by, desk.pid, now_unix_ms)] if (setting, node) in still else []
    return replace(settings, by=desk.by, at_unix_ms=now_unix_ms, authors=(*others, *mine))
