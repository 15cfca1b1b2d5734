"""``sidecar run`` and ``sidecar exec``: wires the parts and runs the shell until it is finished."""

import os
import signal
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

from sidecar import __version__, events, log
from sidecar.clock import BootClock
from sidecar.config import Config, diff, exposed, with_live
from sidecar.core import state as s
from sidecar.core.decide import begin
from sidecar.core.model import Role, View
from sidecar.core.units import Instant
from sidecar.errors import ConfigError, Refused, SidecarError
from sidecar.plugins import load_backend
from sidecar.ports import Backend
from sidecar.runtime.alone import only_one
from sidecar.runtime.hooks import Hooks, Place
from sidecar.runtime.lanes import Lane
from sidecar.runtime.locking import Kept, LockLane, from_note
from sidecar.runtime.marks import MarkFile
from sidecar.runtime.policy import kind_of, policy_of, watching_of
from sidecar.runtime.probing import Watching
from sidecar.runtime.serving import ServerLane, Serving, note_text
from sidecar.runtime.shell import Broken, Reload, Shell
from sidecar.runtime.systemd import Manager
from sidecar.runtime.turn import Turn
from sidecar.runtime.watching import Publisher, Watcher
from sidecar.signals import number_of

if TYPE_CHECKING:
    from sidecar.api.server import Api
    from sidecar.metrics import Metrics

Inbox = SimpleQueue[s.Observation | Reload | Broken]
WITHDRAW_WITHIN_MS = 500


@dataclass(frozen=True, slots=True)
class Mode:
    """What differs between ``run`` and ``exec``."""

    keep_server: bool = False
    hands_over: bool = False  # SIGUSR1: end and leave the server to the next run
    out: tuple[int, int] | None = None  # what the server gets as stdout and stderr; None: pipes into our log
    remembers: bool = True  # keeps the epoch high-water mark on disk


def run(config: Config, mode: Mode, reload: Callable[[], Config] | None = None) -> int:
    """Supervise until told to stop; return the exit status.

    Raises:
        ConfigError, ServerError: Something is not as it must be; nothing was started.
        Refused: Another sidecar works in this run directory, or the guard there has a stranger's server.
        GuardError: No guard is to be had, or not with the enforcement that was asked for.
    """
    with ExitStack() as stack:
        outlet = log.configure(config.log.level, as_json=config.log.format == "json")
        stack.callback(outlet.close)
        stack.enter_context(only_one(Path(config.paths.run)))
        return Sidecar(config, mode, reload, stack, outlet).run()


