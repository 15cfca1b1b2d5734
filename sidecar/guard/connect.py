"""Find the guard of a run directory, or start one. Blocking calls, for a worker thread."""

import contextlib
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from sidecar import __version__
from sidecar.clock import Clock, left_s
from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import proof, told, wire

HELLO_WITHIN_MS = 2000
"""A guard that says nothing for this long is stopped or hung, and is killed: its server dies with
it. A healthy one answers in 1 ms; more makes a restarted sidecar wait, less kills on a busy host."""

OURS = "SIDECAR_"
"""Our own settings in the environment, secrets among them, are nobody else's business."""

Wanted = Literal["auto", "kernel", "process"]


@dataclass(frozen=True)
class Connection:
    """A guard that has given us control."""

    sock: socket.socket
    guard_pidfd: int
    state: wire.Frame
    keeper_pidfd: int | None

    def close(self) -> None:
        """Close all of it but the keeper's pidfd, which belongs to the run."""
        self.sock.close()
        os.close(self.guard_pidfd)


class Foreign(GuardError):
    """A guard that speaks another protocol: of another version of this program. It was told nothing."""

    def __init__(self, hello: wire.Frame, pidfd: int) -> None:
        super().__init__(f"the guard speaks protocol {hello['protocol']}, not {wire.PROTOCOL}")
        run = hello.get("run")
        self.pidfd = pidfd
        self.standby = isinstance(run, dict) and run.get("role") == "standby"


class Greeting(NamedTuple):
    """What a guard says to whoever connects."""

    protocol: int
    version: str | None  # None: it is older than that was said
    role: str | None  # of its server; None: it has none


@dataclass(frozen=True)
class Spawn:
    """How to start a guard."""

    run_dir: Path
    enforcement: Wanted
    python: str
    idle_exit_ms: int


def attach_or_spawn(spawn: Spawn, deadline: Instant, clock: Clock) -> Connection:
    """Return the connection to the guard in ``spawn.run_dir``, started if there is none.

    Raises:
        GuardError: There is no guard to be had by *deadline*, or an earlier server is not proven
            dead. Nothing was started.
    """
    spawn.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    while clock.now() < deadline:
        try:
            found = attach(spawn.run_dir, deadline, clock)
        except Foreign as foreign:
            _part(foreign, deadline, clock)
            continue
        if found is None:
            if not proof.wait_for_orphans(spawn.run_dir, deadline, clock):
                raise GuardError(f"{spawn.run_dir}: an earlier server is not proven dead")
            _start(spawn, deadline, clock)
        elif _stays(found.state, spawn.enforcement):
            return found
        else:
            _send_away(found, deadline, clock)
    raise GuardError(f"{spawn.run_dir}: no guard answers")


def greeting(run_dir: Path, deadline: Instant, clock: Clock) -> Greeting | None:
    """Return what the guard in *run_dir* says to any caller; None when there is none. It is not disturbed.

    Raises:
        GuardError: What answers there is no guard.
        OSError: It does not answer by *deadline*, or hears another user alone.
    """
    with wire.seqpacket() as sock:
        sock.settimeout(left_s(deadline, clock) or 0.001)
        try:
            _knock(sock, run_dir)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        protocol, hello = _hello(sock)
    run = hello.get("run")
    role = str(run.get("role")) if isinstance(run, dict) else None
    version = hello.get("version")
    return Greeting(protocol, version if isinstance(version, str) else None, role)


def _knock(sock: socket.socket, run_dir: Path) -> None:
    dir_fd = wire.open_run_dir(str(run_dir))
    try:
        sock.connect(wire.address(dir_fd))
    finally:
        os.close(dir_fd)


def attach(run_dir: Path, deadline: Instant, clock: Clock) -> Connection | None:
    """Connect to a guard and take control; None when there is none.

    A guard that does not answer is killed, and counts as none.

    Raises:
        Foreign: Its guard speaks another protocol. The caller closes its pidfd.
        GuardError: The socket belongs to somebody else, or what answers there is no guard.
    """
    sock = wire.seqpacket()
    pidfd = -1
    try:
        sock.settimeout(min(left_s(deadline, clock), HELLO_WITHIN_MS / 1000) or 0.001)
        _knock(sock, run_dir)
        pid, uid = wire.peer(sock)
        if uid != os.geteuid():
            raise GuardError(f"{run_dir / wire.SOCKET_NAME}: belongs to uid {uid}")
        if pid == 0:
            raise GuardError(
                f"{run_dir}: a guard of another container works there; paths.run is for one alone"
            )
        pidfd = os.pidfd_open(pid)
        return _take_control(sock, pidfd)
    except (ConnectionError, FileNotFoundError, ProcessLookupError):
        _close(sock, pidfd)
        return None
    except (TimeoutError, BlockingIOError):
        # Without a pidfd even connect() had to wait: its queue is full. Rare; the caller retries.
        if pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            proof.readable(pidfd, HELLO_WITHIN_MS)
        _close(sock, pidfd)
        return None
    except Foreign:
        sock.close()
        raise
    except BaseException:
        _close(sock, pidfd)
        raise


def _close(sock: socket.socket, pidfd: int) -> None:
    sock.close()
    if pidfd >= 0:
        os.close(pidfd)


