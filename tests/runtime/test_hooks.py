"""Hooks: run to their end and no longer, in their order, with nothing of ours in their environment.

Method: the real keeper, real programs; the server lane with its real guard. Not covered: what the core makes
of it (tests/core/test_hooks.py), a whole cluster (tests/system/test_hooks.py).
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.clock import ManualClock
from sidecar.core import state as s
from sidecar.core.units import NO_EPOCH, Epoch
from sidecar.guard.tree import TOKEN_VARIABLE
from sidecar.hooks.errand import GRACE_MS, Errand, Outcome
from sidecar.hooks.keeper import LINE_BYTES, LINES_MAX
from sidecar.runtime import hooks as module
from tests.core.made import EPOCH, LEASE
from tests.harness.process import wait_until
from tests.runtime.stubs import WITHIN_S, Inbox, hooks_of
from tests.runtime.test_serving import Stage, soon

PLENTY_MS = 20_000


def errand(*argv: str, timeout_ms: int = PLENTY_MS, say: Callable[[str], None] = print) -> Errand:
    return Errand(argv, timeout_ms, os.environ, "/", say)


def shell(script: str, **more: Any) -> Errand:
    return errand("sh", "-c", script, **more)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pids_in(file: Path, count: int) -> list[int]:
    wait_until(lambda: file.exists() and file.read_text().count("\n") >= count, f"{count} pids in {file}")
    return [int(word) for word in file.read_text().split()]


# One hook


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        ("exit 0", 0, "exit 0"),
        ("exit 3", 3, "exit 3"),
        ("kill -9 $$", -9, "killed by SIGKILL"),
        ("kill -40 $$", -40, "killed by signal 40"),  # once the end of the sidecar
    ],
)
def test_how_a_hook_ended_is_told(script: str, status: int, text: str) -> None:
    outcome = shell(script).run()

    assert outcome[:2] == (status, text)
    assert outcome.ok is (status == 0)


def test_a_program_that_is_not_there_and_a_folder_that_is_not_there() -> None:
    assert errand("/nonexistent/hook").run().text == "cannot be started: No such file or directory"
    lost = Errand(("true",), PLENTY_MS, os.environ, "/nonexistent", print).run()
    assert lost == Outcome(None, "cannot be started: /nonexistent: No such file or directory", 0)


def test_its_output_is_told_line_by_line() -> None:
    lines: list[str] = []
    shell("echo one; echo two >&2; printf 'bad \\377\\n'; printf three", say=lines.append).run()

    assert lines == ["one", "two", "bad \N{REPLACEMENT CHARACTER}", "three"]


def test_a_flood_is_cut_and_counted() -> None:
    lines: list[str] = []
    outcome = shell(f"yes | head -{3 * LINES_MAX}", say=lines.append).run()

    dropped = int(lines[-1].split()[0].strip("("))
    assert outcome.ok
    assert len(lines) - 1 <= LINES_MAX
    assert len(lines) - 1 + dropped == 3 * LINES_MAX


def test_a_long_line_is_cut_into_several() -> None:
    lines: list[str] = []
    shell(f"printf '%0{2 * LINE_BYTES + 10}d\\n' 0", say=lines.append).run()

    assert [len(line) for line in lines] == [LINE_BYTES, LINE_BYTES, 10]


def test_a_sidecar_that_does_not_read_does_not_move_the_time_limit(tmp_path: Path) -> None:
    file, go_on, ended = tmp_path / "pids", threading.Event(), Inbox()
    one = shell(f"echo $$ >{file}; exec yes", timeout_ms=3_000, say=lambda _line: void(go_on.wait()))
    threading.Thread(target=lambda: ended.put(one.run()), daemon=True).start()
    (pid,) = pids_in(file, 1)

    try:
        wait_until(lambda: gone(pid), "the hook is killed")
    finally:
        go_on.set()
    assert not ended.next().ok


def test_at_its_time_limit_the_whole_tree_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    script = f"trap '' TERM; (setsid sh -c 'echo $$; exec sleep 60' & ) >>{file}; echo $$ >>{file}; sleep 60"
    outcome = shell(script, timeout_ms=3_000).run()

    assert outcome[:2] == (None, "not finished within 3s")
    assert outcome.took_ms < 30_000, "half of what it would sleep"
    assert [pid for pid in pids_in(file, 2) if not gone(pid)] == []


def test_what_it_leaves_behind_is_killed_when_it_is_over(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    outcome = shell(
        f"(setsid sh -c 'echo $$; exec sleep 60' & ) >{file}; until test -s {file}; do :; done"
    ).run()

    assert outcome.ok
    assert [pid for pid in pids_in(file, 1) if not gone(pid)] == []


def test_one_that_is_called_off_ends_at_once(tmp_path: Path) -> None:
    file, ended = tmp_path / "pids", Inbox()
    one = shell(f"echo $$ >{file}; sleep 60")
    threading.Thread(target=lambda: ended.put(one.run())).start()
    (pid,) = pids_in(file, 1)

    one.call_off()

    assert ended.next()[:2] == (None, "called off")
    assert gone(pid)


def test_one_that_was_called_off_before_does_not_begin(tmp_path: Path) -> None:
    one = shell(f"touch {tmp_path}/begun")
    one.call_off()

    assert one.run() == Outcome(None, "called off", 0)
    assert not (tmp_path / "begun").exists()


def test_bug_the_hook_of_a_keeper_that_does_not_answer_ran_on(tmp_path: Path) -> None:
    """Nobody kept its time limit any more: the keeper alone was killed."""
    file, clock = tmp_path / "pids", ManualClock(0)

    def stop(keeper: str) -> None:
        os.kill(int(keeper), signal.SIGSTOP)
        clock.advance(PLENTY_MS + GRACE_MS)

    script = f"echo $PPID >{file}; echo $$ >>{file}; echo $PPID; exec sleep 60"
    outcome = Errand(("sh", "-c", script), PLENTY_MS, os.environ, "/", stop, clock).run()

    assert outcome[:2] == (None, "its keeper does not answer")
    keeper, hook = pids_in(file, 2)
    wait_until(lambda: gone(keeper), "the keeper is killed")
    wait_until(lambda: gone(hook), "the hook is killed")


def test_bug_the_hook_of_a_killed_keeper_ran_on(tmp_path: Path) -> None:
    """It could put an address up after its end had been told."""
    file = tmp_path / "pids"

    def kill(keeper: str) -> None:
        process = psutil.Process(int(keeper))
        process.kill()
        wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE, "nothing is below it any more")

    script = f"sleep 60 & echo $! >{file}; echo $$ >>{file}; echo $PPID; wait"
    outcome = Errand(("sh", "-c", script), PLENTY_MS, os.environ, "/", kill).run()

    assert outcome[:2] == (None, "its keeper does not answer")
    for pid in pids_in(file, 2):
        wait_until(lambda pid=pid: gone(pid), f"{pid} is killed")  # type: ignore[misc]


def test_it_ends_with_the_sidecar_even_when_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    code = "import os, sys; from sidecar.hooks.errand import Errand; "
    code += "Errand(('sh', '-c', sys.argv[1]), 60_000, os.environ, '/', print).run()"
    words = [sys.executable, "-c", code, f"echo $$ >{file}; sleep 60"]
    sidecar = os.posix_spawn(sys.executable, words, os.environ)
    (pid,) = pids_in(file, 1)

    os.kill(sidecar, signal.SIGKILL)
    os.waitpid(sidecar, 0)

    wait_until(lambda: gone(pid), "the hook ended")


# Those that run beside


class Beside:
    """Hooks that write what they are told, and wait for a file where the test says so."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        script = (
            'test -e hold && until test -e go; do sleep 0.02; done; echo "$0" $SIDECAR_ROLE $SIDECAR_EPOCH'
        )
        argv = ["sh", "-c", f"cd {folder}; echo x >begun; {script} >>told"]
        self.hooks = hooks_of(on_active=[*argv, "on_active"], on_standby=[*argv, "on_standby"], **more)

    def told(self) -> list[str]:
        file = self.folder / "told"
        return file.read_text().splitlines() if file.exists() else []

    def drain(self) -> None:
        """Wait until the lane has nothing more to do."""
        done = threading.Event()
        assert self.hooks._lane is not None
        self.hooks._lane.put(done.set)
        assert done.wait(WITHIN_S)

    def await_told(self, *lines: str) -> None:
        wait_until(lambda: self.told() == list(lines), f"{lines}, and there is {self.told()}")


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    made = Beside(tmp_path)
    yield made
    made.hooks.close()


