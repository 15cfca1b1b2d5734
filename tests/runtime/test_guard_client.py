"""The sidecar's end of the guard's socket, against guards that no guard of ours would be.

Method: a guard played by the test on a real socket; pidfds of real processes stand for keepers.
Not covered: real guards (tests/system/test_guard*.py).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import connect, proof, wire
from sidecar.guard import events as g
from sidecar.guard.client import GuardClient
from tests.harness import guards
from tests.harness.guards import NOBODY
from tests.harness.played import RUN, listener
from tests.harness.process import unavailable
from tests.runtime.stubs import WITHIN_S, Inbox

CLOCK = BootClock()


class FakeGuard:
    """Listens in a run directory and says what it is told to."""

    def __init__(self, run_dir: Path, *, protocol: object = wire.PROTOCOL) -> None:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._protocol = protocol
        self._listener = listener(run_dir)
        self.heard = Inbox()
        self.sock: socket.socket | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def with_server(self, keeper: "subprocess.Popen[bytes]") -> None:
        """Say that a server runs below *keeper*."""
        self._keeper = keeper

    def say(self, **frame: Any) -> None:
        assert self.sock is not None
        self.sock.send(json.dumps(frame).encode())

    def close(self) -> None:
        """Be gone."""
        if self.sock is not None:
            with suppress(OSError):  # the client may have gone first
                self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(WITHIN_S)
        self._listener.close()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        self.sock = sock
        there = {"guard_pid": os.getpid(), "enforcement": "kernel", "run": RUN if self._keeper else None}
        sock.send(json.dumps({"type": "hello", "protocol": self._protocol, **there}).encode())
        with sock:
            while data := sock.recv(wire.FRAME_MAX):
                order = json.loads(data)
                self.heard.put(order["order"])
                if order["order"] == "control":
                    state = json.dumps({"type": "state", "seq": 0, "finished": None, **there}).encode()
                    fds = [os.pidfd_open(self._keeper.pid)] if self._keeper else []
                    socket.send_fds(sock, [state], fds)
                    for fd in fds:
                        os.close(fd)


@contextmanager
def sleeper(*prefix: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([*prefix, "/bin/sleep", "60"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def found(run_dir: Path) -> Iterator[tuple[FakeGuard, "subprocess.Popen[bytes]", Inbox]]:
    """Attach a client to a guard that has a server; give both, its keeper, and what the client tells."""
    guard, events = FakeGuard(run_dir), Inbox()
    with ExitStack() as stack:
        keeper = stack.enter_context(sleeper())
        guard.with_server(keeper)
        stack.callback(guard.close)
        client = GuardClient.attach_or_spawn(run_dir, "auto", events.put)
        stack.callback(client.close)
        yield guard, keeper, events


def soon(ms: int = 5_000) -> Instant:
    return Instant(CLOCK.now() + ms)


@pytest.mark.parametrize("protocol", [wire.PROTOCOL + 1, 0, None, "1"])
def test_a_guard_of_another_protocol_is_left_alone(tmp_path: Path, protocol: object) -> None:
    """It may have a server, and what it would make of our orders nobody knows."""
    guard = FakeGuard(tmp_path, protocol=protocol)

    with pytest.raises(GuardError, match="speaks protocol") as caught:
        connect.attach(tmp_path, soon(), CLOCK)
    assert isinstance(caught.value, connect.Foreign) is isinstance(protocol, int), (
        "else it is no guard at all"
    )

    guard.close()
    assert guard.heard.rest() == [], "no order was given"


def test_a_guard_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        unavailable("needs root")
    with guards.site("process", unprivileged=True) as site:
        site.sidecar()

        with pytest.raises(GuardError, match=f"belongs to uid {NOBODY}"):
            connect.attach(site.run_dir, soon(), CLOCK)


def test_the_word_of_the_guard_is_no_proof_while_the_keeper_lives(tmp_path: Path) -> None:
    with found(tmp_path) as (guard, keeper, events):
        guard.say(type="exited", run="r1", status=0, killed_by=None)
        guard.say(type="answer", seq=1, order="note", run="r1", ok=False, reason="read after it")
        assert isinstance(events.next(), g.OrderRefused)
        assert events.rest() == []

        keeper.kill()
        assert events.next() == g.Exited("r1", 0, None)


def test_a_keeper_that_dies_is_proof_when_the_guard_says_nothing(tmp_path: Path) -> None:
    with found(tmp_path) as (_, keeper, events):
        keeper.kill()

        assert events.next() == g.Exited("r1", None, None)


@pytest.mark.parametrize(
    "frame", [b"garbage", b"[]", b'{"type": "exited"}', b'{"type": "output", "run": "r1", "dropped": -1}']
)
def test_a_guard_that_talks_nonsense_is_lost_and_its_server_is_not_taken_for_dead(
    tmp_path: Path, frame: bytes
) -> None:
    with found(tmp_path) as (guard, keeper, events):
        assert guard.sock is not None
        guard.sock.send(frame)

        assert isinstance(events.next(), g.GuardLost)
        assert events.rest() == []
        keeper.kill()
        assert events.next() == g.Exited("r1", None, None)


def test_bug_a_guard_that_left_as_it_was_told_was_called_lost(tmp_path: Path) -> None:
    """An alarm at the end of a sidecar in good order, where the guard was quicker."""
    guard, events = FakeGuard(tmp_path), Inbox()
    with sleeper() as keeper:
        guard.with_server(keeper)
        client = GuardClient.attach_or_spawn(tmp_path, "auto", events.put)
        try:
            client.shutdown()
            assert [guard.heard.next(), guard.heard.next()] == ["control", "shutdown"]
            guard.close()
            keeper.kill()
            assert events.next() == g.Exited("r1", None, None), "and nothing before it"
        finally:
            client.close()


def test_one_guard_at_a_time(tmp_path: Path) -> None:
    """Two sidecars find none at the same moment and start one each: the later must not take the socket."""
    script = Path(connect.__file__).with_name("guard.py")
    read_end, write_end = os.pipe()
    command = [sys.executable, "-I", "-S", str(script), "--run-dir", str(tmp_path)]
    command += ["--enforcement", "process", "--version", "0"]
    command += ["--idle-exit-ms", "60000", "--ready-fd", str(write_end)]
    with ExitStack() as stack:
        stack.callback(os.close, read_end)
        answers = []
        for _ in range(2):
            subprocess.run(command, pass_fds=(write_end,), check=True, stderr=subprocess.DEVNULL)
            assert proof.readable(read_end, int(WITHIN_S * 1000))
            answers.append(os.read(read_end, 4096))
            if len(answers) == 1:
                found = connect.attach(tmp_path, soon(), CLOCK)
                assert found is not None
                stack.callback(found.close)
                stack.callback(proof.readable, found.guard_pidfd, 5_000)
                stack.callback(signal.pidfd_send_signal, found.guard_pidfd, signal.SIGKILL)
        os.close(write_end)

        assert answers == [b"ready", b"another guard is at work here"]
