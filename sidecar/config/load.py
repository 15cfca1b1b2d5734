"""File, environment and command line → one checked `Config`, or one line that says what is wrong.

Order: read, sort by key, parse each value, fill in defaults, check what keys mean together, read secrets.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.config import given as g
from sidecar.config import reader, rules
from sidecar.config.files import read_file, reason
from sidecar.config.schema import KEYS, Config, Derived, Required, build
from sidecar.errors import ConfigError

DEFAULT_PATH = Path("/etc/aggregate-sidecar/sidecar.yml")
SIZE_MAX = 1_000_000
"""Bytes in a configuration. A large one has 10 KB; more is a mistake, and time is spent on it."""


def load(path: Path | None, environ: Mapping[str, str], *, patient: bool = False) -> Config:
    """Read the configuration and everything it refers to.

    Args:
        path: The file; None: ``$SIDECAR_CONFIG``, else `DEFAULT_PATH`. Where neither exists and the
            environment gives both ``SIDECAR_CLUSTER`` and ``SIDECAR_BACKEND``, the environment is enough.
        environ: The process's environment.
        patient: What is wrong with the files that ``api`` names is in `Config.trouble` instead of raised.

    Raises:
        ConfigError: One line that names the file or variable, the key, what is wrong and what would help.
    """
    chosen = path or (Path(environ["SIDECAR_CONFIG"]) if environ.get("SIDECAR_CONFIG") else None)
    alone = "SIDECAR_CLUSTER" in environ and "SIDECAR_BACKEND" in environ
    if chosen is None and alone and not os.path.exists(DEFAULT_PATH):  # noqa: PTH110 - of a shut folder: no
        return finish(g.Sources("environment", patient=patient), environ)
    chosen = chosen or DEFAULT_PATH
    return from_text(_read(chosen), environ, source=g.label_of(chosen), patient=patient)


def from_text(text: str, environ: Mapping[str, str], *, source: str, patient: bool = False) -> Config:
    """Check a configuration that is already in memory; *source* stands for its file in messages."""
    try:
        document = reader.read(text)
    except reader.Unreadable as error:
        place = ":".join(str(part) for part in (source, error.line, error.column) if part is not None)
        named = f"{place}: {g.printable(error.key)}" if error.key else place
        raise ConfigError(f"{named}: {error}") from error
    sources = g.Sources(source, document, patient=patient)
    sources.plugin = g.plugin_section(g.backend_name(sources, environ))
    g.from_document(sources)
    return finish(sources, environ)


def finish(sources: g.Sources, environ: Mapping[str, str], **extra: object) -> Config:
    """Turn what was written into a `Config`; what *sources* holds from a command line stays on top."""
    first = {path: found for path, found in sources.found.items() if found.origin.error is not ConfigError}
    sources.plugin = sources.plugin or g.plugin_section(g.backend_name(sources, environ))
    g.from_environ(sources, environ)
    sources.found |= first
    values = _with_defaults(sources, _parsed(sources))
    rules.check(sources, values)
    values |= rules.secrets(sources, values)
    plugin = rules.plugin_options(sources, values["backend"])
    return build(values, plugin=plugin, source=sources.label, trouble=tuple(sources.trouble), **extra)


def _parsed(sources: g.Sources) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, found in sources.found.items():
        if path in KEYS:
            try:
                values[path] = KEYS[path].kind.parse(found.value)
            except ValueError as error:
                raise sources.problem(path, str(error)) from None
    return values


def _with_defaults(sources: g.Sources, values: dict[str, Any]) -> dict[str, Any]:
    given = frozenset(values)
    for path, key in KEYS.items():
        match key.default:
            case Required(example) if path not in given:
                raise sources.problem(path, f"missing; add it, for example {path}: {example}")
            case Required() | Derived():
                pass
            case None:
                values.setdefault(path, None)
            case default:
                values.setdefault(path, key.kind.parse(default))
    for path, key in KEYS.items():
        if isinstance(key.default, Derived) and path not in given:
            values[path] = key.default.compute(values, given)
    return values


def _read(path: Path) -> str:
    label = g.label_of(path)
    try:
        content = read_file(path, SIZE_MAX)
    except FileNotFoundError:
        raise ConfigError(f"{label}: no such file; `sidecar init` writes one, or give --config") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{label}: {reason(error)}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{label}:{line}: not UTF-8 text; save it as UTF-8") from None
