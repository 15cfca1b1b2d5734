"""Goal: every failure is one line and its exit status; nothing is imported before it is needed.

Method: the real program in processes of its own, on the local backend, or with a store that is not there.
Not covered: what a command does (the other files here).
"""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.cli import main, options
from sidecar.cli.program import COMMANDS
from sidecar.config import Config
from sidecar.core.model import Override, Settings
from sidecar.errors import Failed, Interrupted, SidecarError, TimedOut
from sidecar.operate import failover, handover
from sidecar.operate.asking import Done
from sidecar.operate.desk import Desk
from sidecar.ports import Backend
from tests.cli.stage import Stage
from tests.harness.process import free_port, inheriting, wait_until

WITHIN_S = 30.0


def spawn(*args: str | Path, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sidecar", *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean | (env or {}),
    )


def sidecar(*args: str | Path, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    process = spawn(*args, env=env)
    out, err = process.communicate(timeout=WITHIN_S)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def one_line(text: str) -> str:
    """Return the one line of an error, without its start."""
    assert re.fullmatch(r"sidecar: error: [^\n]+\n", text), text
    return text.removeprefix("sidecar: error: ")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["swichover"], "no such command: swichover; did you mean switchover?"),
        (["frobnicate"], "no such command: frobnicate; see sidecar --help"),
        (["status", "--ouput", "json"], "--output"),
        (["status", "-o", "xml"], "'xml' is not one of 'table', 'json', 'yaml'"),
        (["history", "-n", "0"], "0 is not in the range"),
        (["status", "extra"], "unexpected extra argument"),
        (["switchover", "--yes", "--timeout", "10"], "add a unit"),
        (["switchover", "--yes", "--at", "25:00"], "no such time of day"),
        (["switchover"], "there is no terminal to ask for confirmation; give --yes"),
        (["failover"], "give --yes"),
        (["failover", "--yes", "--raise-epoch", "--to", "node-b"], "leave out --to"),
        (["exec", "--cluster", "x", "--", "true"], "--backend"),
        (["exec", "--backend", "mongo://x", "--cluster", "x", "--", "true"], "--backend: 'mongo://x'"),
        (["exec", "--backend", "local:///x", "--cluster", "x"], "CMD"),
        (
            ["-c", "x", "exec", "--backend", "local:///x", "--cluster", "x", "true"],
            "exec takes no configuration",
        ),
        (["-c", "x", "init"], "init takes no configuration file"),
        (["-c", "x", "completion", "bash"], "completion takes no configuration file"),
        (["status", "-c", "/nowhere.yml"], "/nowhere.yml: no such file"),
        (["-c", "/nowhere.yml", "validate"], "/nowhere.yml: no such file"),
        (["run", "-c", "/nowhere.yml"], "/nowhere.yml: no such file"),
        (["status", "-c", ""], "'-c' / '--config': it is empty"),
        (["-c", "", "status"], "'-c' / '--config': it is empty"),
    ],
)
def test_bad_usage_is_one_line_and_2(args: Sequence[str], says: str) -> None:
    result = CliRunner().invoke(main, args)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert says in one_line(result.stderr)


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["switchover", "--yes", "--at", ""], "'--at'"),
        (["switchover", "--yes", "--to", ""], "'--to'"),
        (["switchover", "--yes", "--timeout", ""], "'--timeout'"),
        (["failover", "--yes", "--to", ""], "'--to'"),
        (["restart", ""], "NODE"),
        (["pause", "--node", ""], "'--node'"),
        (["set", "", "priority", "5"], "NODE"),
        (
            ["exec", "--backend", "local:///x", "--cluster", "x", "--state-dir", "", "--", "true"],
            "'--state-dir'",
        ),
        (["init", "--cluster", ""], "'--cluster'"),
        (["init", "--backend", ""], "'--backend'"),
    ],
)
def test_bug_an_empty_value_was_as_good_as_none(
    stage: Stage, config_file: Path, monkeypatch: pytest.MonkeyPatch, args: Sequence[str], names: str
) -> None:
    """``switchover --at "$WHEN"`` was carried out at once, and ``restart "$NODE"`` here."""
    if args[0] not in ("exec", "init"):
        monkeypatch.setenv("SIDECAR_CONFIG", str(config_file))
    stage.appear("node-a", "node-b")

    result = CliRunner().invoke(main, args)

    assert result.exit_code == 2, result.output
    assert re.search(f"{names}.*: it is empty", one_line(result.stderr))
    assert stage.view().request is None


