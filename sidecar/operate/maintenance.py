"""``pause`` and ``resume``: the settings of the cluster, and whether its nodes have heard of them."""

from dataclasses import replace

from sidecar.core.model import Settings, View
from sidecar.errors import Refused
from sidecar.operate.desk import Desk
from sidecar.operate.settings import HEARD_WITHIN_MS, Change, Changed, make, require_known
from sidecar.operate.words import unheard, unread


def pause_cluster(desk: Desk, node: str | None, within_ms: int = HEARD_WITHIN_MS) -> Changed:
    """Begin maintenance of *node*, or of the whole cluster, and wait *within_ms* for the nodes to show it.

    Raises:
        Refused: No such node.
        TimedOut: It may be written, and may not.
        BackendError: The store does not answer; nothing is changed.
    """

    def change(view: View) -> Settings | None:
        require_known(view, node, also=())
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
            if also:
                raise Refused(f"only {', '.join(also)} is paused: `sidecar resume --node {also[0]}`")
            raise Refused("the cluster is not paused")
        require_known(view, node, also=settings.paused_nodes)
        if node not in settings.paused_nodes:
            raise Refused(
                "the whole cluster is paused: `sidecar resume`"
                if settings.paused
                else f"{node} is not paused"
            )
        return replace(settings, paused_nodes=tuple(n for n in settings.paused_nodes if n != node))

    return _set(desk, change, node, within_ms, paused=False)


def _set(desk: Desk, change: Change, node: str | None, within_ms: int, *, paused: bool) -> Changed:
    def silent(view: View, settings: Settings) -> tuple[str, ...]:
        return _silent(view, settings, node, paused)

    made = make(desk, change, "paused", node, silent, within_ms)
    notes = (*_notes(made.settings, node, paused), *_unknown(made.view, node))
    return Changed(made.written, notes, made.silent, made.trouble)


def _silent(view: View, settings: Settings, node: str | None, paused: bool) -> tuple[str, ...]:
    """Return the nodes that do not show yet what *settings* ask of them."""
    concerned = [record for record in view.nodes if node in (None, record.node)]
    silent = [
        record.node
        for record in concerned
        if settings.holds_back(record.node) is paused and (record.state == "paused") is not paused
    ]
    return tuple(sorted(silent))


def _unknown(view: View, node: str | None) -> tuple[str, ...]:
    """Say of which nodes nobody here can see whether they have heard."""
    return tuple(unheard(view, name) for name in unread(view) if node in (None, name))


def _notes(settings: Settings, node: str | None, paused: bool) -> tuple[str, ...]:
    if node is not None and settings.paused:
        return ("the whole cluster is paused" + ("" if paused else " still: `sidecar resume`"),)
    if node is None and not paused and settings.paused_nodes:
        first = settings.paused_nodes[0]
        return (f"still paused: {', '.join(settings.paused_nodes)}; `sidecar resume --node {first}`",)
    return ()
