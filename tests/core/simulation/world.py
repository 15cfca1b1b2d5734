"""Nodes, a store and operators; faults for a while, then none, and what must have come of it."""

import signal
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import cast

from sidecar.config import Config, timing
from sidecar.core import state as s
from sidecar.core.model import FINISHED
from sidecar.operate.overrides import Setting
from sidecar.operate.settings import stated
from sidecar.servers import Standby
from tests.core.simulation.checks import STEP_MS, Checks
from tests.core.simulation.client import Client
from tests.core.simulation.clock import Clock
from tests.core.simulation.commands import Commands, Order
from tests.core.simulation.facts import Facts
from tests.core.simulation.faults import Faults
from tests.core.simulation.guarding import GuardClient
from tests.core.simulation.host import Guard, Host, Times, Tree
from tests.core.simulation.loop import Loop, Network, Violation
from tests.core.simulation.node import Node, config_of
from tests.core.simulation.stage import staged
from tests.core.simulation.store import Store

FAULTS_TTLS = 9  # how long things go wrong
FAULTS_MAX = 14
HOOKED = 0.4  # share of clusters with hooks
RATES_PERMILLE = (990, 995, 1000, 1005, 1010)
Settings = tuple[int, bool, Standby, int, bool, bool, bool]  # what `config_of` takes besides the name
SYSTEMD_MS = 1_000  # a sidecar that is down is started again


@dataclass(frozen=True)
class Mercy:
    """What of a schedule is left out, to find what matters in it."""

    faults: frozenset[int] | None = None  # only these; None: all
    no_mishaps: bool = False
    good_network: bool = False
    good_servers: bool = False

    @classmethod
    def parse(cls, text: str) -> "Mercy":
        """Return what `str` has made of it."""
        words = text.split("+")
        numbers = [word.removeprefix("only:") for word in words if word.startswith("only:")]
        faults = frozenset(map(int, filter(None, numbers[0].split(",")))) if numbers else None
        return cls(faults, "no-mishaps" in words, "good-network" in words, "good-servers" in words)

    def __str__(self) -> str:
        only = ["only:" + ",".join(map(str, sorted(self.faults)))] if self.faults is not None else []
        flags = {
            "no-mishaps": self.no_mishaps,
            "good-network": self.good_network,
            "good-servers": self.good_servers,
        }
        return "+".join(only + [name for name, given in flags.items() if given])


ALL = Mercy()


