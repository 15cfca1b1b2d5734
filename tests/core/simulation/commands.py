"""Operators: the real commands of `sidecar.operate`, given at any time and killed half-way.

Each runs in a process of its own on some host, with that host's clock and network. What it says in the end is
checked against what the store and the servers have really done (T1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random

from sidecar.core.model import View
from sidecar.errors import BackendError, Failed, Refused, SidecarError, TimedOut
from sidecar.operate import failover, handover, maintenance, overrides, raising, status
from sidecar.operate.asking import Done
from sidecar.operate.desk import Desk
from sidecar.operate.overrides import Setting
from sidecar.operate.settings import Changed
from tests.core.simulation.client import Client
from tests.core.simulation.facts import Facts
from tests.core.simulation.host import Host
from tests.core.simulation.loop import Loop, Network
from tests.core.simulation.store import Store
from tests.core.simulation.threads import Process, current

Answer = Done | Changed | SidecarError | None
PATIENCE_MS = (4_000, 12_000, 30_000)
KINDS = ("switchover", "failover", "restart", "pause", "resume", "raise_epoch", "status", "set", "unset")
Kind = str


@dataclass
class Order:
    """What the user has typed."""

    kind: Kind
    to: str | None
    timeout_ms: int
    thinks_ms: int  # before saying yes
    lives_ms: int | None  # until it is killed
    halts_ms: int | None  # until the user presses Ctrl-C
    setting: Setting = "priority"
    value: bool | int | None = None

    def __str__(self) -> str:
        killed = f", killed after {self.lives_ms} ms" if self.lives_ms is not None else ""
        halted = f", interrupted after {self.halts_ms} ms" if self.halts_ms is not None else ""
        return f"{self.kind} {self.to or ''}{killed}{halted}"


class Command(Process):
    def __init__(self, loop: Loop, host: Host, by: str, order: Order) -> None:
        super().__init__(loop, host.clock, by)
        self.host, self.order = host, order
        self.halted = False
        self.answer: Answer = None
        self.answered = False

    @property
    def id(self) -> str:
        """Return the id of its request, as the simulated ``uuid`` gives the first one."""
        return f"{1:06x}{self.name}{self.born_at}"


class Commands:
    def __init__(
        self, loop: Loop, store: Store, network: Network, hosts: list[Host], facts: Facts, ttl_ms: int
    ) -> None:
        self.loop, self.store, self.network, self.hosts = loop, store, network, hosts
        self.facts, self.ttl_ms = facts, ttl_ms
        self.given: list[Command] = []
        self._numbers = count(1)

    def any_order(self, kind: Kind, random: Random) -> Order:
        """Return what somebody might type, and what may happen to it."""
        names = [host.name for host in self.hosts]
        lock = self.store.content.lock
        others = [name for name in names if lock is None or name != lock.node or random.random() < 0.05]
        to = random.choice(others or names) if random.random() < 0.6 else None
        if kind in ("restart", "set", "unset"):
            to = random.choice(names)
        setting: Setting = random.choice(("priority", "eligible"))
        value = random.choice((50, 100, 150)) if setting == "priority" else random.random() < 0.4
        doomed = random.random()
        return Order(
            kind,
            to,
            random.choice(PATIENCE_MS),
            random.randint(0, 3_000) if random.random() < 0.2 else 0,
            random.randint(0, 1_500) if doomed < 0.2 else None,
            random.randint(0, 3_000) if 0.2 <= doomed < 0.3 else None,
            setting,
            value if kind == "set" else None,
        )

    def give(self, order: Order, host: Host) -> Command:
        """Run the command on *host*."""
        command = Command(self.loop, host, f"c{next(self._numbers)}", order)
        self.given.append(command)
        self.loop.counts[f"command: {order.kind}"] += 1
        self.loop.tell(command.name, f"COMMAND {order} on {host.name}")
        command.spawn(lambda: self._run(command))
        if order.lives_ms is not None:
            self.loop.after(order.lives_ms, lambda: self._kill(command))
        if order.halts_ms is not None:
            self.loop.after(order.halts_ms, lambda: setattr(command, "halted", True))
        return command

    def pending(self, kind: Kind | None = None) -> bool:
        """Tell whether a command (of that kind) is still at work."""
        return bool(self._at_work(kind))

    def interrupt(self, kind: Kind) -> None:
        """Press Ctrl-C at each command of that kind that is still at work."""
        for command in self._at_work(kind):
            command.halted = True

    def _at_work(self, kind: Kind | None) -> list[Command]:
        return [c for c in self.given if c.alive and not c.answered and kind in (None, c.order.kind)]

    def _kill(self, command: Command) -> None:
        if command.alive and not command.answered:
            self.loop.counts["command killed half-way"] += 1
            self.loop.tell(command.name, "is killed")
            command.kill()

    def _run(self, command: Command) -> None:
        desk = Desk(
            Client(command, command.host, self.store, self.network),
            command.clock,
            "simulated",
            "simulated",
            command.host.name,
            self.ttl_ms,
            by=command.name,
            halted=lambda: command.halted,
        )
        try:
            with desk:
                command.answer = self._carried_out(command, desk)
        except SidecarError as error:
            command.answer = error
        command.answered = True
        self.loop.tell(command.name, f"SAYS {told(command.answer)}")
        self.loop.counts[f"{command.order.kind} says {type(command.answer).__name__}"] += 1
        self.facts.check_answer(command)
        command.kill()

    def _carried_out(self, command: Command, desk: Desk) -> Answer:
        order = command.order
        operation: dict[Kind, Callable[[Order, Command, Desk], Answer]] = {
            "switchover": lambda o, c, d: handover.switchover(d, o.to, o.timeout_ms, self._say(c)),
            "restart": lambda o, c, d: handover.restart(d, o.to or c.host.name, o.timeout_ms, self._say(c)),
            "pause": lambda o, _c, d: maintenance.pause_cluster(d, o.to),
            "resume": lambda o, _c, d: maintenance.resume_cluster(d, o.to),
            "set": lambda o, _c, d: overrides.set_override(d, o.to or "", o.setting, o.value or False),
            "unset": lambda o, _c, d: overrides.unset_override(d, o.to or "", o.setting),
            "failover": self._failover,
            "raise_epoch": self._raise_epoch,
            "status": self._status,
        }
        return operation[order.kind](order, command, desk)

    def _say(self, command: Command) -> Callable[[str], None]:
        return lambda text: self.loop.tell(command.name, f"says: {text}")

    def _failover(self, order: Order, command: Command, desk: Desk) -> Answer:
        plan = failover.plan(desk, desk.read(), order.to)
        current().wait(order.thinks_ms)
        return failover.failover(desk, plan, order.timeout_ms, self._say(command))

    def _raise_epoch(self, order: Order, command: Command, desk: Desk) -> Answer:
        mark = command.host.mark.epoch
        plan = raising.plan_raise(raising.await_free(desk, desk.read(), mark, self._say(command)), mark)
        current().wait(order.thinks_ms)
        return raising.raise_epoch(desk, plan, order.timeout_ms, self._say(command))

    def _status(self, _order: Order, _command: Command, desk: Desk) -> Answer:
        view: View = desk.read()
        status.status(view, cluster="simulated", backend="simulated", now_unix_ms=0)
        return None


def told(answer: Answer) -> str:
    match answer:
        case TimedOut():
            return f"unknown: {answer}"
        case Refused() | Failed() | BackendError():
            return f"{type(answer).__name__}: {answer}"
        case Done(node, epoch):
            return f"done: {node} at epoch {epoch}"
        case _:
            return str(answer)
