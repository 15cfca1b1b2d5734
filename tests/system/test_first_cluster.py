"""Goal: whoever types the commands of docs/first-cluster.md has a cluster that hands over, and at no time two
active servers; whoever removes it has left what docs/install.md says.

Method: the commands are read from the page and run as they stand, on three machines with systemd that see
nothing but each other. Only the address of etcd is put in, for 10.0.0.9. Before, the servers run as a native
cluster under `ag_server`; all of them write into one witness. The tests go on one after the other.

Not covered: apt-get's download (etcd is in the image, so it says that it is installed), AggreGate itself.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest

from sidecar.standin import witness
from tests.harness.containers import need_engine
from tests.harness.machine import UNIT, Machine, bundle
from tests.harness.plant import Plant
from tests.harness.process import wait_until
from tests.harness.tools import ROOT

PAGE = (ROOT / "docs" / "first-cluster.md").read_text()
ETCD, EACH, START, ANYWHERE = (
    [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
)
"""The page's blocks of commands: on etcd's machine, on each node, on each once all are ready, anywhere."""
UNINSTALL = "/opt/aggregate-sidecar/uninstall"
HOME, STANDIN = "/opt/aggregate", "/opt/standin"
OTHERS = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/root", "/var/log", "/var/lib/systemd"]
"""Whose files come and go by themselves, and where the archive was unpacked."""
KEYS = {"lock", "epoch", "history", "request", "settings"}
OF_THE_SERVER = {f"{HOME}/server.xml.sidecar-backup", f"{HOME}/server.xml.sidecar-original"}

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("TRY_INSTALL"), reason="./scripts/try-install runs it"),
]


class Reader:
    """Types what the page says."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self._address = plant.etcd.address()

    def types(self, machine: Machine, command: str) -> str:
        return machine.root(command.replace("10.0.0.9", self._address))

    def answers(self, machine: Machine, command: str, answer: str) -> str:
        """Type a command on a terminal, and *answer* when it asks."""
        return machine.root(f"echo {answer} | script -qec '{command}' /dev/null")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    need_engine()
    with Plant.run(bundle(tmp_path_factory.mktemp("bundle"))) as plant:
        try:
            yield Reader(plant)
        finally:
            for name, node in plant.nodes.items():  # pytest shows it where a test failed
                print(f"--- {name}\n{node.says(f'journalctl -b -u {UNIT} -o cat --no-pager | tail -n 40')}")


@pytest.fixture(scope="module")
def files_before(reader: Reader) -> dict[str, set[str]]:
    return {name: files(node) for name, node in reader.plant.nodes.items()}


def files(machine: Machine) -> set[str]:
    """Return every path of the machine but those that come and go by themselves."""
    left_out = " -o ".join(f"-path {path}" for path in (*OTHERS, STANDIN, f"{HOME}/logs"))
    return set(machine.root(f"find / -xdev \\( {left_out} \\) -prune -o -print").splitlines())


def left(machine: Machine, before: set[str]) -> set[str]:
    """Return what is there now and was not before; nothing else may be gone than the server's own start."""
    now = files(machine)
    gone = {path for path in before - now if not machine.says(f"ls -d {quote(path)}")}  # find can miss one
    assert gone == {"/etc/systemd/system/multi-user.target.wants/ag_server.service"}, gone
    return now - before


def test_ten_commands_make_a_cluster(
    reader: Reader, files_before: dict[str, set[str]], tmp_path: Path
) -> None:
    a, b = reader.plant.nodes["node-a"], reader.plant.nodes["node-b"]
    assert "/opt/aggregate/server.xml" in files_before["node-a"]
    assert len(ETCD) + 2 * len(EACH) + 2 * len(START) <= 10, "what the page promises"

    for command in ETCD:
        reader.types(reader.plant.etcd, command)
    for machine in (b, a):  # the one that serves now last
        for command in EACH:
            reader.types(machine, command)
    for machine in (a, b):  # where the server shall be active first
        for command in START:
            reader.types(machine, command)
        machine.await_role("active" if machine is a else "standby")

    promised = next(line for line in PAGE.splitlines() if line.startswith("cluster plant-7 on etcd: "))
    for machine in (a, b):
        said = reader.types(machine, ANYWHERE[0])
        assert said.splitlines()[0] == promised
        assert re.search(r"node-a\*? +active +running .* Serving$", said, re.MULTILINE), said
        assert re.search(r"node-b\*? +standby +monitoring ", said), said
    assert witness.overlaps(reader.plant.records(tmp_path)) == []


