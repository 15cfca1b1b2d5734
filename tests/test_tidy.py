"""Rules about the code itself, kept by a test because prose rules are not.

Method: each file under sidecar/ and backends/ is parsed, never imported. What is checked: who may
import whom, who may read a clock, and how long files and functions get.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("sidecar/**/*.py"), *ROOT.glob("backends/**/*.py")])
FUNCTION_LINES_MAX, FILE_LINES_MAX = 50, 400

# A file that is longer, and why that is clearer than two.
LONG_FILES: dict[str, str] = {
    "backends/_etcd_client.py": "endpoints, channels and one call's retries share one state",
    "backends/etcd.py": "the clauses of the protocol in their order, over one set of keys",
    "backends/local.py": "the clauses of the protocol in their order, over one file",
    "sidecar/core/state.py": "declarations only: everything a node can know, see and order on one page",
}

LONG_FUNCTIONS = {
    ("backends/_etcd_client.py", "_hedged"): "one call's loop over endpoints; every step needs its state"
}

BESIDE_GUARD = ("sidecar.guard", "sidecar.core", "sidecar.clock", "sidecar.errors")

# Whom each layer may import among our own packages; the first match counts.
MAY_IMPORT = {
    "sidecar/core/": ("sidecar.core",),
    "sidecar/guard/connect.py": (
        *BESIDE_GUARD,
        "sidecar.__version__",
    ),  # it tells it to a guard that it starts
    "sidecar/guard/compatible.py": (*BESIDE_GUARD, "sidecar.__version__"),
    # the sidecar's side of the guard's socket; what the guard process runs is GUARD below
    "sidecar/guard/": BESIDE_GUARD,
    # and of a hook's; what the keeper of a hook runs is ALONE below
    "sidecar/hooks/": ("sidecar.hooks", "sidecar.guard", "sidecar.core", "sidecar.clock", "sidecar.signals"),
    "sidecar/standin/": ("sidecar.standin",),  # plays a foreign program, and may run without ours
    "sidecar/clock.py": ("sidecar.core",),
    "sidecar/certificate.py": (),
    "sidecar/errors.py": (),
    "sidecar/resolving.py": (),
    "sidecar/signals.py": (),
    "sidecar/documents.py": ("sidecar.core", "sidecar.errors", "sidecar.ports"),
    "sidecar/ports.py": ("sidecar.core", "sidecar.clock"),
    # beside the command line, on the same operations; of the runtime it knows what it is told at each turn
    "sidecar/api/": (
        "sidecar.api",
        "sidecar.core",
        "sidecar.clock",
        "sidecar.config",
        "sidecar.documents",
        "sidecar.errors",
        "sidecar.events",
        "sidecar.operate",
        "sidecar.runtime.turn",
        "sidecar.__version__",
    ),
    "backends/": (
        "backends",
        "sidecar.core",
        "sidecar.ports",
        "sidecar.errors",
        "sidecar.clock",
        "sidecar.certificate",
        "sidecar.documents",
        "sidecar.events",  # that credentials were replaced, or cannot be
        "sidecar.config.files",  # reading without waiting for a pipe
        "sidecar.resolving",
    ),
    "sidecar/": ("sidecar",),  # and never backends: those are entry points, like a plug-in's
}

# The core decides from what it is told: these would let it look for itself.
# fmt: off
IMPURE = {
    "asyncio", "concurrent", "contextvars", "datetime", "io", "logging",
    "multiprocessing", "os", "pathlib", "queue", "random", "secrets", "select", "shutil",
    "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
    "uuid",
}
# fmt: on
STANDARD = sys.stdlib_module_names

# One module reads clocks for everybody. Who cannot import it, and why.
OWN_CLOCK = {
    "sidecar/clock.py": "it is the one",
    "sidecar/guard/kernel.py": "the guard process imports nothing of the rest",
    "sidecar/standin/": "plays a foreign program",
}
CLOCKS = {
    "time": {
        "time",
        "time_ns",
        "monotonic",
        "monotonic_ns",
        "clock_gettime",
        "clock_gettime_ns",
        "perf_counter",
        "perf_counter_ns",
    },
    "datetime": {"now", "utcnow", "today"},
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            module = str(node.module)
            # `from sidecar import errors` imports the module sidecar.errors
            yield from (
                (f"{module}.{alias.name}" for alias in node.names)
                if module in ("sidecar", "backends")
                else (module,)
            )


def imported_from(start: str) -> set[str]:
    """Return *start* and every file of ours that running it imports, sooner or later."""
    found: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name in found or not (ROOT / name).is_file():
            continue
        found.add(name)
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.ImportFrom):
                module = str(node.module).replace(".", "/")
                todo += [f"{module}.py", *(f"{module}/{alias.name}.py" for alias in node.names)]
            elif isinstance(node, ast.Import):
                todo += [alias.name.replace(".", "/") + ".py" for alias in node.names]
    return found


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def clock_reads(tree: ast.Module) -> Iterator[str]:
    """Yield every `time.monotonic` and `from time import monotonic`, called or handed on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in CLOCKS.get(owner, ()):
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (a.name for a in node.names if a.name in CLOCKS["time"])


