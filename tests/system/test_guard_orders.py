"""What the guard's socket allows, refuses and reports, and that nothing blocks.

Method: real guards; well-formed orders through a driver process, malformed ones by hand. The server
of the malformed cases must live on, with the same pid, under the same deadline.

Not covered: who dies when; see test_guard.py.
"""

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import connect, proof, record, setup, tree, wire
from sidecar.guard.cage import Cage
from sidecar.guard.daemon import Guard
from sidecar.guard.output import LIMIT_BYTES, Output
from sidecar.guard.run import Run
from sidecar.guard.terms import Terms
from tests.harness import guards
from tests.harness.guards import LEASE, MARGIN_MS, NOBODY, Sidecar, Site, now_ms
from tests.harness.process import unavailable, wait_until

AS_ROOT = os.geteuid() == 0


@pytest.fixture(params=["kernel", "process"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with guards.site(request.param, unprivileged=not AS_ROOT) as one:
        yield one


@pytest.fixture
def kernel_site() -> Iterator[Site]:
    with guards.site("kernel", unprivileged=not AS_ROOT) as one:
        yield one


# Starting.


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"argv": ["/nonexistent/launcher"]}, "No such file"),
        ({"argv": ["nonexistent-launcher"]}, "No such file"),
        ({"argv": ["/etc/passwd"]}, "Permission denied"),
        ({"cwd": "/nonexistent"}, "cwd '/nonexistent': No such file"),
        ({"user": "no-such-user"}, "user 'no-such-user': unknown"),
        ({"stop_signal": 0}, "stop_signal"),
        ({"kill_margin_ms": -1}, "kill_margin_ms"),
        ({"argv": []}, "argv"),
        ({"env": {"A=B": "c"}}, "env"),
    ],
    ids=str,
)
def test_a_start_that_fails_says_why(site: Site, order: dict[str, object], reason: str) -> None:
    sidecar = site.sidecar()
    sidecar.start(**order)  # type: ignore[arg-type]

    assert reason in sidecar.wait("StartFailed", run="r1")["reason"]
    assert sidecar.count("Started", "Exited") == 0
    sidecar.start("polite", run="r2")
    sidecar.wait("Started", run="r2")


def test_only_root_may_start_as_somebody_else() -> None:
    with guards.site("kernel", unprivileged=True) as site:
        sidecar = site.sidecar()
        sidecar.start(user="root")
        assert "user 'root': only root" in sidecar.wait("StartFailed")["reason"]


def test_the_server_alone_becomes_the_other_user(site: Site) -> None:
    if not AS_ROOT:
        unavailable("needs root")
    site.folder.chmod(0o777)
    sidecar = site.sidecar()
    deadline = sidecar.start("whoami", "deaf", "daemon", user="nobody", **LEASE)
    sidecar.wait("Started")
    site.beating("root", "daemon")
    tree = site.processes(least=3)
    guard = site.one(site.guard_pid())

    guard.send(signal.SIGSTOP)  # PDEATHSIG must have survived

    assert tree.dead(10_000)
    assert site.last_life() < deadline
    (who,) = {word for word, _ in site.lives() if word.startswith("uid=")}
    assert who.startswith(f"uid={NOBODY}/{NOBODY}/")
    assert "0" not in who.partition("[")[2].strip("]").split(", ")


@pytest.mark.parametrize(("inherited", "own"), [("-900", "0"), ("0", "0"), ("300", "300")])
def test_the_server_is_not_protected_as_its_guard_is(tmp_path: Path, inherited: str, own: str) -> None:
    """Played with a file: only CAP_SYS_RESOURCE may lower a real one, as OOMScoreAdjust of a unit does."""
    score = tmp_path / "oom_score_adj"
    score.write_text(f"{inherited}\n")
    setup.give_up_protection(str(score))

    assert score.read_text().strip() == own


