"""What is counted as it happens: every counter and the one histogram, each series there from the start.

A series that begins at 0 is what makes ``increase()`` see its first event.
"""

from collections.abc import Sequence
from itertools import product
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from sidecar.core.model import FINISHED, RequestKind, Role
from sidecar.events import ProbeKind, ServerEnd
from sidecar.metrics import causes
from sidecar.metrics.calls import ANSWERS, CALLS, INTERNAL, OUTCOMES
from sidecar.runtime.hooks import Name

PREFIX = "aggregate_sidecar"
RENEWAL_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
"""From an embedded store (1 ms) to a tenth of a TTL of 10 minutes. The clock tells whole ms."""

ROLES: tuple[str, ...] = get_args(Role)
STARTS = ("ready", "failed")


class Instruments:
    """All of them, in *registry*."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._of_the_lock()
        self._of_the_server()
        self.alarms = self._counter("alarms", "Alarms in the log (event=alarm).")
        self.commands = self._counter(
            "requests",
            "Switchovers, failovers and restarts that this node concluded.",
            kind=get_args(RequestKind),
            outcome=sorted(FINISHED),
        )

    def _of_the_lock(self) -> None:
        self.acquisitions = self._counter(
            "acquisitions", "Times this node took the lock, by what had freed it.", cause=causes.KINDS
        )
        self.renewals = self._counter(
            "renewals",
            "Renewals of the lock. Lost: a definite answer. Failed and unknown change nothing by themselves.",
            outcome=("ok", "lost", "failed", "unknown"),
        )
        self.renewal_duration = Histogram(
            "renewal_duration_seconds",
            "Time a renewal took, whatever came of it.",
            namespace=PREFIX,
            buckets=RENEWAL_BUCKETS_S,
            registry=self._registry,
        )
        self.requests = self._counter("backend_requests", "Calls to the store that ended.", call=CALLS)
        self.errors = self._counter(
            "backend_errors",
            "Calls to the store that failed; losing a race or the lock is an answer and not among them.",
            call=CALLS,
            error=[*(o for o in OUTCOMES.values() if o not in ANSWERS), INTERNAL],
        )

    def _of_the_server(self) -> None:
        self.starts = self._counter(
            "server_starts", "Starts of the server by what came of them.", role=ROLES, outcome=STARTS
        )
        self.restarts = self._counter(
            "server_restarts",
            "Those starts that followed another in the same role and epoch: in place, without failover.",
            role=ROLES,
            outcome=STARTS,
        )
        self.ends = self._counter(
            "server_ends",
            "Ends of the server, its process tree proven dead.",
            role=ROLES,
            how=get_args(ServerEnd),
        )
        self.probes = self._counter(
            "probes", "Probes of the server.", probe=get_args(ProbeKind), result=("ok", "failed")
        )
        self.hooks = self._counter(
            "hooks", "Hooks that ran, by what came of them.", hook=get_args(Name), outcome=("ended", "failed")
        )
        self.self_activations = self._counter(
            "standby_self_activations",
            "Standby servers that were found serving although nobody told them to.",
        )

    def _counter(self, name: str, says: str, **labels: Sequence[str]) -> Counter:
        made = Counter(name, says, tuple(labels), namespace=PREFIX, registry=self._registry)
        if labels:
            for values in product(*labels.values()):
                made.labels(*values)
        return made
