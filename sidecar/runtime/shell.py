"""The shell: one queue of observations, one thread that decides, lanes that carry out.

Whatever happens in here, the guard kills an active server at its deadline: an error in this process
can cost a failover, never a second active. An unexpected exception while deciding, or in what deals
with the guard, ends the process, and the server is left to the guard and the next sidecar.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

import psutil

from sidecar import __version__
from sidecar.clock import Clock, left_s, wall_ms
from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.model import FINISHED, HistoryEntry, NodeRecord, ServerStats
from sidecar.core.outlook import describe, wake_at
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import BackendError, Conflict
from sidecar.events import LOG, Notice, Raised, RoleChanged, emit
from sidecar.ports import Backend
from sidecar.runtime.lanes import Health, Lane
from sidecar.runtime.locking import LockLane, hold_to_note
from sidecar.runtime.marks import MarkFile
from sidecar.runtime.serving import ServerLane
from sidecar.runtime.turn import Turn

STATS_EVERY_MS = 15_000
"""Finding a process tree means a walk over all of /proc, some ms of CPU: 0.1 % of a core every 5 s."""


class Reload:
    """Put on the queue by SIGHUP."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Put on the queue by a part that cannot go on, so that what it would tell will never come."""

    what: str


class Shell:
    """Runs one node until it is finished."""

    def __init__(
        self,
        node: s.Node,
        policy: s.Policy,
        *,
        cluster: str,
        clock: Clock,
        backend: Backend,
        locks: LockLane,
        servers: ServerLane,
        marks: MarkFile,
        inbox: "SimpleQueue[s.Observation | Reload | Broken]",
        publish_soon: Callable[[], None],
        turned: Callable[[Turn], None],
        api: str | None,
        reload: Callable[[s.Policy], s.Policy],
    ) -> None:
        self.node = node
        self.policy = policy
        self._cluster = cluster
        self._clock = clock
        self._backend = backend
        self._locks = locks
        self._servers = servers
        self._marks = marks
        self._inbox = inbox
        self._publish_soon = publish_soon
        self._turned = turned
        self._api = api
        self._reload = reload
        self._closing = threading.Event()
        self._desk = Lane("desk")
        self._files = Lane("files")
        self._health = Health("request or history")
        self._published: object = None
        self._unreadable: set[str] = set()
        self._stats: tuple[Instant, ServerStats | None] = (Instant(0), None)
        self._process: psutil.Process | None = None

    def run(self) -> s.Finished:
        """Decide until there is nothing left to decide."""
        seen: s.Observation | Reload | Broken = s.Tick()
        while True:
            if isinstance(seen, Broken):
                raise RuntimeError(f"internal error: {seen.what}")
            if isinstance(seen, Reload):
                self.policy = self._reload(self.policy)
                seen = s.Tick()
            now = self._clock.now()
            before = self.node
            self.node, actions = decide(self.node, seen, now, self.policy)
            for action in actions:
                self._carry_out(action)
            self._turned(Turn(self.node, self.policy, now))  # after the orders: see `Turn`
            self._tell(before, seen, now)
            if isinstance(seen, s.Seen):
                self._tell_unreadable(set(seen.view.unreadable))
            if isinstance(self.node.phase, s.Finished):
                return self.node.phase
            seen = self._next(wake_at(self.node, now, self.policy))

    def close(self) -> None:
        """End the lanes of the desk."""
        self._closing.set()
        self._desk.close()
        self._files.close()

    def record(self) -> NodeRecord:
        """Return what this node says of itself now; called from the publisher's thread."""
        record = describe(
            self.node,
            self._clock.now(),
            self.policy,
            enforcement=self._servers.enforcement,
            version=__version__,
            unix_ms=wall_ms(),
            server=self._server_stats(),
        )
        return replace(record, api=self._api)

    def _next(self, until: Instant) -> s.Observation | Reload | Broken:
        try:
            return self._inbox.get(timeout=left_s(until, self._clock))
        except Empty:
            return s.Tick()

    def _carry_out(self, action: s.Action) -> None:
        match action:
            case s.Acquire(floor):
                self._locks.acquire(self.policy, floor)
            case s.Renew(epoch):
                self._locks.renew(epoch)
            case s.Release(epoch, cause):
                self._locks.release(self.policy, epoch, cause)
            case s.StartServer():
                self._servers.start(action)
            case s.ExtendServer(run, deadline):
                self._servers.extend(run, deadline, self.note(self._epoch()))
            case s.StopServer(run, kill_at):
                self._servers.stop(run, kill_at)
            case s.KillServer(run):
                self._servers.kill(run)
            case s.SaveMark(epoch):
                self._files.put(lambda: self._marks.save(epoch))
            case s.Answer():
                epoch = self._epoch()
                self._desk.put(lambda: self._answer(action, epoch))
            case s.RecordChange():
                self._desk.put(lambda: self._record_change(action))
            case s.Alarm(text):
                emit(Raised(text=text))
            case s.Exit():
                pass  # `run` sees the phase

    def note(self, epoch: Epoch) -> str | None:
        """Return what the guard keeps for the sidecar after us."""
        hold = self._locks.hold(epoch)
        return None if hold is None else hold_to_note(self._cluster, hold)

    def _epoch(self) -> Epoch:
        phase = self.node.phase
        return phase.lease.epoch if isinstance(phase, s.Holding) else NO_EPOCH

    # On the desk's thread.

    def _deadline(self) -> Instant:
        return Instant(self._clock.now() + self.policy.request_timeout_ms)

    def _answer(self, answer: s.Answer, epoch: Epoch) -> None:
        try:
            hold = self._locks.hold(epoch)
            self._backend.write(
                answer.request, expected=answer.expected, hold=hold, deadline=self._deadline()
            )
            self._health.well()
        except Conflict:
            pass  # somebody wrote meanwhile: the next view says what
        except BackendError as error:
            self._health.ill(error)
            self._inbox.put(s.AnswerFailed())
        state = answer.request.state
        if state in FINISHED:
            why = f": {answer.request.reason}" if answer.request.reason else ""
            emit(Notice(text=f"{answer.request.kind} {answer.request.id}: {state}{why}"))

    def _record_change(self, record: s.RecordChange) -> None:
        change = record.change
        entry = HistoryEntry(
            epoch=record.epoch,
            node=self.policy.node,
            previous=change.previous,
            cause=change.cause,
            at_unix_ms=wall_ms(),
            detect_ms=change.detect_ms,
            lock_ms=change.lock_ms,
            start_ms=record.start_ms,
        )
        while (hold := self._locks.hold(record.epoch)) is not None and not self._closing.is_set():
            if self._epoch() != record.epoch:
                return
            try:
                self._backend.append_history(hold, entry, deadline=self._deadline())
                self._health.well()
                return
            except BackendError as error:
                self._health.ill(error)
                if not error.retry:
                    return
                self._closing.wait(self.policy.retry_ms / 1000)

    # What others get to know.

    def _tell_unreadable(self, keys: set[str]) -> None:
        for key in sorted(keys - self._unreadable):
            meanwhile = "it counts as held" if key == "lock" else "the last good one counts"
            emit(Raised(text=f"the key {key} holds no document known here; {meanwhile}"))
        for key in sorted(self._unreadable - keys):
            emit(Notice(text=f"the key {key} can be read again, or is gone"))
        self._unreadable = keys

    def _tell(self, before: s.Node, seen: s.Observation, now: Instant) -> None:
        old, new = before.phase, self.node.phase
        record = self._shape(now)
        if type(old) is not type(new):
            lease = new.lease if isinstance(new, s.Holding) else None
            emit(
                RoleChanged(
                    node=self.policy.node,
                    before=type(old).__name__.lower(),
                    after=type(new).__name__.lower(),
                    cause=type(seen).__name__,
                    epoch=0 if lease is None else lease.epoch,
                    lease_left_ms=None if lease is None else lease.deadline - now,
                    message=record.message,
                )
            )
        shape = (record.role, record.state, record.message, record.epoch, record.available, record.mark)
        if shape != self._published:
            self._published = shape
            self._publish_soon()

    def _shape(self, now: Instant) -> NodeRecord:
        enforcement = self._servers.enforcement
        return describe(
            self.node, now, self.policy, enforcement=enforcement, version="", unix_ms=0, server=None
        )

    def _server_stats(self) -> ServerStats | None:
        """Measure the server's tree, at most once in a while. On the publisher's thread only."""
        running = self._servers.server()
        if running is None:
            self._process = None
            return None
        pid, started_at = running
        now = self._clock.now()
        fresh = now - self._stats[0] < STATS_EVERY_MS
        if fresh and self._stats[1] is not None and self._stats[1].pid == pid:
            return self._stats[1]
        stats: ServerStats | None = None
        try:
            if self._process is None or self._process.pid != pid:
                self._process = psutil.Process(pid)
            tree = [self._process, *self._process.children(recursive=True)]
            stats = ServerStats(
                pid=pid,
                uptime_s=round((now - started_at) / 1000, 1),
                rss_bytes=sum(process.memory_info().rss for process in tree),
                cpu_percent=round(self._process.cpu_percent(), 1),
            )
        except psutil.Error:
            LOG.debug("server %d ended while it was measured", pid)
        self._stats = (now, stats)
        return stats