def test_a_late_start_is_refused(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start(lives_ms=199)  # its kill is due: deadline - 200 ms

    assert "too late" in sidecar.wait("StartFailed")["reason"]
    assert not site.witness.exists()


def test_a_start_read_too_late_starts_nothing(site: Site) -> None:
    sidecar = site.sidecar()
    guard = site.one(site.guard_pid())
    guard.send(signal.SIGSTOP)
    deadline = sidecar.start(lives_ms=400)
    wait_until(lambda: now_ms() > deadline, "the deadline")
    guard.send(signal.SIGCONT)

    assert "too late" in sidecar.wait("StartFailed")["reason"]
    assert not site.witness.exists()


def test_a_guard_delayed_between_order_and_go_starts_nothing(site: Site) -> None:
    """A FIFO in place of the record holds the guard up where it must read the clock again."""
    sidecar = site.sidecar()
    fifo = site.run_dir / f"{record.NAME}.new"
    os.mkfifo(fifo, 0o666)
    deadline = sidecar.start(lives_ms=5500, kill_margin_ms=5000)  # the kernel waits 2.5 s longer
    wait_until(lambda: now_ms() >= deadline - 5000, "the instant of the kill")
    reader = os.open(fifo, os.O_RDONLY)

    assert "too late" in sidecar.wait("StartFailed")["reason"]
    os.close(reader)
    assert not site.witness.exists()
    assert sidecar.count("GuardLost") == 0


def test_a_second_run_is_refused_while_one_is_on(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start("deaf")
    sidecar.wait("Started")
    sidecar.start(run="r2")
    assert "not over" in sidecar.wait("GuardError")["reason"]


def test_a_second_client_cannot_start_beside_the_first(kernel_site: Site) -> None:
    """One that has not heard of the run, as after a state that was lost on the way."""
    site = kernel_site
    sidecar = site.sidecar()
    sidecar.start("deaf")
    sidecar.wait("Started")
    sock, hello = _hello(site)
    with sock:
        sock.send(json.dumps(CONTROL).encode())
        sock.recv(wire.FRAME_MAX)
        sock.send(json.dumps(_start("r2")).encode())
        answer = wire.decode(sock.recv(wire.FRAME_MAX))

    assert (answer["ok"], answer["reason"]) == (False, "run 'r1' is not over")
    sock, after = _hello(site)
    sock.close()
    assert after["run"] == hello["run"]


def test_the_server_sees_a_proc_of_its_own(kernel_site: Site) -> None:
    sidecar = kernel_site.sidecar()
    sidecar.start("ps", "env=SIDECAR_TEST", env={"SIDECAR_TEST": "mine"})
    sidecar.wait("Started")
    kernel_site.beating("root")
    words = [word for word, _ in kernel_site.lives()]
    assert words[:3] == ["pid=2", "proc=1,2", "env=mine"]
    assert Path("/proc/self").readlink() == Path(str(os.getpid())), "our own /proc must stay"


# The deadline.


def test_an_extension_keeps_it_alive_and_never_shortens(site: Site) -> None:
    sidecar = site.sidecar()
    deadline = sidecar.start("deaf", **LEASE)
    sidecar.wait("Started")
    sidecar.order("extend", run="r1", deadline_at=deadline + 6_000)
    sidecar.order("extend", run="r1", deadline_at=deadline - 3_000)

    exited = sidecar.wait("Exited", killed_by="deadline")

    assert exited["at"] >= deadline + 6_000 - MARGIN_MS
    assert deadline < site.last_life() < deadline + 6_000


def test_an_extension_read_too_late_is_refused(site: Site) -> None:
    sidecar = site.sidecar()
    guard = site.one(site.guard_pid())
    deadline = sidecar.start("deaf", lives_ms=23_000, kill_margin_ms=20_000)
    sidecar.wait("Started")
    guard.send(signal.SIGSTOP)
    wait_until(lambda: now_ms() > deadline - 20_000, "the instant of the kill")
    sidecar.order("extend_often", run="r1", deadline_at=deadline + 60_000, times=1)
    sidecar.wait("extended")  # it lies in the guard's socket
    guard.send(signal.SIGCONT)

    exited = sidecar.wait("Exited")

    assert exited["killed_by"] in ("deadline", "guard")  # a slow machine lets the kernel do it
    assert exited["at"] < deadline
    assert site.last_life() < deadline


def test_orders_for_another_run_are_refused(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start("deaf")
    sidecar.wait("Started")
    for order in ("kill", "stop", "extend", "note"):
        instant = {"stop": "kill_at", "extend": "deadline_at"}.get(order)
        more = {instant: now_ms() + 1} if instant else {"note": 1} if order == "note" else {}
        sidecar.order(order, run="r0", **more)
        assert "r0" in sidecar.wait("OrderRefused", order=order, run="r0")["reason"]
    site.beating("root")
    assert len(site.processes(least=2).alive()) == 2


def test_a_repeated_stop_only_brings_the_kill_forward(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start("deaf", lives_ms=60_000)
    sidecar.wait("Started")
    site.beating("root")
    now = now_ms()
    for kill_at in (now + 30_000, now + 300, now + 20_000):
        sidecar.order("stop", run="r1", kill_at=kill_at)
    assert sidecar.wait("Exited", killed_by="order")["at"] < now + 5000


@pytest.mark.parametrize("command", ["echo asked > {}.asked; kill -TERM {{}}", "exit 1", "nonexistent"])
def test_a_stop_command_that_fails_is_followed_by_the_signal(site: Site, command: str) -> None:
    sidecar = site.sidecar()
    words = ["/bin/sh", "-c", command.format(site.witness)]
    sidecar.start("polite=0", lives_ms=60_000, stop_command=words if " " in command else [command])
    sidecar.wait("Started")
    site.beating("root")
    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)

    assert sidecar.wait("Exited")["status"] == 0
    assert site.said("term")
    assert Path(f"{site.witness}.asked").exists() == command.startswith("echo")


def test_a_record_that_cannot_be_written_starts_nothing_and_stops_nothing(site: Site) -> None:
    sidecar = site.sidecar()
    _outlive_without_a_record(site, sidecar)
    sidecar.start(run="r2")
    assert record.NAME in sidecar.wait("StartFailed", run="r2")["reason"]


def test_bug_a_full_disk_with_the_log_on_it_cost_the_server(site: Site) -> None:
    site.run_dir.mkdir(mode=0o700)
    if site.uid is not None:
        os.chown(site.run_dir, site.uid, site.uid)
    (site.run_dir / "guard.log").symlink_to("/dev/full")
    sidecar = site.sidecar()
    _outlive_without_a_record(site, sidecar)
    assert sidecar.count("GuardLost") == 0


def _outlive_without_a_record(site: Site, sidecar: Sidecar) -> None:
    """Extend a server's time while its record cannot be written: it lives longer all the same."""
    deadline = sidecar.start("deaf", **LEASE)
    sidecar.wait("Started")
    (site.run_dir / f"{record.NAME}.new").mkdir()
    sidecar.order("extend", run="r1", deadline_at=deadline + 6_000)
    assert sidecar.wait("Exited", killed_by="deadline")["at"] > deadline


def test_bug_a_server_began_without_stdin(site: Site) -> None:
    """What it opened first became that."""
    script = f"readlink /proc/$$/fd/0 >>{site.witness}; exec sleep 60"
    site.sidecar().start(argv=["/bin/sh", "-c", f"echo begun >{site.witness}; {script}"])
    wait_until(lambda: site.witness.exists() and "begun" in site.witness.read_text(), "the server")
    wait_until(lambda: "/dev/null" in site.witness.read_text(), "its stdin", 5)


def test_bug_a_stop_command_that_could_not_be_forked_killed_at_once() -> None:
    with guards.site("process", unprivileged=True) as site:
        sidecar = site.sidecar()
        sidecar.start("polite=3", stop_command=["/bin/true"], lives_ms=60_000)
        sidecar.wait("Started")
        site.beating("root")
        keeper = record.read(str(site.run_dir))
        assert keeper is not None
        limit = ["prlimit", "--pid", str(keeper["keeper_pid"]), "--nproc=1:1"]
        subprocess.run(limit, user=site.uid, group=site.uid, check=True)

        sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)

        sidecar.wait("Exited", status=3, killed_by=None)
        assert site.said("bye"), "it got its signal"


def test_bug_a_guard_failed_at_a_kill_after_its_keeper_was_reaped(tmp_path: Path) -> None:
    script = "import os, sys; from sidecar.guard import tree; from sidecar.guard.cage import Cage; "
    script += "tree.Cgroup.make = lambda name: None; cage = Cage(0, sys.argv[1], 'token'); "
    script += "assert cage.wait_ready(); cage.told_go = True; os.kill(cage.pid, 9); cage.reap(); cage.kill()"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=30, check=True)


TOO_LATE = """
import os, sys, time
from sidecar.guard import keeper, kernel
from sidecar.guard.cage import Cage

keeper.Keeper._loop = lambda self, wake_r: os.waitpid(self.root, 0)  # the server would have its time
cage = Cage(0, sys.argv[1], "token")
assert cage.wait_ready()
cage.ends_at.write(kernel.now_ms() + int(sys.argv[2]))
cage.go({"argv": ["/bin/touch", sys.argv[1] + "/ran"], "env": {}, "user": None, "cwd": "/"})
os.waitpid(cage.pid, 0)
cage.cgroup and cage.cgroup.remove()
"""


@pytest.mark.parametrize("left_ms", [60_000, 0])
def test_a_keeper_starts_nothing_at_its_deadline(tmp_path: Path, left_ms: int) -> None:
    """It may have been stopped between the guard's word and that, and the guard may be dead."""
    command = [sys.executable, "-c", TOO_LATE, str(tmp_path), str(left_ms)]
    subprocess.run(command, timeout=30, check=True)
    assert (tmp_path / "ran").exists() == (left_ms > 0)


def test_a_child_of_a_keeper_that_is_dead_already_ends(tmp_path: Path) -> None:
    """PDEATHSIG tells only of a death that comes later."""
    script = "from sidecar.guard.keeper import Keeper; keeper = object.__new__(Keeper); "
    script += "keeper.kernel, keeper.pid = False, 1 << 30; keeper._end_with_keeper(); print('goes on')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (127, b"")


def test_bug_a_thread_with_the_number_of_a_dead_keeper_kept_the_node_out() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, daemon=True)
    thread.start()
    try:
        found: record.Record = {"keeper_pid": thread.native_id, "keeper_start": 1}
        assert proof.open_keeper(found) is None
    finally:
        over.set()


