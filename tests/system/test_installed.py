"""Goal: what the bundle installs on a machine without a network does its work under a real systemd, as
docs/install.md says.

Method: one container boots systemd; the tests go on with it one after the other, as an operator would. Who
runs is told by pids and by the keeper's record, who was active by the witness. The first half is short enough
for every run of the suite; ./scripts/try-install runs all of it.

Not covered: another init system, a reboot of a real machine, cgroup v2 where the host has none.
"""

import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from subprocess import CalledProcessError

import pytest

from sidecar import __version__
from sidecar.standin import witness
from tests.harness.containers import need_engine
from tests.harness.machine import UNIT, Machine, bundle
from tests.harness.process import wait_until

NEW = "9.9.9"

pytestmark = pytest.mark.timeout(900)  # the first test may build image and wheels
slow = pytest.mark.skipif(not os.environ.get("TRY_INSTALL"), reason="./scripts/try-install runs it")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_engine()
    return bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def machine(archive: Path) -> Iterator[Machine]:
    with Machine.run() as one:
        one.unpack(archive)
        one.root("./install")
        one.furnish()
        try:
            yield one
        except TimeoutError as error:
            error.add_note(one.journal()[-5_000:])
            raise


@pytest.fixture
def serving(machine: Machine) -> Machine:
    machine.systemctl("start", UNIT)
    machine.await_serving()
    return machine


def test_it_is_installed_without_a_network_and_starts_nothing(machine: Machine) -> None:
    routes = machine.root("tail -n +2 /proc/net/route")

    assert machine.root("sidecar --version").strip() == __version__
    assert machine.says(f"systemctl is-enabled {UNIT}") == "disabled"
    assert machine.show("ActiveState") == "inactive"
    assert machine.root(f"systemd-analyze verify {UNIT}.service 2>&1") == ""
    assert routes == "", "there was no network"


def test_it_starts_and_shows_role_epoch_and_lease(serving: Machine) -> None:
    status = serving.show("StatusText")

    assert re.fullmatch(r"active, epoch \d+: Serving; lease \d+\.\d s left at \d\d:\d\d:\d\d", status), status
    assert (serving.node()["role"], serving.node()["enforcement"]) == ("active", "kernel")
    guard = serving.root("grep -lx sidecar-guard /proc/[0-9]*/comm").strip().replace("comm", "environ")
    assert "NOTIFY_SOCKET" not in serving.root(f"tr '\\0' '\\n' <{guard}"), "it could speak for the sidecar"


def test_a_killed_sidecar_is_started_again_and_its_server_runs_on(serving: Machine) -> None:
    before, keeper = serving.sidecar(), serving.keeper()
    serving.root(f"kill -KILL {before}")
    wait_until(lambda: serving.sidecar() not in (0, before), "systemd starts another", 20)
    serving.await_serving()

    assert serving.keeper() == keeper
    assert "adopted=True" in serving.journal()


def test_a_restart_keeps_the_server(serving: Machine, tmp_path: Path) -> None:
    before, keeper = serving.sidecar(), serving.keeper()
    serving.systemctl("restart", UNIT)
    serving.await_serving()

    assert serving.sidecar() != before
    assert serving.keeper() == keeper
    (only,) = witness.active_intervals(serving.records(tmp_path))
    assert not only.closed


def test_a_good_file_is_reloaded_and_a_bad_one_fails_the_reload(serving: Machine) -> None:
    file = "/etc/aggregate-sidecar/sidecar.yml"
    serving.root(f"echo 'node_options: {{priority: 50}}' >>{file}")
    serving.systemctl("reload", UNIT)
    wait_until(lambda: 'changed="node_options.priority: 100 -> 50' in serving.journal(), "it is reloaded")
    wait_until(lambda: serving.show("ActiveState") == "active", "and systemd knows that it is over")

    serving.root(f"cp {file} {file}.good && echo 'no_such_key: 1' >>{file}")
    with pytest.raises(CalledProcessError):
        serving.systemctl("reload", UNIT)
    serving.root(f"mv {file}.good {file}")
    assert serving.journal().count(" reloaded changed=") == 1


def test_a_stop_ends_the_server_in_order_and_leaves_nothing(serving: Machine, tmp_path: Path) -> None:
    serving.systemctl("stop", UNIT)

    assert serving.keeper() is None
    assert serving.says("grep -l sidecar /proc/[0-9]*/comm") == ""
    assert witness.active_intervals(serving.records(tmp_path))[-1].closed
    assert '"released":"stopped"' in serving.root("ETCDCTL_API=3 etcdctl get --prefix /aggregate-sidecar/")


