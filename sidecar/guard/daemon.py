"""The guard process: one thread, one epoll, nothing that blocks.

Rules
  * A server is started only after the kernel timer is armed and the clock was read *after* that:
    a guard that was stopped in between is dead, or refuses.
  * ``exited`` and ``start_failed`` are said only after the keeper was reaped, in enforcement
    ``process`` also only after no child of ours was left: nothing of the run is alive.
  * Whatever goes wrong in here ends the guard, and with it the server. That is the safe way.
  * A disk that hangs can keep even SIGKILL from us, in the middle of a write. So the keeper, which touches no
    disk, knows the deadline too, and no later one than the kernel was told.

SIGTERM means "leave when no server runs": systemd sends it to all processes of a unit at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

from sidecar.guard import kernel, record, tree, wire
from sidecar.guard.cage import NAMESPACES, Cage
from sidecar.guard.door import Door
from sidecar.guard.orders import ORDERS, Refused
from sidecar.guard.output import Output
from sidecar.guard.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.guard.link import Link

RETRY_MS = 100
"""Before another keeper is made when one died idle or could not be made."""
SWEEP_MS = 20
"""Between two passes over strays whose keeper was killed (enforcement ``process``)."""
IDLE_EXIT_MS = 60_000
"""A guard without server and client leaves after this; the next sidecar starts a new one."""


class Guard:
    """The server's parent."""

    def __init__(self, run_dir: str, enforcement: str, version: str, idle_exit_ms: int) -> None:
        self.run_dir = run_dir
        self.version = version  # of the program that started us: what there is on the disk may be newer
        self.idle_exit_ms = idle_exit_ms
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.masks: dict[int, int] = {}
        self.death_timer = kernel.DeathTimer()
        self.wake_timer = kernel.WakeTimer()
        self.output = Output()
        self.unsent: bytes | None = None
        self.run: Run | None = None
        self.cage: Cage | None = None
        self.cages = 0
        self.sweeping = False
        self.finished: wire.Frame | None = None
        self.leaving = False
        self.quiet_since_ms = kernel.now_ms()
        self.retry_at_ms: int | None = None
        self.namespaces = self._try_out(enforcement)
        self.enforcement = "kernel" if self.namespaces else "process"
        self.door = Door(run_dir)
        self._watch(self.door.listener.fileno(), self._knock)
        self._watch(self.wake_timer.fd, lambda: None)

    # The loop.

    def serve(self) -> None:
        """Run until told to leave, or idle for long."""
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._watch(wake_r, lambda: void(os.read(wake_r, 512)))
        while not (self.leaving and self.run is None):
            self._rearm()
            ready = [(fd, self.handlers.get(fd)) for fd, _events in self.epoll.poll()]
            for fd, handler in ready:
                if handler and self.handlers.get(fd) is handler:  # else its number is another's by now
                    handler()
            self._on_time()
            self._flush()
        self.door.lock_up()

    def _on_term(self, _number: int, _frame: object) -> None:
        self.leaving = True

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self.handlers[fd] = handler
        self.masks[fd] = select.EPOLLIN
        self.epoll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        if self.handlers.pop(fd, None):
            del self.masks[fd]
            self.epoll.unregister(fd)

    def _rearm(self) -> None:
        """Wake at the next instant at which ``_on_time`` has something to do."""
        at: list[int] = []
        if self.run and self.run.killed_by is None:
            at.append(self.run.terms.kill_ms)
        if self.sweeping:
            at.append(kernel.now_ms() + SWEEP_MS)
        if self.retry_at_ms is not None:
            at.append(self.retry_at_ms)
        if self._quiet():
            at.append(self.quiet_since_ms + self.idle_exit_ms)
        self.wake_timer.arm(min(at) if at else None)

    def _on_time(self) -> None:
        now_ms = kernel.now_ms()
        run = self.run
        if run and run.killed_by is None and now_ms >= run.terms.kill_ms:
            self.kill(run, run.terms.reason())
        if self.sweeping:
            self._sweep()
        if self.retry_at_ms is not None and now_ms >= self.retry_at_ms:
            self.prepare()
        if not self._quiet():
            self.quiet_since_ms = now_ms
        elif now_ms >= self.quiet_since_ms + self.idle_exit_ms:
            self.leaving = True

    def _quiet(self) -> bool:
        return self.run is None and self.door.controller is None

    # Keepers.

    def _try_out(self, enforcement: str) -> int:
        """Make the first keeper; return the namespaces that this host grants, 0 for none."""
        if os.getpid() == 1:
            raise Refused("a guard that is pid 1 of a namespace ignores its own SIGKILL timer")
        kernel.set_child_subreaper()
        attempts = [NAMESPACES | kernel.CLONE_NEWUSER]
        if os.geteuid() == 0:
            attempts.insert(0, NAMESPACES)
        for namespaces in attempts if enforcement != "process" else []:
            try:
                cage = Cage(namespaces, self.run_dir, self._token())
            except OSError as error:
                complain(f"namespaces: {error}")
                continue
            if cage.wait_ready():
                self._adopt(cage)
                return namespaces
            cage.kill()
            cage.reap()
        if enforcement == "kernel":
            raise Refused("PID namespaces are refused here (SYS_ADMIN or user namespaces needed)")
        cage = Cage(0, self.run_dir, self._token())
        if not cage.wait_ready():
            raise Refused("the keeper does not start; see guard.log")
        self._adopt(cage)
        return 0

    def _token(self) -> str:
        self.cages += 1
        return f"{os.getpid()}-{kernel.now_ms()}-{self.cages}"

    def prepare(self) -> None:
        """Make the next keeper, so that the next start need not wait for it."""
        self.retry_at_ms = None
        if self.cage:
            return
        try:
            self._adopt(Cage(self.namespaces, self.run_dir, self._token()))
        except OSError as error:
            self.retry_at_ms = kernel.now_ms() + RETRY_MS
            if self.run:
                self._finish({"type": "start_failed", "reason": f"keeper: {error}"})

    def _adopt(self, cage: Cage) -> None:
        self.cage = cage
        cage.control.setblocking(False)
        self._watch(cage.control.fileno(), self._heard)
        self._watch(cage.pidfd, self._keeper_died)
        for fd, stream in cage.streams.items():
            self._watch(fd, lambda fd=fd, stream=stream: self._printed(fd, stream))  # type: ignore[misc]

    def _printed(self, fd: int, stream: str) -> None:
        if not self.output.read(fd, self.run.id if self.run else "", stream):
            self._unwatch(fd)

    def _heard(self) -> None:
        cage, run = self.cage, self.run
        if cage is None:
            return
        while (word := cage.receive()) is not None:
            if word == "end":
                self._unwatch(cage.control.fileno())  # its pidfd will tell
                return
            if word == "ready" and run:
                self.launch(run, cage)
            elif word == "started" and run:
                run.started = True
                run.server_pid = cage.root_pid
                frame: wire.Frame = {"type": "started", "keeper_pid": cage.pid, **cage.traces}
                self._tell({**frame, "run": run.id, "server_pid": run.server_pid}, cage.pidfd)

    def _keeper_died(self) -> None:
        cage = self.cage
        if cage is None:
            return
        self._heard()
        for fd in (cage.control.fileno(), cage.pidfd, *cage.streams):
            self._unwatch(fd)
        if self.run:
            for fd, stream in cage.streams.items():
                self.output.drain(fd, self.run.id, stream)
        code = cage.reap()
        if not cage.in_namespace and code != 0:
            self.sweeping = True  # it was killed: its children are ours now
            self._sweep()
        else:
            self._proven_dead()

    def _sweep(self) -> None:
        """Kill and reap what a killed keeper left to us; no child left is the proof."""
        cage = self.cage
        with contextlib.suppress(OSError):  # without a free descriptor, say: again in a moment
            tree.kill_below(cage.cgroup if cage else None)
        if tree.reap_all():
            self.sweeping = False
            self._proven_dead()

    def _proven_dead(self) -> None:
        cage, run = self.cage, self.run
        self.cage = None
        if cage and cage.cgroup:
            cage.cgroup.remove()
        if run is None or cage is None:
            self.retry_at_ms = kernel.now_ms() + RETRY_MS  # it died idle: not at once, or it loops
            return
        if not cage.told_go:
            frame: wire.Frame = {"type": "start_failed", "reason": "the keeper died at once"}
        elif run.started or cage.failed is None:
            status = -int(signal.SIGKILL) if cage.status is None else cage.status
            frame = {"type": "exited", "status": status, "killed_by": run.killed_by}
        else:
            frame = {"type": "start_failed", "reason": cage.failed}
        self._finish(frame)
        self.prepare()

    def _finish(self, frame: wire.Frame) -> None:
        """Tell the end of the run, and keep it until a client has acknowledged it."""
        if self.run is None:
            return
        self.finished = {**frame, "run": self.run.id}
        wire.close_all(self.run.outlets)
        self.run = None
        self._flush()  # its last words first
        self._tell(self.finished)
        self.death_timer.arm(None)
        record.remove(self.run_dir)

    # Starting and killing.

    def launch(self, run: Run, cage: Cage) -> None:
        """Arm, then read the clock, then go."""
        try:
            self.write_record(run, cage)
            self._arm(run, cage)
            if run.terms.too_late(kernel.now_ms()):
                raise Refused("too late: its deadline has come")
            cage.go(run.for_keeper(cage.token), run.outlets)
            wire.close_all(run.outlets)
        except (Refused, OSError, wire.BadFrame) as error:
            self._finish({"type": "start_failed", "reason": str(error)})

    def extend(self, run: Run) -> None:
        """Arm for the new deadline; a record that cannot be written must not cost the server."""
        cage = self.cage
        if cage is None or not cage.told_go or self.sweeping:  # whose keeper is dead is on its way out
            return
        try:
            self.write_record(run, cage)
        except OSError as error:
            complain(f"{record.NAME}: {error}")
        self._arm(run, cage)

    def _arm(self, run: Run, cage: Cage) -> None:
        self.death_timer.arm(run.terms.kernel_ms)
        cage.ends_at.write(run.terms.kernel_ms)

    def write_record(self, run: Run, cage: Cage) -> None:
        """Write what proves the server's end; before the timer is set, to claim too much at worst."""
        found: record.Record = {
            **cage.identity,
            "enforcement": self.enforcement,
            "run": run.id,
            "role": run.role,
            "deadline_ms": run.terms.deadline_ms,
            **cage.traces,
        }
        record.write(self.run_dir, found)

    def kill(self, run: Run, reason: str) -> None:
        """Begin the end of the tree; the keeper's death ends the run."""
        if run.killed_by is None:
            run.killed_by = reason
        if self.cage:
            self.cage.kill()

    # Clients.

    def _knock(self) -> None:
        link = self.door.accept()
        if link is None:
            return
        self._watch(link.fd, lambda: self._called(link))
        link.send({"type": "hello", "protocol": wire.PROTOCOL, **self._describe()})

    def _describe(self) -> wire.Frame:
        cage, run = self.cage, self.run
        found = run.describe(cage.pid if cage else None) if run else None
        if found and cage:
            found |= cage.traces
        who = {"version": self.version, "guard_pid": os.getpid(), "enforcement": self.enforcement}
        return {**who, "run": found}

    def _called(self, link: Link) -> None:
        try:
            frame = self.door.read(link)
            if frame is not None:
                self._obey(link, frame)
        except wire.BadFrame as error:
            link.refuse(str(error))
        finally:
            self.door.drop_given()

    def _obey(self, link: Link, frame: wire.Frame) -> None:
        seq, name = wire.whole(frame, "seq"), wire.text(frame, "order")
        if name == "control":
            if wire.whole(frame, "protocol") != wire.PROTOCOL:
                raise wire.BadFrame(f"protocol {frame['protocol']}, this is {wire.PROTOCOL}")
            self.door.take_control(link)
            self.leaving = False  # who takes control wants a guard
            state: wire.Frame = {"type": "state", "seq": seq, "finished": self.finished}
            # While it sweeps, its keeper is reaped and the pidfd closed.
            running = self.run and self.cage and not self.sweeping
            link.send({**state, **self._describe()}, self.cage.pidfd if running else None)  # type: ignore[union-attr]
            return
        if link is not self.door.controller:
            raise wire.BadFrame("not in control")
        order = ORDERS.get(name)
        if order is None:
            raise wire.BadFrame(f"order {name!r}: unknown")
        answer: wire.Frame = {"type": "answer", "seq": seq, "order": name, "run": frame.get("run")}
        try:
            link.send({**answer, "ok": True, "reason": None, **(order(self, frame) or {})})
        except (Refused, wire.BadFrame) as reason:  # both come before any effect
            link.send({**answer, "ok": False, "reason": str(reason)})

    def _tell(self, frame: wire.Frame, fd: int | None = None) -> None:
        if self.door.controller:
            self.door.controller.send(frame, fd)

    def _flush(self) -> None:
        """Send what waits, output last, and listen for room where it did not fit."""
        controller = self.door.controller
        starting = self.run is not None and not self.run.started  # "started" comes before its output
        if controller and controller.flush() and not starting:
            while self.unsent or self.output:
                self.unsent = self.unsent or wire.encode(self.output.take())
                if not controller.offer(self.unsent):
                    break
                self.unsent = None
        for link in list(self.door.links.values()):
            full = not link.flush() or (link is controller and self.unsent is not None)
            if link.broken:
                self._unwatch(link.fd)
                self.door.close(link)
                continue
            mask = select.EPOLLIN | (select.EPOLLOUT if full else 0)
            if self.masks[link.fd] != mask:
                self.masks[link.fd] = mask
                self.epoll.modify(link.fd, mask)


def complain(text: str) -> None:
    """Write to guard.log, if that can be written: it is on a disk that may be full."""
    with contextlib.suppress(OSError):
        print(f"guard: {text}", file=sys.stderr, flush=True)  # noqa: T201


def void(_value: object) -> None:
    """Ignore a result."""