def test_the_server_runs_as_its_own_user(reader: Reader) -> None:
    for node in reader.plant.nodes.values():
        foreign = node.root("find /opt/aggregate ! -user aggregate")
        assert foreign == "", "it could not write them without the sidecar"


def test_the_switchover_of_the_page_asks_and_hands_over(reader: Reader, tmp_path: Path) -> None:
    b = reader.plant.nodes["node-b"]
    command = ANYWHERE[1]
    asks = next(line for line in PAGE.splitlines() if "Go on?" in line).removesuffix(" y")

    said = reader.answers(b, command, "y")

    assert asks in said
    assert reader.types(b, ANYWHERE[0]).startswith("cluster plant-7 on etcd: node-b is active, epoch 2\n")
    records = reader.plant.records(tmp_path)
    assert witness.overlaps(records) == []
    served = [(one.node, one.epoch, one.closed) for one in witness.active_intervals(records)]
    assert served == [("node-a", 0, True), ("node-a", 1, True), ("node-b", 2, False)]


def test_an_uninstall_leaves_configuration_and_state(
    reader: Reader, files_before: dict[str, set[str]]
) -> None:
    a = reader.plant.nodes["node-a"]
    a.systemctl("stop", UNIT)
    assert "/etc/aggregate-sidecar and /var/lib/aggregate-sidecar stay" in a.root(UNINSTALL)

    assert left(a, files_before["node-a"]) == {
        "/etc/aggregate-sidecar",
        "/etc/aggregate-sidecar/sidecar.yml",
        "/etc/aggregate-sidecar/sidecar.yml.example",
        "/var/lib/aggregate-sidecar",
        "/var/lib/aggregate-sidecar/plant-7.epoch.json",
        *OF_THE_SERVER,
    }
    assert a.says("ls -d /run/aggregate-sidecar") == ""
    status = reader.types(reader.plant.nodes["node-b"], "sidecar status")
    assert "node-a" not in status, "it has left the cluster"


def test_installed_again_it_goes_on_with_them(reader: Reader, tmp_path: Path) -> None:
    a = reader.plant.nodes["node-a"]
    a.root("./aggregate-sidecar-*/install")
    a.systemctl("enable", "--quiet", "--now", UNIT)
    a.await_role("standby")

    reader.types(a, "sidecar switchover --to node-a --yes")
    assert reader.types(a, "sidecar status").startswith(
        "cluster plant-7 on etcd: node-a is active, epoch 3\n"
    )
    assert witness.overlaps(reader.plant.records(tmp_path)) == []


def test_a_purge_leaves_the_server_alone(reader: Reader, files_before: dict[str, set[str]]) -> None:
    own = "/etc/systemd/system/aggregate-sidecar.service.d"
    for name, node in reader.plant.nodes.items():
        node.root(f"mkdir {own} && echo '[Service]' >{own}/override.conf")  # as `systemctl edit`
        node.systemctl("stop", UNIT)
        assert "removed, with configuration and state" in node.root(f"{UNINSTALL} --purge")

        assert left(node, files_before[name]) == OF_THE_SERVER | {own, f"{own}/override.conf"}
        assert node.says("grep -l sidecar /proc/[0-9]*/comm") == ""
        assert node.says("ls -d /run/aggregate-sidecar") == ""
        assert node.says(f"systemctl show -P LoadState {UNIT}") == "not-found"
    keys = reader.plant.etcd.root("ETCDCTL_API=3 etcdctl get --prefix --keys-only /").split()
    assert {key.removeprefix("/aggregate-sidecar/plant-7/").split("/")[0] for key in keys} <= KEYS


def test_the_server_starts_without_it(reader: Reader, tmp_path: Path) -> None:
    """docs/migration.md, "Back": the original `server.xml`, and the old unit."""
    a = reader.plant.nodes["node-a"]
    a.root("cp -p /opt/aggregate/server.xml.sidecar-original /opt/aggregate/server.xml")
    a.systemctl("enable", "--quiet", "--now", "ag_server")
    before = len(witness.active_intervals(reader.plant.records(tmp_path)))

    def serves() -> bool:
        return len(witness.active_intervals(reader.plant.records(tmp_path))) > before

    wait_until(serves, "the server serves under its own unit")
