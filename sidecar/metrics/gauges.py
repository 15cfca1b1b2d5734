"""What is so at the instant of a scrape, from what the deciding thread last left behind."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from sidecar import __version__
from sidecar.core import state as s
from sidecar.core.model import Enforcement, NodeRecord, ServerState
from sidecar.core.outlook import describe
from sidecar.core.units import Instant
from sidecar.metrics.instruments import PREFIX, ROLES
from sidecar.metrics.ledger import Ledger
from sidecar.runtime.turn import Turn

STATES: tuple[str, ...] = get_args(ServerState)


def families(
    turn: Turn, backend: str, enforcement: Enforcement, ledger: Ledger, now: Instant
) -> Iterator[Metric]:
    """Yield every gauge; one that makes no sense now has no sample."""
    node, policy = turn.node, turn.policy
    record = describe(node, now, policy, enforcement=enforcement, version=__version__, unix_ms=0, server=None)
    lease = node.phase.lease if isinstance(node.phase, s.Holding) else None
    yield _info(
        "build",
        "What runs here.",
        version=__version__,
        python=platform.python_version(),
        backend=backend,
    )
    yield _info("enforcement", "Who ends the server at its deadline.", enforcement=enforcement)
    yield from _standing(record, lease, now)
    yield _gauge("lease_ttl_seconds", "Time to live that is asked for the lease.", policy.ttl_ms / 1000)
    yield _gauge("renew_every_seconds", "How often the lease is renewed.", policy.renew_every_ms / 1000)
    yield from _seen(node, policy)
    yield _gauge(
        "loop_age_seconds",
        "Time since the deciding loop last turned; it does every second.",
        (now - turn.at) / 1000,
    )
    yield _gauge(
        "watch_age_seconds",
        "Time since the store last showed the cluster; what nodes publish is news every third of the TTL.",
        (now - ledger.shown_at) / 1000,
    )
    yield _gauge(
        "overlapping_actives",
        "Nodes that go on saying that they are active although the lock is another's at a later epoch.",
        ledger.overlapping,
    )
    yield from _server(ledger)


def _standing(record: NodeRecord, lease: s.Lease | None, now: Instant) -> Iterator[Metric]:
    valid = lease is None or lease.deadline > now
    yield _states(
        "role",
        "1 for the role this node has; active only while its lease is valid at this instant.",
        {role: valid and role == record.role for role in ROLES},
    )
    yield _states(
        "state", "1 for the state that status shows.", {state: state == record.state for state in STATES}
    )
    yield _gauge("available", "1 while this node is able to take over.", record.available)
    yield _gauge(
        "lease_remaining_seconds",
        "Time left until the deadline of the lock; no sample while this node does not hold it.",
        None if lease is None else max(0, lease.deadline - now) / 1000,
    )
    yield _gauge("epoch", "The highest epoch this node has seen, its own where it is active.", record.mark)


def _seen(node: s.Node, policy: s.Policy) -> Iterator[Metric]:
    view = node.memory.view
    yield _gauge(
        "store_epoch",
        "The last epoch the store says it has given out.",
        None if view is None else view.epoch.epoch,
    )
    yield _gauge(
        "paused",
        "1 in maintenance, of the cluster or this node: nothing is started, stopped or taken over.",
        view is not None and view.settings.holds_back(policy.node),
    )


def _server(ledger: Ledger) -> Iterator[Metric]:
    stats, takeover = ledger.stats, ledger.takeover
    yield _gauge(
        "server_uptime_seconds",
        "Age of the server, as last measured.",
        None if stats is None else stats.uptime_s,
    )
    yield _gauge(
        "server_resident_memory_bytes",
        "Resident memory of the server's process tree, as last measured (every 15 s).",
        None if stats is None else stats.rss_bytes,
    )
    yield _gauge(
        "server_cpu_ratio",
        "Processor time per time of the server, as last measured (every 15 s); 1 is one core.",
        None if stats is None else stats.cpu_percent / 100,
    )
    parts = (
        {}
        if takeover is None
        else {
            "detect": takeover.detect_ms,
            "lock": takeover.lock_ms,
            "start": takeover.start_ms,
        }
    )
    yield _labelled(
        "last_takeover_duration_seconds",
        "Where the time of this node's last takeover went; what was not observed has no sample.",
        "part",
        {part: ms / 1000 for part, ms in parts.items() if ms is not None},
    )


def _gauge(name: str, says: str, value: float | None) -> Metric:
    made = GaugeMetricFamily(f"{PREFIX}_{name}", says)
    if value is not None:
        made.add_metric((), float(value))
    return made


def _states(name: str, says: str, values: Mapping[str, bool]) -> Metric:
    return _labelled(name, says, name, {state: float(value) for state, value in values.items()})


def _labelled(name: str, says: str, label: str, values: Mapping[str, float]) -> Metric:
    made = GaugeMetricFamily(f"{PREFIX}_{name}", says, labels=(label,))
    for key, value in values.items():
        made.add_metric((key,), value)
    return made


def _info(name: str, says: str, **labels: str) -> Metric:
    return InfoMetricFamily(f"{PREFIX}_{name}", says, labels)


def owned(families: Iterable[Metric], labels: Mapping[str, str]) -> Iterator[Metric]:
    """Yield the families with *labels* on each sample, without the instants at which series began."""
    for family in families:
        made = Metric(family.name, family.documentation, family.type)
        made.samples = [
            sample._replace(labels={**labels, **sample.labels})
            for sample in family.samples
            if sample.name != f"{family.name}_created"
        ]
        yield made