STANDBY = s.Node(s.Idle(), s.Memory())
STARTING = s.Node(s.Starting(LEASE, 3, LEASE.deadline), s.Memory())


def active(run: int = 3, epoch: int = EPOCH) -> s.Node:
    return s.Node(s.Serving(s.Lease(Epoch(epoch), LEASE.deadline), run), s.Memory())


def test_each_state_is_told_once_and_each_run_anew(beside: Beside) -> None:
    on_standby, on_active = "on_standby standby 0", f"on_active active {EPOCH}"
    expected: list[str] = []
    for node, line in ((STANDBY, on_standby), (active(), on_active), (active(4), on_active)):
        beside.hooks.tell(node)
        expected.append(line)
        beside.await_told(*expected)
        beside.hooks.tell(node)
        beside.drain()
        assert beside.told() == expected


def test_one_that_was_overtaken_is_not_begun(beside: Beside, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    beside.hooks.tell(STANDBY)
    wait_until((tmp_path / "begun").exists, "the first runs")
    for node in (STARTING, active(), STARTING, STANDBY, STARTING, active(5, epoch=9)):
        beside.hooks.tell(node)
    (tmp_path / "go").touch()

    beside.await_told("on_standby standby 0", "on_active active 9")


@pytest.mark.parametrize(
    "memory", [s.Memory(clearing=3), s.Memory(quit=s.Quit())], ids=["after_stop runs", "it leaves"]
)
def test_a_node_is_no_standby_yet(memory: s.Memory) -> None:
    assert module.state_of(s.Node(s.Idle(), memory)) is None


def test_what_runs_beside_is_ended_before_one_of_the_server_lane_runs(tmp_path: Path) -> None:
    """Else what ``on_active`` puts up could come after ``after_stop`` has taken it away."""
    beside = Beside(tmp_path, after_stop=["sh", "-c", f"cat {tmp_path}/told"])
    (tmp_path / "hold").touch()
    beside.hooks.tell(active())
    wait_until((tmp_path / "begun").exists, "on_active runs")
    (tmp_path / "told").touch()
    job = beside.hooks.errand("after_stop", EPOCH)
    assert job is not None

    outcome = beside.hooks.first(job)
    (tmp_path / "go").touch()
    beside.hooks.tell(active())  # the shell has not heard of it yet
    beside.hooks.tell(STANDBY)

    beside.await_told("on_standby standby 0")
    assert outcome.ok
    beside.hooks.close()


def test_what_waits_beside_is_not_begun_after_one_of_the_server_lane(tmp_path: Path) -> None:
    beside = Beside(tmp_path, after_stop=["true"])
    (tmp_path / "hold").touch()
    beside.hooks.tell(STANDBY)
    wait_until((tmp_path / "begun").exists, "on_standby runs")
    beside.hooks.tell(active())  # waits for it
    job = beside.hooks.errand("after_stop", EPOCH)
    assert job is not None
    (tmp_path / "hold").unlink()

    assert beside.hooks.first(job).ok
    beside.drain()

    assert beside.told() == []
    beside.hooks.close()


def test_a_hook_sees_its_role_and_nothing_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_ETCD__PASSWORD", "hush")
    monkeypatch.setenv("OTHERS", "stay")
    lines = Inbox()
    hooks = hooks_of(
        lambda *printed: lines.put(printed),
        after_stop=["sh", "-c", f"env | grep -E '^(SIDECAR|OTHERS)' | grep -v {TOKEN_VARIABLE} | sort"],
    )
    job = hooks.errand("after_stop", Epoch(7))
    assert job is not None

    assert hooks.first(job).ok

    assert lines.rest() == [
        ("after_stop", line)
        for line in ("OTHERS=stay", "SIDECAR_CLUSTER=plant-7", "SIDECAR_EPOCH=7", "SIDECAR_NODE=a")
    ] + [("after_stop", "SIDECAR_ROLE=active")]
    hooks.close()


def test_a_program_that_is_missing_is_told_before_it_is_needed(tmp_path: Path) -> None:
    hooks = hooks_of(
        before_active=["sh"], on_active=["/bin/sh"], after_stop=["nosuch"], on_standby=[str(tmp_path)]
    )

    assert hooks.missing() == [
        "hooks.after_stop: nosuch: no such program",
        f"hooks.on_standby: {tmp_path}: no such program",
    ]


def test_where_none_is_configured_none_runs() -> None:
    hooks = hooks_of()

    assert hooks.errand("before_active", NO_EPOCH) is None
    hooks.tell(active())
    hooks.close()


# On the server lane


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    with ExitStack() as stack:

        def make(**hooks: Any) -> Stage:
            stage = Stage(tmp_path, **hooks)
            stack.callback(stage.close)
            stage.lane.begin(adopt=True)
            return stage

        yield make


def test_before_active_runs_before_the_server_is_prepared(
    staged: Callable[..., Stage], tmp_path: Path
) -> None:
    stage = staged(before_active=["sh", "-c", f"echo $SIDECAR_EPOCH >{tmp_path}/asked"])
    seen: list[str] = []
    stage.kind.preparing = lambda: seen.append((tmp_path / "asked").read_text())

    stage.start()

    assert stage.inbox.next() == s.ServerReady(1)
    assert seen == ["7\n"]


def test_a_standby_is_not_asked_for(staged: Callable[..., Stage]) -> None:
    stage = staged(before_active=["false"], after_stop=["false"])
    stage.kind.standby = "monitoring"
    stage.start(role="standby")
    assert stage.inbox.next() == s.ServerReady(1)
    stage.lane.kill(1)

    assert stage.inbox.next() == s.ServerGone(1, -signal.SIGKILL, "")


@pytest.mark.parametrize(
    ("argv", "timeout", "reason"),
    [
        (["sh", "-c", "exit 4"], "60s", "before_active refused: exit 4"),
        (["sleep", "60"], "300ms", "before_active refused: not finished within 0.3s"),
        (["/nonexistent"], "60s", "before_active refused: cannot be started: No such file or directory"),
    ],
    ids=["exit", "timeout", "missing"],
)
def test_a_refusal_is_the_end_of_the_run(
    staged: Callable[..., Stage], argv: list[str], timeout: str, reason: str
) -> None:
    stage = staged(before_active=argv, timeout=timeout)

    stage.start()

    assert stage.inbox.next() == s.ServerGone(1, None, reason, vetoed=True)
    assert "active" not in stage.kind.roles


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_stop_ends_before_active_and_the_server_is_never_started(
    staged: Callable[..., Stage], tmp_path: Path, how: str
) -> None:
    stage = staged(before_active=["sh", "-c", f"echo $$ >{tmp_path}/pids; sleep 60; exit 0"])
    stage.start()
    (pid,) = pids_in(tmp_path / "pids", 1)

    if how == "stop":
        stage.lane.stop(1, soon())
    else:
        stage.lane.kill(1)

    assert stage.inbox.next() == s.ServerGone(1, None, "stopped while before_active ran")
    assert gone(pid)
    assert "active" not in stage.kind.roles


def test_a_stop_that_comes_before_its_turn_counts(staged: Callable[..., Stage], tmp_path: Path) -> None:
    stage = staged(before_active=["touch", f"{tmp_path}/asked"])
    held = threading.Event()

    def hold() -> None:
        held.wait(WITHIN_S)

    stage.lane._lane.put(hold)
    stage.start()
    stage.lane.stop(1, soon())
    held.set()

    assert stage.inbox.next() == s.ServerGone(1, None, "stopped while before_active ran")
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("command", ["/bin/sleep", "/nonexistent"])
def test_after_stop_runs_after_each_active_even_one_that_never_ran(
    staged: Callable[..., Stage], tmp_path: Path, command: str
) -> None:
    stage = staged(after_stop=["sh", "-c", f"echo $SIDECAR_EPOCH >>{tmp_path}/cleared"])
    stage.kind._command = (command, "60")
    stage.start()
    if command == "/bin/sleep":
        assert stage.inbox.next() == s.ServerReady(1)
        stage.lane.kill(1)

    told = stage.inbox.until(s.Cleared)

    assert [(type(seen), seen.run) for seen in told] == [(s.ServerGone, 1), (s.Cleared, 1)]
    assert told[0].clearing
    assert (tmp_path / "cleared").read_text() == "7\n"


def test_the_next_start_comes_after_after_stop(staged: Callable[..., Stage], tmp_path: Path) -> None:
    script = f"cd {tmp_path}; until test -e go; do sleep 0.02; done; touch over"
    stage = staged(after_stop=["sh", "-c", script])
    stage.start(1)
    stage.inbox.next()
    stage.lane.kill(1)
    stage.inbox.until(s.ServerGone)
    wait_until(lambda: stage.kind.roles == ["standby", "active", "standby"], "the standby's role is given")
    over: list[bool] = []
    stage.kind.preparing = lambda: over.append((tmp_path / "over").exists())

    stage.start(2)
    (tmp_path / "go").touch()

    assert stage.inbox.next() == s.Cleared(1)
    assert stage.inbox.next() == s.ServerReady(2)
    assert over == [True]


def void(_value: object) -> None:
    """Ignore a result."""
