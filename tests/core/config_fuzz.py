"""Configurations broken by machine: ``python -m tests.core.config_fuzz --count N --seed S``.

Starts from valid configurations (every backend, every section), breaks each once to three times, in its
structure, its text, its bytes or by the environment, and gives it to ``validate``, in this process.
Each must end within `CASE_WITHIN_S`, without a traceback, in one of two ways: good, or one line that names
file and key, or file and line. A key that was broken in its structure must be the one that is named.

A case is known by its seed: ``--count 1 --seed S`` plays it again. Prints a JSON summary; exits 1 at any
failure. A hang ends the process with the stack of where it hangs, after the seed on the line before.
Not covered: what ``run`` finds later (the store, ports in use), and combinations nobody draws.
"""

import argparse
import faulthandler
import json
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from sidecar.cli import main as sidecar
from sidecar.config.given import printable
from sidecar.config.schema import KEYS
from sidecar.core.units import Instant
from tests.core import config_fuzz_data as data

CASE_WITHIN_S = 10
"""A case takes 3 ms. A busy machine may take a thousand times as long; what takes more hangs."""
LINE_MAX = 9_000
"""Characters of an error: a path, which may have 4096, twice, and a reason."""
WHOLE_FILE = ("is empty; write at least", "is larger than", "backend: missing", "cluster: missing")
"""Reasons that concern no line, and no key that is there."""
READERS = ("not valid YAML", "nested deeper than", "more than", "not UTF-8 text", "a key cannot be empty")
"""Reasons of the text as such: they come with a line."""
_ANY_KEY = tuple(f"{path}: " for path in KEYS)
_FILES = [path for path in KEYS if path.endswith(("_file", ".path", ".home", ".state", ".run", "r.command"))]
_AFTER_LABEL = re.compile(r"(?::(\d+))?(?::\d+)?: (.*)")
RELATED = {"backend": ("etcd", "consul", "local"), "paths": ("local",)}
"""A key whose value is right in itself, and whose meaning makes a default of another section wrong."""

Tree = dict[str, Any]
_FAST: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass
class Case:
    """One configuration, how it was broken, and which keys must be to blame. Without any: by line."""

    seed: int
    content: bytes = b""
    environ: dict[str, str] = field(default_factory=dict)
    what: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    by_line: bool = False  # its text was broken as well: any key or line may be to blame


def make(seed: int, files: data.Files) -> Case:
    """Return the case of *seed*: always the same one."""
    draw, case = random.Random(seed), Case(seed)
    tree = draw.choice(data.valid(files))
    times = draw.choice((1, 1, 1, 2, 3))
    kinds = draw.choices(("structure", "text", "environment"), (60, 30, 10), k=times)
    for _ in range(kinds.count("structure")):
        draw.choice(STRUCTURE)(draw, tree, case, files)
    content = _written(tree, readable=draw.random() < 0.5)
    for _ in range(kinds.count("text")):
        name, change = draw.choice(data.TEXT)
        case.what.append(name)
        case.by_line = True
        content = change(draw, content)
    for _ in range(kinds.count("environment")):
        _by_environment(draw, case, files)
    case.content = content
    return case


def _written(tree: Tree, *, readable: bool) -> bytes:
    for dumper in (_FAST, yaml.SafeDumper):  # libyaml's knows no half of a surrogate pair
        with suppress(UnicodeEncodeError):
            text = yaml.dump(tree, Dumper=dumper, sort_keys=False, allow_unicode=readable)
            return str(text).encode(errors="surrogatepass")
    raise AssertionError("the second one takes everything")


# Structure. Each notes what it touched.


def _place(draw: random.Random, tree: Tree) -> tuple[Tree, str, str]:
    """Return a mapping in *tree*, one of its keys, and that key's path."""
    place, path = tree, ""
    while True:
        name = draw.choice(list(place))
        path = f"{path}.{name}" if path else name
        inner = place[name]
        if not (isinstance(inner, dict) and inner) or draw.random() < 0.2:
            return place, name, path
        place = inner


def _section(draw: random.Random, tree: Tree) -> tuple[Tree, str]:
    """Return a mapping in *tree* and its path, "" for the whole."""
    place, path = tree, ""
    while True:
        inner = [name for name, value in place.items() if isinstance(value, dict)]
        if not inner or draw.random() < 0.3:
            return place, path
        name = draw.choice(inner)
        place, path = place[name], f"{path}.{name}" if path else name


def _another_value(draw: random.Random, tree: Tree, case: Case, files: data.Files) -> None:
    place, name, path = _place(draw, tree)
    place[name] = data.value(draw, files)
    _touch(case, f"{path} = {place[name]!r}", path)


def _another_file(draw: random.Random, tree: Tree, case: Case, files: data.Files) -> None:
    path = draw.choice(_FILES)
    value = str(draw.choice(files.odd))
    _put(tree, path, [value] if path == "server.command" else value)
    _touch(case, f"{path} = {value}", path)


def _wrapped_value(draw: random.Random, tree: Tree, case: Case, files: data.Files) -> None:
    place, name, path = _place(draw, tree)
    was = place[name]
    place[name] = draw.choice(([was], {name: was}, [[was], was], {"": was}, str(was), [was] * 2_000))
    _touch(case, f"{path} wrapped", path)


def _missing_key(draw: random.Random, tree: Tree, case: Case, files: data.Files) -> None:
    place, name, path = _place(draw, tree)
    if len(place) > 1 or place is not tree:
        del place[name]
        _touch(case, f"{path} missing", path)