def test_without_namespaces_it_is_process_or_nothing() -> None:
    with guards.site("auto", unprivileged=True) as site:
        no_namespaces = 'echo 0 > /proc/sys/user/max_pid_namespaces; exec "$@"'
        site.before = ("unshare", "--user", "--map-root-user", "sh", "-c", no_namespaces, "sh")
        refused = site.sidecar("kernel")
        assert "PID namespaces are refused" in refused.wait("failed")["reason"]
        assert not (site.run_dir / wire.SOCKET_NAME).exists()

        sidecar = site.sidecar()

        assert sidecar.wait("attached")["enforcement"] == "process"
        sidecar.start("polite")
        sidecar.wait("Started")


# Clients.


def test_notes_and_the_end_are_kept_for_the_next_client(site: Site) -> None:
    old = site.sidecar()
    deadline = old.start("polite", note="first")
    old.wait("Started")
    old.order("note", run="r1", note={"second": 2})
    old.order("extend", run="r1", deadline_at=deadline + 1, note={"third": 3})
    old.leave()
    new = site.sidecar()
    assert new.wait("attached")["adopted"]["note"] == {"third": 3}
    new.kill()
    tree = site.processes(least=2)
    tree.send(signal.SIGKILL)
    assert tree.dead(5000)

    third = site.sidecar()
    assert third.wait("attached")["adopted"] is None
    third.wait("Exited", run="r1", killed_by=None)
    third.leave()
    fourth = site.sidecar()
    fourth.start("polite", run="r2")
    fourth.wait("Started")
    assert fourth.count("Exited") == 0, "acknowledged, and told again"


