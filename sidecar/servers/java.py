"""The options of a server's Java: ``<launcher>.vmoptions``, one to a line. Source: docs/aggregate.md."""

import re
from collections.abc import Sequence
from pathlib import Path

_HEAP = re.compile(rb"^\s*-Xmx(\d{1,15})([kKmMgGtT]?)\s*$", re.MULTILINE)
_UNITS = {b"": 1, b"k": 1 << 10, b"m": 1 << 20, b"g": 1 << 30, b"t": 1 << 40}


def options_file(home: Path, command: Sequence[str]) -> Path:
    """Return where the launcher looks for its options."""
    return home / f"{Path(command[0]).name}.vmoptions"


def warnings(path: Path) -> list[str]:
    """Return what is worth a look, one sentence each; nothing where there is no such file."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    found = []
    if data and not data.endswith(b"\n"):
        found.append(f"{path}: the last line has no line end, the launcher ignores it: add one")
    if b"-XX:+ExitOnOutOfMemoryError" not in data:
        found.append(
            f"{path}: no -XX:+ExitOnOutOfMemoryError: out of memory, the server would hang on "
            "instead of ending: add it"
        )
    return found


def heap_bytes(path: Path) -> int | None:
    """Return the largest heap that is allowed (``-Xmx``, the last one counts), None where none is given.

    Raises:
        OSError: The file cannot be read.
    """
    whole = path.read_bytes().rpartition(b"\n")[0]  # the launcher ignores a last line without an end
    found = _HEAP.findall(whole)
    return int(found[-1][0]) * _UNITS[found[-1][1].lower()] if found else None