@pytest.mark.parametrize("command", [["switchover", "--yes"], ["failover", "--yes"], ["restart"]])
def test_bug_no_time_at_all_was_the_default_time(config_file: Path, command: Sequence[str]) -> None:
    result = CliRunner().invoke(main, [*command, "-c", str(config_file), "--timeout", "0s"])

    assert result.exit_code == 2
    assert "'--timeout': must be at least 1ms, got 0s" in one_line(result.stderr)


def test_bug_a_number_below_zero_was_an_option(config_file: Path) -> None:
    result = CliRunner().invoke(main, ["set", "node-b", "priority", "-5", "-c", str(config_file)])

    assert result.exit_code == 2
    assert "priority: must be 0 to 1000000, got -5" in one_line(result.stderr)


def test_bug_a_state_dir_that_cannot_be_made_was_a_key_that_nobody_wrote(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["--backend", f"local://{tmp_path}/x.db", "--cluster", "x", "--state-dir", f"{tmp_path}/file/x"]

    result = CliRunner().invoke(main, ["exec", *words, "--", "true"])

    assert result.exit_code == 2
    assert one_line(result.stderr) == f"--state-dir: {tmp_path}/file/x/run: Not a directory\n"


def test_the_process_exits_with_the_status() -> None:
    result = sidecar("statsu")

    assert (result.returncode, result.stdout) == (2, "")
    assert "did you mean status?" in one_line(result.stderr)


def test_the_variable_names_the_configuration_and_the_option_counts_more(config_file: Path) -> None:
    by_variable = sidecar("validate", env={"SIDECAR_CONFIG": str(config_file)})
    assert by_variable.returncode == 0, by_variable.stderr
    assert f"{config_file}: good" in by_variable.stdout

    result = sidecar("validate", "-c", "/nowhere.yml", env={"SIDECAR_CONFIG": str(config_file)})
    assert result.returncode == 2


def test_a_bad_configuration_names_file_key_and_reason(config_file: Path) -> None:
    config_file.write_text(config_file.read_text() + "lock: {tll: 10s}\n")

    result = sidecar("-c", config_file, "validate")

    assert result.returncode == 2
    assert "lock.tll: unknown key; did you mean lock.ttl?" in one_line(result.stderr)


def test_validate_looks_at_the_server(config_file: Path) -> None:
    config_file.write_text(config_file.read_text().replace("/bin/sleep", "/bin/nothing-there"))

    result = CliRunner().invoke(main, ["validate", "-c", str(config_file)])

    assert result.exit_code == 2
    assert "server.command: /bin/nothing-there: not found" in one_line(result.stderr)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("paths: {run: FILE/x}", "paths.run: FILE is no folder"),
        ("paths: {state: FILE}", "paths.state: FILE is no folder"),
        (
            "api: {listen: '127.0.0.1:8009', tls_cert_file: FILE, tls_key_file: FILE}",
            "api.tls_cert_file: FILE and FILE: no certificate and its key in PEM",
        ),
    ],
)
def test_bug_validate_called_good_what_run_refuses(config_file: Path, more: str, says: str) -> None:
    text = config_file.read_text()
    file = str(config_file.with_name("file"))
    Path(file).write_text("neither folder nor certificate")
    kept = text[: text.index("paths:")] if more.startswith("paths:") else text
    config_file.write_text(f"{kept}{more.replace('FILE', file)}\n")

    for command in ("validate", "run"):
        result = sidecar("-c", config_file, command)

        assert result.returncode == 2, command
        if command == "validate":
            assert says.replace("FILE", file) in one_line(result.stderr)


