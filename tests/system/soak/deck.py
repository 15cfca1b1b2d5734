"""Which fault meets which role, in an order that the seed decides.

Every card is dealt once before any comes again, so a run of as many faults as there are cards has covered
all of them. What a machine lacks (a JVM, a compiler, memory cgroups) is named in the report.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.system.soak.faults import KINDS, Kind
from tests.system.soak.operators import ORDERS, Order
from tests.system.soak.stores import StoreKind

ROLES = ("active", "standby", "candidate", "stopping")
"""The third is in the middle of its promotion, the fourth holds the lock and is stopping its server."""
STORE_ROLES = ("active", "candidate", "stopping")
ACTIVE_ONLY = ("deaf server", "failing start", "full GC")


@dataclass(frozen=True)
class Card:
    """One fault in one role. For a fault of the store the role says what a node is doing meanwhile."""

    kind: Kind | StoreKind | Order
    role: str

    @property
    def name(self) -> str:
        return self.kind.name


def cards(store: Sequence[StoreKind], *, sidecar: bool, without: Sequence[str]) -> list[Card]:
    """Return every card that makes sense for the subject, but those of the kinds in *without*."""
    found = []
    for kind in KINDS:
        if sidecar or not kind.sidecar_only:
            found += [Card(kind, role) for role in (ROLES[:1] if kind.name in ACTIVE_ONLY else ROLES)]
    for one in store:
        if sidecar or not one.forgets:
            found += [Card(one, role) for role in (ROLES[:1] if one.forgets else STORE_ROLES)]
    if sidecar:
        found += [Card(order, "active") for order in ORDERS]
    return [card for card in found if card.name not in without]


class Deck:
    """Deals all cards in a random order, again and again."""

    def __init__(self, found: Sequence[Card], rng: random.Random) -> None:
        self._all = list(found)
        self._random = rng
        self._left: list[Card] = []
        self._again: list[Card] = []

    def deal(self) -> Card:
        """Return the next card."""
        if not self._left:
            self._left = self._random.sample(self._all, len(self._all))
            self._again = []
        return self._left.pop()

    def put_back(self, card: Card) -> None:
        """Deal it once more before the deck begins anew: its moment was missed."""
        if card not in self._again:
            self._again.append(card)
            self._left.insert(0, card)

    def another(self, role: str) -> Card:
        """Return any fault of a node in *role*, to come on top of one; it stays in the deck."""
        found = [card for card in self._all if card.role == role and isinstance(card.kind, Kind)]
        return self._random.choice(found)
