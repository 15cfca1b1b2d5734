"""The metrics of one sidecar: told by its parts, rendered for a scrape."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric

from sidecar import events
from sidecar.clock import Clock
from sidecar.core.model import Enforcement
from sidecar.metrics.calls import MeasuredBackend
from sidecar.metrics.gauges import families, owned
from sidecar.metrics.instruments import Instruments
from sidecar.metrics.ledger import Fact, Ledger
from sidecar.ports import Backend
from sidecar.runtime.lanes import Lane
from sidecar.runtime.turn import Turn

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FLUSH_WITHIN_S = 1.0
"""How long a scrape waits for what was told to be counted; a starved machine is shown without the rest."""


class Metrics:
    """Counts from its construction to ``close``; the gauges are there from the first turn on."""

    def __init__(
        self, cluster: str, node: str, store: str, clock: Clock, flush_within_s: float = FLUSH_WITHIN_S
    ) -> None:
        self.enforcement: Enforcement = "none"  # set when the guard is there
        self._labels = {"cluster": cluster, "node": node}
        self._store = store
        self._flush_within_s = flush_within_s
        self._clock = clock
        self._registry = CollectorRegistry(auto_describe=False)
        self._ledger = Ledger(Instruments(self._registry), clock.now())
        self._process = ProcessCollector(registry=None)
        self._turn: Turn | None = None
        self._lane = Lane("metrics")
        self._open = ExitStack()
        self._open.enter_context(events.listening(self._told))

    def measured(self, backend: Backend) -> Backend:
        """Return *backend* with its calls counted."""
        return MeasuredBackend(backend, self._clock, self._told)

    def take(self, turn: Turn) -> None:
        """Show what is so after *turn*. On the deciding thread."""
        self._turn = turn

    def render(self) -> bytes:
        """Return the text format (`CONTENT_TYPE`).

        From any thread. It waits for no store, server or decision, but for the counting of what was told.
        """
        counted = threading.Event()
        self._lane.put(counted.set)  # behind all that was told so far
        counted.wait(self._flush_within_s)
        return generate_latest(_Exposition(self))

    def collect(self) -> Iterator[Metric]:
        """Yield every family, each sample with cluster and node."""
        yield from owned(self._registry.collect(), self._labels)
        turn = self._turn
        if turn is not None:
            now = self._clock.now()
            found = families(turn, self._store, self.enforcement, self._ledger, now)
            yield from owned(found, self._labels)
        yield from owned(self._process.collect(), self._labels)

    def close(self) -> None:
        """Count no more."""
        self._open.close()
        self._lane.close()

    def _told(self, fact: Fact) -> None:
        self._lane.put(lambda: self._ledger.take(fact))


class _Exposition(CollectorRegistry):
    """What `generate_latest` takes, by any version: a registry, of what *metrics* collects."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(auto_describe=False)
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.collect()
