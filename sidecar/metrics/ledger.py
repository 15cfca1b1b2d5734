"""Counts what it is told. One thread calls it, and what it is told is in order for each thread that tells."""

from sidecar import events as e
from sidecar.core.model import NodeRecord, ServerStats
from sidecar.core.units import Instant
from sidecar.metrics.calls import ANSWERS, Call, Shown
from sidecar.metrics.causes import kind_of
from sidecar.metrics.instruments import Instruments
from sidecar.metrics.overlap import Overlaps

Fact = Call | Shown | NodeRecord | e.Event
WITHOUT_LOCK = frozenset(("idle", "standing"))
WITH_LOCK = frozenset(("promoting", "starting"))
RENEWALS = {"ok": "ok", "not_holder": "lost", "outcome_unknown": "unknown"}  # the rest has failed


class Ledger:
    """The instruments' only writer, and what else is known from what was told."""

    def __init__(self, instruments: Instruments, now: Instant) -> None:
        self._count = instruments
        self._overlaps = Overlaps()
        self._before: tuple[str, int] | None = None  # role and epoch of the last start
        self._start: tuple[int, str, bool] | None = None  # run, role, whether again: not ready yet
        self._activated: int | None = None  # the run that was found active last
        self.shown_at = now  # when the store last showed the cluster
        self.overlapping = 0
        self.stats: ServerStats | None = None
        self.takeover: e.TookOver | None = None

    def take(self, fact: Fact) -> None:
        """Take *fact* in."""
        match fact:
            case Call():
                self._call(fact)
            case Shown(view, at):
                self.shown_at = at
                self.overlapping = self._overlaps.look(view)
            case NodeRecord():
                self.stats = fact.server
            case e.RoleChanged() if fact.before in WITHOUT_LOCK and fact.after in WITH_LOCK:
                self._count.acquisitions.labels(kind_of(fact.why or "")).inc()
            case e.TookOver():
                self.takeover = fact
            case e.ServerStarted():
                self._begun(fact)
            case e.ServerReady():
                self._started(fact.run, "ready")
            case e.ServerEnded():
                self._ended(fact)
            case e.Probed():
                self._probed(fact)
            case e.HookEnded():  # HookFailed, too
                outcome = "failed" if isinstance(fact, e.HookFailed) else "ended"
                self._count.hooks.labels(fact.hook, outcome).inc()
            case e.Raised():
                self._count.alarms.inc()
            case e.RequestEnded():
                self._count.commands.labels(fact.kind, fact.state).inc()
            case _:
                pass  # for the log only

    def _call(self, call: Call) -> None:
        self._count.requests.labels(call.name).inc()
        if call.outcome not in ANSWERS:
            self._count.errors.labels(call.name, call.outcome).inc()
        if call.name == "renew":
            self._count.renewals.labels(RENEWALS.get(call.outcome, "failed")).inc()
            self._count.renewal_duration.observe(call.took_ms / 1000)

    def _begun(self, began: e.ServerStarted | e.ServerEnded) -> None:
        self._start = (began.run, began.role, (began.role, began.epoch) == self._before)
        self._before = (began.role, began.epoch)

    def _started(self, run: int, outcome: str) -> None:
        if self._start is None or self._start[0] != run:
            return
        _, role, again = self._start
        self._start = None
        self._count.starts.labels(role, outcome).inc()
        if again:
            self._count.restarts.labels(role, outcome).inc()

    def _ended(self, ended: e.ServerEnded) -> None:
        if ended.how == "not_started":
            self._begun(ended)
        if ended.role == "standby" and ended.how == "deadline":
            self._before = None  # of its age: the next one is no restart, but begins anew
        self._started(ended.run, "failed")
        self._count.ends.labels(ended.role, ended.how).inc()

    def _probed(self, probed: e.Probed) -> None:
        self._count.probes.labels(probed.probe, "ok" if probed.ok else "failed").inc()
        if probed.probe == "self_activation" and not probed.ok and probed.run != self._activated:
            self._activated = probed.run
            self._count.self_activations.inc()
