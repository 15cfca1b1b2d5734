"""The clusters of compose/ as real containers, with faults as verbs.

    with Compose.run(["etcd"], ["etcd1", "etcd2", "etcd3"]) as containers:
        containers.disconnect("etcd1"); containers.connect("etcd1")

Each instance is a Compose project with networks and volumes of its own; ``close`` removes all of it.
A container's own processes are judged from inside, by ``exec``. Nothing is published on the host.

Not covered: machines with other kernels or clocks; all containers share this one's.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.harness.process import unavailable, wait_until

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "compose" / "docker-compose.yml"
BUILD_WITHIN_S = 400
COMMAND_WITHIN_S = 60
UP_WITHIN_S = 240  # a dozen containers, some of which wait for another


def engine_available() -> bool:
    """Tell whether a Docker engine answers and some docker-compose is there."""
    if not shutil.which("docker"):
        return False
    answers = subprocess.run(["docker", "info"], capture_output=True, timeout=60).returncode == 0
    return answers and compose_command() is not None


def need_engine() -> None:
    """Skip the test without a Docker engine; fail it in CI."""
    if not engine_available():
        unavailable("no Docker engine with docker-compose; tests over a native etcd cluster still run")


def compose_command() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    plugin = ["docker", "compose"]
    found = subprocess.run([*plugin, "version"], capture_output=True, timeout=10).returncode == 0
    return plugin if found else None


class Compose:
    """One Compose project."""

    def __init__(
        self, images: dict[str, str], files: Sequence[Path] = (COMPOSE_FILE,), name: str = "sidecar-test"
    ) -> None:
        self.project = f"{name}-{os.getpid()}-{os.urandom(2).hex()}"
        self.env = {**os.environ, **images}
        self._files = [word for file in files for word in ("-f", str(file))]
        self._compose = compose_command() or ["docker-compose"]

    @classmethod
    @contextmanager
    def run(
        cls,
        images: Sequence[str],
        services: Sequence[str],
        files: Sequence[Path] = (COMPOSE_FILE,),
        name: str = "sidecar-test",
    ) -> Iterator[Self]:
        """Build *images* (of compose/build) if need be, run *services* ([]: all) for the ``with`` block."""
        compose = cls(build(images), files, name)
        try:
            compose.up(*services)
            yield compose
        finally:
            compose.close()

    def up(self, *services: str) -> None:
        self._run("up", "-d", "--no-build", *services, within_s=UP_WITHIN_S)

    def close(self) -> None:
        """Remove containers, networks and volumes, whatever state faults left them in."""
        for container in self._ids():
            with suppress(subprocess.CalledProcessError):
                docker("unpause", container)
        for container in self._ids():
            docker("rm", "-f", "-v", container)
        self._run("down", "-v", "--remove-orphans", "-t", "1")

    def limit(self, cpu_shares: int) -> None:
        """Give each container this weight for the CPU; 1024 is the usual one."""
        docker("update", "--cpu-shares", str(cpu_shares), *self._ids("status=running"))

    def exec(self, service: str, *command: str, within_s: float = COMMAND_WITHIN_S) -> str:
        """Return what *command* prints inside *service*.

        Raises:
            CalledProcessError: it ended with another status than 0; ``stderr`` is in it.
        """
        return docker("exec", self.id(service), *command, within_s=within_s)

    def etcdctl(self, service: str, *words: str) -> Any:
        """Return the JSON answer of one etcdctl command, asked inside *service*."""
        command = ["env", "ETCDCTL_API=3", "etcdctl", "--command-timeout=10s", "-w", "json", *words]
        return json.loads(self.exec(service, *command))

    def logs(self, service: str, lines: int = 60) -> str:
        return docker("logs", "--tail", str(lines), self.id(service), both=True)

    def state(self, service: str) -> str:
        """Return ``running``, ``paused``, ``exited``, …"""
        return docker("inspect", "-f", "{{.State.Status}}", self.id(service)).strip()

    def pause(self, service: str) -> None:
        """Freeze every process of the container, as a host that is starved or suspended."""
        docker("pause", self.id(service))

    def unpause(self, service: str) -> None:
        docker("unpause", self.id(service))

    def kill(self, service: str, signal: str = "KILL") -> None:
        """End it at once, as a power cut would; or send it another signal."""
        docker("kill", "-s", signal, self.id(service))

    def start(self, service: str) -> None:
        docker("start", self.id(service))

    def stop(self, service: str, grace_s: int = 10) -> None:
        docker("stop", "-t", str(grace_s), self.id(service))

    def restart(self, service: str, grace_s: int = 5) -> None:
        docker("restart", "-t", str(grace_s), self.id(service))

    def disconnect(self, service: str, network: str = "store") -> None:
        """Take it off one network: a partition that both sides notice only by silence."""
        docker("network", "disconnect", f"{self.project}_{network}", self.id(service))

    def connect(self, service: str, network: str = "store") -> None:
        """Undo ``disconnect``. Without the alias the others would never find it again."""
        docker("network", "connect", "--alias", service, f"{self.project}_{network}", self.id(service))

    def etcd_leader(self, services: Sequence[str] = ("etcd1", "etcd2", "etcd3")) -> str:
        """Return the one of *services* that leads, once a majority of them agrees on it.

        Leave out the ones that are cut off: they believe in the old leader for a while.
        """
        found: list[str] = []

        def agreed() -> bool:
            leader = self._etcd_leader(services)
            found[:] = [leader] if leader else []
            return bool(found)

        wait_until(agreed, f"a majority of {services} follows one leader", 30)
        return found[0]

    def id(self, service: str) -> str:
        """Return the id of the container of *service*."""
        ids = self._ids(f"label=com.docker.compose.service={service}")
        assert len(ids) == 1, f"{service}: {len(ids)} containers"
        return ids[0]

    def _ids(self, *filters: str) -> list[str]:
        words = [f"label=com.docker.compose.project={self.project}", *filters]
        options = [word for one in words for word in ("--filter", one)]
        return docker("ps", "-aq", *options).split()

    def _etcd_leader(self, services: Sequence[str]) -> str | None:
        service_of: dict[int, str] = {}
        votes: list[int] = []
        for service in services:
            if self.state(service) != "running":
                continue
            with suppress(subprocess.CalledProcessError):
                status = self.etcdctl(service, "endpoint", "status")[0]["Status"]
                service_of[status["header"]["member_id"]] = service
                votes.append(status.get("leader", 0))
        best = max(votes, key=votes.count, default=0)
        return service_of.get(best) if votes.count(best) > len(services) // 2 else None

    def _run(self, *words: str, within_s: float = COMMAND_WITHIN_S) -> str:
        command = [*self._compose, "-p", self.project, *self._files, *words]
        return _output(command, within_s, env=self.env)


def build(images: Sequence[str]) -> dict[str, str]:
    """Build what is not there yet; return the environment the Compose file reads."""
    lines = _output([str(ROOT / "compose" / "build"), *images], BUILD_WITHIN_S).split()
    return dict(line.split("=", 1) for line in lines)


def docker(*words: str, within_s: float = COMMAND_WITHIN_S, both: bool = False) -> str:
    """Return what one docker command prints, with stderr if *both*."""
    return _output(["docker", *words], within_s, both)


def _output(
    command: Sequence[str],
    within_s: float,
    both: bool = False,
    env: dict[str, str] | None = None,
) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if both else subprocess.PIPE,
        text=True,
        timeout=within_s,
        env=env,
    )
    if done.returncode != 0:
        error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        error.add_note(f"stderr: {done.stderr}")
        raise error
    return done.stdout
