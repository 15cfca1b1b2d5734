"""The server lane: turns the core's server orders into guard orders, and guard events into observations."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import assert_never

from sidecar.clock import Clock
from sidecar.core import state as s
from sidecar.core.model import Role
from sidecar.core.units import Epoch, Instant
from sidecar.errors import GuardError, SidecarError
from sidecar.events import LOG, Notice, Raised, ServerEnd, ServerEnded, ServerStarted, emit
from sidecar.guard import events as g
from sidecar.guard.client import GuardClient
from sidecar.runtime.hooks import Hooks, Job, environment_of
from sidecar.runtime.lanes import Lane
from sidecar.runtime.probing import UNWATCHED, Prober, Watching
from sidecar.servers import Launch, ServerKind
from sidecar.signals import name_of


@dataclass(frozen=True, slots=True)
class Serving:
    """How servers are run on this node."""

    cluster: str
    node: str
    user: str | None
    stop_signal: int
    stop_command: tuple[str, ...] | None
    kill_margin_ms: int
    run_dir: Path
    enforcement: g.Enforcement | str  # auto, kernel, process
    out: tuple[int, int] | None = None  # becomes the server's stdout and stderr; None: they come to `output`


class ServerLane:
    """Carries out server orders one after the other; every run ends in exactly one `ServerGone`."""

    def __init__(
        self,
        kind: ServerKind,
        serving: Serving,
        clock: Clock,
        *,
        post: Callable[[s.Observation], None],
        note: Callable[[Epoch], str | None],
        watching: Callable[[], Watching],
        output: Callable[[str, str], None],
        broken: Callable[[str], None],
        hooks: Hooks,
    ) -> None:
        self._kind = kind
        self._serving = serving
        self._clock = clock
        self._post = post
        self._note = note
        self._watching = watching
        self._output = output
        self._broken = broken
        self._hooks = hooks
        self._names: dict[str, s.Run] = {}
        self._roles: dict[s.Run, Role] = {}
        self._epochs: dict[s.Run, Epoch] = {}
        self._deadlines: dict[s.Run, Instant] = {}
        self._wanted: s.Run | None = None  # the run started last, until it is stopped
        self._asked: dict[s.Run, Job] = {}  # `before_active`, of the last start
        self._pids: dict[s.Run, tuple[int, Instant]] = {}  # replaced, never changed: others iterate over it
        self._prefix = os.urandom(4).hex()
        self._lost = False
        self._prober = Prober(clock, post)
        self._lane = Lane("server")
        self._early: list[g.GuardEvent] | None = []
        self._telling = Lock()
        self._guard = GuardClient.attach_or_spawn(
            serving.run_dir,
            serving.enforcement,  # type: ignore[arg-type]  # checked by the configuration
            self._on_event,
        )

    @property
    def enforcement(self) -> g.Enforcement:
        """Who enforces the deadline."""
        return self._guard.enforcement

    @property
    def adopted(self) -> g.AdoptedRun | None:
        """The server found with the guard."""
        return self._guard.adopted

    def begin(self, *, adopt: bool, ready: bool = False) -> None:
        """Go on with the server that was found as run 0, *ready* or not, and take in what was told since."""
        found = self._guard.adopted
        if found is not None and adopt:
            self._names[found.run] = 0
            role: Role = "active" if found.role == "active" else "standby"
            self._roles[0], self._epochs[0] = role, found.epoch
            if found.server_pid is not None:
                self._begun(0, found.server_pid, found.started_at, ready=ready)
        with self._telling:
            early, self._early = self._early or [], None
            for event in early:
                self._take_in(event)
        if found is None:
            self._rest()

    def _rest(self) -> None:
        """Give a server that is not run as standby that role all the same, should somebody start it."""
        if self._kind.standby == "stopped":
            self._lane.put(self._be_standby)

    def server(self) -> tuple[int, Instant] | None:
        """Return pid and start of the running server."""
        return next(iter(self._pids.values()), None)

    def runs(self, run: s.Run) -> bool:
        """Tell, at any time and on any thread, whether *run* was started and is not known to be over."""
        return run in self._pids and not self._lost

    def start(self, order: s.StartServer) -> None:
        """Prepare and start a server. A late start is refused by the guard."""
        self._wanted = order.run
        self._deadlines = {order.run: order.deadline}
        self._roles[order.run], self._epochs[order.run] = order.role, order.epoch
        asked = self._hooks.errand("before_active", order.epoch) if order.role == "active" else None
        self._asked = {} if asked is None else {order.run: asked}
        self._lane.put(lambda: self._start(order, asked))

    def extend(self, run: s.Run, deadline: Instant, note: str | None) -> None:
        """Move the deadline of *run*, also of one that is being prepared."""
        self._deadlines[run] = deadline
        self._order(run, lambda name: self._guard.extend(name, deadline, note))

    def keep(self, run: s.Run, note: str | None) -> None:
        """Leave a *note* other than None for the sidecar after us."""
        if note is not None:
            self._order(run, lambda name: self._guard.note(name, note))

    def stop(self, run: s.Run, kill_at: Instant) -> None:
        """Stop *run* gracefully; the guard kills it at *kill_at*.

        A standby may make itself active even then, and is to be killed at once.
        """
        if self._roles.get(run) != "standby":
            self._prober.forget(run)
        self._call_off(run)
        self._order(run, lambda name: self._guard.stop(name, kill_at))

    def kill(self, run: s.Run) -> None:
        """Kill *run* now."""
        self._prober.forget(run)
        self._call_off(run)
        self._order(run, self._guard.kill)

    def _call_off(self, run: s.Run) -> None:
        """Keep *run* from being started, and end the hook that its start waits for."""
        if self._wanted == run:
            self._wanted = None
        if run in self._asked:
            self._asked[run].errand.call_off()

    def close(self, *, kept: bool) -> None:
        """Leave the guard, with its server or, when there is none, ended."""
        self._prober.close()
        for job in self._asked.values():
            job.errand.call_off()
        self._lane.close()
        if not kept:
            self._guard.shutdown()
        self._guard.close()

    def _order(self, run: s.Run, order: Callable[[str], None]) -> None:
        """Give *order* behind the start of its run; one for a run that is gone is dropped."""

        def give() -> None:
            name = next((name for name, known in self._names.items() if known == run), None)
            if name is not None:
                order(name)

        self._lane.put(give)

    # On the lane's thread.

    def _be_standby(self) -> None:
        try:
            self._prepare("standby")
        except SidecarError as error:
            emit(Raised(text=f"the standby's role could not be given to the stopped server: {error}"))

    def _prepare(self, role: Role) -> Launch | None:
        return self._kind.prepare(role, (os.getpid(),))  # a probe of ours is no second server

    def _start(self, order: s.StartServer, asked: Job | None) -> None:
        try:
            if asked is not None and not self._allowed(order.run, asked):
                return
            if self._lost:
                self._respawn()
            launch = self._prepare(order.role)
            if self._wanted != order.run:  # the disk hung for so long
                raise GuardError("stopped before it was started")
            if launch is None:
                raise GuardError(f"this kind of server does not run as {order.role}")
            for text in launch.notes:
                emit(Raised(text=text))
            name = f"{self._prefix}-{order.run}"
            self._names = {name: order.run}
            self._guard.start(
                g.StartOrder(
                    run=name,
                    argv=launch.argv,
                    cwd=launch.cwd or str(Path.cwd()),
                    env=self._environment(order) | dict(launch.environment),
                    user=self._serving.user,
                    role=order.role,
                    epoch=order.epoch,
                    deadline_at=self._deadlines.get(order.run, order.deadline),
                    kill_margin_ms=self._serving.kill_margin_ms,
                    note=self._note(order.epoch),
                    stop_signal=self._serving.stop_signal,
                    stop_command=self._serving.stop_command,
                    out=self._serving.out,
                )
            )
        except SidecarError as error:
            self._gone(order.run, None, str(error))
        except OSError as error:
            self._gone(order.run, None, f"{error.filename or 'server'}: {error.strerror or error}")
        except Exception as error:  # whether it was started is not known: the next sidecar finds out
            LOG.exception("internal_error")
            self._broken(f"server lane: {error!r}")

    def _respawn(self) -> None:
        self._lost = False  # first: the new guard may be lost, and say so, before this is over
        try:
            self._guard.respawn()
        except BaseException:
            self._lost = True
            raise

    def _allowed(self, run: s.Run, asked: Job) -> bool:
        outcome = self._hooks.first(asked)
        if asked.errand.called_off:
            self._gone(run, None, "stopped while before_active ran")
        elif not outcome.ok:
            self._gone(run, None, f"before_active refused: {outcome.text}", vetoed=True)
        else:
            return True
        return False

    def _clear(self, run: s.Run, job: Job, told: Event) -> None:
        told.wait()
        try:
            self._hooks.first(job)
        finally:
            self._post(s.Cleared(run))

    def _environment(self, order: s.StartServer) -> dict[str, str]:
        return environment_of(self._serving.cluster, self._serving.node, order.role, order.epoch)

    # On the guard client's thread.

    def _on_event(self, event: g.GuardEvent) -> None:
        with self._telling:  # what comes while `begin` tells the early ones waits behind them
            if self._early is not None:
                self._early.append(event)
                return
        self._take_in(event)

    def _take_in(self, event: g.GuardEvent) -> None:
        match event:
            case g.Output(_, stream, line, dropped):
                if dropped:
                    self._output("stderr", f"{dropped} lines of the server's output were dropped")
                self._output(stream, line)
            case g.ClientBroken():
                self._broken("guard client")
            case g.GuardLost(reason):
                self._lost = True
                emit(Raised(text=f"guard lost: {reason}; its server dies with it"))
            case g.Started(name, pid) if name in self._names:
                run = self._names[name]
                emit(ServerStarted(run=run, role=self._roles[run], epoch=self._epochs[run], pid=pid))
                self._begun(run, pid, self._clock.now())
            case g.StartFailed(name, reason) if name in self._names:
                self._gone(self._names[name], None, reason)
            case g.Exited(name, status, killed_by) if name in self._names:
                why = {"deadline": "killed at its deadline", "guard": "died with its guard", "order": ""}
                reason = why[killed_by] if killed_by else _signalled(status)
                self._gone(self._names[name], status, reason, _end(status, killed_by))
            case g.OrderRefused(name, order, reason) if name in self._names:
                emit(Notice(text=f"guard refused {order}: {reason}"))
            case _:
                LOG.debug("guard event of an unknown run: %s", event)

    def _begun(self, run: s.Run, pid: int, at: Instant, *, ready: bool = False) -> None:
        self._pids = {run: (pid, at)}
        try:
            activated = self._kind.self_activated_probe() if self._roles[run] == "standby" else None
            self._prober.look_at(run, self._roles[run], self._watching(), activated, ready=ready)
        except SidecarError as error:  # server.xml became unreadable while it runs: say so, leave it be
            emit(Raised(text=f"cannot probe the server: {error}"))
            if run == 0:  # it was ready, or nearly so, under the sidecar before this one
                self._prober.look_at(run, self._roles[run], UNWATCHED, None)

    def _gone(
        self,
        run: s.Run,
        status: int | None,
        reason: str,
        how: ServerEnd = "not_started",
        *,
        vetoed: bool = False,
    ) -> None:
        self._prober.forget(run)
        self._names = {name: known for name, known in self._names.items() if known != run}
        self._pids = {known: at for known, at in self._pids.items() if known != run}
        role, epoch = self._roles.pop(run), self._epochs.pop(run)
        clears, told = None, Event()
        if role == "active":  # all in the lane before the next start
            self._rest()
            clears = self._hooks.errand("after_stop", epoch)
            if clears is not None:
                self._lane.put(partial(self._clear, run, clears, told))
        self._post(s.ServerGone(run, status, reason, vetoed=vetoed, clearing=clears is not None))
        told.set()  # it is over after it has begun
        emit(ServerEnded(run=run, role=role, epoch=epoch, how=how, status=status, reason=reason))


def _end(status: int | None, killed_by: g.KilledBy | None) -> ServerEnd:
    match killed_by:
        case "deadline":
            return "deadline"
        case "guard":
            return "guard_lost"
        case "order":
            return "killed"
        case None:
            return "signalled" if status is not None and status < 0 else "exited"
        case _:
            assert_never(killed_by)


def note_text(note: object) -> str:
    """Return a guard's note as the text that was given to it."""
    return note if isinstance(note, str) else json.dumps(note)


def _signalled(status: int | None) -> str:
    """Name the signal that ended a server which nobody here has ended; empty where none did."""
    return "" if status is None or status >= 0 else f"server was ended by {name_of(-status)}"