def test_bug_the_last_orders_of_a_client_that_left_answers_unread_were_lost(site: Site) -> None:
    """A sidecar that leaves its server running gives the note for the next one last of all."""
    old = site.sidecar()
    deadline = old.start("polite", lives_ms=60_000)
    old.wait("Started")
    guard = site.one(site.guard_pid())
    sock, _ = _hello(site)
    with sock:
        sock.send(json.dumps(CONTROL).encode())
        old.wait("GuardLost")  # so the state has been sent, and nobody reads it
        guard.send(signal.SIGSTOP)
        for seq, note in ((2, "second"), (3, "third")):
            order = {"order": "extend", "seq": seq, "run": "r1", "deadline_ms": deadline + seq, "note": note}
            sock.send(json.dumps(order).encode())
    guard.send(signal.SIGCONT)

    adopted = site.sidecar().wait("attached")["adopted"]

    assert (adopted["note"], adopted["deadline_at"]) == ("third", deadline + 3)


@pytest.mark.parametrize("nth", range(4))
def test_bug_a_keeper_without_descriptors_left_its_cgroup_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Some ten a second, as often as it was tried again."""
    removed: list[str] = []
    cgroup = SimpleNamespace(remove=lambda: removed.append("removed"))
    monkeypatch.setattr(tree.Cgroup, "make", lambda _name: cgroup)
    left = [nth]

    def scarce(real: Callable[..., object]) -> Callable[..., object]:
        def make(*arguments: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EMFILE, "injected")
            return real(*arguments)

        return make

    monkeypatch.setattr(os, "pipe", scarce(os.pipe))
    monkeypatch.setattr(socket, "socketpair", scarce(socket.socketpair))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="injected"):
        Cage(0, str(tmp_path), "token")

    assert (removed, len(list(Path("/proc/self/fd").iterdir()))) == (["removed"], before)


def test_bug_a_renewal_while_it_swept_ended_the_guard() -> None:
    """The keeper was dead, and what it had written the deadline to was closed."""
    guard = object.__new__(Guard)
    guard.cage, guard.sweeping = cast(Cage, SimpleNamespace(told_go=True)), True

    guard.extend(cast(Run, SimpleNamespace()))


def test_bug_the_last_words_of_a_keeper_that_left_orders_unread_were_lost() -> None:
    """A server that had ended by itself was told as killed."""
    with _gone({"exit": 7}) as control:
        cage = object.__new__(Cage)  # without a keeper
        cage.control = control
        assert (cage.receive(), cage.status, cage.receive()) == ("exit", 7, "end")


def test_bug_the_last_words_of_a_guard_that_left_orders_unread_were_lost() -> None:
    with _gone({"type": "exited"}) as sock:
        assert connect.receive(sock)[0] == {"type": "exited"}
        with pytest.raises(ConnectionResetError, match="closed by the guard"):
            connect.receive(sock)


@contextmanager
def _gone(said: wire.Frame) -> Iterator[socket.socket]:
    """Give the socket to a peer that has said something and gone, a message of ours unread."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            theirs.send(wire.encode(said))
            ours.send(wire.encode({"do": "stop"}))
        yield ours


FAILING = """
import os, select, signal, sys, time
from pathlib import Path
from sidecar.guard import keeper, kernel, tree
from sidecar.guard.cage import Cage

run_dir, python, server, witness, fault = sys.argv[1:]
keeper.Keeper._ordered = None  # the next order is a TypeError
tree.Cgroup.make = classmethod(lambda cls, name: None)
if fault == "the log is full":
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
if fault == "no descriptor for a moment":
    real, often = tree.signal_descendants, []
    def signal_descendants(*arguments):
        often.append(1)
        if len(often) == 1:
            raise OSError(24, "injected")
        real(*arguments)
    tree.signal_descendants = signal_descendants
cage = Cage(0, run_dir, "token")
cage.ends_at.write(kernel.now_ms() + 60_000)
assert cage.wait_ready()
argv = [python, "-I", "-S", server, witness, "deaf", "daemon"]
cage.go({"argv": argv, "env": {}, "user": None, "cwd": "/"})
while not (Path(witness).exists() and {"root", "daemon"} <= set(Path(witness).read_text().split())):
    time.sleep(0.005)
while len(found := tree.descendants(cage.pid)) != 2:  # who has started the daemon may not have gone yet
    time.sleep(0.005)
pids = [os.pidfd_open(pid) for pid in found]
cage.control.send(b"{}")
os.waitpid(cage.pid, 0)
dead = [select.select([pid], [], [], 5)[0] for pid in pids]
for pid, ended in zip(pids, dead):
    ended or signal.pidfd_send_signal(pid, signal.SIGKILL)
sys.exit(0 if all(dead) else 9)
"""


