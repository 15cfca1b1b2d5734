"""Whatever stands in file or environment: a `Config`, or a `ConfigError` of one line that names its place.

Method: Hypothesis draws text, trees, and a valid configuration with one value replaced. Not covered: what
the operating system says of files.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config import Config, Secret, durations, from_text
from sidecar.config.schema import KEYS, SECTIONS, flat
from sidecar.errors import ConfigError

VALID: dict[str, Any] = {
    "cluster": "c",
    "node": "n",
    "backend": "etcd",
    "etcd": {"endpoints": ["http://h:2379"]},
    "consul": {"address": "http://127.0.0.1:8500", "datacenter": "dc1"},
    "lock": {"ttl": "10s", "renew_every": "2s", "stop_grace": "3s"},
    "node_options": {"priority": 1, "eligible": True},
    "server": {
        "command": ["run"],
        "environment": {"A": "b"},
        "start_timeout": "5m",
        "probes": {"ready": {"tcp": [6460], "http": {"url": "http://h/x", "status": 200}}},
        "restarts": {"attempts": 3, "backoff": "1s"},
    },
    "log": {"level": "info"},
    "paths": {"state": "/s"},
}
TEXT = st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF)  # more needs pairs of them in JSON
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(TEXT, max_size=20)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(TEXT, max_size=8), inner, max_size=4),
    max_leaves=5,
)
PIECES = [
    *'a:[]{},|>"#',
    "'",
    " ",
    "\n",
    "- ",
    "*a",
    "&a ",
    "? ",
    "!!str ",
    "\t",
    "---",
    "...",
    "%YAML",
    "<<",
    "lock",
    "ttl",
]
PATHS = sorted({*KEYS, *SECTIONS})

UNHURRIED = settings(deadline=None)  # how busy the machine is says nothing about the code


def yaml_of(tree: object) -> str:
    """Write *tree* as JSON, which YAML is a superset of."""
    return json.dumps(tree)


def outcome(text: str, environ: dict[str, str] | None = None) -> Config | str:
    """Return what comes of it; anything but a ConfigError of one printable line fails the test."""
    try:
        return from_text(text, environ or {}, source="bad.yml")
    except ConfigError as error:
        line = str(error)
        assert line.isprintable(), line
        assert len(line) < 1_000
        return line


@UNHURRIED
@given(st.text())
def test_any_text(text: str) -> None:
    found = outcome(text)

    assert isinstance(found, Config) or found.startswith("bad.yml")


@UNHURRIED
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_text_that_is_nearly_yaml(parts: list[str]) -> None:
    found = outcome("".join(parts))

    assert isinstance(found, Config) or found.startswith("bad.yml")


@UNHURRIED
@given(TREES)
def test_any_tree(tree: object) -> None:
    found = outcome(yaml_of(tree))

    assert isinstance(found, Config) or found.startswith("bad.yml")


@UNHURRIED
@given(st.sampled_from(PATHS), TREES)
def test_one_wrong_value_is_found_and_named(path: str, value: object) -> None:
    tree = json.loads(json.dumps(VALID))
    *folders, name = path.split(".")
    place = tree
    for folder in folders:
        place = place.setdefault(folder, {})
    place[name] = value

    found = outcome(yaml_of(tree))

    named = (path, path.split(".")[0]) if path != "backend" else ("backend", f"{value}")
    assert isinstance(found, Config) or any(name in found for name in named), found


@UNHURRIED
@given(st.sampled_from(PATHS), st.text(TEXT, min_size=1, max_size=8), TREES)
def test_an_unknown_key_is_named(path: str, name: str, value: object) -> None:
    tree = json.loads(json.dumps(VALID))
    place: Any = tree
    section = path if path in SECTIONS else path.rpartition(".")[0]
    for folder in section.split(".") if section else ():
        place = place.setdefault(folder, {})
    if f"{section}.{name}".strip(".") in PATHS or name == "hooks":
        return
    place[name] = value

    found = outcome(yaml_of(tree))

    assert isinstance(found, str)
    assert name in found or repr(name) in found or "." in name, found


@UNHURRIED
@given(
    st.sampled_from(sorted(KEYS)), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
)
def test_any_variable(path: str, text: str) -> None:
    variable = KEYS[path].variable

    found = outcome(json.dumps(VALID), {variable: text})

    assert isinstance(found, Config) or variable in found or path.partition(".")[0] in found, found


@UNHURRIED
@given(st.text(st.characters(exclude_characters="=\0"), max_size=30), st.text(max_size=10))
def test_any_name_of_a_variable(name: str, text: str) -> None:
    variable = f"SIDECAR_{name}"

    found = outcome(json.dumps(VALID), {variable: text})

    assert isinstance(found, Config) or "SIDECAR_" in found


@UNHURRIED
@given(st.integers(0, durations.DURATION_MAX_MS))
def test_durations_round_trip(ms: int) -> None:
    assert durations.parse(durations.render(ms)) == ms


@UNHURRIED
@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{1,20}(ms|s|m|h|d|)", fullmatch=True))
def test_a_duration_is_whole_ms_or_a_reason(text: str) -> None:
    try:
        ms = durations.parse(text)
    except ValueError as error:
        ms, text = 0, str(error)
        assert text.isprintable()
    assert 0 <= ms <= durations.DURATION_MAX_MS


@UNHURRIED
@given(st.text(min_size=1))
def test_a_secret_hides_anything(value: str) -> None:
    secret = Secret(value)

    assert {repr(secret), str(secret), f"{secret}", f"{secret!s:}", repr([secret])} == {"***", "[***]"}


def test_what_is_redacted_can_be_read_again() -> None:
    """``validate`` prints what is in force: it is a configuration itself, with the same meaning."""
    first = from_text(json.dumps(VALID), {}, source="x")
    shown = json.loads(json.dumps(first.redacted()))
    shown["server"]["environment"] = VALID["server"]["environment"]
    again = flat(from_text(json.dumps(shown), {}, source="x"))

    differ = {path for path, value in flat(first).items() if again[path] != value}
    assert differ <= {path for path in KEYS if path.startswith("consul.")}  # not in use, so not shown


@pytest.mark.parametrize(
    "text", ["&a [*a]", "a: &a {b: *a}", "[" * 3_000, "{a: " * 3_000, "&" * 9_999, "- " * 9_999]
)
def test_hostile_shapes(text: str) -> None:
    assert isinstance(outcome(text), str)
