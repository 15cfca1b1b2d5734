"""The two kinds of server: what they prepare, whom they refuse to share a home with, and how they are asked.

Method: `AggregateKind` on homes of stand-in servers that really run; a made-up root folder for units and init
scripts. Not covered: a real AggreGate Server; a JVM is recognised by its name alone.
"""

import os
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sidecar.core.model import Role
from sidecar.errors import ConfigError, ServerError
from sidecar.probes import within
from sidecar.servers import AggregateKind, CommandKind, ServerKind, boot, rivals, serverxml
from sidecar.servers.aggregate import STANDBY_LIFETIME_MS
from sidecar.servers.document import Document
from sidecar.servers.serverxml import DETECTION_MS
from tests.harness.process import wait_until
from tests.harness.standin import Makes, Standin, edit, standins

ROLES: tuple[Role, Role] = ("active", "standby")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Standin]:
    with standins(tmp_path) as makes:
        yield makes("a", role=0)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Makes]:
    with standins(tmp_path) as makes:
        yield makes


def kind_of(server: Standin, root: Path = Path("/nowhere")) -> AggregateKind:
    return AggregateKind(command=[str(server.launcher)], home=server.home, root=root)


def cluster_role(server: Standin) -> list[str]:
    return Document(server.xml.read_bytes()).values("clusterRole")


# -- aggregate ----------------------------------------------------------------------------------


def test_an_active_serves_with_role_1(server: Standin) -> None:
    kind = kind_of(server)
    assert kind.check() == []
    launch = kind.prepare("active")
    assert launch is not None
    assert (launch.argv, launch.cwd) == ((str(server.launcher),), str(server.home))
    assert (launch.lifetime_ms, launch.notes) == (None, ())
    assert not within(kind.default_probe(), 500).ok
    server.start_serving(epoch=1)
    wait_until(lambda: within(kind.default_probe(), 500).ok, "ready")
    assert cluster_role(server) == ["1"]


def test_ready_means_both_ports(server: Standin) -> None:
    probe = kind_of(server).default_probe()
    with accepting(server.client_port):
        assert f":{server.web_port}: connection refused" in within(probe, 500).reason
        with accepting(server.web_port):
            assert within(probe, 20_000).ok