@pytest.mark.parametrize("fault", ["none", "the log is full", "no descriptor for a moment"])
def test_a_keeper_that_fails_leaves_nothing_to_a_guard_that_may_be_dead(tmp_path: Path, fault: str) -> None:
    command = [sys.executable, "-c", FAILING, str(tmp_path), guards.interpreter(), str(guards.SERVER)]
    found = subprocess.run(
        [*command, str(tmp_path / "witness"), fault], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "TypeError" in found.stderr or fault == "the log is full"


def test_a_new_client_takes_over(site: Site) -> None:
    old = site.sidecar()
    old.start("polite")
    pid = old.wait("Started")["server_pid"]
    site.beating("root")
    new = site.sidecar()
    assert new.wait("attached")["adopted"]["server_pid"] == pid
    old.wait("GuardLost")
    new.order("stop", run="r1", kill_at=now_ms() + 30_000)
    new.wait("Exited", status=0)
    old.wait("Exited")


@pytest.mark.parametrize("in_time", [True, False])
def test_an_unread_start_of_the_client_before_is_known_to_the_next_or_does_not_happen(
    site: Site, *, in_time: bool
) -> None:
    """Which of two sockets is read first is the kernel's affair."""
    site.sidecar()
    old, _ = _hello(site)
    new, _ = _hello(site)
    with old, new:
        old.send(json.dumps(CONTROL).encode())
        old.recv(wire.FRAME_MAX)
        guard = site.one(site.guard_pid())
        guard.send(signal.SIGSTOP)
        first, then = [(old, _start("r1")), (new, CONTROL)][:: 1 if in_time else -1]
        for sock, frame in (first, then):
            sock.send(json.dumps(frame).encode())
        old.close()
        guard.send(signal.SIGCONT)
        found = wire.decode(new.recv(wire.FRAME_MAX))["run"]
        new.send(json.dumps(_start("r2")).encode())
        answer = _next(new, "answer")

    assert answer["ok"] is (found is None)


def test_a_guard_that_does_not_answer_is_replaced(site: Site) -> None:
    old = site.sidecar()
    old.start("deaf", lives_ms=60_000)
    old.wait("Started")
    tree = site.processes(least=2)
    old.kill()
    site.one(site.guard_pid()).send(signal.SIGSTOP)

    new = site.sidecar()

    assert new.wait("attached")["adopted"] is None
    assert tree.dead()


def test_orders_to_a_stopped_guard_do_not_block(site: Site) -> None:
    sidecar = site.sidecar()
    deadline = sidecar.start("deaf", lives_ms=20_000)
    sidecar.wait("Started")
    guard = site.one(site.guard_pid())
    guard.send(signal.SIGSTOP)
    times = 5000  # far more than a socket takes

    sidecar.order("extend_often", run="r1", deadline_at=deadline, times=times)

    assert sidecar.wait("extended")["took_s"] < 5
    guard.send(signal.SIGCONT)
    sidecar.leave()
    adopted = site.sidecar().wait("attached")["adopted"]
    assert adopted["deadline_at"] <= deadline + times


def test_the_newest_extension_survives_a_full_socket(site: Site) -> None:
    sidecar = site.sidecar()
    deadline = sidecar.start("deaf", lives_ms=20_000)
    sidecar.wait("Started")
    guard = site.one(site.guard_pid())
    guard.send(signal.SIGSTOP)
    sidecar.order("extend_often", run="r1", deadline_at=deadline, times=5000)
    sidecar.wait("extended")
    sidecar.order("note", run="r1", note="last")
    guard.send(signal.SIGCONT)
    sidecar.order("kill", run="r0")
    sidecar.wait("OrderRefused", run="r0")

    adopted = site.sidecar().wait("attached")["adopted"]

    assert adopted["deadline_at"] == deadline + 4999
    assert adopted["note"] == "last"


def test_an_idle_guard_leaves(site: Site) -> None:
    sidecar = site.sidecar(idle_exit_ms=100)
    guard = site.one(site.guard_pid())
    sidecar.start("polite")
    sidecar.wait("Started")
    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)
    sidecar.wait("Exited")
    sidecar.kill()
    assert guard.dead(5000)
    assert not (site.run_dir / wire.SOCKET_NAME).exists()
    assert not (site.run_dir / record.NAME).exists()


def test_a_guard_told_to_leave_waits_for_its_server(site: Site) -> None:
    sidecar = site.sidecar()
    sidecar.start("polite")
    sidecar.wait("Started")
    site.beating("root")
    guard = site.one(site.guard_pid())
    guard.send(signal.SIGTERM)  # as systemd does
    sidecar.order("note", run="r0", note=1)
    sidecar.wait("OrderRefused")  # it has lived on for at least this long
    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)
    sidecar.wait("Exited", status=0)
    assert guard.dead(5000)


def test_the_enforcement_asked_for_replaces_an_idle_guard(kernel_site: Site) -> None:
    first = kernel_site.sidecar("process")
    assert first.wait("attached")["enforcement"] == "process"
    assert kernel_site.sidecar("kernel").wait("attached")["enforcement"] == "kernel"
    assert kernel_site.sidecar("auto").wait("attached")["enforcement"] == "kernel"


# The socket.


def _start(run: str) -> wire.Frame:
    order: wire.Frame = {"order": "start", "seq": 2, "run": run, "argv": ["/bin/sleep", "60"], "cwd": "/"}
    order |= {"env": {}, "role": "active", "epoch": 8, "deadline_ms": now_ms() + 5_000}
    return {**order, "kill_margin_ms": 200, "stop_signal": 15}


def _next(sock: socket.socket, kind: str) -> wire.Frame:
    while (frame := wire.decode(sock.recv(wire.FRAME_MAX)))["type"] != kind:
        pass
    return frame


def _hello(site: Site) -> tuple[socket.socket, wire.Frame]:
    sock = site.connect()
    return sock, wire.decode(sock.recv(wire.FRAME_MAX))


def test_the_socket_is_for_its_owner(site: Site) -> None:
    site.sidecar()
    path = site.run_dir / wire.SOCKET_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(site.run_dir.stat().st_mode) == 0o700


def test_another_user_is_not_heard(site: Site) -> None:
    if not AS_ROOT:
        unavailable("needs root")
    sidecar = site.sidecar()
    sidecar.start("deaf")
    sidecar.wait("Started")
    site.run_dir.chmod(0o755)
    (site.run_dir / wire.SOCKET_NAME).chmod(0o666)
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.settimeout(5); s.connect(sys.argv[1])\n"
        "try: s.send(sys.argv[2].encode()); print(s.recv(4096))\n"
        "except OSError: print(b'')\n"
    )
    order = json.dumps({"order": "control", "seq": 1, "protocol": 1})
    command = [site.python, "-c", script, str(site.run_dir / wire.SOCKET_NAME), order]
    done = subprocess.run(command, user=NOBODY, capture_output=True, text=True, check=True, cwd="/")

    assert done.stdout.strip() == "b''"
    sidecar.order("note", run="r0", note=1)
    sidecar.wait("OrderRefused")  # the sidecar is still in control


