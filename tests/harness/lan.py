"""A switch in a network namespace, nodes plugged into it in one each, and a client that asks at one address.

    client, 10.99.0.1 ── bridge ─┬─ eth0 of a, 10.99.0.11
                                 └─ eth0 of b, 10.99.0.12      10.99.0.50 is where the clients' server is

All of it ends with the test, in whatever state it is. Needs root.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sidecar.demo.cluster import DemoNode
from tests.harness.process import unavailable

ADDRESS, PORT = "10.99.0.50", 7000
SERVER = f"""
import os, socket
with socket.create_server(("0.0.0.0", {PORT})) as server:
    while True:
        with server.accept()[0] as client:
            client.sendall(os.environ["SIDECAR_NODE"].encode())
"""
CLIENT = f"""
import socket, sys
for _ in sys.stdin:
    try:
        with socket.create_connection(("{ADDRESS}", {PORT}), 0.3) as server:
            print(server.recv(100).decode(), flush=True)
    except OSError:
        print("-", flush=True)
"""


class Lan:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._switch = self._namespace()
        self._places: dict[str, int] = {}
        self.nodes: dict[str, DemoNode] = {}
        self._ip(
            self._switch,
            "link add lan type bridge",
            "addr add 10.99.0.1/24 dev lan",
            "link set lan up",
            "link set lo up",
        )
        client = subprocess.Popen(
            [*self._inside(self._switch), sys.executable, "-c", CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(client.wait)
        stack.callback(client.kill)
        assert client.stdin is not None
        assert client.stdout is not None
        self._ask, self._answer = client.stdin, client.stdout

    @classmethod
    @contextmanager
    def run(cls, folder: Path) -> Iterator[Self]:
        """Make one for the ``with`` block; without the rights to, the test is skipped, in CI failed."""
        if os.geteuid() != 0:
            unavailable("needs root for network namespaces")
        with ExitStack() as stack:
            lan = cls(folder, stack)
            stack.callback(lan.stop)
            yield lan

    def plug(self, name: str) -> None:
        """Plug a place for a node called *name* in."""
        number = len(self._places) + 1
        pid = self._places[name] = self._namespace()
        self._ip(
            self._switch,
            f"link add port{number} type veth peer name eth0 netns {pid}",
            f"link set port{number} master lan",
            f"link set port{number} up",
        )
        self.ip(name, f"addr add 10.99.0.1{number}/24 dev eth0", "link set eth0 up", "link set lo up")

    def add_node(self, name: str, settings: Mapping[str, Any]) -> DemoNode:
        """Plug in a node that is not started yet; its server says its name to whoever connects."""
        self.plug(name)
        home = self._folder / name
        home.mkdir()
        own: dict[str, Any] = {
            "cluster": "lan",
            "node": name,
            "backend": "local",
            "local": {"path": str(self._folder / "store.db")},
            "lock": {"ttl": "8s"},
            "paths": {"state": str(home / "state"), "run": str(home / "run")},
            "server": {
                "kind": "command",
                "command": [sys.executable, "-c", SERVER],
                "probes": {"ready": {"tcp": [PORT], "every": "50ms"}},
            },
        }
        node = self.nodes[name] = DemoNode(name, home, {**own, **settings}, prefix=self.inside(name))
        return node

    def switchover(self, to: str) -> "subprocess.Popen[bytes]":
        """Begin a switchover."""
        words = [sys.executable, "-P", "-m", "sidecar", "switchover", "--to", to, "--yes"]
        return subprocess.Popen([*words, "-c", str(self.nodes[to].config)], stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        """End the sidecars in order, what is left then by force; tell what they said. Safe to repeat."""
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.thaw()
                node.process.terminate()
        for node in self.nodes.values():
            if node.process is not None:
                with suppress(subprocess.TimeoutExpired):
                    node.process.wait(15)
                node.clean_up()
                print(f"--- {node.name}\n{node.log.read_text()[-4_000:]}")

    def answers(self) -> str:
        """Return who answers at the address, ``-`` for nobody."""
        self._ask.write("\n")
        self._ask.flush()
        return self._answer.readline().strip()

    def holders(self) -> str:
        """Return the names of those that have the address."""
        return "".join(name for name in self._places if f" {ADDRESS}/" in self.ip(name, "addr show dev eth0"))

    def neighbour(self) -> str:
        """Return the hardware address that the client has for the address."""
        words = self._ip(self._switch, f"neigh show {ADDRESS}").split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""

    def hardware(self, name: str) -> str:
        return str(json.loads(self.ip(name, "-json link show dev eth0"))[0]["address"])

    def inside(self, name: str) -> tuple[str, ...]:
        """What to put before a command so that it runs at the place of *name*."""
        return self._inside(self._places[name])

    def ip(self, name: str, *lines: str) -> str:
        """Run ``ip`` at the place of *name*, once for each line; return what the last one printed."""
        return self._ip(self._places[name], *lines)

    @staticmethod
    def _inside(pid: int) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{pid}/ns/net", "--")

    def _ip(self, pid: int, *lines: str) -> str:
        said = ""
        for line in lines:
            words = [*self._inside(pid), "ip", *line.split()]
            said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return said

    def _namespace(self) -> int:
        keep = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo; exec sleep infinity"]
        keeper = subprocess.Popen(keep, stdout=subprocess.PIPE)
        self._stack.callback(keeper.wait)
        self._stack.callback(keeper.kill)
        assert keeper.stdout is not None
        if not keeper.stdout.readline():
            unavailable("network namespaces are refused here")
        return keeper.pid
