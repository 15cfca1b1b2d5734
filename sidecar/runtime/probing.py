"""The prober: asks the server of the present run how it is, from a thread of its own."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.clock import Clock
from sidecar.core import state as s
from sidecar.core.model import Role
from sidecar.core.units import Instant
from sidecar.events import LOG, Probed, ProbeFailed, ProbeKind, ServerReady, emit
from sidecar.probes import OK, Finding, Probe


@dataclass(frozen=True, slots=True)
class Watching:
    """What to ask the active server while it runs."""

    ready: Probe | None  # None: it is ready as soon as it runs
    alive: Probe | None  # None: it is alive as long as it runs
    ready_every_ms: int
    ready_timeout_ms: int
    every_ms: int
    timeout_ms: int
    failures: int  # in a row, before it counts as sick


UNWATCHED = Watching(None, None, ready_every_ms=0, ready_timeout_ms=0, every_ms=0, timeout_ms=0, failures=0)


@dataclass(frozen=True, slots=True)
class All:
    """Several probes as one: the first no is the answer."""

    probes: tuple[Probe, ...]

    def check(self, deadline: Instant) -> Finding:
        """Ask one after the other, all by *deadline*."""
        for probe in self.probes:
            if not (finding := probe.check(deadline)).ok:
                return finding
        return OK


@dataclass(frozen=True, slots=True)
class _Subject:
    run: s.Run
    role: Role
    ready: bool
    watching: Watching
    activated: Probe | None


class Prober:
    """Posts `ServerReady`, `ServerSick` and `ServerActivated` of the run it was last given."""

    def __init__(self, clock: Clock, post: Callable[[s.Observation], None]) -> None:
        self._clock = clock
        self._post = post
        self._wake = threading.Event()
        self._closing = False
        self._subject: _Subject | None = None
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None

    def look_at(
        self,
        run: s.Run,
        role: Role,
        watching: Watching,
        activated: Probe | None,
        *,
        ready: bool = False,
    ) -> None:
        """Ask this run from now on. One that needs no asking is ready at once; *ready*: that is known."""
        at_once = not ready and (role == "standby" or watching.ready is None)
        subject = _Subject(run, role, ready or at_once, watching, activated)
        with self._changing:
            self._subject = subject
        if at_once:
            self._ready(run, role)  # after it is known: whoever hears it may want it forgotten
        if self._asks(subject):
            if self._thread is None:
                self._thread = threading.Thread(target=self._probe, name="probe", daemon=True)
                self._thread.start()
            self._wake.set()

    def forget(self, run: s.Run) -> None:
        """Ask that run no more."""
        with self._changing:
            if self._subject is None or self._subject.run != run:
                return
            self._subject = None
        self._wake.set()

    def close(self) -> None:
        """Stop asking. A probe under way ends by its own deadline."""
        self._closing = True
        self._wake.set()

    @staticmethod
    def _asks(subject: _Subject) -> bool:
        if subject.role == "standby":
            return subject.activated is not None
        return not subject.ready or subject.watching.alive is not None

    def _probe(self) -> None:
        failures, last = 0, None
        while True:
            self._wake.clear()  # before looking: what is set meanwhile ends the wait
            if self._closing:
                return
            subject = self._subject
            if subject is None or not self._asks(subject):
                self._wake.wait()
                continue
            if last is None or subject.run != last.run:
                failures, last = 0, subject
            try:
                failures, pause_ms = self._turn(subject, failures)
            except Exception:  # outermost frame of the thread
                LOG.exception("internal_error")
                pause_ms = subject.watching.every_ms
            self._wake.wait(pause_ms / 1000)

    def _turn(self, subject: _Subject, failures: int) -> tuple[int, int]:
        watching = subject.watching
        if subject.role == "standby":
            if subject.activated is None:
                return 0, watching.every_ms
            activated = self._ask(subject.activated, watching.timeout_ms).ok
            emit(Probed(run=subject.run, probe="self_activation", ok=not activated, reason=""))
            if activated:
                self._post(s.ServerActivated(subject.run))
            return 0, watching.every_ms
        if not subject.ready:
            if watching.ready is not None:
                finding = self._ask(watching.ready, watching.ready_timeout_ms)
                self._tell(subject, "ready", finding, logging.DEBUG)
                if not finding.ok:
                    return 0, watching.ready_every_ms
            ready = _Subject(subject.run, subject.role, True, watching, subject.activated)
            with self._changing:
                asked = self._subject is subject
                if asked:
                    self._subject = ready
            if asked:
                self._ready(subject.run, subject.role)
            return 0, watching.every_ms
        assert watching.alive is not None
        finding = self._ask(watching.alive, watching.timeout_ms)
        self._tell(subject, "alive", finding, logging.INFO if finding.ok and failures else logging.DEBUG)
        failures = 0 if finding.ok else failures + 1
        if failures:
            found = ProbeFailed(
                run=subject.run, reason=finding.reason, failures=failures, of=watching.failures
            )
            emit(found)
        if failures >= watching.failures:
            reason = f"{failures} probes failed in a row: {finding.reason}"
            self._post(s.ServerSick(subject.run, reason))
            failures = 0
        return failures, watching.every_ms

    def _ready(self, run: s.Run, role: Role) -> None:
        self._post(s.ServerReady(run))
        emit(ServerReady(run=run, role=role))

    @staticmethod
    def _tell(subject: _Subject, probe: ProbeKind, finding: Finding, level: int) -> None:
        emit(Probed(run=subject.run, probe=probe, ok=finding.ok, reason=finding.reason), level)

    def _ask(self, probe: Probe, timeout_ms: int) -> Finding:
        return probe.check(Instant(self._clock.now() + timeout_ms))
