"""Another version of this program: a copy of the tree that differs in what versions differ in."""

import shutil
from pathlib import Path

from tests.harness.tools import ROOT

VERSION = "9.9.9"
CHANGES = {
    "sidecar/__init__.py": ('__version__ = "', f'__version__ = "{VERSION}"  # "'),
    # It says more than this one knows: in the guard's greeting, in the note kept there, in the store.
    "sidecar/guard/daemon.py": ('"guard_pid": os.getpid(),', '"guard_pid": os.getpid(), "novelty": [1],'),
    "sidecar/runtime/locking.py": ("    cookie: str\n", '    cookie: str\n    novelty: str = "x"\n'),
    "sidecar/core/model.py": (
        "    api: str | None = None\n",
        "    api: str | None = None\n    novelty: int = 1\n",
    ),
}
PROTOCOL = {"sidecar/guard/wire.py": ("\nPROTOCOL = 1\n", "\nPROTOCOL = 2\n")}


def another(folder: Path, *, protocol: bool = False) -> Path:
    """Make a version that goes on with our server, or with *protocol* one whose guard speaks another.

    Returns what to put into ``PYTHONPATH``.
    """
    root = folder / "another"
    for name in ("sidecar", "backends"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, (before, after) in {**CHANGES, **(PROTOCOL if protocol else {})}.items():
        path = root / file
        text = path.read_text()
        assert text.count(before) == 1, f"{file}: {before!r} is gone: the copy would be no other version"
        path.write_text(text.replace(before, after))
    return root
