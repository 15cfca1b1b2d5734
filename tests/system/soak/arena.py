"""One cluster under fire.

A round: bring somebody into the role, throw the fault (now and then a second one on top), prove that it was
there, heal, wait until somebody is active and every node stands by. Restarting a sidecar that has ended is
systemd's work, and done here as systemd does it.
"""

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from sidecar.clock import wall_ms
from sidecar.demo.cluster import FRESH_NS, Cluster
from sidecar.standin import clear_faults, set_faults, witness
from sidecar.standin.record import CLOSE
from tests.system.soak.deck import Card, Deck
from tests.system.soak.faults import Kind, NotInjected, Site
from tests.system.soak.nodes import Place, pause
from tests.system.soak.operators import RAISE, Operator, Order
from tests.system.soak.report import Findings, Outcome
from tests.system.soak.stores import Store, StoreKind

POLL_S = 0.01
STOP_WITHIN_S = 15
TEND_EVERY_S = 0.3
ROLE_WITHIN_S = 10.0
SLOW_STOP_MS = 450
"""How long a server takes to stop: long enough to strike meanwhile, shorter than stop_grace (0.3 × ttl)."""
HOLD = (1.05, 3.0)
"""How long a lasting fault lasts, in leases: etcd may take one of 2 s a second longer to expire."""
REST = 2.0
"""How long a peer may take, in leases, to end what should not run; then somebody ends all of it."""
BESIDE = 0.15
"""How much longer, then: the witness has to see what is active meanwhile."""
SNAPSHOT = 0.1
"""How often a round begins with a snapshot of the store, which a later one goes back to."""


CRASHES = (b"Traceback (most recent call last)", b"internal_error", b"internal error")


def crashes(said: Path) -> int:
    """Return in how many lines of *said* our programs tell of a fault of their own."""
    if not said.exists():
        return 0
    return sum(any(word in line for word in CRASHES) for line in said.read_bytes().splitlines())


