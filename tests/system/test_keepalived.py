"""docs/hooks/keepalived.conf and vrrp-active on two nodes: the address is where the active server is.

Method: real keepalived and real sidecars in network namespaces. In the file of the documentation address,
port and folder are replaced; what the check said is noted down.
Not covered: nodes cut off from the store or from each other (tests/system/test_nodes.py), a real systemd.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.harness.lan import ADDRESS, PORT, Lan
from tests.harness.process import Process, wait_until
from tests.harness.tools import ROOT, libraries, need

HOOKS = ROOT / "docs" / "hooks"
CONF = (HOOKS / "keepalived.conf").read_text()
NOTING = f'/bin/sh {HOOKS}/vrrp-active "$@"; status=$?; echo $status >>"${{0%/*}}/checks"; exit $status\n'
SETTINGS = {
    "hooks": {"on_standby": [str(HOOKS / "virtual-ip"), "down", f"{ADDRESS}/24", "eth0"]},
    "api": {"listen": "127.0.0.1:8009"},
}
SETTLED_S = 40.0  # a lease, a start, and a machine that is busy


class Keepalived:
    """keepalived at the place of *name*, with the file of the documentation."""

    def __init__(self, lan: Lan, name: str, folder: Path, stack: ExitStack) -> None:
        self._name, self._folder, self._stack = name, folder, stack
        self._command = [*lan.inside(name), str(need("keepalived")), "--log-console"]
        self._command += [f"--use-file={folder}/keepalived.conf"]
        self._starts = count(1)
        folder.mkdir()
        text = CONF
        own = {"/usr/local/lib/hooks/": f"{folder}/", "10.0.0.50": ADDRESS, " 6460": f" {PORT}"}
        for old, new in own.items():
            assert old in text, old
            text = text.replace(old, new)
        (folder / "keepalived.conf").write_text(text)

    def install_check(self) -> None:
        (self._folder / "vrrp-active").write_text(NOTING)

    def test_file(self) -> str:
        """Return what it has to say of its file."""
        words = [*self._command, "--config-test"]
        environment = {**os.environ, **libraries()}
        return subprocess.run(words, check=True, env=environment, capture_output=True, text=True).stderr

    def checks(self) -> list[str]:
        """Return the exit statuses of all checks until now."""
        file = self._folder / "checks"
        return file.read_text().split() if file.exists() else []

    def start(self) -> Process:
        words = [*self._command, "--dont-fork", "--log-detail"]
        number = next(self._starts)  # a killed one may be there for a while, as a zombie: a file of its own
        words += [f"--{kind}={self._folder}/{kind}-{number}" for kind in ("pid", "vrrp_pid")]
        process = Process("keepalived", words, self._folder / "keepalived.log", libraries())
        self._stack.callback(lambda: print(f"--- keepalived of {self._name}\n{process.log_tail()}"))
        self._stack.callback(process.stop)
        process.start()
        return process


class Plant:
    """Two nodes that share a network, one of them active."""

    def __init__(self, lan: Lan, folder: Path, stack: ExitStack) -> None:
        self.lan = lan
        self.keepalived: dict[str, Keepalived] = {}
        self.running: dict[str, Process] = {}
        for name in "ab":
            lan.add_node(name, SETTINGS)
            one = self.keepalived[name] = Keepalived(lan, name, folder / f"keepalived-{name}", stack)
            one.install_check()
            self.running[name] = one.start()
        for name in "ab":
            lan.nodes[name].start()
            self.await_ready(name)
        self.await_settled("a")

    def roles(self) -> tuple[str, str]:
        """Return who has the address, and who has not."""
        first = self.lan.holders()
        (other,) = set(self.lan.nodes) - {first}
        return first, other

    def await_ready(self, name: str) -> None:
        words = [*self.lan.inside(name), "curl", "-sfo", "/dev/null", "http://127.0.0.1:8009/ready"]
        wait_until(lambda: subprocess.run(words, check=False).returncode == 0, f"{name} ready", SETTLED_S)

    def await_settled(self, name: str) -> None:
        def settled() -> bool:
            return self.lan.holders() == name and self.lan.answers() == name

        wait_until(settled, f"{name} alone has the address, and answers", SETTLED_S)

    def switch(self, to: str) -> bool:
        """Hand over; return whether the address was at both at any time."""
        self.await_ready(to)
        both = False

        def over() -> bool:
            nonlocal both
            both = both or self.lan.holders() == "ab"
            return self.lan.answers() == to

        switching = self.lan.switchover(to)
        wait_until(over, f"{to} answers", SETTLED_S)
        assert switching.wait(SETTLED_S) == 0
        self.await_settled(to)
        return both


@contextmanager
def made() -> Iterator[ExitStack]:
    for name in ("keepalived", "curl", "ss"):
        need(name)
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
    with made() as stack:
        yield Plant(stack.enter_context(Lan.run(folder)), folder, stack)


def test_the_address_is_where_the_active_server_is(plant: Plant) -> None:
    first, other = plant.roles()
    assert not plant.switch(other), "both had the address"

    node, checks = plant.lan.nodes[other], plant.keepalived[other].checks
    node.freeze_sidecar()
    try:
        seen = len(checks())
        while len(checks()) < seen + 3:
            assert plant.lan.answers() == other, "a sidecar that hangs takes nothing from its clients"
        plant.await_settled(first)  # after the guard has ended the server
        assert not node.server()
    finally:
        node.thaw()


def test_a_keepalived_that_was_killed_leaves_no_address_behind(plant: Plant) -> None:
    first, other = plant.roles()
    plant.running[first].kill()
    assert plant.lan.holders() == first, "nobody is left to take it away"
    plant.switch(other)  # by the hook on_standby

    plant.running[first] = plant.keepalived[first].start()
    plant.switch(first)


def test_a_node_without_its_check_takes_no_address(tmp_path: Path) -> None:
    with made() as stack:
        lan = stack.enter_context(Lan.run(tmp_path))
        lan.plug("a")
        keepalived = Keepalived(lan, "a", tmp_path / "keepalived", stack)  # no vrrp-active in its folder
        process = keepalived.start()

        def decided() -> bool:
            return "VRRP_Script(active) failed" in process.log_tail() or lan.holders() != ""

        wait_until(decided, "keepalived has decided")
        assert lan.holders() == ""
        assert keepalived.test_file() == ""


def test_the_page_shows_the_file() -> None:
    _, shown = CONF.split("\n", 1)

    assert f"```\n{shown}```\n" in (ROOT / "docs" / "load-balancer.md").read_text()