class World:
    def __init__(
        self,
        seed: int,
        mercy: Mercy = ALL,
        *,
        harshness: float | None = None,
        faults: int | None = None,
    ) -> None:
        self.loop = loop = Loop(seed)
        self.mercy = mercy
        random = Random(seed)  # of the plan; `loop.random` is of what happens on the way
        self.ttl_ms = ttl_ms = random.choice((2_000, 2_700, 5_000))
        weather = random.choice((0, 0.3, 1, 2))
        weather = weather if harshness is None else harshness
        self.network = Network(loop, ttl_ms, 0 if mercy.good_network else weather)
        mishaps = random.choice((0, 0.005, 0.02))  # per order
        self.mishaps = 0 if faults is not None or mercy.no_mishaps else mishaps
        leases = random.random() < 0.6
        self.store = Store(loop, leases=leases)
        self.failback = random.random() < 0.15
        standby: Standby = "monitoring" if random.random() < 0.5 else "stopped"
        hooks = Random(f"hooks {seed}").random() < HOOKED
        lifetime_ms = random.choice((None, None, 8 * ttl_ms))
        self.facts = Facts(loop)
        self.hosts: list[Host] = []
        self.configs: dict[str, Settings] = {}
        self.nodes: dict[str, Node | None] = {}
        for index in range(random.choice((2, 2, 3, 3, 3, 4, 5))):
            name = f"n{index + 1}"
            clock = Clock(loop, random.randint(0, 10**9), random.choice(RATES_PERMILLE))
            priority = random.choice((50, 100, 100))
            self.configs[name] = (ttl_ms, leases, standby, priority, self.failback, True, hooks)
            self.nodes[name] = None
            self.hosts.append(Host(loop, name, clock, Times(ttl_ms, ttl_ms * 3 // 2, ttl_ms)))
            self.hosts[-1].hooks = hooks
        self.standby_lifetime_ms = lifetime_ms if standby == "monitoring" else None
        self.checks = Checks(loop, self.hosts, self.facts, self.store)
        self.commands = Commands(loop, self.store, self.network, self.hosts, self.facts, ttl_ms)
        self.faults = Faults(self)
        self._wire()
        self._plan(random, random.randint(2, FAULTS_MAX) if faults is None else faults)

    def _wire(self) -> None:
        self.store.on_release = self.checks.released
        self.store.on_acquired = self.checks.acquired
        self.store.on_request = self.facts.request_written
        self.store.on_settings = self.facts.settings_written
        self.store.on_broken = self.facts.lock_broken
        self.store.on_raised = self.facts.raised.add
        for host in self.hosts:
            host.healthy = self.mercy.good_servers
            host.on_started = self._server_started
            host.on_died = self._server_died
            host.on_activated = self._activated
            host.on_guard_died = self._guard_died
            host.on_deadline = self._deadline
            host.on_ready = self._server_ready
            host.violation = self.checks.violation

    def _plan(self, random: Random, number: int) -> None:
        """Lay down when what goes wrong. What it is exactly, each fault draws for itself."""
        for host in self.hosts:
            self.loop.after(random.randint(0, 300), partial(self.boot, host))
        for index in range(number):
            at = random.randint(self.ttl_ms // 2, FAULTS_TTLS * self.ttl_ms)
            own = Random(self.loop.seed * 1_000 + index)
            if self.mercy.faults is None or index in self.mercy.faults:
                self.loop.at(at, partial(self.faults.strike, index, own))
        for _ in range(2):
            self.loop.at(random.randint(0, FAULTS_TTLS * self.ttl_ms), self.faults.take_snapshot)

    # life of a sidecar

    def boot(self, host: Host) -> None:
        """Start the sidecar, unless it runs: systemd does."""
        if self.living(host) is not None:
            return
        if host.suspended:
            self.loop.at(host.suspended_until, partial(self.boot, host))
            return
        self.loop.tell(host.name, "SIDECAR STARTS")
        node = self.nodes[host.name] = Node(
            self.loop,
            host,
            lambda: self.config(host),
            lambda process: Client(process, host, self.store, self.network),
            keep_server=self.loop.chance(0.4),
            standby_lifetime_ms=self.standby_lifetime_ms,
        )
        node.on_decided = self.checks.decided
        node.before_order = self._before_order

    def living(self, host: Host) -> Node | None:
        """Return the sidecar that runs there."""
        node = self.nodes[host.name]
        return node if node is not None and node.alive else None

    def config(self, host: Host) -> Config:
        """Return the configuration of that node, as it is now."""
        return config_of(host.name, *self.configs[host.name])

    def configure(self, host: Host, *, priority: int | None = None, eligible: bool) -> None:
        """Change the configuration file, and tell the sidecar (SIGHUP)."""
        ttl_ms, leases, standby, old, failback, _, hooks = self.configs[host.name]
        self.configs[host.name] = (ttl_ms, leases, standby, priority or old, failback, eligible, hooks)
        node = self.living(host)
        if node is not None:
            node.signal(signal.SIGHUP)

    def _before_order(self, node: Node, order: s.Action) -> None:
        if self.loop.chance(self.mishaps * (0.2 if isinstance(order, s.Renew) else 1)):
            self.faults.mishap(node, order)

    def _client(self, host: Host) -> GuardClient | None:
        node = self.living(host)
        return None if node is None else node.guard_client

    def _server_started(self, host: Host, tree: Tree) -> None:
        self.facts.server_started(host.name)
        self.checks.server_started(host, tree)

    def _server_died(self, host: Host, tree: Tree) -> None:
        client = self._client(host)
        if client is not None:
            client.tree_gone(tree)

    def _guard_died(self, host: Host, guard: Guard) -> None:
        client = self._client(host)
        if client is not None:
            client.guard_gone(guard)

    def _deadline(self, host: Host, tree: Tree) -> None:
        node = self.living(host)
        if node is not None:
            self.checks.killed_at_deadline(node, tree)

    def _server_ready(self, host: Host, tree: Tree) -> None:
        self.facts.server_ready(host.name, tree.role, tree.epoch)

    def _activated(self, host: Host, tree: Tree, visible_ms: int = 0) -> None:
        if not tree.dead:
            visible_ms = self.checks.activated(host, tree, self.nodes[host.name], visible_ms)
            self.loop.after(STEP_MS, lambda: self._activated(host, tree, visible_ms))

    # the run

    def run(self) -> None:
        """Let it all happen.

        Raises:
            Violation: A property does not hold.
        """
        with staged():
            try:
                self.loop.run(FAULTS_TTLS * self.ttl_ms)
                self.heal()
                self.facts.check_all()
            except AssertionError as error:
                if isinstance(error, Violation):
                    raise
                raise Violation(f"an assertion of the program: {error}") from error
            finally:
                self.loop.end()

    def advance(self, until_ms: int) -> None:
        """Let time pass."""
        with staged():
            self.loop.run(until_ms)

    @property
    def bound_ms(self) -> int:
        """Until somebody is active when all is well again: what ``validate`` says, and what may be under way.

        That is: an epoch that was raised is waited out, a stop and a start from before come to their ends,
        and a server cools down; clocks differ by 1 %; a sidecar that is down is started by systemd.
        """
        config = self.config(self.hosts[0])
        figures = {figure.name: figure.ms or 0 for figure in timing.figures(config)}
        server = config.server
        return (
            (figures["node_crash"] + self.ttl_ms) * 102 // 100
            + server.stop_timeout_ms
            + 2 * server.start_timeout_ms
            + 2 * server.restarts.backoff_max_ms
            + len(self.hosts) * timing.hold_back_ms(config)
            + 2 * SYSTEMD_MS
        )

    def heal(self) -> None:
        """End every fault; then somebody must serve soon, stay so, and nothing may hang."""
        loop, ttl_ms = self.loop, self.ttl_ms
        self.network.harshness, self.mishaps = 0, 0
        self.store.frozen_until = self.store.denied_until = loop.now
        for host in self.hosts:
            self._heal(host)
        self._resume_all()
        loop.run(loop.now + 4 * ttl_ms)  # late requests of the bad times may still arrive, and once more
        self._resume_all()  # such as the pause of which nobody knew whether it was written
        if self._behind():
            self.commands.interrupt("raise_epoch")  # one may wait for what an older store has taken away
        self.repair_epoch()
        end = loop.now + self.bound_ms
        while loop.now < end and not (len(self.serving()) == 1 and self._at_rest()):
            loop.run(loop.now + 250)
        serving = self.serving()
        if len(serving) != 1:
            raise self.checks.violation(f"L1: serving {self.bound_ms} ms after all was well: {serving}")
        epoch = self.store.content.epoch.epoch
        loop.run(loop.now + 2 * ttl_ms)
        while loop.now < end + 2 * ttl_ms and self.failback and not self._at_rest():
            loop.run(loop.now + 250)
        still = self.serving()
        if (still != serving or self.store.content.epoch.epoch != epoch) and not self.failback:
            raise self.checks.violation(f"L2: {serving} did not stay active: {still}")
        self._nothing_hangs()

    def _heal(self, host: Host) -> None:
        loop = self.loop
        host.healthy = True
        host.disk_slow_until = loop.now
        host.cut_until = host.stale_until = max(loop.now, host.suspended_until)
        for tree in host.trees:
            tree.sick = False
        if host.guard is not None and not host.suspended:
            host.guard.frozen_until = loop.now
            loop.after(0, host.guard.thaw)
        node = self.living(host)
        if node is not None and not host.suspended:
            node.frozen_until = loop.now
            loop.after(1, node.thaw)
        self.configure(host, eligible=True)
        self._keep_up(host)

    def _keep_up(self, host: Host) -> None:
        """Start the sidecar whenever it is down: one that was told to stop has to end first."""
        self.boot(host)
        self.loop.after(SYSTEMD_MS, partial(self._keep_up, host))

    def _resume_all(self) -> None:
        """An operator who sees that it is paused, or what was set, ends that, until it is so."""
        settings = self.store.content.settings
        paused = ([None] if settings.paused else []) + list(settings.paused_nodes)
        for node in paused:
            self.commands.give(Order("resume", node, 12_000, 0, None, None), self.hosts[0])
        overrides = [one for one in stated(settings) if one.setting != "paused"]
        for one in overrides:
            order = Order("unset", one.node, 12_000, 0, None, None, cast(Setting, one.setting))
            self.commands.give(order, self.hosts[0])
        if paused or overrides or self.commands.pending("pause") or self.commands.pending("set"):
            self.loop.after(1_000, self._resume_all)

    def repair_epoch(self) -> None:
        """An operator who sees that the store's epoch is behind raises it, until it is not."""
        if self._behind():
            if self.commands.pending("raise_epoch"):
                self.loop.after(500, self.repair_epoch)
                return
            host = max(self.hosts, key=lambda host: host.mark.epoch)
            self.commands.give(Order("raise_epoch", None, 12_000, 0, None, None), host)
            self.loop.after(3_000, self.repair_epoch)

    def _behind(self) -> bool:
        return self.store.content.epoch.epoch < max(host.mark.epoch for host in self.hosts)

    def serving(self) -> list[str]:
        """Return the nodes that say they serve, and do."""
        names = []
        for host in self.hosts:
            node = self.living(host)
            if node is None or not isinstance(node.phase, s.Serving):
                continue
            if any(tree.role == "active" and tree.ready for tree in host.trees):
                names.append(host.name)
        return names

    def _nothing_hangs(self) -> None:
        for host in self.hosts:
            node = self.living(host)
            phase = None if node is None else node.phase
            if phase is None or isinstance(phase, s.Ending | s.Stopping | s.Promoting | s.Starting):
                raise self.checks.violation(f"L1: {host.name} hangs in {phase}")
            if host.hooks and host.address != isinstance(phase, s.Serving):
                raise self.checks.violation(f"{host.name}, in {phase}: the address is up: {host.address}")
        if self._pending():
            raise self.checks.violation(f"T1: nobody concluded {self.store.content.request}")

    def _pending(self) -> bool:
        request = self.store.content.request
        if request is None or request.state in FINISHED:
            return False
        return request.epoch <= self.store.content.epoch.epoch

    def _at_rest(self) -> bool:
        """Tell whether nothing is under way any more that would change who is active."""
        settings = self.store.content.settings
        moving = any(
            node is None or isinstance(node.phase, s.Ending | s.Stopping | s.Starting)
            for node in map(self.living, self.hosts)
        )
        paused = stated(settings)
        return not (moving or paused or self.commands.pending() or self._pending())
