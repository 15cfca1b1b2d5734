"""Nodes, a store and operators; faults for a while, then none, and what must have come of it."""

from collections.abc import Callable
from functools import partial

from sidecar.core import state as s
from sidecar.core.model import FINISHED
from sidecar.core.units import Epoch
from tests.core.simulation.checks import STEP_MS, Checks
from tests.core.simulation.host import Clock, Guard, Host, Tree
from tests.core.simulation.loop import Loop, Network, Violation
from tests.core.simulation.operators import Operators
from tests.core.simulation.shell import Shell
from tests.core.simulation.store import Content, Store

Fault = Callable[[Host], None]
FAULTS_TTLS = 14  # how long things go wrong
RATES_PERMILLE = (990, 995, 1000, 1005, 1010)


def policy_of(name: str, ttl_ms: int, *, standby: bool, priority: int, failback: bool) -> s.Policy:
    return s.Policy(
        node=name,
        instance="",
        ttl_ms=ttl_ms,
        renew_every_ms=ttl_ms // 5,
        request_timeout_ms=ttl_ms * 15 // 100,
        stop_grace_ms=ttl_ms * 3 // 10,
        kill_margin_ms=ttl_ms // 10,
        start_timeout_ms=ttl_ms,
        stop_timeout_ms=ttl_ms * 3 // 2,
        restart_attempts=2,
        restart_within_ms=ttl_ms * 10,
        backoff_ms=100,
        backoff_max_ms=1_500,
        priority=priority,
        failback=failback,
        standby="monitoring" if standby else "stopped",
    )