def _take_control(sock: socket.socket, pidfd: int) -> Connection:
    protocol, hello = _hello(sock)
    if protocol != wire.PROTOCOL:
        raise Foreign(hello, pidfd)
    sock.send(wire.encode({"order": "control", "seq": 0, "protocol": wire.PROTOCOL}))
    state, keeper_pidfd = receive(sock)
    try:
        _check(state)
    except GuardError:
        if keeper_pidfd is not None:
            os.close(keeper_pidfd)
        raise
    sock.setblocking(False)
    return Connection(sock, pidfd, state, keeper_pidfd)


def _hello(sock: socket.socket) -> tuple[int, wire.Frame]:
    hello, _ = receive(sock)
    protocol = hello.get("protocol")
    if hello.get("type") != "hello" or type(protocol) is not int:
        raise GuardError(f"what answers there is no guard: it speaks protocol {str(protocol)[:20]!r}")
    return protocol, hello


def _check(state: wire.Frame) -> None:
    if state.get("type") != "state":
        raise GuardError(f"the guard refuses: {str(state.get('reason'))[:200]!r}")
    try:
        told.check(state)
    except wire.BadFrame as error:
        raise GuardError(f"message from the guard: {error}") from error


def receive(sock: socket.socket) -> tuple[wire.Frame, int | None]:
    """Return the next message and the descriptor that came with it.

    Raises:
        ConnectionError: The guard has closed the connection.
        GuardError: It sent something that is no message.
    """
    flags = socket.MSG_CMSG_CLOEXEC  # which socket.recv_fds() takes and forgets
    space = socket.CMSG_LEN(4)
    data, rest, _flags, _address = wire.taken(lambda: sock.recvmsg(wire.FRAME_MAX, space, flags))
    fds = wire.rights(rest)
    if not data:
        raise ConnectionResetError("closed by the guard")
    try:
        return wire.decode(data), fds[0] if fds else None
    except wire.BadFrame as error:
        for fd in fds:
            os.close(fd)
        raise GuardError(f"message from the guard: {error}") from error


def _part(foreign: Foreign, deadline: Instant, clock: Clock) -> None:
    """Let a guard of another version go, and wait until it is gone.

    What it keeps of the lock cannot be understood, so nobody extends its server's deadline. An active one
    serves on until then, for nobody else can before; a standby is missed by nobody and is ended at once.
    """
    try:
        if not _end(foreign.pidfd, foreign.standby, deadline, clock):
            raise GuardError(
                f"{foreign}, and its server still runs: it ends at its deadline, and the guard with it; then "
                "start again. Sooner: stop it with the version that started it, or kill that guard"
            )
    finally:
        os.close(foreign.pidfd)


def _stays(state: wire.Frame, enforcement: Wanted) -> bool:
    """Tell whether a guard is the one to go on with.

    One with an active server is, whatever it is: that must not end. An idle one has to be as it was asked
    for, and of this version: else what a newer one mends would not be in force before somebody stops the
    sidecar. For the same reason a standby's goes, which nobody misses.
    """
    run, ours = told.adopted_run(state), state.get("version") == __version__
    if run is None:
        return ours and enforcement in ("auto", state["enforcement"])
    return ours or run.role != "standby"


def _send_away(found: Connection, deadline: Instant, clock: Clock) -> None:
    """Make a guard go that is not to stay, and wait until it is gone."""
    gone = _end(found.guard_pidfd, found.state["run"] is not None, deadline, clock)
    if found.keeper_pidfd is not None:
        os.close(found.keeper_pidfd)
    found.close()
    if not gone:
        raise GuardError("the guard before does not leave")


def _end(guard_pidfd: int, standby: bool, deadline: Instant, clock: Clock) -> bool:
    """End a guard with its *standby* at once, or let it leave when no server runs; tell whether it went."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(guard_pidfd, signal.SIGKILL if standby else signal.SIGTERM)
    return proof.readable(guard_pidfd, int(left_s(deadline, clock) * 1000))


def inherited() -> dict[str, str]:
    """Return our environment without our own settings, for what we start."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def _start(spawn: Spawn, deadline: Instant, clock: Clock) -> None:
    script = Path(__file__).with_name("guard.py")
    ready_r, ready_w = os.pipe()
    command = [spawn.python, "-I", "-S", str(script), "--run-dir", str(spawn.run_dir.absolute())]
    command += ["--enforcement", spawn.enforcement, "--idle-exit-ms", str(spawn.idle_exit_ms)]
    command += ["--version", __version__, "--ready-fd", str(ready_w)]
    try:
        with (spawn.run_dir / "guard.log").open("ab") as log:
            try:
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env=inherited(),  # it outlives us
                    pass_fds=(ready_w,),
                    start_new_session=True,
                    timeout=left_s(deadline, clock),
                    check=True,
                )
            finally:
                os.close(ready_w)
        if not proof.readable(ready_r, int(left_s(deadline, clock) * 1000)):
            raise GuardError("the guard does not start in time")
        answer = os.read(ready_r, 4096).decode(errors="replace")
    except (OSError, subprocess.SubprocessError) as error:
        raise GuardError(f"the guard does not start: {error}") from error
    finally:
        os.close(ready_r)
    if answer != "ready":
        raise GuardError(f"the guard does not start: {answer or 'see guard.log'}")
