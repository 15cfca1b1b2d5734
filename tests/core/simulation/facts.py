"""What has really happened, and whether what a command said agrees with it (T1)."""

from collections import defaultdict
from typing import TYPE_CHECKING

from sidecar.core.model import LockRecord, Request, Settings
from sidecar.core.units import Epoch
from sidecar.errors import BackendError, Failed, Refused, SidecarError
from sidecar.operate.asking import Done
from sidecar.operate.settings import Changed
from tests.core.simulation.loop import Loop, Violation

if TYPE_CHECKING:
    from tests.core.simulation.commands import Command

NO_SETTINGS = Settings()
DID_NOT_LAST = "did not last"
GAVE_UP = {"rolled_back", "failed", "refused", "abandoned"}
UNTOUCHED = ("nothing will happen", "nothing was broken", "is not raised")


class Facts:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.ready: set[tuple[str, Epoch]] = set()  # active servers that were ready
        self.starts: dict[str, list[int]] = defaultdict(list)  # when a server of that node was started
        self.states: dict[str, list[str]] = defaultdict(list)  # of each request, as written
        # Requests that ever were, in whatever store: its view may still travel.
        self.confirmed: set[str] = set()
        self.confirmed_here: set[str] = set()  # in the store as it is, replaced or not
        # Requests that a store which was replaced showed as given up: a command may have read it there.
        self.given_up_before: set[str] = set()
        self.broken: set[str] = set()  # requests that have broken the lock
        self.raised: set[str] = set()  # who has raised the epoch
        self.settings: list[tuple[int, Settings]] = [(0, NO_SETTINGS)]
        self.answered: list[Command] = []

    # told by store and hosts

    def server_started(self, node: str) -> None:
        self.starts[node].append(self.loop.now)

    def server_ready(self, node: str, role: str, epoch: Epoch) -> None:
        if role == "active":
            self.ready.add((node, epoch))

    def request_written(self, request: Request) -> None:
        if request.state in ("refused", "abandoned") and request.id in self.confirmed_here:
            raise self._untrue(f"{request} was confirmed before")
        self.states[request.id].append(request.state)
        if request.state == "confirmed":
            self.confirmed.add(request.id)
            self.confirmed_here.add(request.id)

    def lock_broken(self, lock: LockRecord) -> None:
        self.broken.add(lock.request or "")

    def settings_written(self, settings: Settings) -> None:
        self.settings.append((self.loop.now, settings))

    def store_replaced(self, request: Request | None, settings: Settings) -> None:
        """What was written to the store after its snapshot has never been, as far as it knows."""
        if request is not None:
            states = self.states[request.id]
            kept = len(states) - states[::-1].index(request.state)
            self.states[request.id] = states[:kept]
            if GAVE_UP.intersection(states[kept:]):
                self.given_up_before.add(request.id)
        back = request is not None and "confirmed" in self.states[request.id]
        self.confirmed_here = {request.id} if request is not None and back else set()
        self.settings.append((self.loop.now, settings))
        self.answered.clear()  # it may come about again, by a request that is back in an earlier state

    # what commands have said

    def check_answer(self, command: "Command") -> None:
        """Check what was said at the moment it was said; `check_all` looks at it again at the end."""
        self.answered.append(command)
        order, answer = command.order, command.answer
        match order.kind, answer:
            case "restart", Done():
                if not any(at >= command.born_at for at in self.starts[order.to or ""]):
                    raise self._untrue(f"{command.name}: no server of {order.to} has started since")
            case "raise_epoch", Done():
                if command.name not in self.raised or (answer.node, answer.epoch) not in self.ready:
                    raise self._untrue(f"{command.name} says {answer}, which is not so")
            case _, Done():
                fits = order.to in (None, answer.node) and (answer.node, answer.epoch) in self.ready
                if not fits:
                    raise self._untrue(f"{command.name} says {answer}, which is not so")
            case _, Changed(changed=changed):
                self._check_settings(command, changed)
        self._check_refusal(command)

    def check_all(self) -> None:
        """What was said not to happen has not happened since, either."""
        for command in self.answered:
            if command.id not in self.given_up_before:
                self._check_refusal(command)

    def _check_refusal(self, command: "Command") -> None:
        answer = command.answer
        if isinstance(answer, Refused | BackendError | Failed) and self._happened(command, answer):
            states = self.states[command.id]
            raise self._untrue(f"{command.name} has said {answer}, and it has happened: {states}")

    def _happened(self, command: "Command", answer: SidecarError) -> bool:
        """Tell whether what *answer* says has not come about, or not even begun, has."""
        states, text = self.states[command.id], str(answer)
        untouched = not isinstance(answer, Failed) or any(words in text for words in UNTOUCHED)
        match command.order.kind:
            case "switchover" | "restart":
                return "confirmed" in states if untouched else "done" in states and DID_NOT_LAST not in text
            case "failover":
                return untouched and command.id in self.broken
            case "raise_epoch":
                return command.name in self.raised
            case "pause" | "resume" | "set" | "unset":
                return any(settings.by == command.name for _, settings in self.settings)
            case _:
                return False

    def _check_settings(self, command: "Command", changed: bool) -> None:
        order = command.order
        node, wanted = order.to, order.kind == "pause"
        since = [found for at, found in self.settings if at >= command.born_at]
        before = [found for at, found in self.settings if at < command.born_at][-1:]
        seen = [found for found in (*before, *since) if not changed or found.by == command.name]
        if order.kind in ("set", "unset"):
            is_so = any(getattr(found.override(node or ""), order.setting) == order.value for found in seen)
        else:
            is_so = any((node in found.paused_nodes if node else found.paused) is wanted for found in seen)
        if not is_so:
            raise self._untrue(f"{command.name} says it is set, and it never was")

    def _untrue(self, text: str) -> Violation:
        return self.loop.fail(Violation(f"T1: {text}"))