class World:
    def __init__(self, seed: int, *, harshness: float | None = None, faults: int | None = None) -> None:
        self.loop = loop = Loop(seed)
        random = loop.random
        self.ttl_ms = ttl_ms = random.choice((2_000, 3_000, 5_000))
        weather = random.choice((0, 0.3, 1, 2))
        self.network = Network(loop, ttl_ms, weather if harshness is None else harshness)
        self.mishaps = random.choice((0, 0.005, 0.02)) if faults is None else 0  # per order
        self.store = Store(loop, leases=random.random() < 0.6)
        standby, failback = random.random() < 0.5, random.random() < 0.15
        self.hosts = []
        for index in range(random.choice((2, 2, 3, 3, 4))):
            name = f"n{index + 1}"
            clock = Clock(loop, random.randint(0, 10**9), random.choice(RATES_PERMILLE))
            policy = policy_of(
                name, ttl_ms, standby=standby, priority=random.choice((50, 100, 100)), failback=failback
            )
            self.hosts.append(Host(loop, name, clock, policy))
        self.checks = Checks(loop, self.hosts)
        self.store.on_release = self.checks.released
        self.store.on_acquired = self.checks.acquired
        self.store.on_request = self.checks.request_written
        self.operators = Operators(loop, self.store, self.network, [host.name for host in self.hosts])
        self.shells: dict[str, Shell | None] = dict.fromkeys((host.name for host in self.hosts), None)
        self.snapshot = Content()
        self.faults = random.randint(2, 14) if faults is None else faults
        for host in self.hosts:
            host.on_died = self._server_died
            host.on_activated = self._activated
            host.on_guard_died = self._guard_died
            host.on_deadline = self._deadline
            host.on_ready = self._server_ready
            loop.after(random.randint(0, 300), partial(self.boot, host))

    # life of a sidecar

    def boot(self, host: Host) -> None:
        """Start the sidecar, unless it runs: systemd does. A dead guard's tree has to be dead first."""
        shell = self.shells[host.name]
        if shell is not None and shell.alive:
            return
        guard = host.guard
        if guard is not None and guard.alive and (guard.frozen or guard.busy):
            self.loop.at(max(guard.frozen_until, self.loop.now + 1), partial(self.boot, host))
        elif guard is not None and not guard.alive and host.trees:
            self.loop.after(20, partial(self.boot, host))
        else:
            self.loop.tell(host.name, "SIDECAR STARTS")
            shell = self.shells[host.name] = Shell(host, self.store, self.network)
            shell.checks, shell.mishap = self.checks.decided, self._mishap

    def _mishap(self, shell: Shell, order: s.Action) -> None:
        """Let something happen just before an order is carried out: the worst of moments."""
        if self.loop.chance(self.mishaps * (0.2 if isinstance(order, s.Renew) else 1)):
            faults: list[Fault] = [
                self._crash_sidecar,
                self._crash_both,
                self._crash_guard,
                self._freeze_sidecar,
            ]
            faults += [self._freeze_both, self._freeze_guard, self._cut, self._crash_server]
            faults += [self._failover, self._failover, self._switchover, self._stop_sidecar]
            if isinstance(order, s.Release | s.Acquire | s.Renew):
                faults += [self._crash_under_way] * 4
            fault = self.loop.random.choice(faults)
            self.loop.tell("fault", f"{fault.__name__.strip('_')} {shell.host.name} before {order}")
            self.loop.counts["mishaps"] += 1
            fault(shell.host)

    def _server_died(self, host: Host, tree: Tree) -> None:
        self._tell(host, lambda shell: shell.tree_gone(tree))

    def _deadline(self, host: Host, tree: Tree) -> None:
        self._tell(host, lambda shell: self.checks.killed_at_deadline(shell, tree))

    def _server_ready(self, host: Host, tree: Tree) -> None:
        self._tell(host, lambda shell: shell.tree_ready(tree))

    def _guard_died(self, host: Host, guard: Guard) -> None:
        self._tell(host, lambda shell: shell.guard_gone(guard))

    def _activated(self, host: Host, tree: Tree, visible_ms: int = 0) -> None:
        if not tree.dead:
            visible_ms = self.checks.activated(host, tree, self.shells[host.name], visible_ms)
            self.loop.after(STEP_MS, lambda: self._activated(host, tree, visible_ms))

    def _tell(self, host: Host, what: Callable[[Shell], None]) -> None:
        shell = self.shells[host.name]
        if shell is not None and shell.alive:
            what(shell)

    # what goes wrong

    def run(self) -> None:
        random, faults_ms = self.loop.random, FAULTS_TTLS * self.ttl_ms
        for _ in range(self.faults):
            self.loop.at(random.randint(self.ttl_ms // 2, faults_ms), self.break_something)
        for _ in range(2):
            self.loop.at(random.randint(0, faults_ms), self._take_snapshot)
        try:
            self.loop.run(faults_ms)
            self.heal()
        except AssertionError as error:
            if isinstance(error, Violation):
                raise
            raise self.checks.violation(f"the core asserts: {error}") from error

    def some_time(self) -> int:
        share = self.loop.random.choice((0.05, 0.2, 0.5, 0.7, 0.9, 1.0, 1.05, 1.3, 2.0, 3.0))
        return int(self.ttl_ms * share * self.loop.random.uniform(0.9, 1.1))

    def break_something(self) -> None:
        random = self.loop.random
        host = random.choice(self.hosts)
        lock = self.store.content.lock
        if lock is not None and lock.node and random.random() < 0.6:  # the active is the one that matters
            host = next(h for h in self.hosts if h.name == lock.node)
        fault = random.choice(self._faults())
        name = fault.__name__.strip("_")
        self.loop.tell("fault", f"{name} {host.name}")
        self.loop.counts[f"fault: {name}"] += 1
        fault(host)

    def _faults(self) -> list[Fault]:
        processes: list[Fault] = [
            self._freeze_sidecar,
            self._freeze_guard,
            self._freeze_both,
            self._crash_sidecar,
            self._crash_both,
            self._crash_guard,
            self._crash_server,
            self._crash_server,
            self._sick_server,
            self._stop_sidecar,
        ]
        outside: list[Fault] = [
            self._cut,
            self._cut,
            self._freeze_store,
            self._change_leader,
            self._replace_store,
        ]
        commands: list[Fault] = [
            self._switchover,
            self._switchover,
            self._failover,
            self._pause,
            self._restart,
        ]
        return processes + outside + commands

    def _freeze_sidecar(self, host: Host) -> None:
        until = self.loop.now + self.some_time()
        self._tell(host, lambda shell: shell.freeze(until))

    def _freeze_guard(self, host: Host) -> None:
        if host.guard is not None:
            host.guard.freeze(self.loop.now + self.some_time())

    def _freeze_both(self, host: Host) -> None:
        self._freeze_sidecar(host)
        self._freeze_guard(host)

    def _crash_sidecar(self, host: Host) -> None:
        self._tell(host, Shell.crash)
        again_ms = self.some_time() if self.loop.chance(0.3) else self.loop.random.randint(20, 1_500)
        self.loop.after(again_ms, partial(self.boot, host))

    def _crash_under_way(self, host: Host) -> None:
        """Crash just after a call was sent, be back at once, and only then let the store have it."""
        self.network.next_ms = self.loop.random.randint(150, self.ttl_ms)
        self.loop.after(1, lambda: self._tell(host, Shell.crash))
        self.loop.after(self.loop.random.randint(20, 120), partial(self.boot, host))

    def _crash_guard(self, host: Host) -> None:
        if host.guard is not None:
            host.guard.die()

    def _crash_both(self, host: Host) -> None:
        self._crash_sidecar(host)
        self._crash_guard(host)

    def _crash_server(self, host: Host) -> None:
        for tree in list(host.trees):
            host.server_died(tree)

    def _sick_server(self, host: Host) -> None:
        for tree in host.trees:
            tree.sick = True

    def _cut(self, host: Host) -> None:
        host.cut_until = max(host.cut_until, self.loop.now + self.some_time())

    def _freeze_store(self, _host: Host) -> None:
        self.store.frozen_until = max(self.store.frozen_until, self.loop.now + self.some_time())

    def _change_leader(self, _host: Host) -> None:
        self.store.change_leader()

    def _replace_store(self, _host: Host) -> None:
        """Wipe or restore, once every node has seen the last epoch: before that nobody could know."""
        if all(host.mark >= self.store.content.epoch.epoch for host in self.hosts):
            content = self.snapshot if self.loop.chance(0.7) else Content()
            self.loop.counts["store restored" if content.epoch.epoch else "store wiped"] += 1
            self.store.replace_by(content)
            self.checks.store_replaced(content.request)
            self.operators.raise_epoch_later(self._highest_mark, self.ttl_ms, self.some_time())

    def _take_snapshot(self) -> None:
        self.snapshot = self.store.content

    def _highest_mark(self) -> Epoch:
        return max(host.mark for host in self.hosts)

    def _stop_sidecar(self, host: Host) -> None:
        keep = self.loop.chance(0.4)
        self.loop.after(0, lambda: self._tell(host, lambda shell: shell.observe(s.StopAsked(keep))))
        if self.loop.chance(0.3):
            self.loop.after(
                self.some_time(), lambda: self._tell(host, lambda shell: shell.observe(s.StopAsked(keep)))
            )
        self.loop.after(self.some_time(), partial(self.boot, host))

    def _switchover(self, _host: Host) -> None:
        self.operators.switchover()

    def _failover(self, _host: Host) -> None:
        self.operators.failover()

    def _restart(self, _host: Host) -> None:
        self.operators.restart()

    def _pause(self, host: Host) -> None:
        node = host.name if self.loop.chance(0.5) else None
        self.operators.pause(paused=True, node=node)
        self.loop.after(self.some_time(), lambda: self.operators.pause(paused=False, node=node))

    # and what must have come of it

    def heal(self) -> None:
        """End every fault; then somebody must serve soon, stay so, and nothing may hang."""
        loop, ttl_ms = self.loop, self.ttl_ms
        policy = self.hosts[0].policy
        self.network.harshness, self.mishaps, self.operators.sober = 0, 0, True
        self.store.frozen_until = loop.now
        for host in self.hosts:
            self._heal(host)
        if self.store.content.settings.paused or self.store.content.settings.paused_nodes:
            self.operators.resume_all()
        bound_ms = (
            2 * ttl_ms * 102 // 100  # a lease extended by a late request or broken, then run out
            + ttl_ms  # an epoch that was raised is waited out
            + policy.stop_timeout_ms  # a stop that is under way
            + policy.start_timeout_ms  # a start from before that never gets ready
            + 2 * policy.backoff_max_ms  # cooling down, and a standby that is to be replaced first
            + 2_000  # calls, starts, holding back
        )
        loop.run(loop.now + 3 * ttl_ms)  # late requests of the bad times may still arrive
        self._repair_store()
        end = loop.now + bound_ms
        while loop.now < end and not (len(self.serving()) == 1 and self._at_rest()):
            loop.run(loop.now + 250)
        serving = self.serving()
        if len(serving) != 1:
            raise self.checks.violation(f"L1: serving {bound_ms} ms after all was well: {serving}")
        epoch = self.store.content.epoch.epoch
        loop.run(loop.now + 2 * ttl_ms)
        still = self.serving()
        failback = any(host.policy.failback for host in self.hosts)
        if (still != serving or self.store.content.epoch.epoch != epoch) and not failback:
            raise self.checks.violation(f"L2: {serving} did not stay active: {still}")
        self._nothing_hangs()

    def _heal(self, host: Host) -> None:
        loop = self.loop
        host.cut_until, host.healthy = loop.now, True
        for tree in host.trees:
            tree.sick = False
        if host.guard is not None:
            host.guard.frozen_until = loop.now
            host.guard.order(lambda: None)
            loop.after(0, host.guard.thaw)
        shell = self.shells[host.name]
        if shell is not None and shell.alive:
            shell.frozen_until = loop.now
            loop.after(1, shell.thaw)
        self._keep_up(host)

    def _keep_up(self, host: Host) -> None:
        """Start the sidecar whenever it is down: one that was told to stop has to end first."""
        self.boot(host)
        self.loop.after(1_000, partial(self._keep_up, host))

    def _repair_store(self) -> None:
        if self.store.content.epoch.epoch < self._highest_mark():
            self.operators.raise_epoch(self._highest_mark, self.ttl_ms)

    def serving(self) -> list[str]:
        names = []
        for host in self.hosts:
            shell = self.shells[host.name]
            if shell is None or not shell.alive or not isinstance(shell.node.phase, s.Serving):
                continue
            if any(tree.role == "active" and tree.ready for tree in host.trees):
                names.append(host.name)
        return names

    def _nothing_hangs(self) -> None:
        for name, shell in self.shells.items():
            phase = shell.node.phase if shell is not None and shell.alive else None
            if phase is None or isinstance(phase, s.Ending | s.Stopping | s.Promoting | s.Starting):
                raise self.checks.violation(f"L1: {name} hangs in {phase}")
        if self._pending():
            raise self.checks.violation(f"T1: nobody concluded {self.store.content.request}")

    def _pending(self) -> bool:
        request = self.store.content.request
        if request is None or request.state in FINISHED:
            return False
        return request.epoch <= self.store.content.epoch.epoch

    def _at_rest(self) -> bool:
        """Tell whether nothing is under way any more that would change who is active."""
        names = [host.name for host in self.hosts]
        moving = any(
            shell is None or not shell.alive or isinstance(shell.node.phase, s.Ending | s.Stopping)
            for shell in (self.shells[name] for name in names)
        )
        return not moving and not self._pending()