CONTROL = {"order": "control", "seq": 1, "protocol": 1}


@pytest.mark.parametrize(
    "messages",
    [
        [b"garbage"],
        [b"[]"],
        [b"\xff\xfe"],
        [b"[" * 100_000],
        [b"x" * (wire.FRAME_MAX + 1)],
        [json.dumps({**CONTROL, "protocol": 2}).encode()],
        [json.dumps({**CONTROL, "protocol": "1"}).encode()],
        [json.dumps({"order": "control"}).encode()],
        [json.dumps({"order": "kill", "seq": 1, "run": "r1"}).encode()],
        [json.dumps({"order": "shutdown", "seq": True}).encode()],
    ],
    ids=lambda messages: messages[0][:40].decode(errors="replace"),
)
def test_what_is_no_order_ends_the_connection_and_nothing_else(
    kernel_site: Site, messages: list[bytes]
) -> None:
    site = kernel_site
    sidecar = site.sidecar()
    deadline = sidecar.start("polite")
    pid = sidecar.wait("Started")["server_pid"]
    sock, hello = _hello(site)
    with sock:
        for message in messages:
            sock.send(message)
        error = wire.decode(sock.recv(wire.FRAME_MAX))
        assert error["type"] == "error"
        assert sock.recv(wire.FRAME_MAX) == b""
    assert hello["protocol"] == wire.PROTOCOL
    sock, after = _hello(site)
    sock.close()
    run = after["run"]
    assert isinstance(run, dict)
    assert (run["server_pid"], run["deadline_ms"]) == (pid, deadline)
    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)  # and it is still in control
    sidecar.wait("Exited", run="r1")


def test_garbage_from_the_client_in_control_leaves_the_server_alone(kernel_site: Site) -> None:
    site = kernel_site
    sidecar = site.sidecar()
    sidecar.start("polite")
    pid = sidecar.wait("Started")["server_pid"]
    sidecar.kill()
    sock, _ = _hello(site)
    with sock:
        sock.send(json.dumps(CONTROL).encode())
        assert wire.decode(sock.recv(wire.FRAME_MAX))["type"] == "state"
        sock.send(b"garbage")
        assert wire.decode(sock.recv(wire.FRAME_MAX))["type"] == "error"
    assert site.sidecar().wait("attached")["adopted"]["server_pid"] == pid


def test_visitors_disturb_nobody_and_are_limited(kernel_site: Site) -> None:
    site = kernel_site
    sidecar = site.sidecar()
    sidecar.start("polite")
    sidecar.wait("Started")
    site.beating("root")
    visitors = [_hello(site)[0] for _ in range(20)]
    assert visitors[0].recv(1) == b"", "the oldest goes"
    sidecar.order("stop", run="r1", kill_at=now_ms() + 30_000)
    sidecar.wait("Exited", status=0)
    assert sidecar.count("GuardLost") == 0
    for visitor in visitors:
        visitor.close()


# Output.


def test_output_comes_line_by_line_after_started(site: Site) -> None:
    sidecar = site.sidecar()
    argv = ["/bin/sh", "-c", "echo one; echo two >&2; printf three; exit 4"]
    sidecar.start(argv=argv)
    sidecar.wait("Exited", status=4)
    said = [(e["stream"], e["line"]) for e in sidecar.events if e["event"] == "Output"]
    assert sorted(said) == [("stderr", "two"), ("stdout", "one"), ("stdout", "three")]
    names = [event["event"] for event in sidecar.events]
    assert names == ["attached", "Started", "Output", "Output", "Output", "Exited"]


@pytest.mark.parametrize("sidecar_is", ["stopped", "gone"])
def test_output_never_blocks_the_server(site: Site, sidecar_is: str) -> None:
    sidecar = site.sidecar()
    go = site.folder / "go"
    wait = f"run=while [ ! -e {go} ]; do sleep 0.01; done"
    sidecar.start(wait, "flood=10000000", "say=after", "polite", run="r2", lives_ms=60_000)
    sidecar.wait("Started", run="r2")
    if sidecar_is == "stopped":
        sidecar.freeze()
    else:
        sidecar.kill()
    go.touch()

    site.beating("flooded", "root")

    if sidecar_is == "stopped":
        sidecar.thaw()
    else:
        sidecar = site.sidecar()
    sidecar.wait("Output", run="r2", line="after")


# A stdout and stderr of the server's own.


