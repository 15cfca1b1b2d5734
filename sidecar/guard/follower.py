"""The guard client's thread: sends what waits, reads what comes, watches for proof.

States of a run, as seen from here

    none -- begin() --> unsent -- sent --> sent -- started --> has the keeper's pidfd
    any -- proof, or never sent --> none, after exactly one `Exited` or `StartFailed`

Rules: ``_lock`` guards the queue, the events that wait and ``_run``; it is never held while
``on_event`` is called or anything blocks.
"""

import contextlib
import logging
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.clock import Clock
from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import connect, proof, record, told, wire
from sidecar.guard.events import (
    ClientBroken,
    Enforcement,
    Exited,
    GuardEvent,
    GuardLost,
    OrderRefused,
    Started,
    StartFailed,
)

_log = logging.getLogger(__name__)

QUEUE_MAX = 256
"""Orders waiting for a stopped guard, renewals not counted (a newer one replaces an older)."""
LAST_WORD_MS = 1_000
"""How long a dead keeper's exit status may take to come from a living guard. It takes under 1 ms;
a stopped guard costs a restart this much."""
RESCAN_MS = 20
"""Between two looks for strays, without a namespace and with guard and keeper killed."""


@dataclass
class _Run:
    """What the client knows of the run under way."""

    id: str
    enforcement: Enforcement
    sent: bool
    out: tuple[int, ...] = ()  # go with the start order
    pidfd: int | None = None
    traces: record.Record | None = None  # what its tree is found by
    keeper_dead_at: Instant | None = None
    end: Exited | StartFailed | None = None

    def close(self) -> None:
        """Forget the keeper."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


class Follower:
    """Follows one guard after another, until closed."""

    def __init__(
        self,
        spawn: connect.Spawn,
        connection: connect.Connection,
        on_event: Callable[[GuardEvent], None],
        clock: Clock,
    ) -> None:
        self._spawn = spawn
        self._on_event = on_event
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: deque[wire.Frame] = deque()
        self._events: deque[GuardEvent] = deque()
        self._seq = 0
        self._run: _Run | None = None
        self._connection: connect.Connection | None = None
        self._lost: connect.Connection | None = None
        self._closing = False
        self._dismissed = False  # told to leave: that it goes is no loss
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._describe(connection)
        self._next: connect.Connection | None = connection
        self._thread = threading.Thread(target=self._serve, name="guard-client", daemon=True)
        self._thread.start()

    def _describe(self, connection: connect.Connection) -> None:
        self.enforcement = told.enforcement(connection.state)
        self.adopted = told.adopted_run(connection.state)

    # From any thread.

    def begin(self, run: str, out: tuple[int, ...] = ()) -> None:
        """Expect a run, whose start order is about to be posted; the descriptors *out* go with that.

        Raises:
            GuardError: The run before is not over.
        """
        with self._lock:
            if self._run:
                raise GuardError(f"run {self._run.id!r} is not over")
            self._run = _Run(run, self.enforcement, sent=False, out=out)

    def follow(self, connection: connect.Connection) -> None:
        """Leave the guard of before for this one."""
        with self._lock:
            self._describe(connection)
            self._next = connection
        self._wake()

    def close(self) -> None:
        """End the thread; no event comes after this returns."""
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def post(self, frame: wire.Frame) -> None:
        """Send an order, now or when the guard takes it."""
        with self._lock:
            self._seq += 1
            frame["seq"] = self._seq
            self._dismissed = self._dismissed or frame["order"] == "shutdown"
            last = self._queue[-1] if self._queue else {}
            if frame["order"] == "extend" and _same(frame, last):
                later = max(wire.whole(frame, "deadline_ms"), wire.whole(last, "deadline_ms"))
                self._queue[-1] = {**last, **frame, "deadline_ms": later}
            elif len(self._queue) < QUEUE_MAX:
                self._queue.append(frame)
            else:
                self._give_back(frame, "the guard takes no orders")
            self._flush()
        self._wake()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _flush(self) -> None:
        """Send what the socket takes; called with the lock held."""
        connection = self._connection
        while connection and self._queue:
            frame = self._queue[0]
            out = self._run.out if self._run and frame["order"] == "start" else ()
            try:
                socket.send_fds(connection.sock, [wire.encode(frame)], out)
            except BlockingIOError:
                return
            except OSError:
                return  # its end is seen where we read
            except wire.BadFrame as error:
                self._give_back(frame, str(error))
            else:
                if self._run and frame["order"] == "start":
                    self._run.sent = True
            self._queue.popleft()

    def _give_back(self, frame: wire.Frame, reason: str) -> None:
        """Report an order that was never sent; called with the lock held."""
        run, order = str(frame["run"]), str(frame["order"])
        if order == "start":
            self._run = None
            self._events.append(StartFailed(run, reason))
        elif order != "ack":
            self._events.append(OrderRefused(run, order, reason))

    # The client's thread.

    def _serve(self) -> None:
        try:
            while not self._closing:
                self._turn()
                self._poll()
        except Exception:  # outermost frame of the thread
            _log.exception("guard client")
            self._emit(ClientBroken())
        finally:
            with self._lock:
                for one in (self._connection, self._lost, self._next, self._run):
                    if one:
                        one.close()
                self._connection = self._lost = self._next = self._run = None

    def _turn(self) -> None:
        with self._lock:
            follower, self._next = self._next, None
        if follower:
            self._take(follower)
        self._read()
        self._look_for_proof()
        with self._lock:
            while self._queue and self._connection is None and self._next is None:
                self._give_back(self._queue.popleft(), "the guard is lost")
            self._flush()
            waiting, self._events = self._events, deque()
        for event in waiting:
            self._emit(event)

    def _poll(self) -> None:
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        connection, run = self._connection, self._run
        if connection:
            poll.register(connection.sock, select.POLLIN | (select.POLLOUT if self._queue else 0))
        timeout_ms = None
        if run and run.pidfd is not None and run.keeper_dead_at is None:
            poll.register(run.pidfd, select.POLLIN)
        elif run and (run.keeper_dead_at is not None or connection is None):
            timeout_ms = RESCAN_MS
        for fd, _events in poll.poll(timeout_ms):
            if fd == self._wake_fd:
                os.eventfd_read(self._wake_fd)

    def _emit(self, event: GuardEvent) -> None:
        if not self._closing:
            self._on_event(event)

    def _take(self, connection: connect.Connection) -> None:
        """Begin with what the guard says is there."""
        finished, adopted = told.finished(connection.state), self.adopted
        with self._lock:
            for old in (self._connection, self._lost):
                if old:
                    old.close()
            self._connection, self._lost = connection, None
            if adopted:
                if self._run:
                    self._run.close()
                keeper_pidfd = connection.keeper_pidfd
                traces = told.traces_of_run(connection.state)
                self._run = _Run(adopted.run, self.enforcement, sent=True, pidfd=keeper_pidfd, traces=traces)
            elif finished and not self._run:
                self._run = _Run(finished.run, self.enforcement, sent=True)
            forgotten = self._run and self._run.sent and not adopted and not finished
        if finished:
            self._finished(finished)
        elif forgotten and self._run and self._run.pidfd is None:
            self._over(StartFailed(self._run.id, "the guard knows nothing of it"))

    def _read(self) -> None:
        while connection := self._connection:
            try:
                self._told(*connect.receive(connection.sock))
            except BlockingIOError:
                return
            except (OSError, GuardError, wire.BadFrame, KeyError) as error:
                self._lose(connection, str(error))
                return

    def _lose(self, connection: connect.Connection, reason: str) -> None:
        # A dying process closes its files a moment before it counts as dead.
        if proof.readable(connection.guard_pidfd, LAST_WORD_MS):
            reason = "the guard is dead"
        with self._lock:
            self._connection, self._lost = None, connection
        if not self._dismissed:
            self._emit(GuardLost(reason))

    def _told(self, frame: wire.Frame, fd: int | None) -> None:
        """Take in a message. One of a type not known here comes of a newer guard and says nothing to us."""
        run, name = self._run, str(frame.get("run"))
        try:
            match frame.get("type"):
                case "started" if run and run.id == name and run.pidfd is None:
                    pid = wire.whole(frame, "server_pid", low=1)
                    if fd is None:
                        raise wire.BadFrame("started: without its keeper's pidfd")
                    run.traces = told.traces(frame)
                    run.pidfd, fd = fd, None
                    self._emit(Started(name, pid))
                case "exited" | "start_failed":
                    self._finished(told.end_of_run(frame))
                case "answer" if not frame["ok"]:
                    self._refused(str(frame["order"]), name, str(frame["reason"]))
                case "output":
                    for line in told.output(frame):
                        self._emit(line)
                case "error":
                    _log.warning("guard: %s", frame.get("reason"))
        finally:
            if fd is not None:
                os.close(fd)

    def _refused(self, order: str, name: str, reason: str) -> None:
        run = self._run
        if order == "start":
            if run and run.pidfd is None:  # else it has a keeper, whose death alone is proof
                self._over(StartFailed(name, reason))
        elif order != "ack":
            self._emit(OrderRefused(name, order, reason))

    def _finished(self, end: Exited | StartFailed) -> None:
        """The guard has reaped the keeper; believe it once the keeper's pidfd agrees."""
        run = self._run
        if run is None or run.id != end.run:
            self.post({"order": "ack", "run": end.run})  # told before
            return
        run.end = end
        if run.pidfd is None:
            self._over(end)

    def _over(self, event: Exited | StartFailed) -> None:
        """Emit the end of the run, once."""
        with self._lock:
            run = self._run
            if run is None or run.id != event.run:
                return
            run.close()
            self._run = None
        if self._connection:
            self.post({"order": "ack", "run": event.run})
        self._emit(event)

    def _look_for_proof(self) -> None:
        run = self._run
        if run is None or not run.sent:
            return
        if run.pidfd is not None:
            if proof.readable(run.pidfd, 0):
                self._keeper_is_dead(run)
        elif self._lost and proof.readable(self._lost.guard_pidfd, 0):
            self._guard_died_starting(run)

    def _keeper_is_dead(self, run: _Run) -> None:
        if run.end:
            self._over(run.end)
            return
        now = self._clock.now()
        if run.keeper_dead_at is None:
            run.keeper_dead_at = now
        if self._connection is None:
            if run.enforcement == "kernel" or self._nothing_left(run):
                lost = self._lost  # None only before the first guard was taken on
                died = lost and proof.readable(lost.guard_pidfd, LAST_WORD_MS)
                self._over(Exited(run.id, None, "guard" if died else None))
        elif run.enforcement == "kernel" and now >= run.keeper_dead_at + LAST_WORD_MS:
            self._over(Exited(run.id, None, None))

    def _nothing_left(self, run: _Run) -> bool:
        run_dir, damaged = self._spawn.run_dir, False
        try:
            found = proof.read_record(run_dir)
        except GuardError:
            if run.traces is None:
                raise
            found, damaged = None, True
        found = found or run.traces  # somebody may have removed or damaged the record
        nothing = found is None or proof.tree_is_empty(run_dir, found)
        if nothing and damaged:  # else no guard could start here any more, for a tree that is proven empty
            with contextlib.suppress(OSError):
                (run_dir / record.NAME).unlink()
        return nothing

    def _guard_died_starting(self, run: _Run) -> None:
        """Its last word was never heard: the record tells whether it can have started anything."""
        found = proof.read_record(self._spawn.run_dir)
        if found is None or found.get("run") != run.id:
            self._over(StartFailed(run.id, "the guard died before it started anything"))
            return
        run.pidfd = proof.open_keeper(found)
        if run.pidfd is None and proof.tree_is_empty(self._spawn.run_dir, found):
            self._over(StartFailed(run.id, "the guard died while starting it, and it died too"))


def _same(one: wire.Frame, other: wire.Frame) -> bool:
    return bool(other) and (one["order"], one["run"]) == (other["order"], other["run"])
