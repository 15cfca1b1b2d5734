"""Goal: the doctor finds what is wrong, says what to do, changes nothing, never hangs or raises.

Method: the real checks on real faults: stores, ports, files, processes; status and forms by the command.
Not covered: a machine without PID namespaces (tests of the guard), a watchdog device.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner

from sidecar import __version__
from sidecar.certificate import Validity
from sidecar.cli import main
from sidecar.config import Config, from_text
from sidecar.doctor import api, files, machine, server, store
from sidecar.doctor.api import DAY_S
from sidecar.doctor.examine import CHECKS, Check, examine
from sidecar.doctor.finding import Finding, ok
from sidecar.doctor.home import look as home_look
from sidecar.ports import BackendInfo
from tests.cli.conftest import SERVER_XML
from tests.cli.stage import Stage
from tests.cli.test_program import WITHIN_S, spawn
from tests.harness.certificates import Authority
from tests.harness.played import RUN, listener
from tests.harness.process import free_port, unavailable, wait_until
from tests.harness.stores import ETCD34, Etcd, b64
from tests.harness.tools import ROOT


def configured(tmp_path: Path, text: str = "") -> Config:
    return from_text(
        f"cluster: plant-7\nnode: node-a\nbackend: local\nlocal: {{path: {tmp_path}/local.db}}\n"
        f"paths: {{state: {tmp_path}/state, run: {tmp_path}/run}}\n{text}",
        {},
        source="x",
    )


def of_home(tmp_path: Path) -> Config:
    folder = tmp_path / "aggregate"
    return configured(tmp_path, f"server: {{home: {folder}, command: [{folder}/ag_server]}}")


def told(found: Iterator[Finding] | list[Finding], level: str) -> str:
    """Return the lines of a level."""
    return "\n".join(f"{one.check}: {one.says}; {one.do}" for one in found if one.level == level)


# ---- the command


def test_a_machine_that_is_well_has_no_error_and_is_as_it_was(stage: Stage, config_file: Path) -> None:
    stage.appear("node-b", heard=0)
    before = sorted(config_file.parent.iterdir())
    view = stage.view()

    result = CliRunner().invoke(main, ["doctor", "-c", str(config_file), "-o", "json"])

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["errors"] == 0
    levels = {one["check"]: one["level"] for one in found["findings"]}
    assert levels.keys() >= {check.name for check in CHECKS} - {"java"} | {"rights", "latency", "nodes"}
    assert levels["rights"] == levels["clock"] == levels["programs"] == "ok"
    assert stage.view() == view
    assert sorted(config_file.parent.iterdir()) == before


def test_a_store_that_is_away_costs_no_other_check_anything(config_file: Path) -> None:
    port = free_port()
    text = config_file.read_text().replace("backend: local", "backend: consul")
    config_file.write_text(text + f"consul: {{address: 'http://127.0.0.1:{port}'}}\n")

    result = CliRunner().invoke(main, ["doctor", "-c", str(config_file)])

    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(re.match(rf"error +backend +.*127.0.0.1:{port}", line) for line in lines)
    assert {line.split()[0] for line in lines if re.match(r"\w", line)} >= {"LEVEL", "error", "ok"}
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout


def test_a_bad_configuration_is_one_line_and_2(config_file: Path) -> None:
    config_file.write_text(config_file.read_text() + "colour: red\n")

    result = CliRunner().invoke(main, ["doctor", "-c", str(config_file)])

    assert (result.exit_code, result.stdout) == (2, "")


def test_a_check_that_hangs_or_breaks_is_a_finding(tmp_path: Path) -> None:
    over = threading.Event()

    def hangs(_config: Config) -> Iterator[Finding]:
        yield ok("hangs", "so far")
        over.wait(WITHIN_S)

    def breaks(_config: Config) -> Iterator[Finding]:
        yield ok("breaks", f"so far: {1 // int(not _config)}")

    def lost(_config: Config) -> Iterator[Finding]:
        yield ok("lost", (tmp_path / "nothing").read_text())

    checks = (Check("hangs", 50, hangs), Check("breaks", 5_000, breaks), Check("lost", 5_000, lost))
    found = examine(configured(tmp_path), checks)
    over.set()

    assert [(one.check, one.level) for one in found] == [
        ("hangs", "ok"),
        ("hangs", "error"),
        ("breaks", "error"),
        ("lost", "error"),
    ]
    assert found[1].says == "not finished within 0.05 s"
    assert "internal error: ZeroDivisionError" in found[2].says
    assert "nothing: No such file" in found[3].says


def test_bug_a_plug_in_that_broke_while_it_was_loaded_was_the_end_of_all_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sidecar.doctor.examine.load_backend", breaks)

    assert examine(configured(tmp_path), (Check("a", 5_000, lambda _: iter([ok("a", "well")])),)) == [
        ok("a", "well")
    ]


# ---- the store and the other nodes


def test_other_nodes_are_compared(stage: Stage, tmp_path: Path) -> None:
    stage.appear("node-a", "node-b", version="0.0.1")
    stage.acquire("node-c")

    warned = told(store.look(configured(tmp_path)), "warning")

    assert "node-b has version 0.0.1" in warned
    assert "node-c holds the lock for 30s, lock.ttl here is 10s" in warned
    assert "node-a is there already, and no sidecar runs here" in warned
    assert "node-a has version" not in warned


def test_what_a_store_says_of_itself_is_a_warning(tmp_path: Path) -> None:
    info = BackendInfo("local", "here", {}, 1, advice=(("grows", "prune it"),))

    assert "backend: grows; prune it" in told(store._what_it_is(configured(tmp_path), info), "warning")


def test_a_node_alone_has_nobody_to_take_over(tmp_path: Path) -> None:
    assert "nobody would take over" in told(store.look(configured(tmp_path)), "warning")


def test_rights_are_tried(tmp_path: Path) -> None:
    with Etcd.run(tmp_path / "etcd", ETCD34, extra=("--bcrypt-cost", "4")) as etcd:
        etcd.enable_auth("guest", "guest")
        root = "/aggregate-sidecar/plant-7/"
        etcd.call("auth/role/revoke", role="guest", key=b64("\0"), range_end=b64("\0"))
        perm = {"permType": "READ", "key": b64(root), "range_end": b64(root[:-1] + "0")}
        etcd.call("auth/role/grant", name="guest", perm=perm)
        secret = tmp_path / "secret"
        secret.write_text("guest\n")
        away = f"http://127.0.0.1:{free_port()}"
        config = from_text(
            f"cluster: plant-7\nnode: node-a\nbackend: etcd\netcd: {{endpoints: ['{etcd.url}', '{away}'],"
            f" username: guest, password_file: {secret}}}\n",
            {},
            source="x",
        )
        found = list(store.look(config))
        before = etcd.get(f"{root}settings")

    assert before is None
    assert "rights: writing is refused" in told(found, "error")
    assert "below /aggregate-sidecar/plant-7/" in told(found, "error")
    assert f"no answer from {away.partition('://')[2]}" in told(found, "warning")
    assert re.search(r"etcd at \S+ answers \(\S+: 3\.4\.\d+; leader: \S+\)", told(found, "ok"))


# ---- files


def test_folders_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    open_to_all = tmp_path / "state"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    errors = told(files.paths(configured(tmp_path, "server: {kind: command, command: [sleep]}")), "error")

    assert f"paths.run: {tmp_path}/run is not a folder" in errors
    assert f"paths.state: {tmp_path}/state can be written to by everybody; chmod o-w" in errors
    full = from_text("cluster: c\nbackend: local\npaths: {state: /proc}\n", {}, source="x")
    assert "/proc, 0.0 GB free; free some space or inodes" in told(files.paths(full), "error")


def test_programs_of_every_key_are_looked_for(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        "server:\n  kind: command\n  command: [/bin/sleep, '1']\n  stop_command: [/nowhere/stop]\n"
        "  probes: {ready: {command: [/etc/passwd]}}\n",
    )

    errors = told(files.programs(config), "error")

    assert "server.stop_command: /nowhere/stop: not found" in errors
    assert "server.probes.ready.command: /etc/passwd: not executable" in errors
    assert "1 found and executable" in told(files.programs(config), "ok")


def test_an_endpoint_with_several_addresses_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(host: str, *_words: object, **_more: object) -> list[object]:
        found = [(socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00::1")]  # as of localhost
        found += [(socket.AF_INET, "10.0.0.2")] if host == "members" else []
        return [(family, socket.SOCK_STREAM, 6, "", (address, 2379)) for family, address in found]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    text = "cluster: c\nbackend: etcd\netcd: {endpoints: ['http://members:2379', 'http://one:2379']}\n"
    info = BackendInfo("etcd", "members", {"members:2379": "3.5.1", "one:2379": "3.5.1"}, 2_000)

    said = told(store._what_it_is(from_text(text, {}, source="x"), info), "warning")

    assert "members:2379 has several addresses" in said
    assert "one:2379 has" not in said


@pytest.mark.parametrize(
    ("user", "known"), [("root", True), ("'0'", True), ("nosuch", False), ("'54321'", False)]
)
def test_a_user_that_is_not_there_starts_no_server(tmp_path: Path, user: str, known: bool) -> None:
    config = configured(tmp_path, f"server:\n  kind: command\n  command: [/bin/sleep, '1']\n  user: {user}\n")

    errors = told(files.programs(config), "error")

    assert ("server.user: there is no user" in errors) is not known


@pytest.mark.parametrize(
    ("mode", "level"), [(0o644, "error"), (0o640, "warning"), (0o600, "ok"), (0o620, "error")]
)
def test_secrets_are_their_owners_alone(tmp_path: Path, mode: int, level: str) -> None:
    token = tmp_path / "token"
    token.write_text("t\n")
    token.chmod(mode)
    config = from_text(f"cluster: c\nbackend: consul\nconsul: {{token_file: {token}}}\n", {}, source="x")

    (found,) = files.secrets(config)

    assert found.level == level
    assert f"consul.token_file: {token}" in found.says


def test_bug_a_node_of_a_newer_version_was_said_not_to_be_there(stage: Stage, config_file: Path) -> None:
    stage.garble("nodes/node-b")

    result = CliRunner().invoke(main, ["doctor", "-c", str(config_file), "-o", "json"])

    found = [Finding(**one) for one in json.loads(result.stdout)["findings"] if one["check"] == "nodes"]
    warnings = told(found, "warning")
    assert f"plant-7/nodes/node-b cannot be read by this version, {__version__}; upgrade" in warnings
    assert "no other node" not in warnings


# ---- the guard


@pytest.mark.parametrize(
    ("version", "role", "level", "says", "do"),
    [
        (__version__, "active", "ok", f"of this version, {__version__}", ""),
        (
            "9.9.9",
            "active",
            "warning",
            f"of version 9.9.9, not {__version__}",
            "sidecar switchover first; then",
        ),
        ("9.9.9", "standby", "warning", "of version 9.9.9", "restart the sidecar"),
        ("9.9.9", None, "warning", "of version 9.9.9", "restart the sidecar"),
        (None, "active", "warning", "of a version that does not say which", "sidecar switchover first; then"),
    ],
)
def test_bug_nothing_said_that_the_guard_was_of_the_version_before(
    tmp_path: Path, version: str | None, role: str | None, level: str, says: str, do: str
) -> None:
    (tmp_path / "run").mkdir()
    run = None if role is None else {**RUN, "role": role}
    hello = {"type": "hello", "protocol": 1, "run": run} | ({"version": version} if version else {})
    with listener(tmp_path / "run") as listening:

        def greet() -> None:
            with listening.accept()[0] as sock:
                sock.send(json.dumps(hello).encode())

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        (found,) = machine.guard(configured(tmp_path))
        thread.join(WITHIN_S)

    assert (found.level, found.says.startswith(says), found.do.startswith(do)) == (level, True, True), found


def test_a_guard_that_is_not_there_or_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path)
    assert told(machine.guard(config), "ok") == f"guard: none is at work in {tmp_path}/run; "

    monkeypatch.setattr(machine, "GREETED_WITHIN_MS", 50)
    (tmp_path / "run").mkdir()
    with listener(tmp_path / "run"):
        assert "does not answer" in told(machine.guard(config), "error")
    assert "none is at work" in told(machine.guard(config), "ok"), "its socket alone is left"


# ---- the API and certificates


def with_api(tmp_path: Path, listen: str, more: str = "") -> Config:
    return configured(tmp_path, f"api: {{listen: '{listen}'{more}}}")


def test_the_address_of_the_api_is_free_or_somebody_elses(tmp_path: Path) -> None:
    where = f"127.0.0.1:{free_port()}"
    config = with_api(tmp_path, where)

    assert told(api.listens(config), "ok") == f"api: {where} (api.listen) is free; "
    with socket.create_server(("127.0.0.1", int(where.partition(":")[2]))):
        taken = told(api.listens(config), "error")
        every = told(api.listens(with_api(tmp_path, where.replace("127.0.0.1", "0.0.0.0"))), "error")
        other = told(api.listens(with_api(tmp_path, where.replace("127.0.0.1", "127.0.0.2"))), "ok")
    for found in (taken, every):
        assert f"is held by process {os.getpid()}: the sidecar here would not start; stop it" in found
    assert "is free" in other, "another address of the same port is another's"
    assert "cannot assign" in told(api.listens(with_api(tmp_path, "192.0.2.1:8009")), "error")
    assert told(api.listens(configured(tmp_path)), "ok") == "api: off: api.listen is not set; "


def test_the_address_of_the_api_is_held_by_the_sidecar_that_runs_here(
    config_file: Path, tmp_path: Path
) -> None:
    where = f"127.0.0.1:{free_port()}"
    config_file.write_text(config_file.read_text() + f"api: {{listen: '{where}'}}\n")
    process = spawn("run", "-c", config_file)
    try:
        held = f"api: {where} (api.listen) is held by our sidecar (process {process.pid}); "
        config = with_api(tmp_path, where)
        wait_until(lambda: told(api.listens(config), "ok") == held, "the API")
    finally:
        process.terminate()
        process.communicate(timeout=WITHIN_S)


def test_certificate_and_key_of_the_api_belong_together(tmp_path: Path) -> None:
    one, other = Authority().issue(tmp_path / "one"), Authority().issue(tmp_path / "other")

    def found(cert: Path, key: Path) -> str:
        more = f", tls_cert_file: {cert}, tls_key_file: {key}"
        return told(api.listens(with_api(tmp_path, f"127.0.0.1:{free_port()}", more)), "error")

    assert found(one.cert, one.key) == ""
    assert "api.tls_cert_file" in found(one.cert, other.key)
    assert "key values mismatch; replace certificate and key together" in found(one.cert, other.key)


@pytest.mark.parametrize(
    ("lives", "level", "says"),
    [
        (timedelta(days=90, hours=12), "ok", "is valid for 90 d"),
        (timedelta(days=10, hours=12), "ok", "is valid for 10 d"),  # most of its life is left
        (timedelta(hours=15, minutes=30), "warning", "expires in 15 h"),  # of two days more
        (timedelta(minutes=-1), "error", "has expired"),
    ],
)
def test_certificates_are_looked_at_before_they_end(
    tmp_path: Path, lives: timedelta, level: str, says: str
) -> None:
    made = Authority().issue(tmp_path, lives=lives)
    pair = f"tls_cert_file: {made.cert}, tls_key_file: {made.key}"

    (found,) = api.certificates(with_api(tmp_path, "127.0.0.1:8009", f", {pair}"))

    assert (found.level, says in found.says) == (level, True), found
    assert f"api.tls_cert_file: {made.cert}" in found.says


def test_a_long_lived_certificate_is_warned_of_two_weeks_before(tmp_path: Path) -> None:
    now = int(time.time())
    assert api.judged(Validity(now - 76 * DAY_S, now + 14 * DAY_S + 60), now) == "ok"
    assert api.judged(Validity(now - 77 * DAY_S, now + 14 * DAY_S - 60), now) == "warning"
    assert api.judged(Validity(now + 60, now + DAY_S), now) == "early"
    (tmp_path / "cert.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    pair = f", tls_cert_file: {tmp_path}/cert.pem, tls_key_file: {tmp_path}/cert.pem"
    broken = told(api.certificates(with_api(tmp_path, "127.0.0.1:8009", pair)), "error")
    assert "holds no certificate in PEM; replace it" in broken


def test_the_secrets_of_the_api_are_their_owners_alone(tmp_path: Path) -> None:
    made, token = Authority().issue(tmp_path / "tls"), tmp_path / "token"
    token.write_text("correct-horse\n")
    for path in (token, made.key):
        path.chmod(0o644)
    files_ = f", token_file: {token}, tls_cert_file: {made.cert}, tls_key_file: {made.key}"

    found = told(files.secrets(with_api(tmp_path, "127.0.0.1:8009", files_)), "error")

    assert f"api.token_file: {token} is open to others (mode 644); chmod 600 {token}" in found
    assert f"api.tls_key_file: {made.key} is open to others" in found


def test_files_of_the_api_that_cannot_be_read_are_named(config_file: Path, tmp_path: Path) -> None:
    text = config_file.read_text()
    pair = f"tls_cert_file: {tmp_path}/c.pem, tls_key_file: {tmp_path}/k.pem"
    for given, key in ((pair, "tls_cert_file"), (f"token_file: {tmp_path}/t", "token_file")):
        config_file.write_text(text + f"api: {{listen: '127.0.0.1:8009', {given}}}\n")
        result = CliRunner().invoke(main, ["doctor", "-c", str(config_file)])
        assert result.exit_code == 2
        assert f"api.{key}" in result.stderr


# ---- the server


@pytest.mark.usefixtures("home")
def test_server_xml_and_java_are_looked_at(tmp_path: Path) -> None:
    config, path = of_home(tmp_path), tmp_path / "aggregate" / "server.xml"
    options = tmp_path / "aggregate" / "ag_server.vmoptions"
    options.write_text("-Xmx900g\n-XX:+ExitOnOutOfMemoryError\n-Xmx1m")

    assert "not the sidecar's" in told(server.server_xml(config), "warning")
    errors = told(server.java(config), "error")
    assert "-Xmx 921600 MB of" in errors
    assert "the last line has no line end" in told(server.java(config), "warning")

    options.write_text("-Xmx16m\n-XX:+ExitOnOutOfMemoryError\n")
    assert "-Xmx 16 MB of" in told(server.java(config), "ok")
    share = files.memory_bytes() * 8 // 10 >> 20
    options.write_text(f"-Xmx{share}m\n-XX:+ExitOnOutOfMemoryError\n")
    assert "leave a quarter of it free" in told(server.java(config), "warning")

    text = re.sub(r"jdbc:postgresql:[^<]*", "jdbc:h2:file:/x", path.read_text())
    path.write_text(text)
    assert "embedded database" in told(server.server_xml(config), "error")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as another user")
@pytest.mark.parametrize(
    ("file", "mode", "level", "says"),
    [
        ("", 0o700, "error", "may not enter"),
        ("server.xml", 0o600, "error", "may not read"),
        ("ag_server", 0o700, "error", "may not run"),
        ("server.xml", 0o644, "warning", "may not write"),
        ("server.xml", 0o666, "", ""),
    ],
)
def test_bug_files_that_the_servers_user_cannot_use_were_well(
    file: str, mode: int, level: str, says: str
) -> None:
    with TemporaryDirectory() as folder:  # tmp_path is root's alone
        Path(folder).chmod(0o755)
        home = Path(folder) / "aggregate"
        shutil.copytree(SERVER_XML.parent, home)
        (home / "ag_server").touch(0o755)
        (home / file).chmod(mode)
        config = from_text(
            "cluster: c\nbackend: local\n"
            f"server: {{home: {home}, command: [{home}/ag_server], user: nobody}}\n",
            {},
            source="x",
        )
        found = [one for one in server.server_xml(config) if one.says.startswith("server.user")]
    assert [one.level for one in found] == ([level] if level else [])
    assert all(f"server.user: nobody {says} {home / file}".rstrip("/") in one.says for one in found)


def test_bug_a_server_xml_that_can_have_no_role_was_well(home: Path, tmp_path: Path) -> None:
    config, path = of_home(tmp_path), home / "server.xml"
    assert "no role" not in told(server.server_xml(config), "error")
    if subprocess.run(["chattr", "+i", path], check=False, stderr=subprocess.DEVNULL).returncode:
        unavailable("immutable files: not root, or not on this file system")
    try:
        immutable = told(server.server_xml(config), "error")
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert "is immutable or append-only: it gets no role; chattr -i -a" in immutable

    path.rename(home / "server 1.xml")
    path.symlink_to("/proc/self/limits")
    assert "leads to /proc/" in told(home_look(config), "error")


def test_bug_a_server_xml_that_is_a_mount_was_well(home: Path, tmp_path: Path) -> None:
    path = home / "server x.xml"
    (home / "server.xml").rename(path)
    (home / "server.xml").symlink_to(path)
    look = "from tests.cli.test_doctor import *;"
    look += f"print(told(home_look(of_home(Path({str(tmp_path)!r}))), 'error'))"
    mount = 'mount --bind "$1" "$1" && exec "$2" -c "$3"'
    command: list[str | Path] = ["unshare", "-m", "sh", "-c", mount, "sh", path, sys.executable, look]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        unavailable(f"mounts: {done.stderr}")
    assert "is mounted by itself and cannot be replaced: it gets no role; mount the folder" in done.stdout


@pytest.mark.usefixtures("home")
def test_a_second_supervisor_is_found(tmp_path: Path) -> None:
    launcher = tmp_path / "aggregate" / "ag_server"
    config = of_home(tmp_path)
    assert told(server.second_supervisor(config), "error") == ""

    launcher.write_text("#!/bin/sh\nread line\n")
    rival = subprocess.Popen(["/bin/sh", launcher], cwd=launcher.parent, stdin=subprocess.PIPE)
    with rival:  # its end of the pipe is closed, and it ends
        errors = told(server.second_supervisor(config), "error")

    assert f"process {rival.pid}" in errors
    assert "outside the lock; stop it" in errors


LISTENS = "import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"


def test_ports_are_free_or_somebody_elses_or_ours(stage: Stage, config_file: Path, tmp_path: Path) -> None:
    port, taken = free_port(), free_port()
    command = json.dumps([sys.executable, "-c", LISTENS.format(port=port)])
    probes = f"probes: {{ready: {{tcp: [{port}, {taken}]}}}}"
    config = configured(tmp_path, f"server: {{kind: command, command: {command}, {probes}}}")
    with socket.create_server(("127.0.0.1", taken)):
        found = list(server.ports(config))
    assert f"{port} (server.probes.ready.tcp) is free" in told(found, "ok")
    assert f"{taken} (server.probes.ready.tcp) is held by process {os.getpid()}" in told(found, "error")

    text = config_file.read_text()
    config_file.write_text(re.sub(r"command: \[.*\]", lambda _: f"command: {command}", text))
    process = spawn("run", "-c", config_file)
    try:
        wait_until(lambda: "held by our server" in told(server.ports(config), "ok"), "the server")
        stage.appear("node-b")
        assert "node-a: this node runs; others: node-b" in told(store.look(config), "ok")
    finally:
        process.terminate()
        process.communicate(timeout=WITHIN_S)