def test_bug_the_log_called_refused_what_was_configured(stage: Stage, config_file: Path) -> None:
    """``namespaces are refused here``, where guard.enforcement is process."""
    config_file.write_text(config_file.read_text() + "guard: {enforcement: process}\n")
    process = spawn("run", "-c", config_file)
    try:
        stage.await_view(lambda view: (a := view.node("node-a")) is not None and a.state == "running")
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=WITHIN_S)

    assert "guard.enforcement is process: the deadline is enforced by `process`" in err
    assert "refused" not in err


def test_validate_computes_the_failover_times(config_file: Path) -> None:
    result = CliRunner().invoke(main, ["validate", "-c", str(config_file), "-o", "json"])

    found = {figure["name"]: figure["worst_s"] for figure in json.loads(result.stdout)["failover"]}
    assert 10 < found["node_crash"] < 20
    table = CliRunner().invoke(main, ["validate", "-c", str(config_file)]).stdout
    assert max(len(line) for line in table.splitlines() if str(config_file) not in line) <= 80


@pytest.mark.parametrize("command", ["status", "history", "pause", "restart", "switchover", "failover"])
def test_a_store_that_is_not_there_is_3_in_bounded_time(command: str, config_file: Path) -> None:
    port = free_port()
    text = config_file.read_text().replace("backend: local", "backend: consul")
    config_file.write_text(text + f"consul: {{address: 'http://127.0.0.1:{port}'}}\n")
    yes = ["--yes"] if command in ("switchover", "failover") else []

    result = CliRunner().invoke(main, [command, "-c", str(config_file), *yes])

    assert result.exit_code == 3, result.output
    assert str(port) in one_line(result.stderr)


@pytest.mark.parametrize(
    ("prepare", "args", "says"),
    [
        (lambda s: None, ["switchover", "--yes"], "nobody is active"),
        (lambda s: None, ["failover", "--yes"], "nobody holds the lock"),
        (lambda s: None, ["failover", "--yes", "--raise-epoch"], "is not behind"),
        (lambda s: None, ["resume"], "the cluster is not paused"),
        (lambda s: None, ["pause", "--node", "node-x"], "node-x is not there"),
        (lambda s: None, ["restart"], "node-a is not there"),
        (lambda s: s.write(Settings(paused=True)), ["resume", "--node", "node-x"], "node-x is not there"),
    ],
)
def test_what_is_refused_is_4(
    stage: Stage, config_file: Path, prepare: object, args: Sequence[str], says: str
) -> None:
    assert callable(prepare)
    prepare(stage)

    result = CliRunner().invoke(main, [*args, "-c", str(config_file)])

    assert result.exit_code == 4, result.output
    assert says in one_line(result.stderr)


@pytest.mark.parametrize(
    ("play", "timeout", "status", "says"),
    [
        (lambda s: s.obey("node-b"), "60s", 0, "node-b is active at epoch 2"),
        (lambda s: (s.accept(), s.answer("rolled_back", "no disk")), "60s", 1, "rolled back"),
        (lambda s: (s.await_request("asked"), s.answer("refused", "no")), "60s", 4, "refuses: no"),
        (lambda s: s.accept(), "5s", 5, "outcome unknown"),
    ],
)
def test_the_outcome_of_a_switchover_is_its_exit_status(
    stage: Stage, config_file: Path, play: object, timeout: str, status: int, says: str
) -> None:
    stage.appear("node-b")
    stage.acquire("node-a")

    def act() -> None:
        assert callable(play)
        play(stage)

    with stage.acting(act):
        args = ["switchover", "--yes", "--timeout", timeout, "-c", str(config_file)]
        result = CliRunner().invoke(main, args)

    assert result.exit_code == status, result.output
    assert says in (result.stdout if status == 0 else result.stderr)


@pytest.mark.parametrize(("command", "status"), [("status", 0), ("pause", 0), ("validate", 2)])
def test_bug_a_command_needed_the_token_of_the_api(
    stage: Stage, config_file: Path, command: str, status: int
) -> None:
    stage.appear("node-b")
    api = "api: {listen: 127.0.0.1:8009, token_file: /nonexistent/token}"
    config_file.write_text(f"{config_file.read_text()}\n{api}\n")

    result = CliRunner().invoke(main, [command, "-c", str(config_file)])

    assert result.exit_code == status, result.output


