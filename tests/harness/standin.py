"""Stand-in servers for tests: own ports, one witness, and nothing left running at the end."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from sidecar import standin
from sidecar.servers.document import Document
from sidecar.standin import witness
from tests.harness.process import Process, free_port, wait_until

MAX_LIFE_MS = 120_000


def edit(xml: Path, **values: str) -> None:
    """Give keys of a ``server.xml`` other values, as somebody does who opens it."""
    xml.write_bytes(Document(xml.read_bytes()).with_values(values))


class Standin:
    """One home folder, and the server that runs in it or does not."""

    def __init__(
        self,
        folder: Path,
        shared: Path,
        node: str,
        *,
        role: int = 1,
        detection_ms: int = 10_000,
        start_ms: int = 0,
        activate_ms: int = 0,
        max_life_ms: int = MAX_LIFE_MS,
    ) -> None:
        self.home, self.node, self.witness = folder / node, node, shared
        self.client_port, self.web_port, self.admin_port = free_port(), free_port(), free_port()
        self.xml = self.home / "server.xml"
        self.launcher = standin.install(
            self.home,
            witness=shared,
            client_port=self.client_port,
            web_port=self.web_port,
            admin_port=self.admin_port,
            role=role,
            detection_ms=detection_ms,
            start_ms=start_ms,
            activate_ms=activate_ms,
            max_life_ms=max_life_ms,
        )
        self.process = Process(node, [self.launcher], folder / f"{node}.log")

    def start(self, epoch: int = 0, **faults: object) -> None:
        standin.set_faults(self.home, **faults)
        self.process.env |= {"SIDECAR_NODE": self.node, "SIDECAR_EPOCH": str(epoch)}
        self.process.start()

    def start_serving(self, epoch: int = 0, **faults: object) -> None:
        self.start(epoch, **faults)
        self.process.wait_ready(self.serving)

    def start_monitoring(self) -> None:
        self.start()
        self.process.wait_ready(lambda: self.said("Monitoring Master Server Status"))

    def said(self, text: str) -> bool:
        return text in self.process.log_tail()

    def serving(self) -> bool:
        return accepts(self.client_port)

    def greeting(self) -> dict[str, object]:
        with socket.create_connection(("127.0.0.1", self.client_port), 2) as connection:
            answer: dict[str, object] = json.loads(connection.makefile().readline())
            return answer

    def admin(self, order: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.admin_port), 2) as connection:
            connection.sendall(order)
            return connection.recv(10)

    def server(self) -> psutil.Process:
        """Return the server proper, below the launcher's shell."""
        (server,) = psutil.Process(self.process.pid).children()
        return server

    def wait_exit(self) -> int:
        wait_until(lambda: not self.process.running(), f"{self.node} ends")
        assert self.process._popen is not None
        return int(self.process._popen.returncode)


@contextmanager
def standins(folder: Path) -> Iterator["Makes"]:
    """Make stand-ins with one witness; at the end kill every process that wrote to it."""
    makes = Makes(folder)
    try:
        yield makes
    finally:
        for server in makes.made:
            server.process.thaw()
            server.process.kill()
        for record in {record.pid: record for record in witness.read(makes.witness)}.values():
            kill_writer(record.pid)


class Makes:
    def __init__(self, folder: Path) -> None:
        self.folder, self.witness = folder, folder / "witness"
        self.made: list[Standin] = []

    def __call__(self, node: str, **options: int) -> Standin:
        self.made.append(Standin(self.folder, self.witness, node, **options))
        return self.made[-1]


def kill_writer(pid: int) -> None:
    """Kill *pid* if it is a stand-in's process."""
    with suppress(psutil.Error, ProcessLookupError):
        if any(word.endswith("standin/boot.py") for word in psutil.Process(pid).cmdline()):
            os.kill(pid, signal.SIGKILL)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
