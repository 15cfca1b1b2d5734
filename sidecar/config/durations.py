"""Durations as people write them (`1500ms`, `10s`, `1m30s`) and as the program counts them: whole ms."""

import re

DURATION_MAX_MS = 30 * 86_400_000
"""30 days. Nothing here is meant to wait longer, and sums of such values stay far from any limit."""

_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART = r"(\d{1,12})(?:\.(\d{1,6}))?(ms|s|m|h|d)"
_PARTS = re.compile(_PART, re.ASCII)
_WHOLE = re.compile(f"(?:{_PART})+", re.ASCII)
_BARE = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def parse(text: str) -> int:
    """Return the milliseconds *text* stands for.

    Raises:
        ValueError: One line without the text's name: what is wrong and what would help.
    """
    stripped = text.strip()
    if _BARE.fullmatch(stripped):
        raise ValueError(
            f"expected a duration such as 10s, got {_short(stripped)!r}: add a unit (ms, s, m, h)"
        )
    if stripped.startswith("-"):
        raise ValueError(f"a duration cannot be negative, got {_short(stripped)!r}")
    if not _WHOLE.fullmatch(stripped):
        raise ValueError(f"expected a duration such as 10s, got {_short(text)!r}")
    total_ms: int = sum(_part_ms(*part) for part in _PARTS.findall(stripped))
    if total_ms > DURATION_MAX_MS:
        raise ValueError(f"must be at most {render(DURATION_MAX_MS)}, got {_short(stripped)}")
    return total_ms


def render(ms: int) -> str:
    """Return the shortest single-unit spelling of *ms* that loses nothing: 90000 → ``90s``."""
    if ms == 0:
        return "0s"
    unit, size = next((unit, size) for unit, size in _UNIT_MS.items() if ms % size == 0)
    return f"{ms // size}{unit}"


def _part_ms(whole: str, fraction: str, unit: str) -> int:
    scaled = int(whole + fraction) * _UNIT_MS[unit]
    ms, rest = divmod(scaled, int(10 ** len(fraction)))
    if rest:
        raise ValueError(f"must be whole milliseconds, got {whole}.{fraction}{unit}")
    return ms


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