def test_pause_twice_is_no_error(stage: Stage, config_file: Path) -> None:
    for says in ("cluster plant-7: paused\n", "cluster plant-7: already paused\n"):
        result = CliRunner().invoke(main, ["pause", "-c", str(config_file)])
        assert (result.exit_code, result.stdout) == (0, says)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_a_signal_before_the_confirmation_withdraws_the_request(
    stage: Stage, config_file: Path, number: signal.Signals, status: int
) -> None:
    stage.appear("node-b")
    stage.acquire("node-a")

    process = spawn("-c", config_file, "switchover", "--yes")
    stage.await_request("asked")
    process.send_signal(number)
    out, err = process.communicate(timeout=WITHIN_S)

    assert (process.returncode, out) == (status, "")
    assert "withdrawn, nothing will happen" in err
    assert stage.await_request("abandoned").reason == "interrupted"


@pytest.mark.parametrize(("error", "status"), [(Failed, 1), (Interrupted, 130), (TimedOut, 5)])
@pytest.mark.parametrize("command", ["switchover", "failover"])
def test_bug_what_was_tried_and_failed_was_said_to_have_ended_before_it_began(
    stage: Stage,
    config_file: Path,
    command: str,
    error: type[SidecarError],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """130: nothing will happen. It had happened, and had come to something else; Ctrl-C came meanwhile."""

    def operation(*_: object) -> Done:
        signal.raise_signal(signal.SIGINT)
        raise error("node-b: did not start")

    monkeypatch.setattr(handover if command == "switchover" else failover, command, operation)
    stage.appear("node-b")
    stage.acquire("node-a")
    result = CliRunner().invoke(main, [command, "--yes", "-c", str(config_file)])

    assert (result.exit_code, result.stdout) == (status, "")
    assert "node-b: did not start" in result.stderr


@pytest.mark.parametrize("command", ["switchover", "failover"])
def test_bug_ctrl_c_as_the_connection_was_closed_swallowed_what_came_of_it(
    stage: Stage, config_file: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __init__(self, real: Backend) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def close(self) -> None:
            self._real.close()
            holder = stage.view().holder
            if holder is not None and holder.node == "node-b":
                signal.raise_signal(signal.SIGINT)

    def play() -> None:
        if command == "switchover":
            stage.obey("node-b")
            return
        stage.await_request("confirmed")
        stage.release()
        stage.acquire("node-b")

    def slow(configuration: Config) -> Desk:
        desk = real(configuration)
        return replace(desk, backend=Slow(desk.backend))  # type: ignore[arg-type]

    real = options.open_desk
    monkeypatch.setattr(options, "open_desk", slow)
    stage.appear("node-b")
    stage.acquire("node-a")
    with stage.acting(play):
        result = CliRunner().invoke(main, [command, "--yes", "-c", str(config_file)])

    assert (result.exit_code, result.stdout[:16]) == (0, "node-b is active")


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_bug_a_second_signal_said_that_nothing_would_happen(
    stage: Stage, config_file: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    """130 is "before it began". Two signals of one number may come as one, so they are different here."""
    stage.appear("node-b")
    stage.acquire("node-a")

    process = spawn("-c", config_file, "switchover", "--yes")
    stage.await_request("asked")
    stage.answer("accepted", to="node-b")
    stage.await_request("confirmed")
    for number in numbers:
        process.send_signal(number)
    out, err = process.communicate(timeout=WITHIN_S)

    assert (process.returncode, out) == (5, "")
    assert "`sidecar status` and `sidecar history` show what becomes of it" in err.splitlines()[-1]


def test_a_second_signal_before_anything_was_asked_is_130(stage: Stage, config_file: Path) -> None:
    stage.appear("node-b")
    stage.acquire("node-a")

    process = spawn("-c", config_file, "switchover", "--yes", "--at", "+1h")
    assert process.stderr is not None
    assert "end this command to cancel" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN_S)

    assert process.returncode == 130
    assert "nothing was done" in one_line(err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["pause"], "cluster plant-7: paused"),
        (["resume"], "cluster plant-7: resumed"),
        (["set", "node-a", "priority", "7"], "priority of node-a: set to 7"),
        (["unset", "node-a", "eligible"], "eligible of node-a: as its configuration says"),
    ],
    ids=lambda args: args[0],
)
def test_bug_a_change_of_the_settings_that_was_interrupted_was_made_and_not_said(
    stage: Stage, config_file: Path, args: list[str], says: str, number: signal.Signals
) -> None:
    stage.appear("node-a", state="paused" if args == ["resume"] else "monitoring")
    stage.write(Settings(paused=args == ["resume"], overrides=(Override("node-a", eligible=False),)))
    before = stage.view().versions["settings"]

    process = spawn(args[0], "-c", config_file, *args[1:])
    stage.await_view(lambda view: view.versions["settings"] != before)
    process.send_signal(number)
    out, err = process.communicate(timeout=WITHIN_S)

    assert (process.returncode, out) == (0, f"{says}\n")
    assert "not yet heard by node-a" in err


