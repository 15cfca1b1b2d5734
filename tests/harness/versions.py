"""Another version of this program: a copy of the tree that differs in what versions differ in."""

import shutil
from pathlib import Path

from tests.harness.tools import ROOT

VERSION = "9.9.9"
CHANGES = {
    "sidecar/__init__.py": ('__version__ = "', f'__version__ = "{VERSION}"  # "'),
    # It says more than this one knows: in the guard's greeting, in the note kept there, in the store.
    "sidecar/guard/daemon.py": (
        'return {**who, "run": found}',
        'return {**who, "run": found, "novelty": [1]}',
    ),
    "sidecar/runtime/locking.py": ("    cookie: str\n", '    cookie: str\n    novelty: str = "x"\n'),
    "sidecar/core/model.py": (
        "    api: str | None = None\n",
        "    api: str | None = None\n    novelty: int = 1\n",
    ),
}
PROTOCOL = {"sidecar/guard/wire.py": ("\nPROTOCOL = 1\n", "\nPROTOCOL = 2\n")}
DOCUMENTS = {"sidecar/documents.py": ("\nVERSION = 1\n", "\nVERSION = 2\n")}
SILENT = {
    "sidecar/guard/daemon.py": ('who = {"version": self.version, ', "who = {"),
    "sidecar/guard/connect.py": ('state.get("version") == __version__', "True"),
}


def another(folder: Path, *, protocol: bool = False, silent: bool = False, documents: bool = False) -> Path:
    """Make a version that goes on with our server, or with *protocol* one whose guard speaks another.

    *silent*: one whose guard does not say its version, and nobody asks for it. *documents*: one whose
    documents cannot be read here, its note among them.

    Returns what to put into ``PYTHONPATH``.
    """
    root = folder / "another"
    for name in ("sidecar", "backends"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    more = (PROTOCOL if protocol else {}) | (SILENT if silent else {}) | (DOCUMENTS if documents else {})
    for file, (before, after) in (*CHANGES.items(), *more.items()):
        path = root / file
        text = path.read_text()
        assert text.count(before) == 1, f"{file}: {before!r} is gone: the copy would be no other version"
        path.write_text(text.replace(before, after))
    return root
