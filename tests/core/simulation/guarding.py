"""The sidecar's client of a simulated guard: the orders and events of `sidecar.guard.client`."""

from collections.abc import Callable

from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import events as g
from tests.core.simulation.host import KILL_TAKES_MS, Guard, Tree
from tests.core.simulation.loop import Event
from tests.core.simulation.node import Node
from tests.core.simulation.threads import SimpleQueue, Thread, current

STOPPED_GUARD_MS = 2_000  # a guard that does not answer for so long is killed, and with it its server
ATTACH_WITHIN_MS = 10_000
LOOK_MS = 20


class GuardClient:
    """Every run that was begun ends in one `Exited` or `StartFailed`, whatever becomes of the guard."""

    enforcement: g.Enforcement = "kernel"

    def __init__(self, process: Node, on_event: Callable[[g.GuardEvent], None]) -> None:
        self.process, self.host, self.loop = process, process.host, process.loop
        self._on_event = on_event
        self._events: SimpleQueue[g.GuardEvent | None] = SimpleQueue()
        self._begun: str | None = None
        self._order_at = 0  # the socket keeps the order
        self._closed = False
        self.adopted: g.AdoptedRun | None = None
        self.guard = self._take_control()
        process.guard_client = self
        tree = self.guard.tree
        if tree is not None and not tree.dead:
            self._begun = tree.name
            self.adopted = _adopted(tree)
            self.loop.counts[f"adopted {tree.role}"] += 1
            self.loop.tell(self.host.name, f"ADOPTS {tree}")
        Thread(self._follow).start()

    @classmethod
    def attach_or_spawn(
        cls, run_dir: object, enforcement: object, on_event: Callable[[g.GuardEvent], None]
    ) -> "GuardClient":
        process = current().process
        assert isinstance(process, Node)
        return cls(process, on_event)

    def _attach(self) -> Guard:
        host, strand = self.host, current()
        began = self.loop.now
        guard = host.guard
        while guard is not None and guard.alive and (guard.frozen or guard.busy):
            if self.loop.now >= began + STOPPED_GUARD_MS:
                self.loop.counts["guard killed, not answering"] += 1
                guard.die()
            strand.wait(LOOK_MS)
        if guard is not None and guard.alive:
            return guard
        while host.trees:
            if self.loop.now >= began + ATTACH_WITHIN_MS:
                raise GuardError("an earlier server is not proven dead")
            strand.wait(LOOK_MS)
        return host.new_guard()

    def _take_control(self) -> Guard:
        guard = self._attach()
        guard.controller = self
        return guard

    def respawn(self) -> None:
        self.guard = self._take_control()

    # what the guard tells

    def _follow(self) -> None:
        while (event := self._events.get()) is not None:
            self._on_event(event)

    def _tell(self, event: g.GuardEvent) -> None:
        if self.process.alive and not self._closed:
            self._events.put(event)

    def tree_gone(self, tree: Tree) -> None:
        """The keeper's pidfd is readable: a proof that needs no guard."""
        delay_ms = self.loop.random.randint(0, 5)
        self.loop.after(delay_ms, lambda: self._ended(tree.name, 1, None))

    def guard_gone(self, guard: Guard) -> None:
        """A start that was not answered by a guard that is dead has not happened: the proof is the same."""
        if guard is self.guard:
            begun = self._begun
            self._tell(g.GuardLost("the guard is dead"))
            if begun is not None:
                self.loop.after(KILL_TAKES_MS + 1, lambda: self._ended(begun, None, "guard"))

    def _ended(self, name: str, status: int | None, by: g.KilledBy | None) -> None:
        if name == self._begun:
            self._begun = None
            self._tell(g.Exited(name, status, by))

    # orders

    def _post(self, order: Event) -> None:
        if not self.process.alive:
            return
        random, guard = self.loop.random, self.guard
        delay_ms = 0 if random.random() < 0.8 else random.randint(1, 30)
        self._order_at = max(self._order_at, self.loop.now + delay_ms)

        def send() -> None:
            sent = self.process.alive or self.process.exited is not None  # not by one that was killed
            if sent and guard.controller is self:  # nobody who was superseded is obeyed
                guard.order(order)

        self.loop.at(self._order_at, send)

    def start(self, order: g.StartOrder) -> None:
        if self._begun is not None:
            raise GuardError(f"run {self._begun} is not over")
        self._begun = order.run
        guard = self.guard
        if not guard.alive:
            self.loop.after(1, lambda: self._failed(order.run, "the guard is gone"))
            return

        def do() -> None:
            tree = guard.start(order)
            if tree is None:
                self._failed(order.run, "refused by the guard: too late")
            else:
                self._tell(g.Started(order.run, tree.pid))

        self._post(do)

    def _failed(self, name: str, reason: str) -> None:
        if name == self._begun:
            self._begun = None
            self._tell(g.StartFailed(name, reason))

    def _with(self, name: str, order: Callable[[Tree], None]) -> None:
        guard = self.guard

        def do() -> None:
            if guard.tree is not None and guard.tree.name == name:
                order(guard.tree)

        self._post(do)

    def extend(self, run: str, deadline_at: Instant, note: object = None) -> None:
        def do(tree: Tree) -> None:
            if not self.guard.extend(tree, deadline_at, note):
                self._tell(g.OrderRefused(run, "extend", "too late"))

        self._with(run, do)

    def note(self, run: str, note: object) -> None:
        def do(tree: Tree) -> None:
            tree.note = note

        self._with(run, do)

    def stop(self, run: str, kill_at: Instant) -> None:
        self._with(run, lambda tree: self.guard.stop(tree, kill_at))

    def kill(self, run: str) -> None:
        self._with(run, self.guard.kill)

    def shutdown(self) -> None:
        guard = self.guard

        def do() -> None:
            if guard.tree is None or guard.tree.dead:
                guard.die()

        self._post(do)

    def close(self) -> None:
        self._closed = True
        self._events.put(None)


def _adopted(tree: Tree) -> g.AdoptedRun:
    return g.AdoptedRun(
        run=tree.name,
        role=tree.role,
        epoch=tree.epoch,
        deadline_at=Instant(tree.terms.deadline_ms),
        started_at=tree.started_at,
        server_pid=tree.pid,
        keeper_pid=1,
        note=tree.note,
        stopping=tree.stopping or tree.dying,
    )
