"""Two machines with AggreGate's stand-in as a native failover cluster, and one for etcd: what a reader of
docs/first-cluster.md has before the first command.

    with Plant.run(archive) as plant:
        plant.etcd.root("…"); plant.nodes["node-a"].root("…")

As after an installation on a real machine: the archive in root's home, a server in /opt/aggregate that the
unit ``ag_server`` runs as its own user, master on node-a and failover node on node-b. The machines have a
network of their own that leads nowhere else, and share the witness, which stands for the database.

Not covered: etcd comes with the image, not over the network, so ``apt-get install`` finds it installed.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from sidecar.standin import witness
from tests.harness.machine import WITNESS, Machine, network, volume
from tests.harness.process import wait_until
from tests.harness.tools import ROOT

UNIT = """\
[Unit]
Description=AggreGate Server
After=network.target
[Service]
User=aggregate
ExecStart=/opt/aggregate/ag_server_console
SuccessExitStatus=143
[Install]
WantedBy=multi-user.target
"""
SERVER = "/opt/standin"
ROLES = {"node-a": 1, "node-b": 2}  # of the native cluster: master, failover node


class Plant:
    """The machines. A master serves, and its failover node monitors it."""

    def __init__(self, etcd: Machine, nodes: dict[str, Machine]) -> None:
        self.etcd, self.nodes = etcd, nodes

    @classmethod
    @contextmanager
    def run(cls, archive: Path) -> Iterator[Self]:
        """Boot them for the ``with`` block."""
        with ExitStack() as stack:
            net, shared = stack.enter_context(network()), stack.enter_context(volume())
            etcd = stack.enter_context(Machine.run("etcd", network=net))
            etcd.systemctl("start", "etcd")  # as Debian's package would; the image's may not start anything
            nodes = {
                name: stack.enter_context(
                    Machine.run(name, "-v", f"{shared}:{Path(WITNESS).parent}", network=net)
                )
                for name in ROLES
            }
            plant = cls(etcd, nodes)
            for name, machine in nodes.items():
                machine.bring(archive)
                plant._install_server(machine, name)
                wait_until(plant._before(machine, name), f"the server of {name} is up before", 60)
            yield plant

    @staticmethod
    def _install_server(machine: Machine, name: str) -> None:
        machine.root(f"mkdir -p {SERVER}/sidecar")
        machine.bring(ROOT / "sidecar" / "standin", f"{SERVER}/sidecar/")
        options = f"--home /opt/aggregate --witness {WITNESS} --node {name} --role {ROLES[name]}"
        machine.root(
            "useradd --system --home-dir /opt/aggregate aggregate && mkdir -p /opt/aggregate"
            f" && cd {SERVER} && python3 -m sidecar.standin {options} --start-ms 300 --activate-ms 300"
            f" && chown -R aggregate: /opt/aggregate {Path(WITNESS).parent} {SERVER}"
            f" && cat >/etc/systemd/system/ag_server.service <<'END'\n{UNIT}END\n"
            "systemctl daemon-reload && systemctl enable --quiet --now ag_server"
        )

    @staticmethod
    def _before(machine: Machine, name: str) -> Callable[[], bool]:
        says = "Server started" if ROLES[name] == 1 else "Monitoring Master Server Status"
        return lambda: says in machine.says("cat /opt/aggregate/logs/server.log")

    def records(self, folder: Path) -> list[witness.Record]:
        """Return what the servers of all nodes wrote into the witness."""
        return next(iter(self.nodes.values())).records(folder)
