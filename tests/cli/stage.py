"""A cluster on the real local backend, whose nodes are played by a script in the test.

    stage.appear("node-a", "node-b"); stage.acquire("node-a")
    with stage.acting(lambda: stage.obey("node-b")):
        handover.switchover(stage.desk(), …)

The nodes have no server and no core: what is tested is the other end of the protocol.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sidecar.clock import BootClock, wall_ms
from sidecar.core.model import HistoryEntry, NodeRecord, Request, RequestState, Settings, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.operate.desk import Desk
from sidecar.plugins import load_backend
from sidecar.ports import Backend, BackendSettings, Grant, Hold
from tests.contract.stores import LocalStore

WITHIN_MS = 20_000
TTL_MS = 30_000


class Stage:
    """The store of one cluster and everybody in it."""

    def __init__(self, path: Path, ttl_ms: int = TTL_MS) -> None:
        self.path, self.ttl_ms = path, ttl_ms
        self.clock = BootClock()
        self.told: list[str] = []
        self.backend = self.connect()
        self.hold: Hold | None = None
        self._open: list[Backend] = []

    def connect(self) -> Backend:
        settings = BackendSettings("plant-7", {"path": str(self.path)})
        return load_backend("local")(settings, self.clock)

    def desk(self, halted: Callable[[], bool] = lambda: False, answer_within_ms: int = 5_000) -> Desk:
        """Return a desk with a connection of its own."""
        self._open.append(self.connect())
        return Desk(
            self._open[-1],
            self.clock,
            "plant-7",
            "local",
            "node-a",
            self.ttl_ms,
            "op@here",
            answer_within_ms,
            halted,
        )

    def tell(self, text: str) -> None:
        self.told.append(text)

    def close(self) -> None:
        for backend in (self.backend, *self._open):
            backend.close()

    @property
    def soon(self) -> Instant:
        return Instant(self.clock.now() + WITHIN_MS)

    def view(self) -> View:
        return self.backend.read(deadline=self.soon)

    # ---- what nodes do

    def appear(self, *nodes: str, **what: Any) -> None:
        """Publish standbys that could take over, or whatever *what* says of them."""
        for node in nodes:
            plain = NodeRecord(
                node=node,
                instance=f"{node}-1",
                role="standby",
                state="monitoring",
                message="Monitoring Master Server Status",
                epoch=NO_EPOCH,
                mark=NO_EPOCH,
                enforcement="kernel",
                priority=100,
                eligible=True,
                available=True,
                failback=False,
                version="0.1.0",
                seen_at_unix_ms=wall_ms(),
            )
            self.backend.publish(replace(plain, **what), ttl_ms=TTL_MS, deadline=self.soon)

    def acquire(self, node: str, state: str = "running") -> Hold:
        """Take the lock, waiting for it as a node does, and show it."""
        while True:
            view = self.view()
            grant = self.backend.acquire(node, f"{node}-1", self.ttl_ms, floor=NO_EPOCH, deadline=self.soon)
            if isinstance(grant, Grant):
                break
            self.backend.await_change(view.revision, deadline=self.soon)
        self.hold = grant.hold
        self.show(node, state)
        return grant.hold

    def show(self, node: str, state: str = "running", message: str = "Serving") -> None:
        """Publish the holder as active."""
        assert self.hold is not None
        self.appear(
            node,
            role="active",
            state=state,
            message=message,
            epoch=self.hold.epoch,
            mark=self.hold.epoch,
            available=False,
            lease_left_ms=self.ttl_ms,
        )

    def release(self) -> None:
        assert self.hold is not None
        self.backend.release(self.hold, cause="test", deadline=self.soon)
        self.appear(self.hold.node, state="stopped", available=False)

    def record(self, cause: str, previous: str | None = None) -> None:
        assert self.hold is not None
        entry = HistoryEntry(self.hold.epoch, self.hold.node, previous, cause, wall_ms(), 9_100, 40, 61_000)
        self.backend.append_history(self.hold, entry, deadline=self.soon)

    def await_view(self, condition: Callable[[View], object]) -> View:
        until, view = self.soon, self.view()
        while not condition(view):
            newer = self.backend.await_change(view.revision, deadline=until)
            assert newer is not None, "it never came"
            view = newer
        return view

    def await_request(self, *states: RequestState) -> Request:
        view = self.await_view(lambda view: view.request is not None and view.request.state in states)
        assert view.request is not None
        return view.request

    def write(self, value: Request | Settings) -> None:
        key = "request" if isinstance(value, Request) else "settings"
        self.backend.write(value, expected=self.view().versions.get(key, 0), deadline=self.soon)

    def answer(self, state: RequestState, reason: str | None = None, to: str | None = None) -> None:
        found = self.view().request
        assert found is not None
        self.write(replace(found, state=state, reason=reason, to=to or found.to))

    def garble(self, key: str, text: str = '{"v": 2}') -> None:
        """Write what a later version might, or somebody else."""
        LocalStore(self.path).put("plant-7", key, text)

    def vanish(self, node: str) -> None:
        """Let the record of *node* run out."""
        self.backend.withdraw(node, _instance(self.view(), node), deadline=self.soon)

    # ---- whole parts

    def accept(self, to: str | None = None) -> None:
        """Accept, and wait for the confirmation."""
        self.await_request("asked")
        self.answer("accepted", to=to)
        self.await_request("confirmed")

    def obey(self, to: str) -> None:
        """Play a switchover from both sides."""
        self.accept(to)
        self.release()
        self.acquire(to)
        self.answer("done", f"{to} is active")

    @contextmanager
    def acting(self, play: Callable[[], object]) -> Iterator[None]:
        """Run *play* beside the block; what it raises is raised here."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(play)
            try:
                yield
            finally:
                future.result(WITHIN_MS / 1000)


def _instance(view: View, node: str) -> str:
    record = view.node(node)
    assert record is not None
    return record.instance


def request(kind: Any = "switchover", state: RequestState = "asked", epoch: int = 1, **what: Any) -> Request:
    """Return somebody else's request."""
    plain = Request("f00d" * 8, kind, state, Epoch(epoch), "node-a", "node-b", "bob@there", wall_ms())
    return replace(plain, **what)