def next_one(stage: Stage) -> None:
    stage.await_request("asked")
    stage.obey("node-b")


def test_a_killed_command_leaves_a_request_that_nobody_confirms(stage: Stage, config_file: Path) -> None:
    stage.appear("node-b")
    stage.acquire("node-a")

    process = spawn("-c", config_file, "switchover", "--yes")
    stage.await_request("asked")
    process.kill()
    process.communicate(timeout=WITHIN_S)
    stage.answer("accepted", to="node-b")

    left = stage.view().request
    assert left is not None
    assert left.state == "accepted"
    with stage.acting(lambda: next_one(stage)):
        again = CliRunner().invoke(main, ["switchover", "--yes", "-c", str(config_file)])
    assert again.exit_code == 0, again.output


def test_a_switchover_that_waits_for_its_time_is_cancelled_by_ending_it(
    stage: Stage, config_file: Path
) -> None:
    stage.appear("node-b")
    stage.acquire("node-a")

    process = spawn("-c", config_file, "switchover", "--yes", "--at", "+1h")
    assert process.stderr is not None
    assert "end this command to cancel" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN_S)

    assert process.returncode == 130
    assert "nothing was done" in one_line(err)
    assert stage.view().request is None


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("y\n", 4), ("\x03", 130)])
def test_on_a_terminal_it_asks(stage: Stage, config_file: Path, answer: str, status: int) -> None:
    stage.appear("node-b")
    stage.acquire("node-a")

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "sidecar", "-c", str(config_file), "failover"])
    seen = ""
    while "[y/N]" not in seen:
        seen += os.read(terminal, 1024).decode()
    assert "node-a is active at epoch 1" in seen
    stage.write(Settings(paused=False))  # anything: the lock is what counts
    if status == 4:
        stage.release()
    os.write(terminal, answer.encode())
    try:
        while more := os.read(terminal, 1024).decode():
            seen += more
    except OSError:
        pass  # the other end is closed
    _, raw = os.waitpid(pid, 0)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(raw) == (1 if status == 4 else status), seen
    assert "Traceback" not in seen
    if status == 130:
        assert "\r\nsidecar: error: interrupted; nothing was done" in seen
    if status != 4:
        assert stage.view().holder is not None


def test_bug_ctrl_c_while_it_is_imported_was_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")

    result = sidecar("status", env={"PYTHONPATH": str(tmp_path)})

    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_is_130_and_silent(stage: Stage, config_file: Path) -> None:
    process = spawn("watch", "-c", config_file)
    assert process.stdout is not None
    assert "nobody is active" in process.stdout.readline()
    assert "no node shows itself" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WITHIN_S)

    assert (process.returncode, out, err) == (130, "", "")


def test_a_reader_that_goes_away_is_no_error(stage: Stage, config_file: Path) -> None:
    process = spawn("watch", "-c", config_file)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    stage.acquire("node-a")  # something to write
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(WITHIN_S) == 0