class Raw:
    """A client by hand, in control, that gives a pipe away as stdout and stderr."""

    def __init__(self, site: Site) -> None:
        self._site = site
        if not site.sidecars:
            site.sidecar()
        self._sock, _ = _hello(site)
        self.reader, self.writer = os.pipe()
        self.send(CONTROL)
        assert self.hear("state")

    def send(self, order: wire.Frame, fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self._sock, [wire.encode({"seq": 2, **order})], fds)

    def start(self, script: str, fds: tuple[int, ...], **more: object) -> None:
        order: wire.Frame = {"order": "start", "run": "r1", "argv": ["/bin/sh", "-c", script], "cwd": "/"}
        order |= {"env": {"PATH": "/usr/bin:/bin"}, "role": "active", "epoch": 7, "kill_margin_ms": 200}
        order |= {"deadline_ms": now_ms() + 60_000, "stop_signal": 15, "own_output": True}
        self.send(order | more, fds)
        os.close(self.writer)

    def hear(self, *kinds: str) -> wire.Frame:
        while True:
            frame = wire.decode(self._sock.recv(wire.FRAME_MAX))
            if frame["type"] in kinds:
                return frame

    def all_of_it(self) -> bytes:
        """Return what was written into the pipe until nobody holds it any more; the guard lives on."""
        found = b""
        while guards.wait_readable(self.reader, 20_000):
            more = os.read(self.reader, 1 << 16)
            if not more:
                assert self._site.guard_pid()
                return found
            found += more
        raise AssertionError(f"somebody still holds the pipe, after {found[-80:]!r}")


def test_a_server_writes_to_what_its_starter_gives_it(site: Site) -> None:
    client = Raw(site)
    client.start("printf 'a\\377\\r'; printf b >&2; ls /proc/self/fd >&2", (client.writer, client.writer))

    assert client.all_of_it() == b"a\xff\rb0\n1\n2\n3\n", "and it holds no other than these and its folder"
    assert client.hear("output", "exited")["type"] == "exited"


@pytest.mark.parametrize(
    ("fds", "more", "reason"),
    [
        (2, {"deadline_ms": 1}, "too late"),
        (2, {"argv": ["/nonexistent"]}, "No such file"),
        (2, {"argv": []}, "argv"),
        (1, {}, "did not come with the order"),
        (0, {}, "did not come with the order"),
    ],
    ids=str,
)
def test_what_a_start_brought_is_given_back_when_it_fails(
    site: Site, fds: int, more: dict[str, object], reason: str
) -> None:
    client = Raw(site)
    client.start("echo never", (client.writer,) * fds, **more)

    said = client.hear("start_failed", "answer")
    assert reason in str(said["reason"] or client.hear("start_failed")["reason"])
    assert client.all_of_it() == b""


def test_what_a_start_brought_is_given_back_when_the_record_cannot_be_written(site: Site) -> None:
    client = Raw(site)
    (site.run_dir / f"{record.NAME}.new").mkdir()
    client.start("echo never", (client.writer,) * 2)

    assert client.all_of_it() == b""
    assert record.NAME in str(client.hear("start_failed")["reason"])


def test_a_server_may_give_its_stdout_up(site: Site) -> None:
    client = Raw(site)
    client.start("exec >/dev/null 2>&1; exec sleep 60", (client.writer,) * 2)

    assert client.all_of_it() == b""
    client.send({"order": "kill", "run": "r1"})
    assert client.hear("exited")["killed_by"] == "order"


def test_descriptors_that_nobody_asked_for_are_closed(site: Site) -> None:
    client = Raw(site)
    client.send({"order": "ping"}, (client.writer,) * 2)
    client.start("echo to the client", (client.writer,) * 2, own_output=False)

    assert client.hear("output")["lines"] == ["to the client"]
    assert client.all_of_it() == b""


def test_a_server_whose_reader_is_slow_dies_at_its_deadline(site: Site) -> None:
    client = Raw(site)
    deadline = now_ms() + 3_000
    client.start("while :; do echo 0123456789 0123456789; done", (client.writer,) * 2, deadline_ms=deadline)

    assert client.hear("exited")["killed_by"] == "deadline"
    assert now_ms() < deadline
    assert client.all_of_it().startswith(b"0123456789 0123456789\n")


def test_old_lines_are_dropped_and_counted() -> None:
    output = Output()
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    sent = 0
    while sent < LIMIT_BYTES * 3 // 100:
        for _ in range(100):
            os.write(write_fd, f"{sent:08}".encode() + b"." * 91 + b"\n")
            sent += 1
        output.read(read_fd, "r", "stdout")
    os.write(write_fd, b"tail")
    os.close(write_fd)
    output.drain(read_fd, "r", "stdout")
    os.close(read_fd)

    dropped, lines = 0, []
    while output:
        frame = output.take()
        assert len(wire.encode(frame)) < wire.FRAME_MAX
        dropped += int(str(frame["dropped"]))
        assert isinstance(frame["lines"], list)
        lines += frame["lines"]

    assert dropped + len(lines) == sent + 1
    assert [int(line[:8]) for line in lines[:-1]] == list(range(dropped, sent))
    assert lines[-1] == "tail"
    assert LIMIT_BYTES // 2 < sum(map(len, lines)) <= LIMIT_BYTES


# Proof without a guard.


def _record(**changes: object) -> record.Record:
    mine = record.identity(os.getpid())
    return {**mine, "enforcement": "kernel", "run": "r", "token": "t", "deadline_ms": 0, **changes}


@pytest.mark.parametrize(
    ("changes", "proven"),
    [
        ({}, False),  # a keeper that lives: this very process
        ({"keeper_start": 1}, True),  # somebody else has its pid
        ({"boot_id": "another"}, True),
        ({"keeper_pid": 2**22 - 1, "keeper_start": 1}, True),
        ({"pid_namespace": "pid:[1]"}, True),  # another container's, and its deadline has passed
        ({"pid_namespace": "pid:[1]", "deadline_ms": 1 << 50}, False),
    ],
    ids=str,
)
def test_what_the_record_proves(tmp_path: Path, changes: record.Record, proven: bool) -> None:
    record.write(str(tmp_path), _record(**changes))
    deadline = Instant(BootClock().now() + 50)

    assert proof.wait_for_orphans(tmp_path, deadline) is proven
    assert (tmp_path / record.NAME).exists() is not proven