# The guard process must live when all else is broken: the standard library, and itself.
GUARD = imported_from("sidecar/guard/guard.py")
ALONE = GUARD | imported_from("sidecar/hooks/start.py")  # whoever runs a hook as well: it may be asked late


@pytest.fixture(params=FILES, ids=named)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_imports_point_inwards(path: Path) -> None:
    name, tree = named(path), ast.parse(path.read_text())
    allowed = next(v for prefix, v in MAY_IMPORT.items() if name.startswith(prefix))
    standard_only = name in ALONE or name.startswith(("sidecar/core/", "sidecar/standin/"))

    for module in imports(tree):
        if module.split(".")[0] in ("sidecar", "backends"):
            assert within(module, allowed), f"{name} may not import {module}"
        elif standard_only:
            assert module.split(".")[0] in STANDARD, f"{name} may not import {module}"
        if name.startswith("sidecar/core/"):
            assert module.split(".")[0] not in IMPURE, f"{name} must stay pure: {module}"


def test_only_one_module_reads_clocks(path: Path) -> None:
    name = named(path)
    if not name.startswith(tuple(OWN_CLOCK)):
        assert list(clock_reads(ast.parse(path.read_text()))) == [], f"{name}: use sidecar.clock"


def test_it_fits_a_reader(path: Path) -> None:
    name, source = named(path), path.read_text()
    if name not in LONG_FILES:
        lines = source.count("\n")
        assert lines <= FILE_LINES_MAX, f"{name} has {lines} lines: it asks to be two"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = int(node.end_lineno or 0) - node.lineno + 1
            fits = lines <= FUNCTION_LINES_MAX or (name, node.name) in LONG_FUNCTIONS
            assert fits, f"{name}: {node.name} has {lines} lines"


def test_the_guard_process_is_made_of_nothing_else() -> None:
    outside = {name for name in GUARD if not name.startswith("sidecar/guard/")}

    assert "sidecar/guard/keeper.py" in GUARD, "the walk over imports found too little"
    assert not outside, f"the guard process imports {sorted(outside)}"
    beside = {name for name in ALONE - GUARD if not name.startswith("sidecar/hooks/")}
    assert "sidecar/hooks/keeper.py" in ALONE
    assert not beside, f"the keeper of a hook imports {sorted(beside)}"


def test_every_exception_above_is_still_needed() -> None:
    for name in [*LONG_FILES, *OWN_CLOCK, *MAY_IMPORT]:
        assert (ROOT / name).exists(), f"{name} is gone: take its line out"
    for name in LONG_FILES:
        assert (ROOT / name).read_text().count("\n") > FILE_LINES_MAX, f"{name} is short now"
