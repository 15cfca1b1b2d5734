"""What can go wrong, and who gives commands. Each fault draws from a stream of its own, so that leaving one
out of a schedule changes nothing in the others: that is how a failing schedule is made short."""

import signal
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from sidecar.core import state as s
from tests.core.simulation.commands import KINDS
from tests.core.simulation.host import Host
from tests.core.simulation.node import Node
from tests.core.simulation.store import Content

if TYPE_CHECKING:
    from tests.core.simulation.world import World

Fault = Callable[[Host, Random], None]
SHARES_OF_TTL = (0.05, 0.2, 0.5, 0.7, 0.9, 1.0, 1.05, 1.3, 2.0, 3.0)
COMMANDS = ("switchover", "switchover", "failover", "failover", *KINDS)


class Faults:
    def __init__(self, world: "World") -> None:
        self.world, self.loop, self.store = world, world.loop, world.store
        self.ttl_ms = world.ttl_ms
        self.snapshot = Content()
        processes: list[Fault] = [
            self.freeze_sidecar,
            self.freeze_guard,
            self.freeze_both,
            self.crash_sidecar,
            self.crash_both,
            self.crash_guard,
            self.crash_server,
            self.crash_server,
            self.sick_server,
            self.stop_sidecar,
            self.stop_sidecar,
            self.reload,
            self.suspend_host,
            self.slow_disk,
        ]
        outside: list[Fault] = [
            self.cut,
            self.cut,
            self.stale_member,
            self.freeze_store,
            self.change_leader,
            self.refuse_credentials,
            self.replace_store,
        ]
        self.kinds = processes + outside + [self.command] * 7
        worst: list[Fault] = [
            self.crash_sidecar,
            self.crash_both,
            self.crash_guard,
            self.crash_server,
            self.freeze_sidecar,
            self.freeze_both,
            self.freeze_guard,
            self.cut,
            self.command,
            self.command,
            self.stop_sidecar,
            self.suspend_host,
            self.slow_disk,
        ]
        self.before_order = worst
        self.before_call = worst + [self.crash_under_way] * 4

    def some_time(self, random: Random) -> int:
        return int(self.ttl_ms * random.choice(SHARES_OF_TTL) * random.uniform(0.9, 1.1))

    def strike(self, number: int, random: Random) -> None:
        """Let one thing go wrong. The active is the one that matters most."""
        world = self.world
        host = world.hosts[random.randrange(len(world.hosts))]
        lock = self.store.content.lock
        if lock is not None and lock.node and random.random() < 0.6:
            host = next(h for h in world.hosts if h.name == lock.node)
        fault = random.choice(self.kinds)
        self.loop.tell("fault", f"{number}: {fault.__name__} {host.name}")
        self.loop.counts[f"fault: {fault.__name__}"] += 1
        fault(host, random)

    def mishap(self, node: Node, order: s.Action) -> None:
        """Let something happen just before an order is carried out: the worst of moments."""
        random = self.loop.random
        calls = isinstance(order, s.Release | s.Acquire | s.Renew)
        fault = random.choice(self.before_call if calls else self.before_order)
        self.loop.tell("fault", f"{fault.__name__} {node.name} before {type(order).__name__}")
        self.loop.counts["mishaps"] += 1
        fault(node.host, random)

    def freeze_sidecar(self, host: Host, random: Random) -> None:
        node = self.world.living(host)
        if node is not None:
            node.freeze(self.loop.now + self.some_time(random))

    def freeze_guard(self, host: Host, random: Random) -> None:
        if host.guard is not None:
            host.guard.freeze(self.loop.now + self.some_time(random))

    def freeze_both(self, host: Host, random: Random) -> None:
        self.freeze_sidecar(host, random)
        self.freeze_guard(host, random)

    def suspend_host(self, host: Host, random: Random) -> None:
        """Everything on it sleeps, the server as well; its clock counts on."""
        if host.suspended:
            return
        until = self.loop.now + self.some_time(random)
        host.cut_until = max(host.cut_until, until)
        host.suspend(until)
        self.loop.at(until, lambda: self.world.checks.woke_up(host))
        if host.guard is not None:
            host.guard.freeze(until)
        node = self.world.living(host)
        if node is not None:
            node.freeze(until)

    def slow_disk(self, host: Host, random: Random) -> None:
        """Neither ``server.xml`` nor the epoch mark can be written for some time; the guard needs no disk."""
        host.disk_slow_until = max(host.disk_slow_until, self.loop.now + self.some_time(random))

    def crash_sidecar(self, host: Host, random: Random) -> None:
        node = self.world.living(host)
        if node is not None:
            self.loop.tell(host.name, "SIDECAR IS KILLED")
            node.kill()
        again_ms = self.some_time(random) if random.random() < 0.3 else random.randint(20, 1_500)
        self.loop.after(again_ms, partial(self.world.boot, host))

    def crash_under_way(self, host: Host, random: Random) -> None:
        """Crash just after a call was sent, be back at once, and only then let the store have it."""
        self.world.network.next_ms = random.randint(150, self.ttl_ms)
        node = self.world.living(host)
        self.loop.after(1, lambda: node.kill() if node is not None else None)
        self.loop.after(random.randint(20, 120), partial(self.world.boot, host))

    def crash_guard(self, host: Host, _random: Random) -> None:
        if host.guard is not None:
            host.guard.die()

    def crash_both(self, host: Host, random: Random) -> None:
        self.crash_sidecar(host, random)
        self.crash_guard(host, random)

    def crash_server(self, host: Host, _random: Random) -> None:
        for tree in list(host.trees):
            host.server_died(tree)

    def sick_server(self, host: Host, _random: Random) -> None:
        for tree in host.trees:
            tree.sick = True

    def stop_sidecar(self, host: Host, random: Random) -> None:
        """SIGTERM, perhaps twice; systemd starts it again."""
        again_ms, third = self.some_time(random), self.some_time(random)
        node = self.world.living(host)
        if node is not None:
            node.signal(signal.SIGTERM)
            if random.random() < 0.3:
                self.loop.after(third, lambda: node.signal(signal.SIGTERM) if node.alive else None)
        self.loop.after(again_ms, partial(self.world.boot, host))

    def reload(self, host: Host, random: Random) -> None:
        """Change priority and eligibility at run time; not for long."""
        self.world.configure(host, priority=random.choice((50, 100, 150)), eligible=random.random() < 0.5)
        self.loop.after(self.some_time(random), lambda: self.world.configure(host, eligible=True))

    def cut(self, host: Host, random: Random) -> None:
        host.cut_until = max(host.cut_until, self.loop.now + self.some_time(random))

    def stale_member(self, host: Host, random: Random) -> None:
        """The member of the store that this node watches falls behind; its calls go to the others."""
        host.stale_until = max(host.stale_until, self.loop.now + self.some_time(random))

    def freeze_store(self, _host: Host, random: Random) -> None:
        self.store.frozen_until = max(self.store.frozen_until, self.loop.now + self.some_time(random))

    def refuse_credentials(self, _host: Host, random: Random) -> None:
        self.store.denied_until = max(self.store.denied_until, self.loop.now + self.some_time(random))

    def change_leader(self, _host: Host, _random: Random) -> None:
        self.store.change_leader()

    def replace_store(self, _host: Host, random: Random) -> None:
        """Wipe or restore, once every node has seen the last epoch: before that nobody could know."""
        wipe, later_ms = random.random() < 0.3, self.some_time(random)
        if all(host.mark.epoch >= self.store.content.epoch.epoch for host in self.world.hosts):
            content = Content() if wipe else self.snapshot
            self.loop.counts["store restored" if content.epoch.epoch else "store wiped"] += 1
            self.store.replace_by(content)
            self.world.facts.store_replaced(content.request, content.settings)
            self.loop.after(later_ms, self.world.repair_epoch)

    def take_snapshot(self) -> None:
        self.snapshot = self.store.content

    def command(self, host: Host, random: Random) -> None:
        """Give a command, on any host, perhaps the one that suffers most."""
        commands = self.world.commands
        given = commands.give(commands.any_order(random.choice(COMMANDS), random), host)
        undo_ms = self.some_time(random)
        if given.order.kind == "pause":
            undo = commands.any_order("resume", random)
            undo.to = given.order.to
            self.loop.after(undo_ms, partial(commands.give, undo, host))
