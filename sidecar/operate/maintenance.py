"""``pause`` and ``resume``: the settings of the cluster, and whether its nodes have heard of them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from sidecar.clock import wall_ms
from sidecar.core.model import Settings, View
from sidecar.errors import BackendError, Conflict, OutcomeUnknown, Refused, TimedOut
from sidecar.operate import words
from sidecar.operate.desk import PAUSE_MS, READ_WITHIN_MS, Desk, Follower, pause

HEARD_WITHIN_MS = 5_000
"""How long the nodes get to show that they have heard; they do at once when they are well."""


class Changed(NamedTuple):
    """What became of it. *changed* False: it was so already."""

    changed: bool
    notes: tuple[str, ...]
    silent: tuple[str, ...]  # nodes that do not show it yet


Change = Callable[[View], Settings | None]
"""From what is there to what it should be; None: it is so already."""


def pause_cluster(desk: Desk, node: str | None, within_ms: int = HEARD_WITHIN_MS) -> Changed:
    """Begin maintenance of *node*, or of the whole cluster, and wait *within_ms* for the nodes to show it.

    Raises:
        Refused: No such node.
        TimedOut: It may be written, and may not.
        BackendError: The store does not answer; nothing is changed.
    """

    def change(view: View) -> Settings | None:
        _known(view, node, also=())
        settings = view.settings
        if node is None:
            return None if settings.paused else replace(settings, paused=True)
        if node in settings.paused_nodes:
            return None
        return replace(settings, paused_nodes=(*settings.paused_nodes, node))

    return _set(desk, change, node, within_ms, paused=True)


def resume_cluster(desk: Desk, node: str | None, within_ms: int = HEARD_WITHIN_MS) -> Changed:
    """End maintenance of *node*, or of the whole cluster, and wait *within_ms* for the nodes to show it.

    Raises:
        Refused: No such node, or it is not paused; says what is.
        TimedOut: It may be written, and may not.
        BackendError: The store does not answer; nothing is changed.
    """

    def change(view: View) -> Settings | None:
        settings = view.settings
        if node is None:
            if settings.paused:
                return replace(settings, paused=False)
            also = settings.paused_nodes
            hint = f", but {', '.join(also)}: `sidecar resume --node {also[0]}`" if also else ""
            raise Refused(f"the cluster is not paused{hint}")
        _known(view, node, also=settings.paused_nodes)
        if node not in settings.paused_nodes:
            raise Refused(
                "the whole cluster is paused: `sidecar resume`"
                if settings.paused
                else f"{node} is not paused"
            )
        return replace(settings, paused_nodes=tuple(n for n in settings.paused_nodes if n != node))

    return _set(desk, change, node, within_ms, paused=False)


def _known(view: View, node: str | None, also: tuple[str, ...]) -> None:
    there = {record.node for record in view.nodes} | set(also)
    if view.lock is not None:
        there.add(view.lock.node)
    if node is not None and node not in there:
        raise Refused(f"{node} is not there; there are: {words.names(view)}")


def _set(desk: Desk, change: Change, node: str | None, within_ms: int, *, paused: bool) -> Changed:
    follower = Follower(desk, desk.read())
    written = _write(desk, follower, change)
    settings = written or follower.view.settings
    until = desk.after(within_ms)
    while (
        (silent := _silent(follower.view, settings, node, paused))
        and desk.clock.now() < until
        and not desk.halted()
    ):
        follower.newer(until)
    return Changed(written is not None, _notes(settings, node, paused), silent)


def _write(desk: Desk, follower: Follower, change: Change) -> Settings | None:
    """Return what was written; None: there was nothing to change."""
    until, unsure, wanted = desk.after(READ_WITHIN_MS), False, None
    try:
        while True:
            view = follower.view
            if "settings" in view.unreadable:
                raise Refused("the key settings cannot be read; upgrade this sidecar, or delete the key")
            if wanted is not None and view.settings == wanted:
                return wanted  # written by a try whose answer was lost
            new = change(view)
            if new is None:
                return None
            wanted = replace(new, by=desk.by, at_unix_ms=wall_ms())
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
    except BackendError as error:
        if unsure:
            raise TimedOut(f"it is unknown whether it is written: {error}; see `sidecar status`") from error
        raise


def _silent(view: View, settings: Settings, node: str | None, paused: bool) -> tuple[str, ...]:
    """Return the nodes that do not show yet what *settings* ask of them."""
    concerned = [record for record in view.nodes if node in (None, record.node)]
    return tuple(
        sorted(
            record.node
            for record in concerned
            if settings.holds_back(record.node) is paused and (record.state == "paused") is not paused
        )
    )


def _notes(settings: Settings, node: str | None, paused: bool) -> tuple[str, ...]:
    if node is not None and settings.paused:
        return ("the whole cluster is paused" + ("" if paused else " still: `sidecar resume`"),)
    if node is None and not paused and settings.paused_nodes:
        first = settings.paused_nodes[0]
        return (f"still paused: {', '.join(settings.paused_nodes)}; `sidecar resume --node {first}`",)
    return ()
