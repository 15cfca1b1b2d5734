"""State × observation: which the simulation has met, and how often."""

from collections import Counter
from typing import get_args

from sidecar.core import state as s

PHASES = tuple(
    kind.__name__
    for kind in (s.Idle, s.Standing, s.Ending, s.Promoting, s.Starting, s.Serving, s.Waiting, s.Stopping)
)
OBSERVATIONS = tuple(kind.__name__ for kind in get_args(s.Observation))


def render(cells: Counter[tuple[str, str]]) -> str:
    """Return the table as Markdown: a row for each observation, a column for each state."""
    lines = ["| | " + " | ".join(PHASES) + " |", "|---|" + "---:|" * len(PHASES)]
    for seen in OBSERVATIONS:
        row = " | ".join(str(cells[phase, seen]) if cells[phase, seen] else "–" for phase in PHASES)
        lines.append(f"| {seen} | {row} |")
    return "\n".join(lines)
