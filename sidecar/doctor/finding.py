"""What a check of the doctor says."""

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """One line. *do*: what would make it well; empty when it is."""

    check: str
    level: Level
    says: str
    do: str = ""


def ok(check: str, says: str) -> Finding:
    """Return that all is well."""
    return Finding(check, "ok", says)


def warning(check: str, says: str, do: str) -> Finding:
    """Return something that works, and is worth a look."""
    return Finding(check, "warning", says, do)


def error(check: str, says: str, do: str) -> Finding:
    """Return something with which this node cannot do its work."""
    return Finding(check, "error", says, do)
