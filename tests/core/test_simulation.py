"""The real core in a simulated cluster: whatever goes wrong, one active server at most, and soon one.

Goal: S1 to S3, L1, L2 and T1 of the design, under crashes, freezes, cuts, late, lost and repeated
requests, clocks that differ, stores that are wiped, and commands in any order.
Method: a discrete-event simulation with seeded randomness (`tests.core.simulation`). A failing seed
replays exactly: ``python -m tests.core.simulation SEED 1`` prints what led to it.
Not covered: a host frozen as a whole by its hypervisor, and a store that loses an epoch before
every node has seen it: nobody could tell.
"""

import os
from collections import Counter

import pytest

from tests.core.simulation.world import World

FIRST = int(os.environ.get("SIMULATION_FIRST", "0"))
BATCHES, BATCH = 10, int(os.environ.get("SIMULATION_BATCH", "60"))


@pytest.fixture(scope="module")
def counts() -> Counter[str]:
    return Counter()


@pytest.mark.parametrize("batch", range(BATCHES))
def test_one_active_at_most_and_soon_one(batch: int, counts: Counter[str]) -> None:
    for seed in range(FIRST + batch * BATCH, FIRST + (batch + 1) * BATCH):
        world = World(seed)
        world.run()
        counts.update(world.loop.counts)