@contextmanager
def accepting(port: int) -> Iterator[None]:
    server = socketserver.TCPServer(("127.0.0.1", port), socketserver.BaseRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_standby_monitors_and_would_detect_after_the_guard_has_ended_it(server: Standin) -> None:
    kind = kind_of(server)
    launch = kind.prepare("standby")
    assert launch is not None
    assert launch.lifetime_ms == kind.standby_lifetime_ms == STANDBY_LIFETIME_MS < DETECTION_MS
    server.start_monitoring()
    assert cluster_role(server) == ["2"]
    assert not within(kind.self_activated_probe(), 500).ok
    assert kind.message("standby", True) == "Monitoring Master Server Status"


def test_a_standby_that_activates_itself_is_noticed(server: Standin) -> None:
    kind = kind_of(server)
    kind.prepare("standby")
    server.start(self_activate=True)
    wait_until(lambda: within(kind.self_activated_probe(), 500).ok, "self-activation")


def test_a_standby_that_has_activated_itself_is_noticed_also_while_it_stands_still(server: Standin) -> None:
    kind = kind_of(server)
    with socket.create_server(("127.0.0.1", server.client_port)):
        assert within(kind.self_activated_probe(), 20_000).ok
        with pytest.raises(ServerError, match="in use by another program"):
            kind.prepare("standby")


@pytest.mark.parametrize("address", ["127.0.0.7", "::1"])
def test_bug_a_server_at_another_address_of_loopback_was_not_found(server: Standin, address: str) -> None:
    edit(server.xml, serverIp=address)
    probe = kind_of(server).self_activated_probe()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    assert not within(probe, 500).ok
    with socket.create_server((address, server.client_port), family=family):
        assert within(probe, 20_000).ok


@pytest.mark.parametrize("client_port", ["nonsense", "1"])
def test_a_server_is_asked_where_it_was_when_it_was_prepared(server: Standin, client_port: str) -> None:
    """Who edits the file meanwhile changes nothing for it."""
    kind = kind_of(server)
    kind.prepare("standby")
    edit(server.xml, clientPort=client_port)
    with accepting(server.client_port):
        assert within(kind.self_activated_probe(), 20_000).ok
        with accepting(server.web_port):
            assert within(kind.default_probe(), 20_000).ok


def test_a_server_without_a_web_port_is_ready_without_it(server: Standin) -> None:
    edit(server.xml, webAppsSslPort="0")
    kind = kind_of(server)
    assert kind.prepare("active") is not None
    with accepting(server.client_port):
        assert within(kind.default_probe(), 20_000).ok


def test_the_role_survives_the_server_saving_its_file(server: Standin) -> None:
    kind = kind_of(server)
    kind.prepare("active")
    server.start_serving()
    server.admin(b"E")
    server.wait_exit()
    kind.prepare("standby")
    assert cluster_role(server) == ["2"]


def test_a_file_torn_by_the_server_is_repaired_and_reported(server: Standin) -> None:
    kind = kind_of(server)
    kind.prepare("active")
    server.start_serving(torn_server_xml=True)
    server.admin(b"E")
    server.wait_exit()
    assert any("damaged" in warning for warning in kind.check())
    launch = kind.prepare("standby")
    assert launch is not None
    assert "repaired from its backup" in launch.notes[0]
    assert cluster_role(server) == ["2"]


def test_a_stopped_standby_gets_its_role_all_the_same(server: Standin) -> None:
    kind = AggregateKind(command=[str(server.launcher)], home=server.home, standby="stopped")
    assert kind.prepare("standby") is None
    assert cluster_role(server) == ["2"]


def test_an_embedded_database_is_refused_unless_told_otherwise(server: Standin) -> None:
    url = {"databaseUrl": "jdbc:hsqldb:file:database/server"}
    server.xml.write_bytes(Document(server.xml.read_bytes()).with_values(url))
    before = server.xml.read_bytes()
    kind = kind_of(server)
    for attempt in (kind.check, lambda: kind.prepare("active")):
        with pytest.raises(ConfigError, match="databaseUrl"):
            attempt()
    assert server.xml.read_bytes() == before
    alone = AggregateKind(command=[str(server.launcher)], home=server.home, shared_database=False)
    assert alone.prepare("active") is not None


@pytest.mark.parametrize("role", ROLES)
def test_a_port_in_use_is_refused(server: Standin, make: Makes, role: Role) -> None:
    other = make("other")
    other.start_serving()
    ports = {"webAppsSslPort": str(other.client_port)}
    server.xml.write_bytes(Document(server.xml.read_bytes()).with_values(ports))
    with pytest.raises(ServerError, match=r"webAppsSslPort: port \d+ is in use"):
        kind_of(server).prepare(role)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/nowhere/ag_server_console"], "server.command: /nowhere/ag_server_console: not found"),
        (["./server.xml"], "server.command: ./server.xml: not executable"),
        ([], "server.command: empty"),
    ],
)
def test_a_bad_launcher_is_named(server: Standin, command: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AggregateKind(command=command, home=server.home).check()


def test_a_missing_home_is_named(tmp_path: Path) -> None:
    kind = AggregateKind(command=["/bin/true"], home=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"server\.home: .*nowhere: no such directory"):
        kind.check()


def test_what_java_is_told_is_looked_at(server: Standin) -> None:
    options = server.home / "ag_server_console.vmoptions"
    options.write_text("-Xmx4g\n-XX:+ExitOnOutOfMemoryError")
    (warning,) = kind_of(server).check()
    assert "the last line has no line end" in warning
    options.write_text("-Xmx4g\n")
    (warning,) = kind_of(server).check()
    assert "ExitOnOutOfMemoryError" in warning


# -- second supervisors -------------------------------------------------------------------------


def test_a_server_that_runs_already_is_refused_and_ours_is_not(server: Standin) -> None:
    kind = kind_of(server)
    server.start_serving()
    for attempt in (kind.check, lambda: kind.prepare("active")):
        with pytest.raises(
            ServerError, match=r"process \d+ .* runs here already, and not under this sidecar"
        ):
            attempt()
    assert cluster_role(server) == ["0"]  # nothing was written under a running server
    assert kind.check(ours=[server.process.pid]) == []


def test_a_server_whose_launcher_is_gone_is_found(server: Standin) -> None:
    server.start_serving()
    below = server.server()
    os.kill(server.process.pid, 9)
    server.wait_exit()
    (found,) = rivals.processes(server.home)
    assert str(below.pid) in found


def test_a_link_to_the_home_hides_nothing(server: Standin, tmp_path: Path) -> None:
    server.start_serving()
    (tmp_path / "link").symlink_to(server.home)
    assert rivals.processes(tmp_path / "link")


def test_a_jvm_in_the_home_is_a_server_and_a_shell_or_a_reader_is_not(server: Standin) -> None:
    java = server.home / "jre/bin/java"
    java.parent.mkdir(parents=True)
    shutil.copy("/bin/sleep", java)
    log = server.home / "server.log"
    log.touch()
    harmless = [["tail", "-f", str(log)], ["sleep", "60"], ["sh", "-c", "sleep 60; true"]]
    started = [subprocess.Popen(command, cwd=server.home) for command in harmless]
    try:
        assert rivals.processes(server.home) == []
        jvm = subprocess.Popen([java, "60"], cwd="/")
        started.append(jvm)
        wait_until(lambda: psutil.Process(jvm.pid).cmdline() == [str(java), "60"], "exec")
        (found,) = rivals.processes(server.home)
        assert str(jvm.pid) in found
        assert rivals.processes(server.home, ours=[jvm.pid]) == []
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize("configured", ["home", "link"])
@pytest.mark.parametrize("word", ["{link}/ag.jar", "-Dag.home={link}", "-Dag.home={home}", "/lib/x:{link}"])
def test_bug_a_jvm_that_names_the_home_by_a_link_was_not_seen(
    tmp_path: Path, configured: str, word: str
) -> None:
    """A second server was started beside it."""
    home, link, other = tmp_path / "aggregate-5.70", tmp_path / "aggregate", tmp_path / "aggregate-5"
    for folder in (home, other):
        folder.mkdir()
    link.symlink_to(home)
    java = tmp_path / "java"
    java.symlink_to("/bin/sh")
    words = word.format(home=home, link=link)
    with started([java, "-c", "read line", words]) as jvm:
        found = rivals.processes(home if configured == "home" else link)
        assert [f"process {jvm.pid} " in one for one in found] == [True]
        assert rivals.processes(other) == []


def test_bug_a_probe_of_the_sidecars_own_kept_its_server_from_starting(tmp_path: Path) -> None:
    """A program of the home that asks the server how it is: a crash meanwhile cost a failover."""
    java = tmp_path / "java"
    java.symlink_to("/bin/sh")
    with started([java, "-c", "read line", tmp_path]) as probe:
        assert [f"process {probe.pid} " in one for one in rivals.processes(tmp_path)] == [True]
        assert rivals.processes(tmp_path, ours=[os.getpid()]) == []


def test_bug_a_dead_mount_that_any_jvm_names_held_up_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the first turn of a sidecar that was started again, until its server's deadline had passed."""
    dead, link, home = tmp_path / "dead", tmp_path / "link", tmp_path / "home"
    home.mkdir()
    link.symlink_to(dead)
    parts = [SimpleNamespace(mountpoint=str(at), fstype="nfs4") for at in (dead, tmp_path)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: parts)
    real = os.readlink

    def readlink(path: str) -> str:
        assert not str(path).startswith(str(dead)), "it would hang"
        return real(path)

    monkeypatch.setattr(os, "readlink", readlink)
    java = tmp_path / "java"
    java.symlink_to("/bin/sh")
    with started([java, "-c", "read line", f"-Dlogs={dead}/a:{link}/b", f"{tmp_path}/x/../home"]) as jvm:
        assert [f"process {jvm.pid} " in one for one in rivals.processes(home)] == [True]
        assert rivals.processes(tmp_path / "other") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_bug_a_server_in_a_container_with_a_folder_of_that_name_was_taken_for_one_of_ours(
    tmp_path: Path,
) -> None:
    home, java = tmp_path / "home", tmp_path / "java"
    home.mkdir()
    java.symlink_to("/bin/sh")
    for mount, found in ((":", 1), (f"mount -t tmpfs none {home}", 0)):
        inside = f"{mount} && cd {home} && exec {java} -c 'read line' {home}"
        command = ["unshare", "--mount", "sh", "-c", inside]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            wait_until(lambda: psutil.Process(process.pid).cmdline()[:1] == [str(java)], "exec")
            assert len(rivals.processes(home)) == found


@contextmanager
def started(argv: list[object]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run *argv*, which has become what it is and reads its input, with ``/`` as its folder."""
    with subprocess.Popen([*map(str, argv)], cwd="/", stdin=subprocess.PIPE) as process:
        wait_until(lambda: psutil.Process(process.pid).cmdline() == [*map(str, argv)], "exec")
        yield process  # then its end of the pipe is closed, and it ends


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for folder in ("etc/systemd/system/multi-user.target.wants", "etc/init.d", "etc/rc3.d"):
        (root / folder).mkdir(parents=True)
    return root


def unit(
    root: Path, name: str, *lines: str, enabled: bool = True, folder: str = "etc/systemd/system"
) -> None:
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["[Service]", *lines, ""]))
    if enabled:
        wants(root, name)


def wants(root: Path, name: str, folder: str = "etc/systemd/system/multi-user.target.wants") -> None:
    link = root / folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/nowhere")


def test_an_enabled_unit_is_refused_with_what_to_do(server: Standin, root: Path) -> None:
    unit(root, "aggregate.service", f"ExecStart=-{server.launcher} start")
    with pytest.raises(
        ServerError, match=r"unit aggregate.service \(systemctl disable --now aggregate.service\)"
    ):
        kind_of(server, root).check()


def test_units_that_do_no_harm(server: Standin, root: Path) -> None:
    unit(root, "disabled.service", f"ExecStart={server.launcher}", enabled=False)
    unit(root, "other.service", f"ExecStart=/bin/true\nReadWritePaths={server.home}")
    unit(root, "neighbour.service", f"ExecStart={server.home}-2/ag_server_console")
    unit(root, "ours.service", f"ExecStart=/usr/bin/sidecar exec -- {server.launcher}")
    assert kind_of(server, root).check() == []


@pytest.mark.parametrize("linked", [True, False])
def test_an_init_script_that_starts_at_boot_is_refused(server: Standin, root: Path, linked: bool) -> None:
    script = root / "etc/init.d/aggregate"
    if linked:
        script.symlink_to(server.home / "ag_server_console")
    else:
        script.write_text(f"#!/bin/sh\n{server.home}/ag_server_service $1\n")
    assert kind_of(server, root).check() == []
    (root / "etc/rc3.d/S01aggregate").symlink_to("../init.d/aggregate")
    with pytest.raises(ServerError, match="init script aggregate"):
        kind_of(server, root).check()


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    """A home with a space in its name, and a link to it."""
    home, link = tmp_path / "Aggre Gate", tmp_path / "aggregate"
    home.mkdir()
    link.symlink_to(home)
    return home, link


SERVICE = "ag_server_service"


@pytest.mark.parametrize(
    "lines",
    [
        ["ExecStart=/bin/sh -c '{link}/ag_server_service start'"],
        ["ExecStart=/bin/sh -c 'cd {link} && exec ./ag_server_service start'"],
        ['ExecStart="{home}/ag_server_service" start'],
        ["WorkingDirectory={home}", "ExecStart=/bin/sh -c ./ag_server"],
        ["WorkingDirectory={link}", "ExecStart=/usr/bin/java -jar ag.jar"],
        ["ExecStart=/usr/bin/java -Dag.home={link} Ag"],
        ["ExecStart=/usr/bin/env LANG=C \\\n  {link}/ag_server_service start"],
        ["Environment=AG={link}", "ExecStart=/bin/sh -c '$AG/ag_server_service start'"],
    ],
)
def test_bug_units_that_start_a_server_in_another_way_of_writing_were_let_pass(
    root: Path, place: tuple[Path, Path], lines: list[str]
) -> None:
    home, link = place
    unit(root, "ag.service", *(line.format(home=home, link=link) for line in lines))
    unit(root, "other.service", *(line.format(home=f"{home}-2", link=f"{link}-2") for line in lines))
    for one in place:
        assert boot.services(one, root) == ["unit ag.service (systemctl disable --now ag.service)"]


def test_bug_units_that_are_started_in_another_way_were_let_pass(
    root: Path, place: tuple[Path, Path]
) -> None:
    start = f"ExecStart={place[1]}/{SERVICE} start"
    unit(root, "local.service", start, folder="usr/local/lib/systemd/system")
    unit(root, "vendor.service", start, enabled=False, folder="usr/lib/systemd/system")
    wants(root, "vendor.service", "usr/lib/systemd/system/multi-user.target.wants")
    unit(root, "ag@.service", start, enabled=False)
    wants(root, "ag@1.service")
    unit(root, "dropped.service", "ExecStart=/bin/true")
    unit(root, "10-own.conf", start, enabled=False, folder="etc/systemd/system/dropped.service.d")
    unit(root, "late.service", start, enabled=False)
    unit(root, "late.timer", "OnBootSec=60")
    unit(root, "pulled.service", start, enabled=False)
    unit(root, "multi-user.target", enabled=False, folder="usr/lib/systemd/system")
    conf = "etc/systemd/system/multi-user.target.d"
    unit(root, "own.conf", "Wants=pulled.service", enabled=False, folder=conf)
    unit(root, "named.service", start, enabled=False)
    unit(root, "first.timer", "Unit=second.service")
    unit(root, "second.service", "Wants=a%i named.service", enabled=False)
    assert boot.services(place[0], root) == [
        f"unit {name} (systemctl disable --now {enabled})"
        for name, enabled in [
            ("ag@1.service", "ag@1.service"),
            ("dropped.service", "dropped.service"),
            ("late.service", "late.timer"),
            ("local.service", "local.service"),
            ("named.service", "first.timer"),
            ("pulled.service", "pulled.service"),
            ("vendor.service", "vendor.service"),
        ]
    ]


def test_units_that_start_no_server_after_all(root: Path, place: tuple[Path, Path]) -> None:
    home, link = place
    start = f"ExecStart={link}/{SERVICE} start"
    unit(root, "replaced.service", start)
    conf = "etc/systemd/system/replaced.service.d"
    unit(root, "10-sidecar.conf", "ExecStart=", "ExecStart=/bin/sidecar run", enabled=False, folder=conf)
    unit(root, "masked.service", start, folder="usr/lib/systemd/system")
    (root / "etc/systemd/system/masked.service").symlink_to("/dev/null")
    for name in ("masked", "gone"):
        unit(root, "own.conf", start, enabled=False, folder=f"etc/systemd/system/{name}.service.d")
    wants(root, "gone.service")
    unit(root, "down.service", start, enabled=False)
    wants(root, "down.service", "etc/systemd/system/shutdown.target.wants")
    unit(root, "backup.timer", "OnCalendar=daily")
    unit(root, "backup.service", f"ExecStart=/bin/tar -cf /srv/a.tar {link}", enabled=False)
    unit(root, "reads.service", f"WorkingDirectory={home}", "ExecStart=/bin/ls")
    unit(root, "comment.service", f"# {start}", "ExecStart=/bin/true")
    unit(root, "inner.service", f"ExecStart=/bin/sh -c '/bin/sidecar exec -- {link}/ag_server'")
    unit(root, "odd.service", "Wants=** [ /", 'ExecStart=/bin/echo "')
    assert boot.services(home, root) == []


@pytest.mark.parametrize(
    "lines",
    ["DIR={link}\n$DIR/ag_server_service $1", "cd '{home}' && ./ag_server_service $1", "{link}/ag_server &"],
)
def test_bug_scripts_that_start_a_server_in_another_way_of_writing_were_let_pass(
    root: Path, place: tuple[Path, Path], lines: str
) -> None:
    home, link = place
    for script in (root / "etc/init.d/ag", root / "etc/rc.local"):
        script.write_text("#!/bin/sh\n" + lines.format(home=home, link=link))
    (root / "etc/rc3.d/S01ag").symlink_to("../init.d/ag")
    init, local = "init script ag (update-rc.d ag disable)", "script /etc/rc.local (take the line out)"
    assert boot.services(home, root) == [init], "rc.local is not executable"
    (root / "etc/rc.local").chmod(0o755)
    assert boot.services(home, root) == [init, local]
    for script in (root / "etc/init.d/ag", root / "etc/rc.local"):
        script.write_text("#!/bin/sh\n#" + lines.format(home=home, link=link).replace("\n", "\n#"))
    assert boot.services(home, root) == []


# -- command ------------------------------------------------------------------------------------


def test_a_command_runs_on_the_active_alone() -> None:
    kind = CommandKind(command=["sleep", "60"], environment={"A": "1"})
    assert kind.check() == []
    launch = kind.prepare("active")
    assert launch is not None
    assert (launch.argv, launch.environment, launch.lifetime_ms) == (("sleep", "60"), {"A": "1"}, None)
    assert kind.prepare("standby") is None
    assert kind.message("standby", False) == "Monitoring Master Server Status"
    assert [kind.message("active", ready) for ready in (False, True)] == ["Starting", "Serving"]


def test_a_command_may_run_on_a_standby_too(tmp_path: Path) -> None:
    kind = CommandKind(command=["sleep", "60"], standby="monitoring", cwd=tmp_path)
    launch = kind.prepare("standby")
    assert launch is not None
    assert launch.cwd == str(tmp_path)


@pytest.mark.parametrize(
    ("command", "message"),
    [([], "empty"), (["no-such-program"], "not found"), (["/etc/passwd"], "not executable")],
)
def test_a_bad_command_is_named(command: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"server\.command: .*{message}"):
        CommandKind(command=command).check()


def test_a_command_is_looked_for_where_it_will_be(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert CommandKind(command=["./program"], cwd=tmp_path).check() == []
    assert CommandKind(command=["program"], environment={"PATH": str(tmp_path)}).check() == []


def test_both_are_server_kinds(server: Standin) -> None:
    kinds: list[ServerKind] = [CommandKind(command=["true"]), kind_of(server)]
    assert [kind.name for kind in kinds] == ["command", "aggregate"]
    assert serverxml.read(server.xml).client_port == server.client_port
