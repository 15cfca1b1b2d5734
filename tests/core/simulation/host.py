"""One node's clock, guard and server tree. The guard's rules are those of `sidecar.guard.terms`."""

from collections.abc import Callable

from sidecar.core.model import Role
from sidecar.core.state import Policy, StartServer
from sidecar.core.units import Epoch, Instant
from sidecar.guard.terms import Terms
from tests.core.simulation.loop import Event, Loop

KILL_TAKES_MS = 50


class Clock:
    """CLOCK_BOOTTIME of one host: an origin of its own, a rate within 1 % of the store's."""

    def __init__(self, loop: Loop, origin: int, rate_permille: int) -> None:
        self.loop, self.origin, self.rate = loop, origin, rate_permille

    def now(self) -> Instant:
        return Instant(self.origin + self.loop.now * self.rate // 1000)

    def true(self, instant: int) -> int:
        """Return when this clock will show *instant*, in simulated time."""
        return -(-(instant - self.origin) * 1000 // self.rate)

    def after(self, delay_ms: int, event: Event) -> None:
        self.loop.at(self.true(self.now() + delay_ms), event)


class Tree:
    """A server and all its children; behaves as it was told at the start."""

    def __init__(self, role: Role, epoch: Epoch, terms: Terms) -> None:
        self.role, self.epoch, self.terms = role, epoch, terms
        self.dead = False
        self.dying = False
        self.ready = False
        self.stopping = False
        self.sick = False
        self.deaf = False
        self.activated_at: int | None = None
        self.stop_ms = 50

    def __str__(self) -> str:
        return f"{self.role} server of epoch {self.epoch}"


class Guard:
    def __init__(self, host: "Host", instance: str) -> None:
        self.host, self.instance = host, instance
        self.alive = True
        self.frozen_until = 0
        self.tree: Tree | None = None
        self._orders: list[Event] = []

    @property
    def frozen(self) -> bool:
        return self.host.loop.now < self.frozen_until

    @property
    def busy(self) -> bool:
        """Tell whether it has orders that it has not read yet."""
        return bool(self._orders)

    def freeze(self, until: int) -> None:
        self.frozen_until = max(until, self.frozen_until)
        self.host.loop.at(self.frozen_until, self.thaw)

    def order(self, order: Event) -> None:
        if not self.alive:
            return
        if self.frozen or self._orders:
            self._orders.append(order)
        else:
            order()

    def thaw(self) -> None:
        while self.alive and not self.frozen and self._orders:
            self._orders.pop(0)()
        self._watch_deadline()

    def start(self, order: StartServer, margin_ms: int, started: Callable[[Tree | None], None]) -> None:
        """Start a tree, or tell that there is none: the instant of its kill has come already."""
        host = self.host
        terms = Terms(order.deadline, margin_ms)
        if self.tree is not None and not self.tree.dead:
            raise host.violation(f"ordered {order} while the {self.tree} lives")
        if terms.too_late(host.clock.now()):
            host.loop.counts["start refused by the guard"] += 1
            started(None)
            return
        self.tree = Tree(order.role, order.epoch, terms)
        host.server_started(self.tree)
        started(self.tree)
        self._watch_deadline()
        self._watch_kernel(self.tree)

    def extend(self, tree: Tree, deadline: Instant) -> None:
        if tree is self.tree and not tree.dead and not tree.terms.too_late(self.host.clock.now()):
            tree.terms.extend(deadline)

    def stop(self, tree: Tree, kill_at: Instant) -> None:
        if tree.dead:
            return
        tree.terms.stop(kill_at)
        if not tree.stopping and not tree.deaf:
            self.host.loop.after(tree.stop_ms, lambda: self.host.server_died(tree))
        tree.stopping = True
        self._watch_deadline()

    def kill(self, tree: Tree) -> None:
        if not tree.dying:
            tree.dying = True
            takes = self.host.loop.random.randint(0, KILL_TAKES_MS)
            self.host.loop.after(takes, lambda: self.host.server_died(tree))

    def die(self) -> None:
        """However the guard ends, the kernel ends its tree (PDEATHSIG of the keeper)."""
        self.alive = False
        self._orders.clear()
        if self.tree is not None:
            self.kill(self.tree)
        self.host.on_guard_died(self.host, self)

    def _watch_deadline(self) -> None:
        tree, clock = self.tree, self.host.clock
        if tree is None or tree.dead or not self.alive or self.frozen:
            return
        if tree.terms.too_late(clock.now()):
            if not tree.dying:
                self.host.loop.counts["killed by the guard"] += 1
                if not tree.stopping:
                    self.host.on_deadline(self.host, tree)
            self.kill(tree)
        else:
            self.host.loop.at(clock.true(tree.terms.kill_ms), self._watch_deadline)

    def _watch_kernel(self, tree: Tree) -> None:
        if tree.dead or (tree.dying and not self.alive):
            return
        if self.host.clock.now() >= tree.terms.kernel_ms:
            self.host.loop.counts["killed by the kernel"] += 1
            self.host.loop.tell(self.host.name, "kernel timer kills the guard")
            self.die()
        else:
            self.host.loop.at(self.host.clock.true(tree.terms.kernel_ms), lambda: self._watch_kernel(tree))


class Host:
    """What outlives the sidecar of a node: clock, disk, guard, server tree, network cable."""

    def __init__(self, loop: Loop, name: str, clock: Clock, policy: Policy) -> None:
        self.loop, self.name, self.clock, self.policy = loop, name, clock, policy
        self.mark = Epoch(0)  # on disk
        self.guard: Guard | None = None
        self.cut_until = 0
        self.instances = 0
        self.trees: list[Tree] = []  # alive
        self.healthy = False  # True: servers behave
        self.on_started: Callable[[Host, Tree], None] = lambda _h, _t: None
        self.on_died: Callable[[Host, Tree], None] = lambda _h, _t: None
        self.on_ready: Callable[[Host, Tree], None] = lambda _h, _t: None
        self.on_guard_died: Callable[[Host, Guard], None] = lambda _h, _g: None
        self.on_deadline: Callable[[Host, Tree], None] = lambda _h, _t: None
        self.on_activated: Callable[[Host, Tree], None] = lambda _h, _t: None
        self.violation: Callable[[str], Exception] = RuntimeError

    @property
    def cut(self) -> bool:
        return self.loop.now < self.cut_until

    def new_guard(self, instance: str | None = None) -> Guard:
        if instance is None:
            self.instances += 1
            instance = f"{self.name}/{self.instances}"
        self.guard = Guard(self, instance)
        return self.guard

    def server_started(self, tree: Tree) -> None:
        random = self.loop.random
        self.trees.append(tree)
        self.loop.tell(self.name, f"START {tree}, deadline {tree.terms.deadline_ms}")
        self.on_started(self, tree)
        ready_ms = random.randint(20, 300)
        tree.stop_ms = random.randint(5, 120)
        if not self.healthy:
            luck = random.random()
            if luck < 0.05:
                ready_ms = random.randint(300, self.policy.start_timeout_ms * 3 // 2)
            elif luck < 0.10:
                self.loop.after(random.randint(0, 2_000), lambda: self.server_died(tree))
            if self.loop.chance(0.15):
                tree.stop_ms = random.randint(0, self.policy.stop_timeout_ms * 3 // 2)
            tree.deaf = self.loop.chance(0.1)
            if tree.role == "standby" and self.loop.chance(0.05):
                self.loop.after(random.randint(0, self.policy.ttl_ms * 4), lambda: self._activate(tree))
        self.loop.after(ready_ms, lambda: self._ready(tree))

    def server_died(self, tree: Tree) -> None:
        if not tree.dead:
            tree.dead = True
            self.trees.remove(tree)
            self.loop.tell(self.name, f"DEAD {tree}")
            self.on_died(self, tree)

    def _ready(self, tree: Tree) -> None:
        if not tree.dead and not tree.stopping:
            tree.ready = True
            self.on_ready(self, tree)

    def _activate(self, tree: Tree) -> None:
        if not tree.dead:
            self.loop.counts["standby activated itself"] += 1
            tree.activated_at = self.loop.now
            self.loop.tell(self.name, "standby server ACTIVATES ITSELF")
            self.on_activated(self, tree)
