"""A sidecar's process: the real `sidecar.runtime.main.Sidecar`, with everything it is made of."""

import signal
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sidecar import events
from sidecar.config import Config, from_text
from sidecar.core import state as s
from sidecar.core.model import Role
from sidecar.core.units import Epoch, Instant
from sidecar.errors import SidecarError
from sidecar.probes import OK, Finding, Probe
from sidecar.runtime import main
from sidecar.runtime.probing import Watching
from sidecar.servers import Launch, Standby
from tests.core.simulation.host import Host, Tree
from tests.core.simulation.loop import Loop
from tests.core.simulation.threads import Process, current

if TYPE_CHECKING:
    from tests.core.simulation.client import Client
    from tests.core.simulation.guarding import GuardClient

LOOK_MS = 20
HOOKS = ("before_active", "on_active", "after_stop", "on_standby")
BACKENDS = {True: "etcd", False: "consul"}  # whether the store keeps leases


@cache
def config_of(
    name: str,
    ttl_ms: int,
    leases: bool,
    standby: Standby,
    priority: int,
    failback: bool,
    eligible: bool,
    hooks: bool,
) -> Config:
    """Return what an operator would have written, made short: everything happens within a few TTLs."""
    argvs = ", ".join(f"{name}: [sh, {name}]" for name in HOOKS)
    text = f"""
        cluster: simulated
        node: {name}
        backend: {BACKENDS[leases]}
        {"etcd: {endpoints: [http://127.0.0.1:2379]}" if leases else ""}
        lock: {{ttl: {ttl_ms}ms}}
        node_options: {{priority: {priority}, failback: {failback}, eligible: {eligible}}}
        server:
          kind: command
          command: [server]
          standby: {standby}
          start_timeout: {ttl_ms}ms
          stop_timeout: {ttl_ms * 3 // 2}ms
          restarts: {{attempts: 2, within: {ttl_ms * 10}ms, backoff: 100ms, backoff_max: 1500ms}}
          probes:
            ready: {{every: 100ms, timeout: 100ms}}
            alive: {{every: {ttl_ms // 5}ms, timeout: 100ms, failures: 2}}
        {f"hooks: {{{argvs}, timeout: {ttl_ms // 4}ms}}" if hooks else ""}
    """
    return from_text("\n".join(line[8:] for line in text.splitlines()), {}, source="simulated.yaml")


class Kind:
    """A server that takes any role."""

    name = "command"

    def __init__(self, standby: Standby, standby_lifetime_ms: int | None, host: Host) -> None:
        self.standby, self.standby_lifetime_ms, self._host = standby, standby_lifetime_ms, host

    def check(self, ours: Collection[int] = ()) -> list[str]:
        return []

    def prepare(self, role: Role, ours: Collection[int] = ()) -> Launch | None:
        write(self._host)
        if self._host.trees:
            raise self._host.violation(
                f"gives the server the role {role} while the {self._host.trees[0]} lives"
            )
        return Launch(("server",))

    def default_probe(self) -> Probe | None:
        return None

    def self_activated_probe(self) -> Probe | None:
        return Asking(self._host, lambda tree: tree.activated_at is not None)

    def message(self, role: Role, ready: bool) -> str:
        return "Serving"


def write(host: Host) -> None:
    """Wait until the host's disk has taken what is written."""
    while (left_ms := host.disk_slow_until - host.loop.now) > 0:
        current().wait(min(left_ms, LOOK_MS))


class Asking:
    """A probe of the server of a host: takes a moment, as a real one does."""

    def __init__(self, host: Host, good: Callable[[Tree], bool]) -> None:
        self._host, self._good = host, good

    def check(self, deadline: Instant) -> Finding:
        current().wait(1)
        tree = next(iter(self._host.trees), None)
        return OK if tree is not None and self._good(tree) else Finding(False, "does not answer")


class Marks:
    """The epoch high-water mark on the host's disk."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def load(self) -> s.Mark:
        return self._host.mark

    def save(self, mark: s.Mark) -> bool:
        write(self._host)
        if current().process.alive:
            self._host.mark = mark
        return True


class Node(Process):
    """One run of a sidecar on a host, from its start until it has ended or was killed."""

    def __init__(
        self,
        loop: Loop,
        host: Host,
        config: Callable[[], Config],
        connect: "Callable[[Node], Client]",
        *,
        keep_server: bool,
        standby_lifetime_ms: int | None,
    ) -> None:
        super().__init__(loop, host.clock, host.name)
        self.host = host
        self.config = config
        self.connect = connect
        self.keep_server = keep_server
        self.standby_lifetime_ms = standby_lifetime_ms
        self.handlers: dict[int, Callable[[int, Any], None]] = {}
        self.exited: int | None = None
        self.kept = False
        self.begun: set[Epoch] = set()  # epochs for which it asked before_active
        self.shell: Any = None  # the real one, once it is made
        self.began_at = loop.now  # deciding
        self.guard_client: GuardClient | None = None
        self.on_decided: Callable[[Node, s.Observation, s.Node, s.Step, Instant], None] = lambda *_: None
        self.before_order: Callable[[Node, s.Action], None] = lambda *_: None
        self.spawn(self._main)

    @property
    def state(self) -> s.Node | None:
        """What the core knows, once there is a core."""
        return None if self.shell is None else self.shell.node

    @property
    def phase(self) -> s.Phase | None:
        return None if self.shell is None else self.shell.node.phase

    def kind(self) -> Kind:
        standby: Standby = "monitoring" if self.config().server.standby == "monitoring" else "stopped"
        return Kind(standby, self.standby_lifetime_ms, self.host)

    def watching(self) -> Watching:
        alive = self.config().server.probes.alive
        return Watching(
            ready=Asking(self.host, lambda tree: tree.ready),
            alive=Asking(self.host, lambda tree: not tree.sick),
            ready_every_ms=100,
            ready_timeout_ms=100,
            every_ms=alive.every_ms,
            timeout_ms=alive.timeout_ms,
            failures=alive.failures,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; before it has asked for them, SIGTERM kills."""
        handler = self.handlers.get(number)
        if handler is not None:
            handler(number, None)
        elif number == signal.SIGTERM:
            self.kill()

    def _main(self) -> None:
        mode = main.Mode(keep_server=self.keep_server)
        with ExitStack() as stack:
            try:
                outlet: Any = SimpleNamespace(server=None)  # nothing is printed
                status = main.Sidecar(self.config(), mode, self.config, stack, outlet).run()
            except SidecarError as error:
                self.loop.tell(self.name, f"the sidecar does not start: {error}")
                status = error.exit_code
        self._ended(status)

    def _ended(self, status: int) -> None:
        phase = self.phase
        self.exited, self.kept = status, isinstance(phase, s.Finished) and phase.kept
        self.loop.tell(self.name, f"SIDECAR ENDS with status {status}")
        finished = isinstance(phase, s.Finished)
        self.loop.counts["exit, server kept" if self.kept else "exit" if finished else "start refused"] += 1
        if finished and not self.kept and self.host.trees:
            raise self.host.violation(f"S2: the sidecar exits while the {self.host.trees[0]} lives")
        if finished and not self.kept and self.host.uncleared & self.begun:
            raise self.host.violation("the sidecar exits before after_stop is over")
        self.kill()

    def emitted(self, event: events.Event) -> None:
        if self.alive and isinstance(event, events.Raised | events.Notice):
            self.loop.tell(self.name, f"says: {event.text}")
        elif self.alive and isinstance(event, events.RequestEnded):
            self.loop.tell(self.name, f"says: {event.kind} {event.request}: {event.state}")
