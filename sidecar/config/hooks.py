"""The section ``hooks``."""

from sidecar.config import compound as c
from sidecar.config import kinds as k
from sidecar.config.group import Derived, Group, key

_AS_ALL = Derived("hooks.timeout", lambda values, given: values["hooks.timeout"])


class Hooks(Group):
    """Programs that are run around a change of role, and how long each may take."""

    before_active: tuple[str, ...] | None = key(c.Argv(), live=True)
    on_active: tuple[str, ...] | None = key(c.Argv(), live=True)
    after_stop: tuple[str, ...] | None = key(c.Argv(), live=True)
    on_standby: tuple[str, ...] | None = key(c.Argv(), live=True)
    timeout_ms: int = key(k.Duration(100), "10s", live=True)
    before_active_timeout_ms: int = key(k.Duration(100), _AS_ALL, live=True)
    on_active_timeout_ms: int = key(k.Duration(100), _AS_ALL, live=True)
    after_stop_timeout_ms: int = key(k.Duration(100), _AS_ALL, live=True)
    on_standby_timeout_ms: int = key(k.Duration(100), _AS_ALL, live=True)
