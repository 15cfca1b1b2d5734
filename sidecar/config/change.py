"""What a reload changes, and which of it waits for a restart of the sidecar."""

from typing import NamedTuple

from sidecar.config.schema import KEYS, Config, build, flat, rendered


class Change(NamedTuple):
    """One key that differs; values as a file would hold them, secrets as ``***``."""

    key: str
    old: object
    new: object
    needs_restart: bool

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def diff(old: Config, new: Config) -> list[Change]:
    """Return every key that differs between two configurations, in the order of the schema."""
    before, after = flat(old), flat(new)
    shown_before, shown_after = rendered(old), rendered(new)
    kind_changes = old.server.kind != new.server.kind
    changes = [
        Change(path, shown_before[path], shown_after[path], not _is_live(path, kind_changes))
        for path in KEYS
        if before[path] != after[path]
    ]
    names = sorted({*old.plugin, *new.plugin})
    changed = [name for name in names if old.plugin.get(name) != new.plugin.get(name)]
    for name in changed:
        path = f"{new.backend}.{name}" if new.plugin else f"{old.backend}.{name}"
        changes.append(Change(path, shown_before.get(path), shown_after.get(path), True))
    return changes


def with_live(old: Config, new: Config) -> Config:
    """Return *old* with those keys of *new* that may change at run time: what a reload puts in force."""
    before, after = flat(old), flat(new)
    kind_changes = old.server.kind != new.server.kind
    values = {path: after[path] if _is_live(path, kind_changes) else before[path] for path in KEYS}
    return build(values, plugin=old.plugin, once=old.once, source=new.source)


def _shown(value: object) -> str:
    if not isinstance(value, list | dict):
        return "none" if value is None else str(value)
    import json  # 5 ms, and only a reload comes here

    return json.dumps(value)


def _is_live(path: str, kind_changes: bool) -> bool:
    """Tell whether *path* may change now; probes belong to the kind of server they were written for."""
    return KEYS[path].live and not (kind_changes and path.startswith("server.probes."))
