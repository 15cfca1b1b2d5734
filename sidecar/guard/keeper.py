"""The keeper: between guard and server, so that the death of one process proves the tree dead.

    guard ── keeper ── server's first process ── ...

``kernel``: the keeper is pid 1 of the server's PID namespace with PDEATHSIG SIGKILL. Whatever kills
it, or the guard, makes the kernel kill the namespace; its pidfd becomes readable only after that.

``process``: the keeper is a child subreaper, so every descendant stays below it, and it exits only
when it has no child left. PDEATHSIG is SIGCONT: a guard killed at its deadline wakes a stopped
keeper, which finds the guard's end of the socket closed and kills the tree.

Both know the instant at which the kernel kills the guard, and end the tree then by themselves: a guard that
waits for a disk does not die before the disk answers.

Rules
  * It never holds a file that the server writes to: the end of a process closes its files first, and one on a
    disk that hangs would put off the end of the tree. So a stdout of the server's own goes past the keeper.
  * It starts nothing before the guard's "go", and reads that only after PDEATHSIG is set.
  * It never changes credentials (that would clear PDEATHSIG); only the server's process does.
  * The server is the *whole tree*. When its first process exits with 0 and others live (a launcher
    that daemonises), the run goes on until the last is gone; the status stays 0. When the first
    exits otherwise and no stop is under way, the rest is killed: half a server is none. A stop's signal
    goes to its process group, and once that is gone to those who have left it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import time
import traceback

from sidecar.guard import kernel, record, setup, tree, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sidecar.guard.shared import SharedInstant

_OUR_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCONT, signal.SIGCHLD),
    *(signal.SIGPIPE, signal.SIGXFSZ),  # ignored by every Python process
)

STEP_MAX = 300
"""Characters of a path in a reason: up to 12 bytes each as JSON, and the guard reads 4096."""

RESCAN_MS = 20
"""Between two passes of killing a tree without namespace. Costs a scan of /proc each."""


def main(
    control: socket.socket,
    out: tuple[int, int, int],
    ids: tuple[int, int],
    namespaces: int,
    cgroup: tree.Cgroup | None,
    run_dir: str,
    ends_at: SharedInstant,
) -> NoReturn:
    """Be the keeper. Called in the forked child; never returns.

    Args:
        control: Our end of the socket to the guard.
        out: Where the server's stdout and stderr go, and the socket by which they come if they are its own.
        ids: The guard's uid and gid.
        namespaces: The flags we were cloned with, 0 for enforcement ``process``.
        cgroup: Where the server goes, if there is one.
        run_dir: Where ``keeper.json`` is.
        ends_at: When the tree has to be dead, once "go" is said.
    """
    try:
        setup.close_all_but([2, control.fileno(), *out])
        signal.set_wakeup_fd(-1)
        if namespaces & kernel.CLONE_NEWUSER:
            setup.map_own_ids(*ids)
        Keeper(control, out, namespaces, cgroup, run_dir, ends_at).serve()
    except BaseException:  # outermost frame: whatever it is, nothing may run on
        if not namespaces:  # else our death ends all
            _kill_all(cgroup)
        traceback.print_exc()  # last: the log may be on a disk that is full, or hangs
    finally:
        os._exit(1)


def _kill_all(cgroup: tree.Cgroup | None) -> None:
    """Kill and reap until no child is left, whatever fails on the way: the guard may be dead."""
    while True:
        with contextlib.suppress(Exception):  # again in a moment
            tree.kill_below(cgroup)
        if tree.reap_all():
            return
        time.sleep(RESCAN_MS / 1000)


class Keeper:
    """One server tree, from "go" to its end."""

    def __init__(
        self,
        control: socket.socket,
        out: tuple[int, int, int],
        namespaces: int,
        cgroup: tree.Cgroup | None,
        run_dir: str,
        ends_at: SharedInstant,
    ) -> None:
        self.control = control
        self.out = out
        self.namespaces = namespaces
        self.kernel = namespaces != 0
        self.cgroup = cgroup
        self.run_dir = run_dir
        self.ends_at = ends_at
        self.end_timer = kernel.WakeTimer()
        self.pid = os.getpid()
        self.order: wire.Frame = {}
        self.root = 0
        self.root_status: int | None = None
        self.stop_command = 0
        self.executed = False
        self.stopping = False
        self.rest_to_signal = False
        self.killing = False
        self.orphaned = False

    def serve(self) -> None:
        """Set up, wait for "go", start the server, reap until nothing is left."""
        self._set_up()
        signal.signal(signal.SIGCHLD, _noted)
        self._fork_root()
        self._tell({"ready": True})
        data = wire.taken(lambda: self.control.recv(wire.FRAME_MAX))
        if not data:
            self._leave()  # the guard is gone before it started anything
        if kernel.now_ms() >= self.ends_at.read():
            self._leave()  # we were stopped between its word and now, and it may be dead
        with contextlib.suppress(OSError):  # dead before its time: seen when it is reaped
            self.root_go.send(data)
        self.order = wire.decode(data)
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        self._loop(wake_r)

    def _set_up(self) -> None:
        kernel.set_name("sidecar-keeper")
        if self.kernel:
            if os.getpid() != 1:
                raise RuntimeError("not pid 1 of a namespace")
            kernel.set_parent_death_signal(signal.SIGKILL)
            if self.namespaces & kernel.CLONE_NEWNS:
                setup.fresh_proc()
        else:
            kernel.set_child_subreaper()
            kernel.set_parent_death_signal(signal.SIGCONT)
        signal.signal(signal.SIGCONT, _noted)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _tell(self, message: wire.Frame) -> None:
        with contextlib.suppress(OSError):  # the guard is gone: seen as the end of the socket
            self.control.send(wire.encode(message))

    def _loop(self, wake_r: int) -> None:
        poll = select.poll()
        for fd in (self.control.fileno(), wake_r, self.exec_result, self.end_timer.fd):
            poll.register(fd, select.POLLIN)
        self.end_timer.arm(self.ends_at.read())
        while True:
            for fd, _events in poll.poll(RESCAN_MS if self.killing else None):
                if fd == wake_r:
                    os.read(wake_r, 4096)
                elif fd == self.exec_result:
                    poll.unregister(fd)
                    self._executed(os.read(fd, 4096))
                elif fd == self.end_timer.fd:
                    self._time_is_over()
                else:
                    self._ordered()
                    if self.orphaned:
                        poll.unregister(fd)
            self._reap()
            if self.killing:
                tree.kill_below(self.cgroup)

    # Orders.

    def _ordered(self) -> None:
        data = wire.taken(lambda: self.control.recv(wire.FRAME_MAX))
        match wire.decode(data).get("do") if data else "end":
            case "stop" if not self.stopping:
                self.stopping = True
                if self.executed:  # before that it would not hear
                    self._stop()
            case "kill":
                self._kill()
            case "end":
                self.orphaned = True
                self._kill()

    def _time_is_over(self) -> None:
        """End the tree, unless the guard has got more time since."""
        at_ms = self.ends_at.read()
        if kernel.now_ms() < at_ms:
            self.end_timer.arm(at_ms)
            return
        self.end_timer.arm(None)
        self._kill()

    def _stop(self) -> None:
        command = self.order["stop_command"]
        if command is None:
            self._signal()
            return
        try:
            self.stop_command = os.fork()
        except OSError:  # no room for one more process
            self._signal()
            return
        if self.stop_command == 0:
            try:
                self._detach()
                self._become(wire.texts(self.order, "stop_command"), 2)
            finally:
                os._exit(127)

    def _signal(self) -> None:
        """To the first process's group; when that is gone, to everything in the tree."""
        with contextlib.suppress(ProcessLookupError):  # it has not called setsid() yet, or is just exiting
            if self.root_status is None:
                os.killpg(self.root, wire.whole(self.order, "stop_signal"))
                self.rest_to_signal = True
                return
        self._signal_all()

    def _signal_rest(self) -> None:
        """When the group is gone, tell those that have left it, who have heard nothing from us."""
        if self.rest_to_signal and not _is_group(self.root):
            self.rest_to_signal = False
            self._signal_all()

    def _signal_all(self) -> None:
        number = wire.whole(self.order, "stop_signal")
        if not self.kernel:
            tree.signal_descendants(os.getpid(), number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)  # from pid 1: everything in the namespace but ourselves

    def _kill(self) -> None:
        if self.kernel:
            os._exit(0)  # the kernel does it, and lets nobody escape
        self.killing = True

    # Starting and reaping.

    def _fork_root(self) -> None:
        """Fork the process that will be the server; it waits for the order, as we do."""
        self.root_go, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.exec_result, result_w = os.pipe()
        self.root = os.fork()
        if self.root == 0:
            self.root_go.close()
            self._be_root(theirs, result_w)
        theirs.close()
        os.close(self.out[2])  # only it may take them
        os.close(result_w)

    def _be_root(self, go: socket.socket, result: int) -> NoReturn:
        try:
            self._detach()
            self._tell({"root": True})  # its credentials say our pid, as the guard sees it
            data = go.recv(wire.FRAME_MAX)
            if data:
                self.order = wire.decode(data)
                self._take_own_output()
                self._become(wire.texts(self.order, "argv"), result)
        except OSError as error:  # no descriptor is left, say, or its cgroup takes nobody
            os.write(result, f"before the command: {error.strerror or error}".encode())
        finally:
            os._exit(127)

    def _take_own_output(self) -> None:
        if not self.order["own_output"]:
            return
        outlets = socket.socket(fileno=self.out[2])
        _data, rest, _flags, _address = outlets.recvmsg(1, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        stdout, stderr = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in wire.rights(rest))
        self.out = stdout, stderr, self.out[2]

    def _executed(self, error: bytes) -> None:
        os.close(self.exec_result)
        if error:
            self._tell({"failed": error.decode(errors="replace")})
            return
        self._tell({"started": True})
        self.executed = True
        if self.stopping:
            self._stop()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._empty()
            if pid == 0:
                self._signal_rest()
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self.root and self.root_status is None:
                self.root_status = code
                self._tell({"exit": code})
                if code != 0 and not self.stopping:
                    self._kill()
            elif pid == self.stop_command and code != 0:
                self._signal()

    def _empty(self) -> NoReturn:
        """No child is left: the tree is proven empty, and our death tells so."""
        if self.orphaned and not self.kernel:
            found = record.read(self.run_dir)
            if found and found.get("keeper_pid") == os.getpid():
                record.write(self.run_dir, {**found, "empty": True})
        if self.cgroup:
            self.cgroup.remove()
        os._exit(0)

    def _leave(self) -> NoReturn:
        """End, and with us what only waited to be a server: a cgroup outlives whoever has made it."""
        if self.cgroup:
            os.kill(self.root, signal.SIGKILL)
            os.waitpid(self.root, 0)
            self.cgroup.remove()
        os._exit(0)

    def _detach(self) -> None:
        """In a forked child: be a session of its own, with signals as a new program has them."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in _OUR_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.set_inheritable(0, True)  # open() may have given 0 itself, which dup2() leaves as it is
        self._end_with_keeper()
        if self.cgroup:
            self.cgroup.enter()

    def _end_with_keeper(self) -> None:
        """In a forked child: die when the keeper does, also where it has died already."""
        if self.kernel:
            return  # it is pid 1
        kernel.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != self.pid:
            os._exit(127)

    def _become(self, argv: list[str], result: int) -> NoReturn:
        """In a forked child: turn into *argv*, or write why not to *result* and exit."""
        user, cwd = self.order["user"], wire.text(self.order, "cwd")
        try:
            setup.give_up_protection()
            step = f"user {user!r}"
            setup.drop_to(user)
            step = f"cwd {cwd!r}"
            os.chdir(cwd)
            step = f"command {argv[0]!r}"
            self._end_with_keeper()  # changing the user cleared it
            os.dup2(self.out[0], 1)
            os.dup2(self.out[1], 2)
            os.execvpe(argv[0], argv, wire.environment(self.order, "env"))  # noqa: S606
        except OSError as error:
            reason = f"{step[:STEP_MAX]}: {error.strerror or error}"
        except LookupError:
            reason = f"{step[:STEP_MAX]}: unknown"
        except ValueError as error:  # text that cannot be bytes, a number that is none
            reason = f"{step[:STEP_MAX]}: {error}"
        os.write(result, reason.encode())
        os._exit(127)


def _is_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def _noted(_number: int, _frame: object) -> None:
    """Exist: a signal without handler interrupts nothing and writes to no wake-up descriptor."""
