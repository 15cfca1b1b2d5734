"""Metrics of a node whose every series has a sample, and the text format as values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from sidecar.clock import ManualClock
from sidecar.core import state as s
from sidecar.core.model import NodeRecord, ServerStats
from sidecar.events import TookOver
from sidecar.metrics import Metrics
from sidecar.metrics.calls import Shown
from sidecar.runtime.turn import Turn
from tests.core.made import EPOCH, MONITORING, NOW, other, serving, view
from tests.runtime.stubs import WITHIN_S

OWN = frozenset(("cluster", "node"))
STATS = ServerStats(pid=4711, uptime_s=12.5, rss_bytes=913_000_000, cpu_percent=3.1)
TAKEOVER = TookOver(
    node="a", previous="b", why="lease expired", epoch=7, detect_ms=9_000, lock_ms=40, start_ms=800
)


class Sample(NamedTuple):
    """One line of the text format, without cluster and node."""

    name: str
    labels: dict[str, str]
    value: float


def samples(text: bytes) -> list[Sample]:
    """Return every sample, having seen that each says whose it is."""
    found = []
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            assert sample.labels.keys() >= OWN, sample
            labels = {name: value for name, value in sample.labels.items() if name not in OWN}
            found.append(Sample(sample.name, labels, sample.value))
    return found


def value(text: bytes, name: str, **labels: str) -> float | None:
    """Return the one sample of that name and exactly these labels; None: there is none."""
    wanted = f"aggregate_sidecar_{name}"
    return next((x.value for x in samples(text) if (x.name, x.labels) == (wanted, labels)), None)


def record() -> NodeRecord:
    return other("a", role="active", state="running", server=STATS)


def turn(node: s.Node | None = None) -> Turn:
    made = s.Node(serving(), s.Memory(mark=EPOCH, view=view())) if node is None else node
    return Turn(made, MONITORING, NOW)


@contextmanager
def measuring(clock: ManualClock | None = None) -> Iterator[Metrics]:
    made = Metrics("plant-7", "a", "etcd", ManualClock(NOW) if clock is None else clock, WITHIN_S)
    try:
        yield made
    finally:
        made.close()


def exposition() -> bytes:
    """Return a text in which each metric there is has at least one sample."""
    with measuring() as metrics:
        metrics.enforcement = "kernel"
        metrics.take(turn())
        for fact in (Shown(view(), NOW), record(), TAKEOVER):
            metrics._told(fact)
        return metrics.render()
