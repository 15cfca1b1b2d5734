"""Which hook is run when, for a node.

    before_active  on the server lane, before a server is started as active; may refuse it
    after_stop     on the server lane, once for each start of an active, after its tree is proven dead
    on_active      \\ on a lane of their own, beside everything: in order, and only for what the node is by
    on_standby     / then; one that was overtaken is not begun

Before a hook of the server lane runs, the other lane's is ended: what `on_active` still puts up must not come
after `after_stop` has taken it away, nor `on_standby` take away what `before_active` has put up.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Literal, NamedTuple, get_args

from sidecar.config.hooks import Hooks as Configured
from sidecar.core import state as s
from sidecar.core.model import Role
from sidecar.core.units import NO_EPOCH, Epoch
from sidecar.events import HookEnded, HookFailed, emit
from sidecar.guard.connect import inherited
from sidecar.hooks.errand import Errand, Outcome
from sidecar.runtime.lanes import Lane

END_WITHIN_S = 5.0
"""For a hook that was called off; longer only where its processes hang in the kernel, and then it is left."""

Name = Literal["before_active", "after_stop", "on_active", "on_standby"]
Announced = Literal["on_active", "on_standby"]


class Place(NamedTuple):
    """Whose hooks they are, and where they run."""

    cluster: str
    node: str
    folder: str


def environment_of(cluster: str, node: str, role: Role, epoch: Epoch) -> dict[str, str]:
    """Return our environment without our settings, and with what a server and a hook are told."""
    return inherited() | {
        "SIDECAR_CLUSTER": cluster,
        "SIDECAR_NODE": node,
        "SIDECAR_ROLE": role,
        "SIDECAR_EPOCH": str(epoch),
    }


class State(NamedTuple):
    """What a node is, as far as hooks are told."""

    hook: Announced
    epoch: Epoch
    run: s.Run


def state_of(node: s.Node) -> State | None:
    """Return what *node* is; None on the way from one to the other, and at the end."""
    phase, memory = node
    match phase:
        case s.Serving(lease, run):
            return State("on_active", lease.epoch, run)
        case s.Idle() | s.Standing() if memory.clearing is None and memory.quit is None:
            return State("on_standby", NO_EPOCH, 0)
        case _:
            return None


class Hooks:
    """The hooks of a node. *configured* is asked anew for each: a reload may have changed them."""

    def __init__(
        self, configured: Callable[[], Configured], place: Place, output: Callable[["Name", str], None]
    ) -> None:
        self._configured = configured
        self._place = place
        self._output = output
        self._told: State | None = None  # by the shell alone
        self._overtaken: State | None = None  # by a hook of the server lane
        self._running: _Announcement | None = None
        self._lane: Lane | None = None  # made for the first hook

    def missing(self) -> list[str]:
        """Return what is wrong with the programs, one line each, before any is needed."""
        folder = Path(self._place.folder)
        argvs = {name: getattr(self._configured(), name) for name in get_args(Name)}
        return [
            f"hooks.{name}: {argv[0]}: no such program"
            for name, argv in argvs.items()
            if argv is not None and shutil.which(folder / argv[0] if "/" in argv[0] else argv[0]) is None
        ]

    # For the server lane.

    def errand(self, name: Name, epoch: Epoch) -> "Job | None":
        """Return a run of that hook, not begun; None where there is no such hook."""
        configured = self._configured()
        argv = getattr(configured, name)
        if argv is None:
            return None
        role: Role = "standby" if name == "on_standby" else "active"
        place = self._place
        errand = Errand(
            argv,
            getattr(configured, f"{name}_timeout_ms"),
            environment_of(place.cluster, place.node, role, epoch),
            place.folder,
            lambda line: self._output(name, line),
        )
        return Job(name, epoch, errand)

    def first(self, job: "Job") -> Outcome:
        """End what runs beside, then run *job*."""
        running = self._end_announcing()
        if running is not None:
            running.over.wait(END_WITHIN_S)
        return job.run()

    # For the shell.

    def tell(self, node: s.Node) -> None:
        """Take in what the node is now."""
        state = state_of(node)
        if state != self._told:
            self._told = state
            if state is not None and getattr(self._configured(), state.hook) is not None:
                self._lane = self._lane or Lane("hooks")
                self._lane.put(lambda: self._announce(state))

    def close(self) -> None:
        """End what runs."""
        self._end_announcing()
        if self._lane is not None:
            self._lane.close()

    def _end_announcing(self) -> "_Announcement | None":
        self._overtaken = self._told
        running = self._running
        if running is not None:
            running.job.errand.call_off()
        return running

    # On the lane's thread.

    def _announce(self, state: State) -> None:
        job = self.errand(state.hook, state.epoch)
        if job is None:
            return
        running = self._running = _Announcement(job, Event())
        try:
            if state is self._told and state is not self._overtaken:  # looked at after `_running` is set
                job.run()
        finally:
            self._running = None
            running.over.set()


class Job(NamedTuple):
    """A hook that is to be run once, and told."""

    name: Name
    epoch: Epoch
    errand: Errand

    def run(self) -> Outcome:
        """Run it, and log how it ended."""
        outcome = self.errand.run()
        event = HookEnded if outcome.ok or self.errand.called_off else HookFailed
        emit(
            event(
                hook=self.name,
                epoch=self.epoch,
                status=outcome.status,
                outcome=outcome.text,
                took_ms=outcome.took_ms,
            )
        )
        return outcome


class _Announcement(NamedTuple):
    job: Job
    over: Event
