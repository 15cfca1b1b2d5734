"""What must hold. Each check is called at the step that could break it, and raises `Violation`."""

from sidecar.core import state as s
from sidecar.core.advance import LEASE_OVER
from sidecar.core.candidate import stray
from sidecar.core.model import Request
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from tests.core.simulation.facts import Facts
from tests.core.simulation.host import Host, Tree
from tests.core.simulation.loop import Loop, Violation
from tests.core.simulation.node import Node
from tests.core.simulation.store import Store

STEP_MS = 50
ROUTINE = (s.Renew, s.ExtendServer)  # left out of the story
ACTIVATED_MAX_MS = 250  # beyond a probe's period: how long a standby that activated itself may live


class Checks:
    def __init__(self, loop: Loop, hosts: list[Host], facts: Facts, store: Store) -> None:
        self.loop, self.hosts, self.facts, self.store = loop, hosts, facts, store
        self.started: dict[str, Epoch] = {}  # highest epoch of an active server, per node

    def violation(self, text: str) -> Violation:
        return self.loop.fail(Violation(text))

    def server_started(self, host: Host, tree: Tree) -> None:
        if tree.role != "active":
            return
        for other in self.hosts:
            for running in other.trees:
                if running is not tree and running.role == "active" and not running.suspended:
                    raise self.violation(f"S1: {tree} of {host.name} beside {running} of {other.name}")
            if other is not host and self.started.get(other.name, NO_EPOCH) >= tree.epoch:
                raise self.violation(f"S3: {tree} of {host.name} is not newer than one of {other.name}")
        if self.started.get(host.name, NO_EPOCH) > tree.epoch:
            raise self.violation(f"S3: {tree} of {host.name} is older than its last")
        self.started[host.name] = tree.epoch
        if host.hooks and tree.epoch not in host.allowed:
            raise self.violation(f"{tree} of {host.name} starts though before_active did not allow it")
        host.allowed.discard(tree.epoch)

    def released(self, instance: str, epoch: Epoch, cause: str) -> None:
        for host in self.hosts:
            if not instance.startswith(host.name + "-"):
                continue
            if any(tree.role == "active" and tree.epoch == epoch for tree in host.trees):
                raise self.violation(f"S2: {host.name} releases epoch {epoch} ({cause}) under its server")
            if epoch in host.uncleared:
                raise self.violation(
                    f"{host.name} releases epoch {epoch} ({cause}) before after_stop is over"
                )

    def acquired(self, node: str, epoch: Epoch) -> None:
        self.loop.tell("store", f"gives epoch {epoch} to {node}")

    def woke_up(self, host: Host) -> None:
        """A server that slept with its host must not be active beside another when it wakes up."""
        for tree in host.trees:
            for other in self.hosts:
                for running in other.trees:
                    if other is not host and running.role == tree.role == "active" and not running.suspended:
                        raise self.violation(
                            f"S1: {tree} of {host.name} wakes up beside {running} of {other.name}"
                        )

    def decided(self, sidecar: Node, seen: s.Observation, before: s.Node, step: s.Step, now: Instant) -> None:
        node, name, actions = step.node, sidecar.host.name, step.actions
        self.loop.cells[type(before.phase).__name__, type(seen).__name__] += 1
        routine = type(node.phase) is type(before.phase) and all(isinstance(a, ROUTINE) for a in actions)
        if not routine:
            self.loop.tell(name, (now, seen, "→", node.phase, actions))
        if node.memory.mark < before.memory.mark:
            raise self.violation(f"S3: the mark of {name} went back")
        mark = s.Mark(node.memory.mark, node.memory.marked)
        if mark.epoch > before.memory.mark and actions[:1] != (s.SaveMark(mark),):
            raise self.violation(f"S3: {name} did not save its mark first")
        for action in actions:
            if isinstance(action, s.Acquire) and _in_maintenance(node.memory, name):
                raise self.violation(f"{name} asks for the lock in maintenance")
            if isinstance(action, s.Acquire) and _kept_out(node.memory, sidecar):
                raise self.violation(f"{name} asks for the lock though it was made ineligible")
            if isinstance(action, s.Answer):
                self._answered(sidecar, before.phase, node.phase, action.request)
        phase = node.phase
        if phase is not before.phase:
            self._moved(sidecar, before.phase, phase, node.memory)
            self._trusted(sidecar, before.phase, phase)

    def _moved(self, sidecar: Node, before: s.Phase, phase: s.Phase, memory: s.Memory) -> None:
        if isinstance(before, s.Holding) and isinstance(phase, s.Ending | s.Idle):
            if memory.trouble == LEASE_OVER:
                self.loop.counts[f"lease over in {type(before).__name__}"] += 1
            elif memory.trouble == "lost the lock":
                self.loop.counts[f"lock lost in {type(before).__name__}"] += 1
        if not isinstance(phase, s.Stopping) or isinstance(before, s.Stopping):
            return
        if not isinstance(phase.after, s.GiveUp) or not phase.after.cause.startswith("switchover"):
            return
        request = memory.view.request if memory.view is not None else None
        if request is None or request.id not in self.facts.confirmed:
            raise self.violation(f"T1: {sidecar.name} hands over though nobody confirmed {request}")

    def _trusted(self, sidecar: Node, before: s.Phase, phase: s.Phase) -> None:
        """The lemma under S1: a lease is trusted no longer than the store keeps it, by whatever clock.

        The margins of the guard hide for a while what is wrong here.
        """
        if not isinstance(phase, s.Holding):
            return
        if isinstance(before, s.Holding) and before.lease == phase.lease:
            return
        store, lease = self.store, phase.lease
        lock = store.content.lock
        if lock is None or (lock.state, lock.node, lock.epoch) != ("held", sidecar.host.name, lease.epoch):
            return  # given up, broken or replaced since
        self.loop.counts["lease trusted"] += 1
        until = sidecar.clock.true(lease.deadline)
        if until > store.expires_at:
            longer_ms = until - store.expires_at
            raise self.violation(
                f"S1: {lease} of {sidecar.name} is trusted {longer_ms} ms longer than it is kept"
            )

    def _answered(self, sidecar: Node, before: s.Phase, phase: s.Phase, request: Request) -> None:
        name = sidecar.name
        # having answered, it may already be leaving again (failback)
        serving = isinstance(phase, s.Serving) or (
            isinstance(phase, s.Stopping) and isinstance(before, s.Serving | s.Starting)
        )
        epoch = phase.lease.epoch if isinstance(phase, s.Holding) else NO_EPOCH
        match request.kind, request.state:
            case "restart", "done":
                fine = serving or isinstance(phase, s.Standing)
            case _, "done":
                fine = serving and request.to in (None, name) and request.source != name
                fine = fine and epoch > request.epoch and self.started.get(name) == epoch
            case _, "rolled_back":
                fine = serving and request.source == name and epoch > request.epoch
            case _, "failed" if request.kind != "restart":
                fine = serving and name not in (request.to, request.source) and epoch > request.epoch
                fine = fine or (
                    isinstance(phase, s.Serving) and (name, epoch) == (request.source, request.epoch)
                )
            case _:
                fine = True
        if not fine:
            raise self.violation(f"T1: {name}, {phase}, says {request}")
        self.loop.counts[f"answer: {request.kind} {request.state}"] += 1

    def killed_at_deadline(self, sidecar: Node, tree: Tree) -> None:
        """An active is asked to stop before it is killed, unless nobody could ask."""
        guard, state = sidecar.host.guard, sidecar.state
        if guard is None or state is None or tree.role != "active" or isinstance(state.phase, s.Finished):
            return
        since = self.loop.now - sidecar.config().lock.stop_grace_ms * 102 // 100
        begun = max(sidecar.began_at, sidecar.frozen_until, guard.frozen_until, sidecar.host.suspended_until)
        if begun < since:
            raise self.violation(f"the {tree} of {sidecar.name} is killed without having been asked")

    def activated(self, host: Host, tree: Tree, sidecar: Node | None, visible_ms: int = 0) -> int:
        """Return for how long somebody able to act could have seen it; too long is a violation."""
        guard = host.guard
        able = sidecar is not None and sidecar.state is not None and sidecar.alive and not sidecar.frozen
        if sidecar is not None and sidecar.state is not None and isinstance(sidecar.state.phase, s.Finished):
            able = False  # it leaves, and the server is kept
        able = able and guard is not None and not guard.frozen and not host.suspended
        visible_ms += STEP_MS if able and not tree.dying else 0  # killed, all that can be done is done
        if visible_ms > host.times.ttl_ms // 5 + ACTIVATED_MAX_MS:
            raise self.violation(f"the {tree} of {host.name} activated itself and lives on")
        return visible_ms


def _kept_out(memory: s.Memory, sidecar: Node) -> bool:
    """Tell whether an operator has said that it must not become active; a hold of its own it may ask for."""
    view = memory.view
    if view is None or stray(memory, sidecar.shell.policy):
        return False
    return view.settings.override(sidecar.host.name).eligible is False


def _in_maintenance(memory: s.Memory, name: str) -> bool:
    """Tell whether *name* has to keep still: not while a confirmed hand-over is carried out."""
    view = memory.view
    if view is None or not view.settings.holds_back(name):
        return False
    request = view.request
    if request is None or request.kind == "restart" or request.state != "confirmed":
        return True
    return name not in (request.source, request.to) and name in view.settings.paused_nodes