@slow
def test_a_frozen_sidecar_is_replaced(serving: Machine, tmp_path: Path) -> None:
    """Whether its server is taken over, or ended in order, is a matter of how old the lease is."""
    before = serving.sidecar()
    serving.root(f"kill -STOP {before}")
    wait_until(lambda: serving.sidecar() not in (0, before), "systemd starts another", 20)
    serving.await_serving()

    log = serving.journal()
    assert "Failed with result 'watchdog'" in log
    assert "in turned" in log or "in _next" in log, "it told where its threads stood"
    assert witness.overlaps(serving.records(tmp_path)) == []


@slow
def test_at_boot_it_waits_for_the_local_store_and_at_shutdown_the_store_for_it(serving: Machine) -> None:
    serving.root(f"systemctl enable --quiet etcd {UNIT} 2>&1")
    epoch = serving.node()["epoch"]
    serving.reboot()
    serving.await_serving()

    started = int(serving.show("ExecMainStartTimestampMonotonic"))
    etcd = int(serving.systemctl("show", "-P", "ActiveEnterTimestampMonotonic", "etcd"))
    assert started >= etcd > 0
    assert serving.node()["epoch"] == epoch + 1
    newest = serving.root("sidecar history -n 1 -o json")
    assert '"cause": "stopped"' in newest, "at shutdown the lock was given back while the store still ran"


def another_version(
    archive: Path, folder: Path, *, broken: bool = False, hangs: bool = False, protocol: bool = False
) -> Path:
    """Make the archive of a later version out of this one.

    *broken*: one whose `run` does not come up; *hangs*: nor end. *protocol*: one whose guard speaks another.
    """
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    (top,) = folder.iterdir()
    (wheel,) = top.glob("wheels/aggregate_sidecar-*.whl")
    with (
        zipfile.ZipFile(wheel) as old,
        zipfile.ZipFile(wheel.with_name(wheel.name.replace(__version__, NEW)), "w") as new,
    ):
        for name in old.namelist():
            data = old.read(name).replace(__version__.encode(), NEW.encode())
            if name == "sidecar/runtime/main.py":
                data += b"\nraise SystemExit(1)\n" if broken else b""
                data += b"\nimport time\ntime.sleep(600)\n" if hangs else b""
            if protocol and name == "sidecar/guard/wire.py":
                data = data.replace(b"\nPROTOCOL = 1\n", b"\nPROTOCOL = 2\n")
            new.writestr(name.replace(__version__, NEW), data)
    wheel.unlink()
    release = top / "release"
    release.write_text(release.read_text().replace(__version__, NEW))
    sums = top / "SHA256SUMS"
    names = sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file() and p != sums)
    sums.write_text("".join(f"{sha256((top / n).read_bytes()).hexdigest()}  {n}\n" for n in names))
    packed = folder / f"aggregate-sidecar-{NEW}.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
        tar.add(top, f"aggregate-sidecar-{NEW}")
    shutil.rmtree(top)
    return packed


@slow
def test_a_damaged_archive_is_not_installed(serving: Machine, archive: Path) -> None:
    serving.unpack(archive)
    serving.root("echo >>docs/install.md")
    assert "files are damaged" in refused(serving, "./upgrade")

    serving.unpack(archive)
    serving.root("touch wheels/extra.whl")
    assert "does not list" in refused(serving, "./upgrade")


def refused(machine: Machine, command: str) -> str:
    with pytest.raises(CalledProcessError) as error:
        machine.root(command)
    return str(error.value.stderr)


@slow
def test_a_version_that_does_not_come_up_is_taken_back(
    serving: Machine, archive: Path, tmp_path: Path
) -> None:
    keeper = serving.keeper()
    serving.unpack(another_version(archive, tmp_path, broken=True))

    assert "rolled back" in refused(serving, "./upgrade")
    serving.await_serving()
    assert serving.root("sidecar --version").strip() == __version__
    assert serving.keeper() == keeper, "all of it within the lease"


@slow
def test_bug_an_upgrade_that_could_not_take_the_active_server_over_was_tried(
    serving: Machine, archive: Path, tmp_path: Path
) -> None:
    """It was taken back every time, unless the TTL was short, and no page said what to do."""
    keeper, sidecar = serving.keeper(), serving.sidecar()
    serving.unpack(another_version(archive, tmp_path, protocol=True))

    says = refused(serving, "./upgrade")

    assert "speaks protocol 1, and 9.9.9 speaks 2" in says
    assert "sidecar switchover first, then upgrade the standby; nothing was changed" in says
    assert (serving.keeper(), serving.sidecar()) == (keeper, sidecar)
    assert serving.root("sidecar --version").strip() == __version__


