"""A starting configuration with a comment for every key, written out of the schema.

Every key is there, each with its meaning, what it may hold and its default. Those that were given stand; the
others are comments that show the value in force, so that taking out the ``#`` changes nothing (but for the
status of a probe, which needs its URL). What comes out is loaded again before anybody gets it: it cannot
disagree with the program.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from sidecar import __version__
from sidecar.config.load import from_text
from sidecar.config.meanings import MEANINGS
from sidecar.config.schema import BUILT_IN, KEYS, SECTIONS, Config, Key, rendered

WIDTH = 100
HEAD = """\
# Configuration of aggregate-sidecar {version}. `sidecar validate` checks it and shows the failover times
# that follow from it; `sidecar doctor` looks at the machine. A key with # before it shows what is in
# force without it. Every key can be set by environment, as in SIDECAR_LOCK__TTL=10s. Passwords and
# tokens never stand here: see the keys named ..._file.
"""


def template(given: Mapping[str, object], shown: Mapping[str, object], notes: Sequence[str]) -> str:
    """Return a configuration in which *given*, by dotted path and as YAML would hold it, is set.

    Args:
        given: What is set.
        shown: What a comment shows in place of the value in force: what the program finds out elsewhere.
        notes: Sentences for the top of the file.

    Raises:
        ConfigError: *given* is no good configuration; names the key.
    """
    config = from_text(yaml.safe_dump(_tree(given)), {}, source="init")
    text = "\n".join(_lines(config, given, shown, notes)) + "\n"
    again = from_text(text, {}, source="init")
    assert again == config, "the template changes the configuration"
    return text


def _tree(given: Mapping[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in given.items():
        *folders, name = path.split(".")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return tree


def _lines(
    config: Config, given: Mapping[str, object], shown: Mapping[str, object], notes: Sequence[str]
) -> Iterator[str]:
    yield from HEAD.format(version=__version__).splitlines()
    for note in notes:
        yield from _comment("", note)
    in_force = rendered(config)
    begun: set[str] = set()
    for path, key in KEYS.items():
        top, _, _ = path.partition(".")
        if not key.from_file or (top in BUILT_IN and top != config.backend):
            continue
        yield ""
        yield from _sections(path, begun)
        indent = "  " * path.count(".")
        yield from _comment(indent, MEANINGS.get(path, ""))
        yield from _comment(indent, _says(key))
        value = given.get(path, shown.get(path, in_force[path]))
        mark = "" if path in given else "#"
        yield f"{indent}{mark}{path.rpartition('.')[2]}:{_yaml(value)}"


def _sections(path: str, begun: set[str]) -> Iterator[str]:
    """Open the sections around *path* that are not open yet; one with only comments in it is nothing."""
    parts = path.split(".")[:-1]
    for depth in range(1, len(parts) + 1):
        section = ".".join(parts[:depth])
        if section not in begun:
            assert section in SECTIONS
            begun.add(section)
            yield f"{'  ' * (depth - 1)}{parts[depth - 1]}:"


def _says(key: Key) -> str:
    reload = "; a reload (SIGHUP) changes it" if key.live else ""
    return f"{key.kind.says}; default: {key.default_says}{reload}".replace("`", "")


def _comment(indent: str, text: str) -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False)


def _yaml(value: object) -> str:
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return " " + text.strip().removesuffix("...").strip()
