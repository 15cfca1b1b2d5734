"""What a mutant is, and how it is made."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SIMULATION = "simulation of schedules 0 to "


class Unfit(Exception):
    """The edit cannot be made, or the file is no Python after it: the table has to be mended."""


class Mutant(NamedTuple):
    """One edit, by text.

    *by* names what has to fail, as for pytest: ``FILE::TEST`` or ``FILE… -k EXPRESSION``.
    *schedules*: so many of the simulation have to see it as well; 0: it is not asked.
    """

    breaks: str  # its name: the rule that does not hold any more
    file: str
    old: str  # exactly once in the file
    new: str
    by: str
    schedules: int = 0
    slice: bool = False  # tried in every run of the tests, so it has to be fast

    @property
    def layer(self) -> str:
        """Return which layer of the tests catches it."""
        return self.by.split("/")[1]

    @property
    def checks(self) -> tuple[str, ...]:
        """Return everything that has to fail."""
        return (self.by, f"{SIMULATION}{self.schedules}") if self.schedules else (self.by,)

    def mutated(self, tree: Path = ROOT) -> str:
        """Return its file's text with the edit made.

        Raises:
            Unfit: The old text is not there exactly once, or what comes out is no Python.
        """
        text = (tree / self.file).read_text()
        found = text.count(self.old)
        if found != 1:
            raise Unfit(f"{self.breaks}: {self.file} has {found} times, not once: {self.old!r}")
        broken = text.replace(self.old, self.new)
        try:
            compile(broken, self.file, "exec")
        except SyntaxError as error:
            raise Unfit(f"{self.breaks}: no Python any more: {error}") from error
        return broken