class Sidecar:
    """One node of a cluster, put together."""

    def __init__(
        self,
        config: Config,
        mode: Mode,
        reload: Callable[[], Config] | None,
        stack: ExitStack,
        outlet: log.Log,
    ) -> None:
        self._config = config
        self._mode = mode
        self._read_again = reload
        self._outlet = outlet
        self._clock = BootClock()
        self._manager = Manager(os.environ, self._clock)  # before anything is started that inherits
        self._inbox: Inbox = SimpleQueue()
        self._kind = kind_of(config)
        self._metrics = self._measure(stack)
        self._api = self._make_api(stack, self._metrics)
        self._backend: Backend = load_backend(config.backend)(config.backend_settings(), self._clock)
        if self._metrics is not None:
            self._backend = self._metrics.measured(self._backend)
        stack.callback(self._backend.close)
        self._reloads = Lane("reload")
        self._marks = MarkFile(Path(config.paths.state) if mode.remembers else None, config.cluster)
        self._mark = self._marks.load()
        self._timeout_ms = config.lock.request_timeout_ms
        self._locks = LockLane(self._backend, self._clock, self._post, lambda: self._timeout_ms)
        place = Place(config.cluster, config.node, config.server.home)
        self._hooks = Hooks(
            lambda: self._config.hooks, place, lambda name, line: self._outlet.hook(name, line)
        )
        self._servers = ServerLane(
            self._kind,
            self._serving(),
            self._clock,
            post=self._post,
            note=lambda epoch: self._shell.note(epoch),
            watching=self._watched,
            output=self._outlet.server,
            broken=lambda what: self._inbox.put(Broken(what)),
            hooks=self._hooks,
        )
        try:
            self._open_api()
            self._check_server()
            self._shell = self._make_shell()
        except SidecarError:  # leave the guard as it was found
            self._servers.close(kept=self._servers.adopted is not None)
            raise

    def _measure(self, stack: ExitStack) -> "Metrics | None":
        """Count what happens, where that is asked for: the API serves it."""
        config = self._config
        if config.api.listen is None:
            return None
        from sidecar.metrics import Metrics  # its imports are worth it only where it is wanted

        made = Metrics(config.cluster, config.node, config.backend, self._clock)
        stack.callback(made.close)
        return made

    def _make_api(self, stack: ExitStack, metrics: "Metrics | None") -> "Api | None":
        """Make the API; it is opened when it is known whether a server was found."""
        if metrics is None:
            return None
        from sidecar.api.server import Api

        made = Api(self._config, self._clock, lambda run: self._servers.runs(run), metrics.render)
        stack.callback(made.close)
        return made

    def _watched(self) -> Watching:
        """Return how the server that was started last is probed."""
        return watching_of(self._config, self._kind, self._clock)

    def _check_server(self) -> None:
        """Look at the server's files, and for a second supervisor; a server that was found is our own.

        It was started when all was well: what is wrong now is of its next start, and no reason to end it.
        """
        found = self._servers.adopted
        keeper = [found.keeper_pid] if found is not None and found.keeper_pid is not None else []
        try:
            warnings = self._kind.check([os.getpid(), *keeper])
            self._watched()  # raises where a probe makes no sense
        except SidecarError as error:
            if found is None:
                raise
            events.emit(
                events.Raised(text=f"{error}; the server that runs goes on, its next start would fail")
            )
        else:
            for text in warnings:
                events.emit(events.Notice(text=text))
        for text in self._hooks.missing():
            events.emit(events.Raised(text=text))

    def _open_api(self) -> None:
        """Take the API's address and files; a server that was found is worth more than answers about it."""
        trouble = [*self._config.trouble]
        if self._api is not None and not trouble:
            try:
                self._api.open()
            except ConfigError as error:
                trouble = [str(error)]
        if trouble and self._servers.adopted is None:
            raise ConfigError(trouble[0])
        for text in trouble:
            events.emit(events.Raised(text=f"{text}; the server that runs goes on, the API as far as it can"))

    def run(self) -> int:
        """Run the shell, then leave everything in order."""
        config = self._config
        found = self._servers.adopted
        self._catch_signals()  # before we say that we have started
        events.emit(
            events.Started(
                cluster=config.cluster,
                node=config.node,
                backend=config.backend,
                version=__version__,
                enforcement=self._servers.enforcement,
                adopted=found is not None,
                phase=type(self._shell.node.phase).__name__.lower(),
            )
        )
        if self._servers.enforcement != "kernel":
            asked = config.guard.enforcement == "process"
            why = "guard.enforcement is process" if asked else "namespaces are refused here"
            events.emit(events.Notice(text=f"{why}: the deadline is enforced by `process`"))
        for text in exposed.warnings(config):
            events.emit(events.Notice(text=text))
        if self._metrics is not None and self._api is not None:
            self._metrics.enforcement = self._servers.enforcement
            self._api.start(self._servers.enforcement)
        self._servers.begin(adopt=True, ready=isinstance(self._shell.node.phase, s.Serving))
        self._watcher = Watcher(self._backend, self._clock, self._saw, config.lock.ttl_ms)
        self._publisher = Publisher(
            self._backend, self._clock, self._shell.record, config.lock.ttl_ms, self._timeout_ms
        )
        finished: s.Finished | None = None
        try:
            finished = self._shell.run()
            return finished.status
        finally:
            self._leave(kept=finished is None or finished.kept)
            events.emit(
                events.Stopped(
                    status=finished.status if finished else 1, server_kept=finished is None or finished.kept
                )
            )

    def _leave(self, *, kept: bool) -> None:
        """Close everything. After an unexpected exception the server is left to the guard."""
        if self._api is not None:
            self._api.close()
        self._watcher.close()
        self._publisher.close()
        self._shell.close()
        self._hooks.close()
        self._locks.close()
        self._servers.close(kept=kept)
        self._reloads.close(0)  # a file that hangs does not hold up the end
        try:
            deadline = Instant(self._clock.now() + WITHDRAW_WITHIN_MS)
            self._backend.withdraw(self._config.node, self._shell.policy.instance, deadline=deadline)
        except SidecarError:
            events.LOG.debug("withdraw", exc_info=True)
        self._backend.close()
        self._watcher.join()

    def _post(self, seen: s.Observation) -> None:
        self._inbox.put(seen)

    def _saw(self, view: View) -> None:
        self._inbox.put(s.Seen(view))

    def _turned(self, turn: Turn) -> None:
        if self._metrics is not None and self._api is not None:
            self._metrics.take(turn)
            self._api.turned(turn)

    def _make_shell(self) -> Shell:
        found, kept = self._servers.adopted, self._kept()
        new = f"{self._config.node}-{uuid.uuid4().hex[:12]}"
        instance = kept.hold.instance if kept else new
        policy = policy_of(self._config, self._kind, instance, self._config.once)
        server = None
        if found is not None:
            role: Role = "active" if found.role == "active" else "standby"
            server = s.StartServer(0, role, found.epoch, found.deadline_at)
        stopping = found is not None and found.stopping
        ready = kept is not None and kept.ready
        node = begin(policy, self._clock.now(), self._mark, server, stopping=stopping, ready=ready)
        return Shell(
            node,
            policy,
            cluster=self._config.cluster,
            clock=self._clock,
            backend=self._backend,
            locks=self._locks,
            servers=self._servers,
            marks=self._marks,
            inbox=self._inbox,
            hooks=self._hooks,
            publish_soon=lambda: self._publisher.changed(),
            manager=self._manager,
            turned=self._turned,
            api=None if self._api is None else self._api.url,
        )

    def _kept(self) -> Kept | None:
        """Return what the guard kept for us, and take the hold over.

        Raises:
            Refused: The guard runs a server that is none of this cluster and node, or of a version whose note
                cannot be read here.
        """
        found = self._servers.adopted
        if found is None or found.role != "active":
            return None
        try:
            kept = from_note(note_text(found.note))
        except ValueError as error:
            events.LOG.debug("note", exc_info=True)
            raise Refused(
                f"{self._config.paths.run}: the guard there keeps a note that this version ({__version__}) "
                "cannot read; its server ends at its deadline: then start again. Sooner: start the version "
                "that has started it, or kill that guard"
            ) from error
        if (kept.cluster, kept.hold.node) != (self._config.cluster, self._config.node):
            whose = f"{kept.hold.node} in {kept.cluster}"
            raise Refused(
                f"{self._config.paths.run}: the guard there runs the server of {whose}; "
                "renamed? stop the sidecar under the old name (`systemctl stop`) before, or wait until that "
                "server has ended; else give each cluster and node its own paths.run"
            )
        self._locks.adopt(kept.hold)
        return kept

    def _serving(self) -> Serving:
        server = self._config.server
        return Serving(
            cluster=self._config.cluster,
            node=self._config.node,
            user=server.user,
            stop_signal=number_of(server.stop_signal),
            stop_command=tuple(server.stop_command) if server.stop_command else None,
            kill_margin_ms=self._config.lock.kill_margin_ms,
            run_dir=Path(self._config.paths.run),
            enforcement=self._config.guard.enforcement,
            out=self._mode.out,
        )

    def _catch_signals(self) -> None:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._inbox.put(s.StopAsked(keep_server=self._mode.keep_server))

        def hand_over(_number: int, _frame: FrameType | None) -> None:
            self._inbox.put(s.StopAsked(keep_server=True))

        def reload(_number: int, _frame: FrameType | None) -> None:
            self._reloads.put(self._reload)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        if self._read_again is not None:
            signal.signal(signal.SIGHUP, reload)
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's
            signal.signal(signal.SIGHUP, stop)
        if self._mode.hands_over:
            signal.signal(signal.SIGUSR1, hand_over)

    def _reload(self) -> None:
        """Take in the changed configuration; keep the old one when the new one is bad.

        On a lane of its own, since a file may be on a disk that hangs: the deciding thread gets the result.
        """
        if self._read_again is None:
            return
        try:
            wanted = self._read_again()
            changes = diff(self._config, wanted)
            config = with_live(self._config, wanted)
            watching_of(config, self._kind, self._clock)  # raises where a probe makes no sense
        except SidecarError as error:
            events.emit(events.Raised(text=f"reload refused, the old configuration stays: {error}"))
            return
        self._config = config
        if self._api is not None:
            self._api.reload(config)
        events.LOG.setLevel(config.log.level.upper())
        events.emit(
            events.Reloaded(
                changed="; ".join(str(change) for change in changes if not change.needs_restart),
                needs_restart="; ".join(str(change) for change in changes if change.needs_restart) or None,
            )
        )
        once = self._config.once
        self._inbox.put(Reload(lambda policy: policy_of(config, self._kind, policy.instance, once)))
