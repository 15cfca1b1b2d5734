"""Makes a failing schedule short: leaves out what is not needed for the same property to fail."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from tests.core.simulation.loop import Violation
from tests.core.simulation.world import ALL, FAULTS_MAX, Mercy, World

TRIES_MAX = 120


class Outcome(NamedTuple):
    """A schedule that has failed."""

    seed: int
    mercy: Mercy
    text: str
    story: str

    @property
    def about(self) -> str:
        """Which property it is about: the first word of what it says."""
        return self.text.split(":", 1)[0] if ":" in self.text else self.text[:20]

    def command(self) -> str:
        only = f" --only {self.mercy}" if self.mercy != ALL else ""
        return f"./scripts/simulate --seed {self.seed}{only}"


def outcome(world: World, violation: Violation) -> Outcome:
    """Return what is to be told of it."""
    cause = f" ({violation.__cause__!r})" if violation.__cause__ is not None else ""
    text = f"{violation}{cause}, at {world.loop.now} ms"
    return Outcome(world.loop.seed, world.mercy, text, world.loop.story())


def shrink(failed: Outcome) -> Outcome:
    """Return the shortest schedule found that fails in the same way."""
    tries = 0
    while True:
        for mercy in _milder(failed.mercy):
            tries += 1
            found = _run(failed.seed, mercy)
            if found is not None and found.about == failed.about:
                failed = found
                break
            if tries >= TRIES_MAX:
                return failed
        else:
            return failed


def _run(seed: int, mercy: Mercy) -> Outcome | None:
    world = World(seed, mercy)
    try:
        world.run()
    except Violation as violation:
        return outcome(world, violation)
    return None


def _milder(mercy: Mercy) -> Iterator[Mercy]:
    """Return what to try next: great mercies first."""
    faults = mercy.faults if mercy.faults is not None else frozenset(range(FAULTS_MAX))
    if faults and mercy.faults is None:
        yield replace(mercy, faults=frozenset())
    for better in (
        replace(mercy, no_mishaps=True),
        replace(mercy, good_network=True),
        replace(mercy, good_servers=True),
    ):
        if better != mercy:
            yield better
    ordered = sorted(faults)
    for half in (ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]) if len(ordered) > 3 else ():
        yield replace(mercy, faults=frozenset(half))
    for one in ordered:
        yield replace(mercy, faults=faults - {one})
