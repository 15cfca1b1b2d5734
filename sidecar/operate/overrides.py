"""``set`` and ``unset``: priority and eligibility of a node, changed at run time from any machine.

They count before the node's own configuration, from the moment at which it hears of them, until they are
unset. An active that is made ineligible stays active; it only never becomes active again.
"""

from dataclasses import replace
from typing import Any, Literal

from sidecar.core.model import Override, Settings, View
from sidecar.errors import Refused
from sidecar.operate.desk import Desk
from sidecar.operate.settings import HEARD_WITHIN_MS, Changed, make, require_known
from sidecar.operate.words import unheard, unread

Setting = Literal["priority", "eligible"]


def set_override(
    desk: Desk, node: str, setting: Setting, value: bool | int, within_ms: int = HEARD_WITHIN_MS
) -> Changed:
    """Set *setting* of *node* to *value*, and wait *within_ms* for the node to show that it has heard.

    Raises:
        Refused: No such node.
        TimedOut: It may be written, and may not.
        BackendError: The store does not answer; nothing is changed.
    """
    return _change(desk, node, setting, value, within_ms)


def unset_override(desk: Desk, node: str, setting: Setting, within_ms: int = HEARD_WITHIN_MS) -> Changed:
    """Give *setting* of *node* back to its configuration, and wait as `set_override` does.

    Raises:
        Refused: It is not set.
        TimedOut: It may be written, and may not.
        BackendError: The store does not answer; nothing is changed.
    """
    return _change(desk, node, setting, None, within_ms)


def _change(desk: Desk, node: str, setting: Setting, value: bool | int | None, within_ms: int) -> Changed:
    def change(view: View) -> Settings | None:
        found = view.settings.override(node)
        require_known(view, node, also=tuple(o.node for o in view.settings.overrides))
        if value is None and getattr(found, setting) is None:
            raise Refused(f"{setting} of {node} is not set; there it is as its configuration says")
        return None if getattr(found, setting) == value else _with(view.settings, found, setting, value)

    made = make(desk, change, setting, node, lambda view, _: _silent(view, node), within_ms)
    return Changed(made.written, _notes(made.view, node), made.silent, made.trouble)


def _notes(view: View, node: str) -> tuple[str, ...]:
    if view.node(node) is not None:
        return ()
    if node in unread(view):
        return (unheard(view, node),)
    return (f"{node} is not there now; it counts when it is",)


def _with(settings: Settings, found: Override, setting: Setting, value: bool | int | None) -> Settings:
    others = tuple(override for override in settings.overrides if override.node != found.node)
    changed: dict[str, Any] = {setting: value}
    new = replace(found, **changed)
    empty = (new.priority, new.eligible, new.unknown) == (None, None, {})
    return replace(settings, overrides=others if empty else (*others, new))


def _silent(view: View, node: str) -> tuple[str, ...]:
    """Return *node* while it does not show yet that it goes by the settings as they are now."""
    record = view.node(node)
    heard = record is None or record.heard == view.versions.get("settings", 0)
    return () if heard else (node,)
