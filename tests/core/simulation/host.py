"""One node's guard and server tree. The guard's rules are those of `sidecar.guard.terms`."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from sidecar.core.state import Mark
from sidecar.core.units import Epoch, Instant
from sidecar.guard.events import StartOrder
from sidecar.guard.terms import Terms
from tests.core.simulation.clock import Clock
from tests.core.simulation.loop import Event, Loop

KILL_TAKES_MS = 50
STUCK, STUCK_MAX_MS = 0.05, 8_000  # share of kills that last, until the guard's own end at the most


class Times(NamedTuple):
    """How long the servers of a host are given, in ms."""

    start_timeout_ms: int
    stop_timeout_ms: int
    ttl_ms: int


class Tree:
    """A server and all its children; behaves as it was told at the start."""

    def __init__(self, order: StartOrder, now: Instant, pid: int) -> None:
        self.name, self.note, self.started_at, self.pid = order.run, order.note, now, pid
        self.role: Literal["active", "standby"] = "active" if order.role == "active" else "standby"
        self.epoch: Epoch = order.epoch
        self.terms = Terms(order.deadline_at, order.kill_margin_ms)
        self.dead = False
        self.dying = False
        self.ready = False
        self.stopping = False
        self.sick = False
        self.deaf = False
        self.suspended = False  # with its host: it exists, and does nothing
        self.activated_at: int | None = None
        self.stop_ms = 50

    def __str__(self) -> str:
        return f"{self.role} server" + (f" of epoch {self.epoch}" if self.epoch else "")


class Guard:
    def __init__(self, host: "Host") -> None:
        self.host = host
        self.alive = True
        self.frozen_until = 0
        self.tree: Tree | None = None
        self.controller: object = None  # the client whose orders are obeyed
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

    def start(self, order: StartOrder) -> Tree | None:
        """Start a tree, or return None: the instant of its kill has come already."""
        host = self.host
        if self.tree is not None and not self.tree.dead:
            raise host.violation(f"ordered {order.role} of {order.epoch} while the {self.tree} lives")
        host.pids += 1
        tree = Tree(order, host.clock.now(), host.pids)
        if tree.terms.too_late(host.clock.now()):
            host.loop.counts["start refused by the guard"] += 1
            return None
        self.tree = tree
        host.server_started(tree)
        self._watch_deadline()
        self._watch_kernel(tree)
        return tree

    def extend(self, tree: Tree, deadline: Instant, note: object) -> bool:
        if tree is not self.tree or tree.dead or tree.dying or tree.terms.too_late(self.host.clock.now()):
            return False
        tree.terms.extend(deadline)
        tree.note = note if note is not None else tree.note
        return True

    def stop(self, tree: Tree, kill_at: Instant) -> None:
        if tree.dead:
            return
        tree.terms.stop(kill_at)
        if not tree.stopping and not tree.deaf:
            self.host.loop.after(tree.stop_ms, lambda: self.host.server_died(tree))
        tree.stopping = True
        self._watch_deadline()

    def kill(self, tree: Tree) -> None:
        """Kill it; where the disk hangs a process may take its time to die."""
        if not tree.dying:
            loop = self.host.loop
            stuck = not self.host.healthy and loop.chance(STUCK)
            loop.counts["killed, and slow to die"] += stuck
            self._end(tree, *((1_000, STUCK_MAX_MS) if stuck else (0, KILL_TAKES_MS)))

    def _end(self, tree: Tree, least_ms: int, most_ms: int) -> None:
        tree.dying = True
        takes_ms = self.host.loop.random.randint(least_ms, most_ms)
        self.host.loop.after(takes_ms, lambda: self.host.server_died(tree))

    def die(self) -> None:
        """However the guard ends, the kernel ends its tree (PDEATHSIG of the keeper)."""
        if not self.alive:
            return
        self.alive = False
        self._orders.clear()
        if self.tree is not None and not self.tree.dead:
            self._end(self.tree, 0, KILL_TAKES_MS)
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
        host = self.host
        if tree.dead or (tree.dying and not self.alive):
            return
        if host.suspended:  # the timer counts on, and fires when the host wakes up
            host.loop.at(host.suspended_until, lambda: self._watch_kernel(tree))
        elif host.clock.now() >= tree.terms.kernel_ms:
            host.loop.counts["killed by the kernel"] += 1
            host.loop.tell(host.name, "the kernel's timer kills the guard")
            self.die()
        else:
            host.loop.at(host.clock.true(tree.terms.kernel_ms), lambda: self._watch_kernel(tree))


class Host:
    """What outlives the sidecar of a node: clock, disk, guard, server tree, network cable."""

    def __init__(self, loop: Loop, name: str, clock: Clock, times: Times) -> None:
        self.loop, self.name, self.clock, self.times = loop, name, clock, times
        self.mark = Mark()  # on disk
        self.guard: Guard | None = None
        self.cut_until = 0
        self.stale_until = 0  # its member of the store lags behind
        self.suspended_until = 0
        self.disk_slow_until = 0  # whoever writes to it hangs
        self.pids = 0
        self.hooks = False  # whether any are configured, and then all
        self.allowed: set[Epoch] = set()  # by ``before_active``, for one start
        self.uncleared: set[Epoch] = set()  # where ``after_stop`` has to run
        self.address = False  # what ``on_active`` puts up and two others take away
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

    @property
    def suspended(self) -> bool:
        return self.loop.now < self.suspended_until

    def new_guard(self) -> Guard:
        self.guard = Guard(self)
        return self.guard

    def suspend(self, until: int) -> None:
        """Let the whole host sleep. Its clock goes on, nothing on it runs, and its timers fire first."""
        self.suspended_until = until
        for tree in self.trees:
            tree.suspended = True
        self.loop.at(until, self._resume)

    def _resume(self) -> None:
        for tree in list(self.trees):
            tree.suspended = False
            if self.clock.now() >= tree.terms.kernel_ms:
                self.loop.counts["killed when its host woke up"] += 1
                if self.guard is not None:
                    self.guard.die()
                self.server_died(tree)

    def server_started(self, tree: Tree) -> None:
        random, times = self.loop.random, self.times
        self.trees.append(tree)
        self.loop.tell(self.name, f"SERVER STARTS: {tree}, deadline {tree.terms.deadline_ms}")
        self.on_started(self, tree)
        ready_ms = random.randint(20, 300)
        tree.stop_ms = random.randint(5, 120)
        if not self.healthy:
            luck = random.random()
            if luck < 0.05:
                ready_ms = random.randint(300, times.start_timeout_ms * 3 // 2)
            elif luck < 0.10:
                self.loop.after(random.randint(0, 2_000), lambda: self.server_died(tree))
            if self.loop.chance(0.15):
                tree.stop_ms = random.randint(0, times.stop_timeout_ms * 3 // 2)
            tree.deaf = self.loop.chance(0.1)
            if tree.role == "standby" and self.loop.chance(0.05):
                self.loop.after(random.randint(0, times.ttl_ms * 4), lambda: self.activate(tree))
        self.loop.after(ready_ms, lambda: self._ready(tree))

    def server_died(self, tree: Tree) -> None:
        if tree.dead:
            return
        if tree.suspended:
            self.loop.at(self.suspended_until, lambda: self.server_died(tree))
            return
        tree.dead = True
        self.trees.remove(tree)
        self.loop.tell(self.name, f"SERVER IS DEAD: {tree}")
        self.on_died(self, tree)

    def _ready(self, tree: Tree) -> None:
        if tree.suspended:
            self.loop.at(self.suspended_until, lambda: self._ready(tree))
        elif not tree.dead and not tree.stopping:
            tree.ready = True
            self.on_ready(self, tree)

    def activate(self, tree: Tree) -> None:
        if not tree.dead and not tree.suspended:
            self.loop.counts["standby activated itself"] += 1
            tree.activated_at = self.loop.now
            self.loop.tell(self.name, "standby server ACTIVATES ITSELF")
            self.on_activated(self, tree)