def _unknown_key(draw: random.Random, tree: Tree, case: Case, files: data.Files) -> None:
    place, path = _section(draw, tree)
    known = draw.choice(list(KEYS)).rpartition(".")[2]
    at = draw.randrange(len(known))
    name = draw.choice((known[:at] + known[at + 1 :], known.upper(), known + "_ms", *data.NAMES))
    place[name] = data.value(draw, files)
    _touch(case, f"{path}.{name} added", f"{path}.{name}" if path else name)


def _moved_key(draw: random.Random, tree: Tree, case: Case, files: data.Files) -> None:
    place, name, path = _place(draw, tree)
    target, there = _section(draw, tree)
    if len(place) > 1:
        target[name] = place.pop(name)
        _touch(case, f"{path} moved to {there}", path)
        case.touched.add(f"{there}.{name}" if there else name)


def _any_key(draw: random.Random, tree: Tree, case: Case, files: data.Files) -> None:
    path = draw.choice(sorted(KEYS))
    value = data.value(draw, files)
    _put(tree, path, value)
    _touch(case, f"{path} = {value!r}", path)


STRUCTURE: list[Callable[[random.Random, Tree, Case, data.Files], None]] = [
    *(_another_value, _another_value, _any_key, _any_key, _another_file, _wrapped_value, _missing_key),
    *(_unknown_key, _moved_key),
]


def _put(tree: Tree, path: str, value: object) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        inner = tree.get(folder)
        tree[folder] = tree = inner if isinstance(inner, dict) else {}
    tree[name] = value


def _touch(case: Case, what: str, path: str) -> None:
    case.what.append(what[:200])
    case.touched.add(path)


def _by_environment(draw: random.Random, case: Case, files: data.Files) -> None:
    key = KEYS[draw.choice(sorted(KEYS))]
    variable = draw.choice((key.variable, key.variable, key.variable[:-1], key.variable.replace("__", "_")))
    text = str(data.value(draw, files)).replace("\0", "\1").encode(errors="replace").decode()[:100_000]
    case.environ[variable] = text
    _touch(case, f"{variable}={text!r}", key.path)
    case.touched.add(variable)


# What came of it.


def play(case: Case, folder: Path) -> Result:
    """Give it to ``validate``."""
    file = folder / "sidecar.yml"
    file.write_bytes(case.content)
    clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith("SIDECAR_")}
    return CliRunner().invoke(sidecar, ["validate", "-c", str(file), "-o", "json"], env=clean | case.environ)


def wrong(case: Case, result: Result, file: Path) -> str | None:
    """Return what is wrong with the way it ended, None when nothing is."""
    if result.exit_code == 0:
        said = json.loads(result.stdout)
        good = said["source"] == str(file) and len(said["failover"]) > 4 and not result.stderr
        return None if good else "good, and yet not right"
    if result.exit_code not in (1, 2) or result.stdout:
        return f"exit status {result.exit_code}, and on stdout {result.stdout[:80]!r}"
    found = re.fullmatch(r"sidecar: error: ([^\n]+)\n", result.stderr)
    if found is None or "internal error" in result.stderr or "Traceback" in result.stderr:
        return "not one line of an error"
    line = found[1]
    if not line.isprintable() or len(line) > LINE_MAX:
        return "a line that is too long or cannot be printed"
    return None if _names_its_place(case, line, str(file)) else "it does not name what was wrong"


def _names_its_place(case: Case, line: str, label: str) -> bool:
    rest = line.removeprefix(label)
    if rest == line:
        return any(line.startswith(name) for name in case.environ)
    number, text = _AFTER_LABEL.fullmatch(rest).groups()  # type: ignore[union-attr]  # matches anything
    if number is not None and int(number) > _lines(case.content):
        return False
    if any(reason in text for reason in READERS):
        return number is not None
    if any(reason in text for reason in WHOLE_FILE):
        return True
    if case.by_line:
        return number is not None or text.startswith(_ANY_KEY)
    return text.startswith(_starts(case.touched))


def _lines(content: bytes) -> int:
    """Count as YAML does, for which the end of the file is a line of its own."""
    return 1 + len(re.split("\r\n|[\r\n\x85\u2028\u2029]", content.decode(errors="replace")))


def _starts(touched: set[str]) -> tuple[str, ...]:
    """Return how an error about these keys may begin: with one of their sections."""
    tops = {path.split(".")[0] for path in touched}
    tops |= {related for top in tops for related in RELATED.get(top, ())}
    return tuple(f"{printable(top)}{end}" for top in tops for end in (": ", "."))


def run(count: int, seed: int) -> dict[str, object]:
    """Play *count* cases; return the summary."""
    from sidecar.clock import BootClock

    clock, ends, failures = BootClock(), Counter[str](), 0
    slowest, began = 0, clock.now()
    with tempfile.TemporaryDirectory(prefix="config-fuzz-") as name:
        folder = Path(name)
        files = data.Files(folder)
        for number in range(seed, seed + count):
            case = make(number, files)
            at: Instant = clock.now()
            print(f"seed {number}\r", end="", file=sys.stderr, flush=True)
            faulthandler.dump_traceback_later(CASE_WITHIN_S, exit=True)
            result = play(case, folder)
            faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, clock.now() - at)
            ends["good" if result.exit_code == 0 else f"exit {result.exit_code}"] += 1
            reason = wrong(case, result, folder / "sidecar.yml")
            if reason is not None:
                failures += 1
                said = (result.stderr or result.stdout)[:600]
                print(f"seed {number}: {reason}\n  {case.what} {case.touched}\n  {said}", file=sys.stderr)
    took_ms = max(1, clock.now() - began)
    return {
        "count": count,
        "seed": seed,
        "failures": failures,
        "ends": dict(sorted(ends.items())),
        "slowest_ms": slowest,
        "took_s": took_ms / 1000,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Break configurations by machine.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = run(options.count, options.seed)
    print(json.dumps(found))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
