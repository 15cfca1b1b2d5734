"""Hooks of a simulated node, for `sidecar.hooks.errand`: an address is put up and taken away."""

from collections.abc import Callable, Mapping, Sequence

from sidecar.core.units import Epoch
from sidecar.hooks.errand import Outcome
from tests.core.simulation.node import Node
from tests.core.simulation.threads import Event, current

REFUSES, HANGS = 0.1, 0.1  # shares of hooks, while things go wrong


class Errand:
    """A hook that takes its time, perhaps too much, and may say no."""

    def __init__(
        self,
        argv: Sequence[str],
        timeout_ms: int,
        environment: Mapping[str, str],
        folder: str,
        say: Callable[[str], None],
    ) -> None:
        process = current().process
        assert isinstance(process, Node)
        self.node, self.host = process, process.host
        self.name, self.timeout_ms, self.epoch = argv[1], timeout_ms, Epoch(int(environment["SIDECAR_EPOCH"]))
        self.called_off = False
        self._off = Event()

    def call_off(self) -> None:
        self.called_off = True
        self._off.set()

    def run(self) -> Outcome:
        loop, host = self.host.loop, self.host
        if self.called_off:
            return self._over(None, "called off", 0)
        began = loop.now
        self._begin()
        hangs = not host.healthy and loop.chance(HANGS)
        takes_ms = self.timeout_ms if hangs else loop.random.randint(1, 50)
        off = self._off.wait(takes_ms / 1000)
        refuses = hangs or (not host.healthy and loop.chance(REFUSES))
        if off:
            return self._over(None, "called off", loop.now - began)
        if hangs:
            return self._over(None, "not finished in time", loop.now - began)
        return self._over(int(refuses), f"exit {int(refuses)}", loop.now - began)

    def _begin(self) -> None:
        host = self.host
        host.loop.tell(host.name, f"hook {self.name} of epoch {self.epoch} begins")
        match self.name:
            case "before_active":
                host.allowed.discard(self.epoch)
                host.uncleared.add(self.epoch)
                self.node.begun.add(self.epoch)
            case "after_stop" if any(tree.role == "active" for tree in host.trees):
                raise host.violation(f"{self.name} runs while the {host.trees[0]} lives")

    def _over(self, status: int | None, text: str, took_ms: int) -> Outcome:
        """What it does is done even where it then fails, or is not waited for any more."""
        host = self.host
        host.loop.counts[f"hook {self.name}: {text}"] += 1
        match self.name:
            case "before_active":
                host.allowed |= {self.epoch} if status == 0 else set()
            case "after_stop":
                host.uncleared.discard(self.epoch)
                host.address = False
            case "on_active":
                host.address = True
            case "on_standby":
                host.address = False
        return Outcome(status, text, took_ms)