@dataclass
class Arena:
    """The cluster, its store, its deck, and what has been found."""

    cluster: Cluster
    places: list[Place]
    store: Store
    deck: Deck
    operator: Operator | None  # None: a peer, which has no commands
    findings: Findings
    random: random.Random
    lease_ms: int
    monitoring: bool  # a standby runs a server

    @property
    def bound_s(self) -> float:
        return sum(term.ms for term in self.findings.bound) / 1000

    # -- what is going on -------------------------------------------------------------------------

    def serving(self, since_ns: int = 0) -> str | None:
        """Return whose server wrote the witness's last line, if that was just now, and after *since_ns*."""
        last = witness.last(self.cluster.witness)
        if last is None or last.kind == CLOSE or witness.now_ns() - last.at_ns > FRESH_NS:
            return None
        if last.at_ns <= since_ns:  # of a server that may be dead
            return None
        return last.node

    def begin(self) -> None:
        """Start everything, and wait until it is as it should be."""
        for place in self.places:
            place.start()
        self.settle()
        self.store.snapshot()

    def settle(self) -> int:
        """Wait until somebody is active and all others stand by; return how long the first took, in ms.

        Raises:
            TimeoutError: They do not; says who.
        """
        begun, since_ns = time.monotonic(), witness.now_ns()
        self._wait(lambda: self.serving(since_ns) is not None, "nobody is active")
        returned_ms = int((time.monotonic() - begun) * 1000)
        if self.operator is not None:
            self._wait(self._all_up, "a node does not come back")
        elif not self._comes_to_rest():
            self.findings.resets += 1
            for place in self.places:
                place.node.clean_up()
            since_ns = witness.now_ns()
            self._wait(lambda: self.serving(since_ns) is not None, "nobody is active after all was ended")
        return returned_ms

    def _comes_to_rest(self) -> bool:
        """Wait for a peer to have one active and no other; tell whether it gets there by itself."""
        until = time.monotonic() + self.lease_ms / 1000 * REST
        while not self._all_up():
            if time.monotonic() >= until:
                return False
            pause(POLL_S * 10)
        return True

    def _all_up(self) -> bool:
        serving = self.serving()
        waiting = ("standing",) if self.monitoring else ("standing", "idle")
        return serving is not None and all(
            not place.node.ended()
            and place.node.phase() in (("serving", "starting") if place.name == serving else waiting)
            for place in self.places
        )

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        until, tend_at = time.monotonic() + self.bound_s, 0.0
        while not condition():
            now = time.monotonic()
            if now >= tend_at:
                self._tend()
                tend_at = now + TEND_EVERY_S
            if now >= until:
                phases = {place.name: place.node.phase() for place in self.places}
                raise TimeoutError(f"{what} {self.bound_s:.1f} s after healing: {phases}")
            pause(POLL_S)

    def _tend(self) -> None:
        """Start again what has ended, as systemd would."""
        for place in self.places:
            if place.node.ended():
                self._note_end(place)
                place.start()

    def _note_end(self, place: Place) -> None:
        if place.node.process is not None:
            self.findings.ends[str(place.node.process.returncode)] += 1

    # -- a round ----------------------------------------------------------------------------------

    def round(self) -> bool:
        """Play one card, or two; what comes of it is in `findings`. False: there was no card left."""
        if self.random.random() < SNAPSHOT:
            self.store.snapshot()
        from_ns = witness.now_ns()
        card = self.deck.deal()
        if card is None:
            return False
        played: list[tuple[Card, str | None]] = []
        forgets = isinstance(card.kind, StoreKind) and card.kind.forgets
        with ExitStack() as stack:
            missed = self._throw(card, stack, played)
            if missed is None and not forgets and self.deck.surprise():
                self._throw_another(stack, played)
            if missed is None:
                self._hold(card)
            for node in self.places:  # a slow or frozen stop is over now
                clear_faults(node.node.home)
        self._heal()
        self.note("healed")
        try:
            returned_ms: int | None = self._return(forgets=forgets)
            self.note(f"active again after {returned_ms} ms")
        except TimeoutError as error:
            returned_ms = None
            names = " with ".join(f"{one.name} / {one.role}" for one, _ in played)
            self.findings.stuck.append(f"after {names}: {error}")
            self.note(f"stuck: {error}")
        until_ns = witness.now_ns()
        if played[0][1] is not None:
            self.deck.put_back(card)
        for one, why in played:
            alone = len(played) == 1
            outcome = Outcome(one.name, one.role, from_ns, until_ns, returned_ms, why, alone)
            self.findings.outcomes.append(outcome)
        return True

    def _throw(self, card: Card, stack: ExitStack, played: list[tuple[Card, str | None]]) -> str | None:
        """Bring the role about and throw the fault; return why it does not count, None where it does."""
        number = len(played)
        played.append((card, "not reached"))
        try:
            place = self._bring_about(card)
            stack.enter_context(self._noting(card, place, number, played))
        except NotInjected as why:
            played[number] = (card, str(why))
            return str(why)
        return None

    @contextlib.contextmanager
    def _noting(
        self, card: Card, place: Place, number: int, played: list[tuple[Card, str | None]]
    ) -> Iterator[None]:
        """Hold the fault; note at its end whether it was proven."""
        try:
            with self._fault(card, place):
                if isinstance(card.kind, Kind):
                    self._still(card.role, place)
                played[number] = (card, None)
                self.note(f"{card.name} / {card.role}: {place.name}")
                yield
        except NotInjected as why:
            if played[number][1] is not None:
                raise
            played[number] = (card, str(why))

    def note(self, what: str) -> None:
        """Write down what the harness does and when, beside the nodes' logs."""
        with (self.cluster.folder / "rounds.log").open("a") as log:
            log.write(f"{wall_ms()} {what}\n")

    def _fault(self, card: Card, place: Place) -> AbstractContextManager[None]:
        match card.kind:
            case Kind(fault=fault):
                return fault(Site(place, self.random))
            case StoreKind(fault=strike):
                return strike()
            case order:
                return self._ordered(order)

    @contextlib.contextmanager
    def _ordered(self, order: Order) -> Iterator[None]:
        assert self.operator is not None
        command = order.give(self.operator)
        yield
        self.operator.await_all()
        status = None if command is None else command.returncode
        if order.undo and self.operator.do(*order.undo) != 0:
            self._wait(
                lambda: self.operator is not None and self.operator.do(*order.undo) == 0, order.undo[0]
            )
        if status:
            raise NotInjected(f"the command ended with {status}")

    def _throw_another(self, stack: ExitStack, played: list[tuple[Card, str | None]]) -> None:
        """Throw a second fault at whoever is there, in whatever role that is."""
        place = self.random.choice(self.places)
        role = "active" if place.name == self.serving() else "standby"
        card = self.deck.another(role)
        if card is None:
            return
        number = len(played)
        played.append((card, "not reached"))
        try:
            stack.enter_context(self._noting(card, place, number, played))
        except NotInjected as why:
            played[number] = (card, str(why))

    def _hold(self, card: Card) -> None:
        """Let the fault last: a moment, or longer than a lease, mostly until another one is active.

        What was stopped or cut off then wakes up beside its successor: that is when two could be active.
        """
        lasting = card.kind.lasting if isinstance(card.kind, Kind) else not isinstance(card.kind, Order)
        lease_s = self.lease_ms / 1000
        if not lasting:
            pause(lease_s * self.random.uniform(0.0, 0.3))
            return
        until = time.monotonic() + lease_s * self.random.uniform(*HOLD)
        before = self.serving()
        pause(lease_s * HOLD[0])
        while time.monotonic() < until and self.serving() in (None, before):
            pause(POLL_S)
        pause(lease_s * BESIDE)

    # -- roles ------------------------------------------------------------------------------------

    def _bring_about(self, card: Card) -> Place:
        """Return a node that is in the card's role at this instant.

        Raises:
            NotInjected: None got there.
        """
        parts = card.kind.parts if isinstance(card.kind, Kind) else ()
        active = self._place(self.serving())
        match card.role:
            case "active":
                return active
            case "standby":
                return self.random.choice([place for place in self.places if place is not active])
            case "candidate":
                self._unseat(active, slowly=False)
                return self._await_role(lambda: self._candidate(active, parts))
            case _:
                self._unseat(active, slowly=True)
                return self._await_role(lambda: active if self._stopping(active) else None)

    def _place(self, name: str | None) -> Place:
        for place in self.places:
            if place.name == name:
                return place
        raise NotInjected("nobody is active")

    def _unseat(self, active: Place, *, slowly: bool) -> None:
        """Make the active give up in order, so that another one is promoted."""
        if slowly:
            set_faults(active.node.home, slow_stop_ms=SLOW_STOP_MS)
            pause(0.1)  # five ticks, at each of which it looks for its faults
        if self.operator is not None and self.random.random() < 0.3:
            self.operator.begin("switchover", "--yes")
        else:
            active.node.terminate_main()

    def _candidate(self, old: Place, parts: tuple[str, ...]) -> Place | None:
        for place in self.places:
            if place is old or place.node.phase() not in ("promoting", "starting"):
                continue
            if place.name != self.serving() and all(place.node.part(part) for part in parts):
                return place
        return None

    def _stopping(self, place: Place) -> bool:
        return place.node.stopping()

    def _await_role(self, found: Callable[[], Place | None]) -> Place:
        until = time.monotonic() + ROLE_WITHIN_S
        while time.monotonic() < until:
            if (place := found()) is not None:
                return place
            pause(POLL_S / 2)
        raise NotInjected("the role did not come about")

    def _still(self, role: str, place: Place) -> None:
        """Raise NotInjected where the moment had passed before the fault was there."""
        if role == "candidate" and self.serving() == place.name:
            raise NotInjected("it was active before the fault came")
        if role == "stopping" and place.node.phase() in ("idle", "standing", "serving"):
            raise NotInjected("it had stopped before the fault came")

    # -- healing ----------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.store.heal()
        for place in self.places:
            place.cell.port.heal()
            place.node.thaw_all()
            clear_faults(place.node.home)
        self._tend()

    def _return(self, *, forgets: bool) -> int:
        """Wait for an active; where the store has forgotten epochs, the operator raises them meanwhile."""
        begun = time.monotonic()
        until = begun + self.bound_s
        while forgets and self.operator is not None and time.monotonic() < until:
            if self._all_up():
                break
            self._tend()
            if self.operator.do(*RAISE) != 0:
                pause(TEND_EVERY_S)
        self.settle_commands()
        waited_ms = int((time.monotonic() - begun) * 1000) if forgets else 0
        return waited_ms + self.settle()

    def settle_commands(self) -> None:
        """Wait for the commands that were begun, so that none reaches into the next round."""
        if self.operator is not None:
            self.operator.await_all()
            self.findings.stuck += self.operator.stuck
            self.operator.stuck.clear()
            self.findings.commands = self.operator.ended

    # -- the end ----------------------------------------------------------------------------------

    def judge(self) -> None:
        """Ask the witness about everything so far, and whether anything of ours has crashed."""
        said = [place.node.log for place in self.places]
        said += [self.operator.said] if self.operator is not None else []
        for path in said:
            self.findings.crashes[str(path)] = crashes(path)
        self.findings.judge(self.cluster.witness, epochs=self.operator is not None)

    def stop(self) -> None:
        """End every node."""
        if self.operator is not None:
            self.operator.await_all()
        for place in self.places:
            place.cell.port.heal()
            place.node.thaw_all()
            place.node.terminate_main()
        for place in self.places:
            if place.node.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    place.node.process.wait(STOP_WITHIN_S)
            place.node.clean_up()
            if self.operator is None and place.memory is not None:
                place.memory.kill()  # what a peer has left behind, unseen by anybody

    def close(self) -> None:
        """End the store, and give back what the nodes lived in."""
        self.store.close()
        for place in self.places:
            place.cell.close()
            if place.memory is not None:
                place.memory.remove()
