"""Which fault meets which role, in an order that the seed decides.

Every card is dealt once before any comes again, so a run of as many faults as there are cards has covered
all of them. What a machine lacks (a JVM, a compiler, memory cgroups) is named in the report.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.system.soak.faults import KINDS, Kind
from tests.system.soak.operators import ORDERS, Order
from tests.system.soak.stores import StoreKind

ROLES = ("active", "standby", "candidate", "stopping")
"""The third is in the middle of its promotion, the fourth holds the lock and is stopping its server."""
SECOND = 0.25
"""How often a second fault comes on top."""
TRIES_MAX = 3
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


def cards(
    store: Sequence[StoreKind], *, sidecar: bool, monitoring: bool, without: Sequence[str]
) -> list[Card]:
    """Return every card that makes sense for the subject, but those of the kinds in *without*.

    *monitoring*: a standby runs a server, which can be struck.
    """
    found = []
    for kind in KINDS:
        if sidecar or not kind.sidecar_only:
            found += [Card(kind, role) for role in (ROLES[:1] if kind.name in ACTIVE_ONLY else ROLES)]
    for one in store:
        if sidecar or not one.forgets:
            found += [Card(one, role) for role in (ROLES[:1] if one.forgets else STORE_ROLES)]
    if sidecar:
        found += [Card(order, "active") for order in ORDERS]
    return [card for card in found if card.name not in without and (monitoring or not _absent(card))]


def _absent(card: Card) -> bool:
    """Tell whether the card needs a server where a standby has none."""
    return isinstance(card.kind, Kind) and card.role == "standby" and "server" in card.kind.parts


def share(decks: Sequence["Deck"]) -> None:
    """Let each kind be played by one deck alone, the one with the least to do."""
    mine: list[set[str]] = [set() for _ in decks]
    every = sorted(set().union(*(deck.kinds for deck in decks)), key=lambda name: _holders(name, decks))
    for name in every:
        able = [number for number, deck in enumerate(decks) if name in deck.kinds]
        mine[min(able, key=lambda number: len(mine[number]))].add(name)
    for deck, kinds in zip(decks, mine, strict=True):
        deck.keep(kinds)


def _holders(name: str, decks: Sequence["Deck"]) -> tuple[int, str]:
    """Those that few can play come first."""
    return sum(name in deck.kinds for deck in decks), name


class Deck:
    """Deals all cards in a random order, again and again; with *once*, one card of each kind, once."""

    def __init__(self, found: Sequence[Card], rng: random.Random, *, once: bool = False) -> None:
        self._all = list(found)
        self._random, self._once = rng, once
        self._left: list[Card] = self._shuffled()
        self._again: Counter[Card] = Counter()
        if once:
            self._left = list({card.name: card for card in self._left}.values())

    @property
    def kinds(self) -> set[str]:
        """The names of the kinds that are still to come."""
        return {card.name for card in self._left}

    def keep(self, kinds: set[str]) -> None:
        """Forget every other card: another cluster plays those."""
        self._left = [card for card in self._left if card.name in kinds]

    def deal(self) -> Card | None:
        """Return the next card; None: there is none any more."""
        if not self._left and not self._once:
            self._left = self._shuffled()
            self._again.clear()
        return self._left.pop() if self._left else None

    def _shuffled(self) -> list[Card]:
        return self._random.sample(self._all, len(self._all))

    def put_back(self, card: Card) -> None:
        """Deal it again before the deck begins anew: its moment was missed."""
        if self._again[card] < TRIES_MAX - 1:
            self._again[card] += 1
            self._left.insert(0, card)

    def surprise(self) -> bool:
        """Tell whether a second fault comes on top of the next one."""
        return not self._once and self._random.random() < SECOND

    def another(self, role: str) -> Card | None:
        """Return any fault of a node in *role*, to come on top of one; it stays in the deck."""
        found = [card for card in self._all if card.role == role and isinstance(card.kind, Kind)]
        return self._random.choice(found) if found else None