def test_bug_a_watch_whose_reader_is_gone_waited_for_something_to_write(
    stage: Stage, config_file: Path
) -> None:
    """``sidecar watch | grep -m1 ...`` went on for as long as nothing happened in the cluster."""
    process = spawn("watch", "-c", config_file)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()

    assert process.wait(WITHIN_S) == 0


@pytest.mark.parametrize("args", [["--help"], ["version"], ["status", "--help"]])
def test_a_reader_that_was_never_there_is_no_error(args: Sequence[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-P", "-m", "sidecar", *args]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=WITHIN_S, check=False)
    os.close(write)

    assert (result.returncode, result.stderr) == (0, b"")


def test_watch_shows_changes_and_rides_through_an_outage(stage: Stage, config_file: Path) -> None:
    process = spawn("watch", "-o", "json", "-c", config_file)
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["active"] is None
        stage.acquire("node-a")
        while (seen := json.loads(process.stdout.readline()))["active"] != "node-a":
            pass
        assert seen["trouble"] is None
        away = stage.path.with_suffix(".away")
        stage.path.rename(away)
        stage.path.mkdir()
        while json.loads(process.stdout.readline())["trouble"] is None:
            pass
        stage.path.rmdir()
        away.rename(stage.path)
        while json.loads(process.stdout.readline())["trouble"] is not None:
            pass
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WITHIN_S)


def test_an_unexpected_exception_is_one_line_and_shown_on_request(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = config_file.parent / "broken"
    (broken / "sidecar_broken.py").parent.mkdir()
    (broken / "sidecar_broken.py").write_text("def connect(settings, clock):\n    return 1 / 0\n")
    info = broken / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[aggregate_sidecar.backends]\nbroken = sidecar_broken:connect\n")
    config_file.write_text(config_file.read_text().replace("backend: local", "backend: broken"))
    env = {"PYTHONPATH": str(broken)}

    quiet = sidecar("status", "-c", config_file, env=env)
    assert quiet.returncode == 1
    assert "internal error: ZeroDivisionError: division by zero" in one_line(quiet.stderr)

    loud = sidecar("status", "-c", config_file, env=env | {"SIDECAR_DEBUG": "1"})
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr


def test_nothing_is_imported_before_a_command_is_chosen() -> None:
    code = (
        "import sys; before = set(sys.modules); import click; clicks = set(sys.modules) - before\n"
        "from sidecar.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted(m for m in set(sys.modules) - before - clicks), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WITHIN_S, check=True
    )

    ours = {name for name in result.stderr.split() if name.startswith(("sidecar", "backends"))}
    assert ours == {"sidecar", "sidecar.cli", "sidecar.cli.program"}
    heavy = {"msgspec", "yaml", "rich", "etcd3", "consul", "importlib.metadata", "json", "sqlite3"}
    assert not heavy & set(result.stderr.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_help_says(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])

    assert result.exit_code == 0
    assert COMMANDS[name][1] in " ".join(result.stdout.split())
    assert "Exit status:" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_version_says_what_is_installed() -> None:
    found = json.loads(CliRunner().invoke(main, ["version", "-o", "json"]).stdout)

    assert found["backends"].keys() >= {"etcd", "consul", "local"}
    assert CliRunner().invoke(main, ["--version"]).stdout.strip() == found["version"]


def test_exec_ends_with_the_status_of_its_command(tmp_path: Path) -> None:
    url = f"local://{tmp_path}/local.db"
    result = sidecar(
        "exec",
        "--backend",
        url,
        "--cluster",
        "c",
        "--ttl",
        "30s",
        "--once",
        "--",
        "sh",
        "-c",
        "echo $SIDECAR_ROLE; exit 7",
    )

    assert result.returncode == 7, result.stderr
    assert result.stdout == "active\n"


def test_run_stops_on_sigterm_with_0(stage: Stage, config_file: Path) -> None:
    process = spawn("run", "-c", config_file)
    try:
        stage.await_view(lambda view: (a := view.node("node-a")) is not None and a.state == "running")
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=WITHIN_S)

    assert process.returncode == 0, err
    wait_until(lambda: stage.view().vacant, "the lock is released")


def redirected(how: str, *args: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command with its streams as a shell makes them: ``>/dev/full``, or closed by ``>&-``."""
    words = [sys.executable, "-P", "-m", "sidecar", *map(str, args)]
    script = ["sh", "-c", f'exec "$@" {how}', "sh"]
    return subprocess.run([*script, *words], capture_output=True, text=True, timeout=WITHIN_S, check=False)


UNHEARD = [">/dev/full", ">&-", "2>/dev/full", "2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("command", [["version"], ["status"], ["status", "-o", "json"], ["validate"]])
@pytest.mark.parametrize(
    ("how", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_what_cannot_be_shown_is_one_line_and_1(
    stage: Stage, config_file: Path, command: Sequence[str], how: str, why: str
) -> None:
    stage.appear("node-a")

    result = redirected(how, "-c", config_file, *command)

    assert result.returncode == 1
    assert one_line(result.stderr) == f"the output cannot be written: {why}\n"


@pytest.mark.parametrize("how", UNHEARD)
def test_bug_what_could_not_be_printed_was_a_switchover_that_failed(
    stage: Stage, config_file: Path, how: str
) -> None:
    """1 and "internal error" for what was done; with a full disk under stderr it was ended on its way."""
    stage.appear("node-b")
    stage.acquire("node-a")

    with stage.acting(lambda: stage.obey("node-b")):
        result = redirected(how, "-c", config_file, "switchover", "--yes")

    assert result.returncode == 0, result.stderr
    assert "error" not in result.stderr
    if how.startswith(">"):
        assert re.search(
            r"sidecar: warning: the output cannot be written: .*: node-b is active", result.stderr
        )


@pytest.mark.parametrize("how", UNHEARD)
def test_bug_what_could_not_be_printed_was_a_pause_that_failed(
    stage: Stage, config_file: Path, how: str
) -> None:
    result = redirected(how, "-c", config_file, "pause")

    assert result.returncode == 0, result.stderr
    assert stage.view().settings.paused


@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", "<&- 2>&-"])
def test_bug_an_error_that_nobody_heard_had_another_status(how: str) -> None:
    for args in (["statsu"], ["switchover"], []):
        assert redirected(how, *args).returncode == 2, args


EXEC = ["--cluster", "x", "--once", "--", "sh", "-c", "echo hi; exit 7"]


@pytest.mark.parametrize("how", UNHEARD)
def test_bug_exec_whose_output_went_nowhere_had_another_status(tmp_path: Path, how: str) -> None:
    """1, and a traceback, instead of the command's status."""
    result = redirected(how, "exec", "--backend", f"local://{tmp_path}/x.db", *EXEC)

    assert result.returncode == 7, result.stderr
    assert "Traceback" not in result.stderr
    assert "sidecar: error" not in result.stderr


@pytest.mark.parametrize("how", [">&-", "2>&-"])
def test_bug_a_daemon_whose_caller_had_closed_a_stream_did_not_run(
    stage: Stage, config_file: Path, how: str
) -> None:
    words = [sys.executable, "-P", "-m", "sidecar", "run", "-c", str(config_file)]
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {how}', "sh", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        stage.await_view(lambda view: (a := view.node("node-a")) is not None and a.state == "running")
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=WITHIN_S)

    assert process.returncode == 0, err
    assert "sidecar: error" not in err


def test_sighup_at_the_start_does_not_end_the_sidecar(stage: Stage, config_file: Path) -> None:
    """A pipe in place of the guard's log holds the start up where nothing can be reloaded yet."""
    run_dir = config_file.parent / "run"
    run_dir.mkdir(mode=0o700)
    log, lock = run_dir / "guard.log", run_dir / "sidecar.lock"
    os.mkfifo(log)
    with inheriting(signal.SIGHUP, signal.SIG_DFL):
        process = spawn("run", "-c", config_file)
    try:
        wait_until(lambda: lock.exists() and lock.read_text() == f"{process.pid}\n", "the start")
        process.send_signal(signal.SIGHUP)
        reader = os.open(log, os.O_RDONLY)
        stage.await_view(lambda view: (a := view.node("node-a")) is not None and a.state == "running")
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=WITHIN_S)
    os.close(reader)

    assert process.returncode == 0, err
