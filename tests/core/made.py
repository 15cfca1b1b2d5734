"""Values for tests of the core, each with what does not matter filled in."""

from dataclasses import replace

from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.model import (
    EpochRecord,
    LockRecord,
    NodeRecord,
    Request,
    RequestKind,
    RequestState,
    Settings,
    View,
)
from sidecar.core.units import NO_EPOCH, Epoch, Instant

POLICY = s.Policy(
    node="a",
    instance="a/1",
    ttl_ms=10_000,
    renew_every_ms=2_000,
    request_timeout_ms=1_500,
    stop_grace_ms=3_000,
    kill_margin_ms=1_000,
    start_timeout_ms=60_000,
    stop_timeout_ms=30_000,
    restart_attempts=2,
    restart_within_ms=600_000,
    backoff_ms=1_000,
    backoff_max_ms=8_000,
)
MONITORING = replace(POLICY, standby="monitoring")
NOW = Instant(1_000_000)
EPOCH = Epoch(7)
LEASE = s.Lease(EPOCH, Instant(NOW + 9_000))  # stop_at in 5 s, kill_at in 8 s
BUSY = s.Memory(view_at=NOW, call="renew", mark=EPOCH, marked="a", runs=3)
"""Nothing is asked of the store meanwhile."""


def at(after_ms: int) -> Instant:
    return Instant(NOW + after_ms)


def lock(node: str = "a", epoch: int = EPOCH, **more: object) -> LockRecord:
    return replace(LockRecord(node, f"{node}/1", Epoch(epoch), 10_000), **more)  # type: ignore[arg-type]


def other(name: str = "b", **more: object) -> NodeRecord:
    record = NodeRecord(
        node=name,
        instance=f"{name}/1",
        role="standby",
        state="monitoring",
        message="",
        epoch=NO_EPOCH,
        mark=EPOCH,
        enforcement="kernel",
        priority=100,
        eligible=True,
        available=True,
        failback=False,
        version="0",
        seen_at_unix_ms=0,
    )
    return replace(record, **more)  # type: ignore[arg-type]


def view(
    held: LockRecord | None = None,
    epoch: int = EPOCH,
    *,
    by: str | None = "a",
    released: str | None = None,
    nodes: tuple[NodeRecord, ...] = (),
    request: Request | None = None,
    paused: bool = False,
    expired: bool = False,
) -> View:
    return View(
        revision=1,
        lock=held,
        lock_expired=expired,
        epoch=EpochRecord(Epoch(epoch), by, released),
        nodes=nodes,
        request=request,
        settings=Settings(paused=paused),
        versions={"request": 5, "settings": 1},
    )


def request(
    kind: RequestKind = "switchover",
    state: RequestState = "asked",
    *,
    epoch: int = EPOCH,
    source: str = "a",
    to: str | None = "b",
) -> Request:
    return Request("r1", kind, state, Epoch(epoch), source, to, "operator", 0)


def step(
    phase: s.Phase,
    seen: s.Observation,
    memory: s.Memory = BUSY,
    *,
    after_ms: int = 0,
    policy: s.Policy = POLICY,
) -> s.Step:
    return decide(s.Node(phase, memory), seen, at(after_ms), policy)


def grant(epoch: int = EPOCH, sent_after_ms: int = 0) -> s.Granted:
    return s.Granted(Epoch(epoch), at(sent_after_ms), at(sent_after_ms + 9_900))


def serving(run: int = 3) -> s.Serving:
    return s.Serving(LEASE, run)
