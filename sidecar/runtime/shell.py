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
from sidecar.core.candidate import in_force
from sidecar.core.decide import decide
from sidecar.core.model import FINISHED, HistoryEntry, NodeRecord, ServerStats, Settings, View
from sidecar.core.outlook import describe, wake_at
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import BackendError, Conflict, OutcomeUnknown
from sidecar.events import LOG, Notice, Raised, RequestEnded, TookOver, emit
from sidecar.ports import Backend
from sidecar.runtime.hooks import Hooks
from sidecar.runtime.lanes import Health, Lane
from sidecar.runtime.locking import Kept, LockLane, to_note
from sidecar.runtime.marks import MarkFile
from sidecar.runtime.namesakes import Namesakes
from sidecar.runtime.older import OlderStore
from sidecar.runtime.serving import ServerLane
from sidecar.runtime.systemd import Manager
from sidecar.runtime.telling import level_of, role_change
from sidecar.runtime.turn import Turn

KEEP_AGAIN_S = 10.0
"""Between two attempts to keep the mark on a disk that does not take it."""
STATS_EVERY_MS = 15_000
"""Finding a process tree means a walk over all of /proc, some ms of CPU: 0.1 % of a core every 5 s."""
STATS_FIRST_MS = 1_000
"""The same for a server that has just begun: what it had then says little of it."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Put on the queue when a changed configuration was read: makes the new policy of the old one."""

    take_in: Callable[[s.Policy], s.Policy]


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
        hooks: Hooks,
        publish_soon: Callable[[], None],
        manager: Manager,
        turned: Callable[[Turn], None],
        api: str | None,
    ) -> None:
        self.node = node
        self.policy = policy
        self._configured = policy
        self._cluster = cluster
        self._clock = clock
        self._backend = backend
        self._locks = locks
        self._servers = servers
        self._marks = marks
        self._inbox = inbox
        self._hooks = hooks
        self._publish_soon = publish_soon
        self._manager = manager
        self._turned = turned
        self._api = api
        self._closing = threading.Event()
        self._desk = Lane("desk")
        self._files = Lane("files")
        self._health = Health("request or history")
        self._published: object = None
        self._ended: tuple[str, str] | None = None  # the request that was last told to be over
        self._unreadable: set[str] = set()
        self._namesakes = Namesakes()
        self._older = OlderStore()
        self._stats: tuple[Instant, ServerStats | None] = (Instant(0), None)
        self._process: psutil.Process | None = None
        self._spent: tuple[Instant, float] | None = None  # when, and the tree's processor time until then

    def run(self) -> s.Finished:
        """Decide until there is nothing left to decide."""
        seen: s.Observation | Reload | Broken = s.Tick()
        mark = s.Mark(self.node.memory.mark, self.node.memory.marked)  # that of a server found may be later
        self._files.put(lambda: self._keep(mark))
        while True:
            if isinstance(seen, Broken):
                raise RuntimeError(f"internal error: {seen.what}")
            seen = self._settled(seen)
            now = self._clock.now()
            before = self.node
            self.node, actions = decide(self.node, seen, now, self.policy)
            for action in actions:
                self._carry_out(action)
            self._turned(Turn(self.node, self.policy, now))  # after the orders: see `Turn`
            record = self._tell(before, seen, now)
            if isinstance(seen, s.Seen):
                self._tell_unreadable(seen.view)
                self._namesakes.seen(seen.view, self.policy.node, self.policy.instance)
            self._older.look(self.node)
            if isinstance(self.node.phase, s.Finished):
                return self.node.phase
            due_at = self._manager.turned(record, stopping=self.node.memory.quit is not None)
            seen = self._next(min(wake_at(self.node, now, self.policy), due_at))

    def _settled(self, seen: s.Observation | Reload) -> s.Observation:
        """Bring the policy up to date: the configuration, and over it what was set at run time."""
        view = seen.view if isinstance(seen, s.Seen) else self.node.memory.view
        if isinstance(seen, Reload):
            self._manager.reloading()
            self._configured = seen.take_in(self._configured)
        if isinstance(seen, Reload | s.Seen):
            self.policy = in_force(self._configured, Settings() if view is None else view.settings)
        return s.Tick() if isinstance(seen, Reload) else seen

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
                self._locks.release(self.policy, epoch, self.node.memory.mark, cause)
            case s.StartServer():
                self._servers.start(action)
            case s.ExtendServer(run, deadline):
                self._servers.extend(run, deadline, self.note(self._epoch()))
            case s.StopServer(run, kill_at):
                self._servers.stop(run, kill_at)
            case s.KillServer(run):
                self._servers.kill(run)
            case s.SaveMark(mark):
                self._files.put(lambda: self._keep(mark))
            case s.Answer():
                epoch = self._epoch()
                self._desk.put(lambda: self._answer(action, epoch))
            case s.RecordChange():
                self._tell_takeover(action)
                self._desk.put(lambda: self._record_change(action))
            case s.Alarm(text):
                emit(Raised(text=text))
            case s.Exit():
                pass  # `run` sees the phase

    def _keep(self, mark: s.Mark) -> None:
        while not self._marks.save(mark) and not self._closing.wait(KEEP_AGAIN_S):
            pass

    def note(self, epoch: Epoch) -> str | None:
        """Return what the guard keeps for the sidecar after us."""
        hold, ready = self._locks.hold(epoch), isinstance(self.node.phase, s.Serving)
        return None if hold is None else to_note(Kept(self._cluster, hold, ready))

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
            return  # somebody wrote meanwhile, perhaps we: the next view says what
        except BackendError as error:
            self._health.ill(error)
            self._inbox.put(s.AnswerFailed())
            if not isinstance(error, OutcomeUnknown):
                return
        request = answer.request
        ended = (request.id, request.state)
        if request.state in FINISHED and ended != self._ended:  # not told before, when it may have been lost
            self._ended = ended
            emit(
                RequestEnded(
                    kind=request.kind,
                    request=request.id,
                    state=request.state,
                    to=request.to,
                    by=request.by,
                    reason=request.reason,
                )
            )

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

    def _tell_unreadable(self, view: View) -> None:
        keys = set(view.unreadable)
        for key in sorted(keys - self._unreadable):
            emit(Raised(text=f"the key {key} holds no document known here; {_meanwhile(key, view)}"))
        for key in sorted(self._unreadable - keys):
            emit(Notice(text=f"the key {key} can be read again, or is gone"))
        self._unreadable = keys

    def _tell(self, before: s.Node, seen: s.Observation, now: Instant) -> NodeRecord:
        self._hooks.tell(self.node)
        old, new = before.phase, self.node.phase
        record = self._shape(now)
        if type(old) is not type(new):
            if isinstance(new, s.Serving):
                self._servers.keep(new.run, self.note(new.lease.epoch))
            emit(role_change(before, self.node, seen, now, record), level_of(before, self.node, seen))
        shape = replace(record, lease_left_ms=None)
        if shape != self._published:
            self._published = shape
            self._publish_soon()
        return record

    def _tell_takeover(self, record: s.RecordChange) -> None:
        change = record.change
        emit(
            TookOver(
                node=self.policy.node,
                previous=change.previous,
                why=change.cause,
                epoch=record.epoch,
                detect_ms=change.detect_ms,
                lock_ms=change.lock_ms,
                start_ms=record.start_ms,
            )
        )

    def _shape(self, now: Instant) -> NodeRecord:
        enforcement = self._servers.enforcement
        return describe(
            self.node, now, self.policy, enforcement=enforcement, version="", unix_ms=0, server=None
        )

    def _server_stats(self) -> ServerStats | None:
        """Measure the server's tree, at most once in a while. On the publisher's thread only."""
        running = self._servers.server()
        if running is None:
            self._process = self._spent = None
            return None
        pid, started_at = running
        now = self._clock.now()
        uptime_s = round((now - started_at) / 1000, 1)
        measured_at, known = self._stats
        if known is not None and known.pid == pid and now - measured_at < _stats_for_ms(known):
            return replace(known, uptime_s=uptime_s)
        stats: ServerStats | None = None
        try:
            if self._process is None or self._process.pid != pid:
                self._process = psutil.Process(pid)
                self._spent = None
            tree = [self._process, *self._process.children(recursive=True)]
            stats = ServerStats(
                pid=pid,
                uptime_s=uptime_s,
                rss_bytes=sum(process.memory_info().rss for process in tree),
                cpu_percent=self._cpu_percent(tree, now),
            )
        except psutil.Error:
            LOG.debug("server %d ended while it was measured", pid)
        self._stats = (now, stats)
        return stats

    def _cpu_percent(self, tree: list[psutil.Process], now: Instant) -> float:
        """Return the tree's share of a core since the last measurement, 0 at the first.

        A process that ended since takes its time with it, so that a restless tree shows too little.
        """
        spent_s = sum(times.user + times.system for times in (process.cpu_times() for process in tree))
        before, self._spent = self._spent, (now, spent_s)
        if before is None or now <= before[0]:
            return 0.0
        return round(max(0.0, spent_s - before[1]) * 100_000 / (now - before[0]), 1)


def _stats_for_ms(known: ServerStats) -> int:
    """Return how long a measurement stands: the older the server was, the longer."""
    return min(STATS_EVERY_MS, max(STATS_FIRST_MS, round(known.uptime_s * 1000)))


def _meanwhile(key: str, view: View) -> str:
    if key == "lock":
        return "it counts as held"
    if key == "settings" and view.settings == Settings():
        return "none was read since this start: nothing counts as set or paused"
    return "the last good one counts"