@slow
def test_bug_an_upgrade_over_a_file_that_no_version_takes_ended_the_server(
    serving: Machine, archive: Path, tmp_path: Path
) -> None:
    keeper, sidecar = serving.keeper(), serving.sidecar()
    serving.unpack(another_version(archive, tmp_path))
    file = "/etc/aggregate-sidecar/sidecar.yml"
    serving.root(f"cp {file} {file}.good && echo 'no_such_key: 1' >>{file}")

    says = refused(serving, "./upgrade")

    serving.root(f"mv {file}.good {file}")
    assert "no_such_key" in says
    assert "is not good for 9.9.9, and a sidecar runs here; nothing was changed" in says
    assert (serving.keeper(), serving.sidecar()) == (keeper, sidecar)


@slow
def test_bug_an_upgrade_that_lost_its_terminal_was_left_half_done(
    serving: Machine, archive: Path, tmp_path: Path
) -> None:
    """And the next one said that it was rolled back to the version that does not come up."""
    drop_in = f"/run/systemd/system/{UNIT}.service.d"
    serving.root(f"mkdir -p {drop_in} && printf '[Service]\nTimeoutStartSec=5s\n' >{drop_in}/start.conf")
    serving.systemctl("daemon-reload")
    serving.unpack(another_version(archive, tmp_path, hangs=True))

    def begin() -> str:
        run = "./upgrade >/root/said 2>&1 & echo $! >/root/pid; wait $!; echo $? >/root/status"
        serving.root(f"rm -f /root/status; (setsid sh -c '{run}' &) >/dev/null 2>&1")
        wait_until(lambda: serving.current().startswith(NEW), "it has switched", 60)
        return serving.root("cat /root/pid").strip()

    serving.root(f"kill -HUP {begin()}")
    wait_until(lambda: serving.says("cat /root/status") == "1", "it goes on to the end", 60)
    assert f"rolled back to {__version__}" in serving.root("cat /root/said")
    assert serving.current().startswith(f"{__version__}-")

    serving.root(f"kill -KILL {begin()}")
    said: list[str] = []

    def over() -> bool:  # its `systemctl restart` outlives it, and keeps everybody else out
        said.append(refused(serving, "./upgrade"))
        return "is at work" not in said[-1]

    wait_until(over, "the next one to be let in", 60)
    assert f"rolled back to {__version__}" in said[-1]
    assert serving.current().startswith(f"{__version__}-")
    serving.root(f"rm -r {drop_in}")
    serving.systemctl("daemon-reload")
    serving.await_serving()


@slow
def test_an_upgrade_keeps_server_and_configuration(serving: Machine, archive: Path, tmp_path: Path) -> None:
    keeper, config = serving.keeper(), serving.root("cat /etc/aggregate-sidecar/sidecar.yml")
    serving.unpack(another_version(archive, tmp_path))

    assert "the server ran on" in serving.root("./upgrade")
    serving.await_serving()
    assert (serving.node()["version"], serving.keeper()) == (NEW, keeper)
    assert serving.root("cat /etc/aggregate-sidecar/sidecar.yml") == config

    kept = serving.root("ls /opt/aggregate-sidecar/versions")
    serving.root("./upgrade")
    assert serving.root("ls /opt/aggregate-sidecar/versions") == kept, "run again it keeps the way back"
    assert len(kept.split()) == 2


@slow
def test_an_uninstall_is_refused_while_a_server_runs_and_leaves_what_is_the_operators(
    serving: Machine,
) -> None:
    uninstall = "/opt/aggregate-sidecar/uninstall"
    assert "the sidecar runs here" in refused(serving, uninstall)

    drop_in = f"/run/systemd/system/{UNIT}.service.d"
    serving.root(f"mkdir -p {drop_in} && printf '[Service]\nRestart=no\n' >{drop_in}/no.conf")
    serving.systemctl("daemon-reload")
    serving.root(f"kill -KILL {serving.sidecar()}")
    wait_until(lambda: serving.show("ActiveState") == "failed", "it is not started again")
    assert "runs on here under its guard" in refused(serving, uninstall)

    serving.root(f"{uninstall} --force")
    assert serving.says("grep -l sidecar /proc/[0-9]*/comm") == ""
    assert serving.says("ls /opt/aggregate-sidecar /usr/local/bin/sidecar 2>/dev/null") == ""
    assert "sidecar.yml" in serving.root("ls /etc/aggregate-sidecar")
    assert "epoch" in serving.root("ls /var/lib/aggregate-sidecar")
