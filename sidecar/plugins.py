"""Finds backends by name among the installed entry points (group ``aggregate_sidecar.backends``).

Built-in backends are entry points like anybody else's. `importlib.metadata` alone costs 25–50 ms to import,
a sixth of what ``status`` may take, so the ``entry_points.txt`` of installed distributions are read
directly first (2 ms); what only the slow way can see (zipped or editable eggs) is still found by it.
"""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from sidecar.errors import ConfigError
from sidecar.ports import Connect

GROUP = "aggregate_sidecar.backends"


def load_backend(name: str) -> Connect:
    """Return what connects to the backend called *name*.

    Raises:
        ConfigError: It is not installed, or what is installed under that name cannot be imported.
    """
    target = dict(_from_files()).get(name) or dict(_from_metadata()).get(name)
    if target is None:
        known = ", ".join(installed_backends()) or "none"
        raise ConfigError(f"backend '{name}' is not installed; installed: {known}")
    module, _, attribute = target.partition(":")
    try:
        connect = getattr(import_module(module.strip()), attribute.strip())
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"backend '{name}' ({target}) cannot be loaded: {error}") from error
    if not callable(connect):
        raise ConfigError(f"backend '{name}' ({target}) is not callable")
    checked: Connect = connect
    return checked


def installed_backends() -> tuple[str, ...]:
    """Return the names of all backends that could be loaded, sorted."""
    return tuple(sorted({name for name, _ in (*_from_files(), *_from_metadata())}))


def _from_files() -> Iterator[tuple[str, str]]:
    """Yield name and target of each entry point, the first on the path last, since `dict` keeps the last."""
    for folder in reversed(sys.path):
        try:
            found = [entry.path for entry in os.scandir(folder) if entry.name.endswith(".dist-info")]
        except OSError:
            continue  # the path may name zip files and folders that are not there
        for distribution in found:
            try:
                text = Path(distribution, "entry_points.txt").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if f"[{GROUP}]" in text:
                yield from _parse(text)


def _parse(text: str) -> Iterator[tuple[str, str]]:
    """Read it line by line, as `importlib.metadata` does; `configparser` would stay with 0.2 MB."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line
        elif section == f"[{GROUP}]" and "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            yield name.strip(), target.partition("[")[0].strip()


def _from_metadata() -> Iterator[tuple[str, str]]:
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        yield point.name, point.value