def test_bug_a_standby_of_a_container_that_was_killed_kept_the_next_one_from_starting(tmp_path: Path) -> None:
    """A standby's deadline is 20 h away, or ten years: until then it counted as not proven dead."""
    standby = _record(pid_namespace="pid:[1]", deadline_ms=1 << 50, role="standby")
    record.write(str(tmp_path), standby)
    clock = BootClock()

    with (tmp_path / wire.LOCK_NAME).open("w") as held:  # by its guard, which lives
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not proof.wait_for_orphans(tmp_path, Instant(clock.now() + proof.GONE_MS + 100))
    began = clock.now()
    assert proof.wait_for_orphans(tmp_path, Instant(began + 10_000))
    assert clock.now() >= began + proof.GONE_MS
    assert not (tmp_path / record.NAME).exists()


def test_no_guard_is_started_beside_a_server_that_may_live(tmp_path: Path) -> None:
    record.write(str(tmp_path), _record())
    spawn = connect.Spawn(tmp_path, "auto", guards.interpreter(), 100)
    clock = BootClock()

    with pytest.raises(GuardError, match="not proven dead"):
        connect.attach_or_spawn(spawn, Instant(clock.now() + 100), clock)

    assert [path.name for path in tmp_path.iterdir()] == [record.NAME]


def test_no_record_means_that_nothing_runs(tmp_path: Path) -> None:
    assert proof.wait_for_orphans(tmp_path, Instant(0))


def test_a_record_that_cannot_be_read_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / record.NAME).write_text("{}")
    with pytest.raises(GuardError, match=record.NAME):
        proof.wait_for_orphans(tmp_path, Instant(0))


@pytest.mark.parametrize("left", [b"", b"\0" * 300])
def test_bug_a_record_emptied_by_a_power_cut_kept_every_guard_from_starting(
    tmp_path: Path, left: bytes
) -> None:
    """It is not synced, since a crash of the host ends the server too: some file systems leave this of it."""
    (tmp_path / record.NAME).write_bytes(left)

    assert proof.wait_for_orphans(tmp_path, Instant(0))


# Arithmetic.


def test_the_instants_of_a_run() -> None:
    terms = Terms(deadline_ms=10_000, kill_margin_ms=1001)
    assert (terms.kill_ms, terms.kernel_ms) == (8999, 9499)
    assert not terms.too_late(8998)
    assert terms.too_late(8999)
    terms.extend(9000)
    assert terms.deadline_ms == 10_000
    terms.stop(9500)
    assert (terms.kill_ms, terms.reason()) == (8999, "deadline")
    terms.extend(20_000)
    assert (terms.kill_ms, terms.kernel_ms, terms.reason()) == (9500, 19_499, "order")
    terms.stop(15_000)
    assert terms.kill_ms == 9500


def test_a_start_that_fails_before_the_command_says_why() -> None:
    """It counted as started, and as ended with status 127."""
    parent = tree.Cgroup.make(f"sidecar-test-{os.getpid()}")
    threads = Path(parent.path) / "threads" if parent else None
    try:
        if threads is None:
            unavailable("needs a cgroup (v2) of its own")
        threads.mkdir()
        (threads / "cgroup.type").write_text("threaded")  # those beside it take no process now
        with guards.site("process", unprivileged=False) as site:
            site.before = ("sh", "-c", f'echo 0 > {threads.parent}/cgroup.procs; exec "$@"', "sh")
            sidecar = site.sidecar()
            sidecar.start("polite")
            told = sidecar.wait("StartFailed", "Exited")
            assert told["event"] == "StartFailed"
            assert "Operation not supported" in told["reason"]
        wait_until(lambda: parent and not parent.populated(), "nobody is in the cgroup")
    finally:
        if parent:
            for path in [*filter(Path.is_dir, Path(parent.path).iterdir())]:  # a killed guard's among them
                path.rmdir()
            parent.remove()


def test_bug_a_server_that_died_before_its_command_cost_the_connection_to_the_guard(site: Site) -> None:
    """It counted as started, with no pid: nothing that a client believes."""
    site.tree = site.folder / "other"
    shutil.copytree(guards.ROOT / "sidecar", site.tree / "sidecar")
    path = site.tree / "sidecar/guard/keeper.py"
    text, said = path.read_text(), 'self._tell({"root": True})'
    assert text.count(said) == 1
    path.write_text(text.replace(said, "os.kill(os.getpid(), signal.SIGKILL)"))
    sidecar = site.sidecar()
    sidecar.start("polite")
    told = sidecar.wait("StartFailed", "Exited", "GuardLost")
    assert told["event"] == "StartFailed"
    assert "died before the command" in told["reason"]

    client = Raw(site)  # nor can such a one take a stdout of its own
    client.start("echo never", (client.writer,) * 2, run="r2")
    assert "died before the command" in str(client.hear("start_failed", "exited")["reason"])
    assert client.all_of_it() == b""


def test_a_cgroup_removed_while_it_is_read_is_an_empty_one() -> None:
    """The kernel answers ENODEV then: an open file of cgroupfs outlives its folder, without content."""
    cgroup = tree.Cgroup.make(f"sidecar-test-{os.getpid()}")
    if cgroup is None:
        unavailable("needs a cgroup (v2) of its own")
    with (Path(cgroup.path) / "cgroup.events").open(encoding="utf-8") as events:
        cgroup.remove()
        assert not tree.tells_populated(events)
    assert not cgroup.populated()
