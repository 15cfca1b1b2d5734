"""A machine with systemd, as a container, with the sidecar installed from the bundle.

    with Machine.run() as machine:
        machine.unpack(bundle(folder)); machine.root("./install"); machine.furnish()
        machine.systemctl("start", "aggregate-sidecar")

It has no network, unless a private one is given that leads nowhere else: ``with network() as name``.
Each is a container of its own, removed at the end. Not covered: it has no kernel of its own, so no real
reboot, and no cgroup v2 where the host has none; systemd may not lower OOM scores in here.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sidecar.standin import witness
from tests.harness.containers import BUILD_WITHIN_S, build, docker
from tests.harness.process import wait_until
from tests.harness.tools import ROOT

UNIT = "aggregate-sidecar"
PYTHON = "/opt/aggregate-sidecar/current/bin/python"
WITNESS = "/var/lib/witness/witness"
CONFIG = """\
cluster: plant-7
backend: etcd
etcd: {endpoints: ["http://127.0.0.1:2379"]}
lock: {ttl: 10s}
server: {kind: aggregate, home: /opt/aggregate, user: aggregate, start_timeout: 30s, stop_timeout: 10s}
guard: {enforcement: kernel}
"""
RIGHTS = [  # what systemd as pid 1 needs in a container
    *("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
]


def bundle(folder: Path) -> Path:
    """Make the archive in *folder*."""
    command = [str(ROOT / "scripts" / "bundle"), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=BUILD_WITHIN_S, check=True)
    return Path(done.stdout.strip())


@contextmanager
def network() -> Iterator[str]:
    """Make a network of our own for the ``with`` block: its machines see each other, and nothing else."""
    name = f"sidecar-install-{os.getpid()}-{os.urandom(2).hex()}"
    docker("network", "create", "--internal", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextmanager
def volume() -> Iterator[str]:
    """Make a folder that several machines can have at once, for what they share: the witness."""
    name = f"sidecar-install-{os.getpid()}-{os.urandom(2).hex()}"
    docker("volume", "create", name)
    try:
        yield name
    finally:
        docker("volume", "rm", "-f", name)


class Machine:
    """One booted container."""

    def __init__(self, container: str) -> None:
        self.container = container
        self.folder = "/root"

    @classmethod
    @contextmanager
    def run(cls, host: str = "node-a", *options: str, network: str = "none") -> Iterator[Self]:
        """Boot one called *host* for the ``with`` block; *options* are more of ``docker run``."""
        name = f"sidecar-install-{os.getpid()}-{os.urandom(2).hex()}"
        image = build(["systemd"])["SYSTEMD_IMAGE"]
        words = ["--name", name, "--hostname", host, "--network", network, *options]
        docker("run", "-d", *words, *RIGHTS, image)
        machine = cls(name)
        try:
            machine.await_boot()
            yield machine
        finally:
            docker("rm", "-f", "-v", name)

    def await_boot(self) -> None:
        wait_until(lambda: self.says("systemctl is-system-running") == "running", "systemd has booted", 60)

    def reboot(self) -> None:
        """Shut down in order and boot again."""
        docker("stop", "-t", "60", self.container)
        docker("start", self.container)
        self.await_boot()

    def root(self, command: str) -> str:
        """Return what a shell command of root prints.

        Raises:
            CalledProcessError: it ended with another status than 0; ``stderr`` is in it.
        """
        return docker("exec", "-w", self.folder, self.container, "bash", "-c", command)

    def address(self) -> str:
        """Return where the machine is on its network."""
        path = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return docker("inspect", "-f", path, self.container).strip()

    def bring(self, path: Path, folder: str = "/root/") -> None:
        """Copy a file or folder of the host's there."""
        docker("cp", str(path), f"{self.container}:{folder}")

    def says(self, command: str) -> str:
        """Return what it prints, however it ends."""
        with suppress(subprocess.CalledProcessError):
            return self.root(f"{command}; true").strip()
        return ""

    def unpack(self, archive: Path) -> None:
        """Bring the archive there and go into its folder."""
        self.folder = "/root"
        self.bring(archive)
        self.root(f"rm -rf aggregate-sidecar-*/ && tar xzf {archive.name}")
        self.folder = self.root("echo /root/aggregate-sidecar-*/").strip()

    def furnish(self) -> None:
        """Put a stand-in server, a configuration and a running etcd there."""
        self.root(
            "useradd --system --home-dir /opt/aggregate aggregate && mkdir -p /opt/aggregate /var/lib/witness"
            f" && {PYTHON} -m sidecar.standin --home /opt/aggregate --witness {WITNESS} --activate-ms 300"
            " && chown -R aggregate: /opt/aggregate /var/lib/witness"
            f" && cat >/etc/aggregate-sidecar/sidecar.yml <<'END'\n{CONFIG}END\n"
            "systemctl start etcd"
        )

    def systemctl(self, *words: str) -> str:
        return self.root("systemctl " + " ".join(words))

    def show(self, name: str) -> str:
        """Return a property of the sidecar's unit."""
        return self.systemctl("show", "-P", name, UNIT).strip()

    def sidecar(self) -> int:
        """Return the pid of the sidecar."""
        return int(self.show("MainPID"))

    def current(self) -> str:
        """Return the build that is installed."""
        return self.root("readlink /opt/aggregate-sidecar/current").strip().removeprefix("versions/")

    def keeper(self) -> tuple[int, int] | None:
        """Return what tells one start of the server from every other; None where none runs."""
        text = self.says("cat /run/aggregate-sidecar/keeper.json")
        found = json.loads(text) if text else {}
        return (found["keeper_pid"], found["keeper_start"]) if found else None

    def node(self) -> dict[str, Any]:
        """Return what ``status`` shows of this node; {} while it does not."""
        text = self.says("sidecar status -o json")
        nodes: list[dict[str, Any]] = json.loads(text)["nodes"] if text else []
        return nodes[0] if nodes else {}

    def await_serving(self) -> None:
        wait_until(lambda: "Serving" in self.show("StatusText"), "systemd shows a serving active", 40)

    def await_role(self, role: str) -> None:
        """Wait until this node shows that it serves as active, or stands by able to take over."""
        state = "running" if role == "active" else "monitoring"

        def there() -> bool:
            name = self.root("hostname").strip()
            nodes = json.loads(self.says("sidecar status -o json") or '{"nodes": []}')["nodes"]
            return any((one["node"], one["role"], one["state"]) == (name, role, state) for one in nodes)

        wait_until(there, f"this node is {role} and {state}", 60)

    def records(self, folder: Path) -> list[witness.Record]:
        """Return what the servers wrote into the witness."""
        copy = folder / "witness"
        copy.write_text(self.root(f"cat {WITNESS}"))
        return witness.read(copy)

    def journal(self) -> str:
        """Return the unit's log of this boot."""
        return self.root(f"journalctl -b -u {UNIT} -o cat --no-pager")
