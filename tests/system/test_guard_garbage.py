"""Goal: no message, from either side of the guard's socket, crashes the other side or costs the server.

Method: a real guard with a server is given thousands of broken messages, from a visitor and from the client
in control, and goes on; a client is given broken messages by a guard that the test plays, and counts the
guard as lost, without a proof of death that there is none of. Every case is drawn from a seed.
Not covered: messages that are right and mean harm; they come from our own uid alone.
"""

import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import connect, events, proof, record, wire
from sidecar.guard.follower import Follower
from tests.core.garbage import FIXED
from tests.harness import guards
from tests.harness.guards import Site
from tests.harness.played import RUN, listener
from tests.harness.process import wait_until

CONTROL = {"order": "control", "seq": 1, "protocol": wire.PROTOCOL}
FRAMES = 1_500
CLOCK = BootClock()


def _deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(400):
        found = [found]
    return found


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, 2**53, 2**53 + 1, 2**64, 10**400, float("nan"), float("inf")),
    *("", "r1", "\0", "\ud800", "\x1b", "é" * 40_000, "x" * 30_000, [], [[]], [1], ["a", 1], ["\0"]),
    *({}, {"a": 1}, {"": ""}, {"=": "x"}, {"A": "\0"}, _deep(), ["/bin/true"], {"LANG": "C"}),
)
START: dict[str, Any] = {
    "argv": ["/bin/true"],
    "cwd": "/",
    "env": {},
    "user": None,
    "role": "active",
    "epoch": 7,
    "deadline_ms": 1 << 50,
    "kill_margin_ms": 200,
    "note": 1,
    "stop_signal": 15,
    "stop_command": None,
}
ORDERS: dict[str, dict[str, Any]] = {
    "start": START,
    "extend": {"deadline_ms": 1 << 50, "note": "n"},
    "stop": {"kill_at_ms": 1 << 50},
    "note": {"note": "x"},
    "control": {"protocol": wire.PROTOCOL},
    "kill": {},
    "ack": {},
    "ping": {},
    "shutdown": {},
}


@pytest.fixture
def site() -> Iterator[Site]:
    with guards.site("kernel", unprivileged=os.geteuid() != 0) as one:
        yield one


def _frame(draw: random.Random) -> bytes:
    """Draw a message: nearly an order, or nothing like it. None that would rightly end the run r1."""
    kind = draw.randrange(10)
    if kind == 0:
        nothing_like_it = (*FIXED, draw.randbytes(draw.randrange(1, 300)), b"x" * (wire.FRAME_MAX + 1))
        return draw.choice(nothing_like_it) or b"0"
    name = draw.choice(sorted(ORDERS))
    frame = {"order": name, "seq": draw.randrange(1 << 30), "run": "r1", **ORDERS[name]}
    for _ in range(draw.randrange(1, 3)):
        field = draw.choice((*frame, "seq", "run", "order", "more"))
        if draw.random() < 0.2:
            frame.pop(field, None)
        else:
            frame[field] = draw.choice(ODD)
    if frame.get("order") in ("stop", "kill") and frame.get("run") == "r1":
        frame["run"] = "another"
    if frame.get("order") == "shutdown":
        frame["seq"] = None
    data = json.dumps(frame, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
    if kind == 1:
        at = draw.randrange(len(data))
        data = data[:at] + draw.randbytes(draw.randrange(3)) + data[at + draw.randrange(3) :]
    return data[: wire.FRAME_MAX + 1]


def _enter(site: Site, *, control: bool) -> socket.socket:
    sock = site.connect()
    assert wire.decode(sock.recv(wire.FRAME_MAX))["type"] == "hello"
    if control:
        sock.send(json.dumps(CONTROL).encode())
        assert wire.decode(sock.recv(wire.FRAME_MAX))["type"] == "state"
    return sock


def _answered(sock: socket.socket) -> bool:
    """Take what is said about the last message; tell whether the connection is still good."""
    try:
        data = sock.recv(wire.FRAME_MAX)
    except ConnectionError:
        return False
    return bool(data) and wire.decode(data)["type"] in ("answer", "state")


@pytest.mark.parametrize("control", [False, True], ids=["visitor", "in control"])
def test_a_guard_survives_any_message_and_so_does_its_server(site: Site, control: bool) -> None:
    sidecar = site.sidecar()
    sidecar.start("polite", lives_ms=120_000)
    pid = sidecar.wait("Started")["server_pid"]
    site.beating("root")
    alive = site.processes(with_guard=True)
    sidecar.kill()
    draw, sock = random.Random(control), _enter(site, control=control)
    answers = 0
    for number in range(FRAMES):
        message = _frame(draw)
        sock.send(message)
        if _answered(sock):
            answers += 1
        else:
            sock.close()
            assert not alive.dead(), f"number {number}: {message[:300]!r}"
            sock = _enter(site, control=control)
    sock.close()

    if control:
        assert answers > FRAMES // 20, "the depth of the orders was reached"
    after = site.sidecar().wait("attached")["adopted"]
    assert (after["run"], after["server_pid"], after["role"]) == ("r1", pid, "active")
    assert len(alive.alive()) == len(alive.pidfds)


@pytest.mark.parametrize(
    "frame",
    [
        {"order": "é" * 60_000, "seq": 1},  # the refusal quoted it, six bytes each
        {"order": "kill", "seq": 1, "run": "é" * 60_000},
        {"order": "note", "seq": 1, "run": "r1", "note": _deep()},
        {"order": "ping", "seq": 1, "run": _deep()},
    ],
    ids=lambda frame: frame["order"][:8],
)
def test_a_message_whose_answer_cannot_be_written_ends_nobody(site: Site, frame: dict[str, Any]) -> None:
    sidecar = site.sidecar()
    sidecar.start("polite")
    sidecar.wait("Started")
    alive = site.processes(with_guard=True)
    sidecar.kill()
    with _enter(site, control=True) as sock:
        sock.send(json.dumps(frame, ensure_ascii=False).encode())
        sock.recv(wire.FRAME_MAX)
    _enter(site, control=False).close()
    assert len(alive.alive()) == len(alive.pidfds)


def test_an_order_with_a_long_role_is_refused_and_the_guard_can_still_be_greeted(site: Site) -> None:
    """The guard tells the role to everybody who connects: one that fits no message killed it at the next."""
    sidecar = site.sidecar()
    sidecar.start("polite", role="é" * 20_000)
    assert "role" in sidecar.wait("StartFailed")["reason"]
    _enter(site, control=False).close()


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["/" + "сервер/" * 130], "No such file"),  # six times as long as JSON: the guard read half, and died
        (["/" + '"' * 250, "x"], "No such file"),
        (["/bin/\ud800"], "surrogates not allowed"),  # it counted as started, and as ended with status 127
        (["/bin/true", "\ud800"], "surrogates not allowed"),
    ],
    ids=["cyrillic", "quotes", "surrogate", "surrogate argument"],
)
def test_a_command_that_cannot_be_started_is_told_whatever_its_name(
    site: Site, argv: list[str], reason: str
) -> None:
    sidecar = site.sidecar()
    sidecar.start(argv=argv)
    told = sidecar.wait("StartFailed", "Exited", "GuardLost")
    assert told["event"] == "StartFailed", told
    assert reason in told["reason"]
    sidecar.start("polite", run="r2")
    sidecar.wait("Started", run="r2")


# The record that proves an earlier server dead.


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"boot_id": None},  # it counted as another boot, and so as proof
        {"boot_id": ""},
        {"boot_id": 7},
        {"pid_namespace": None},
        {"keeper_start": None},  # it counted as somebody else with that pid
        {"keeper_start": "1"},
        {"keeper_pid": -1},
        {"keeper_pid": 10**30},
        {"keeper_pid": True},
        {"deadline_ms": None},
        {"deadline_ms": float("inf")},
        {"token": None},
    ],
    ids=str,
)
def test_a_record_with_a_field_that_cannot_be_proves_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    mine = {"v": 1, **record.identity(os.getpid()), "enforcement": "kernel", "run": "r", "role": "active"}
    sound = {**mine, "token": "t", "deadline_ms": 1 << 50, "cgroup": None}
    (tmp_path / record.NAME).write_text(json.dumps(sound))
    assert not proof.wait_for_orphans(tmp_path, Instant(0)), "this process lives"

    (tmp_path / record.NAME).write_text(json.dumps({**sound, **changes}))

    with pytest.raises(GuardError, match=record.NAME):
        proof.wait_for_orphans(tmp_path, Instant(0))


def test_a_record_that_is_nested_without_end_or_a_pipe_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / record.NAME
    path.write_text("[" * 100_000)
    with pytest.raises(GuardError, match=record.NAME):
        proof.wait_for_orphans(tmp_path, Instant(0))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(GuardError, match=record.NAME):
        proof.wait_for_orphans(tmp_path, Instant(0))


# The client, with a guard that the test plays.


class Played:
    """A client on one end of a socket, with us as its guard on the other."""

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.ours.settimeout(0.02)
        self.told: list[events.GuardEvent] = []
        self.keeper_r, self.keeper_w = os.pipe()  # the first is readable once the other is closed, as a pidfd
        state: wire.Frame = {"type": "state", "enforcement": "kernel", "run": run, "finished": None}
        guard, keeper = os.pidfd_open(os.getpid()), os.dup(self.keeper_r)
        spawn = connect.Spawn(folder, "auto", "python3", 1_000)
        self.lost = threading.Event()
        self.follower = Follower(spawn, connect.Connection(theirs, guard, state, keeper), self._hear, CLOCK)

    def _hear(self, event: events.GuardEvent) -> None:
        self.told.append(event)
        if isinstance(event, events.GuardLost | events.ClientBroken):
            self.lost.set()

    def names(self) -> set[str]:
        return {type(event).__name__ for event in self.told}

    def close(self) -> None:
        self.follower.close()
        self.ours.close()
        for fd in (self.keeper_r, self.keeper_w):
            os.close(fd)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    one = Played(tmp_path, RUN)
    yield one
    one.close()


TOLD: tuple[dict[str, Any], ...] = (
    {"type": "started", "run": "r1", "keeper_pid": 11, "server_pid": 12},
    {"type": "exited", "run": "r1", "status": 0, "killed_by": None},
    {"type": "start_failed", "run": "r1", "reason": "x"},
    {"type": "answer", "seq": 1, "order": "extend", "run": "r1", "ok": False, "reason": "x"},
    {"type": "answer", "seq": 1, "order": "start", "run": "r1", "ok": False, "reason": "x"},
    {"type": "output", "run": "r1", "stream": "stdout", "dropped": 0, "lines": ["x"]},
    {"type": "error", "reason": "x"},
    {"type": "from the future", "run": "r1"},
)


def _told(draw: random.Random) -> bytes:
    if draw.random() < 0.05:
        return draw.choice((*FIXED, draw.randbytes(200))) or b"0"
    frame = dict(draw.choice(TOLD))
    for _ in range(draw.randrange(3)):
        field = draw.choice((*frame, "run", "type"))
        if draw.random() < 0.3:
            frame.pop(field, None)
        else:
            frame[field] = draw.choice(ODD)
    return json.dumps(frame).encode()[: wire.FRAME_MAX]


@pytest.mark.parametrize("seed", range(15))
def test_a_client_survives_any_guard_and_believes_no_death_without_proof(played: Played, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(200):
        with suppress(TimeoutError):  # it reads no more, and will say so
            played.ours.send(_told(draw))
        if played.lost.is_set():
            break
    played.ours.close()
    assert played.lost.wait(10)
    assert "ClientBroken" not in played.names()
    assert not {"Exited", "StartFailed"} & played.names(), "its keeper lives"


@pytest.mark.parametrize("end", TOLD[1:3], ids=lambda end: end["type"])
def test_the_end_of_a_run_is_believed_when_its_keeper_agrees(played: Played, end: dict[str, Any]) -> None:
    played.ours.send(json.dumps(end).encode())
    played.ours.send(json.dumps({**TOLD[5], "lines": ["after"]}).encode())
    wait_until(lambda: played.told, "what came behind it", 10)
    assert played.names() == {"Output"}

    played.keeper_w = os.dup2(os.open(os.devnull, os.O_RDONLY), played.keeper_w)

    wait_until(lambda: len(played.told) > 1, "the end of the run", 10)
    assert played.names() == {"Output", "Exited" if end["type"] == "exited" else "StartFailed"}


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "output", "run": "r1", "stream": "stdout", "dropped": 0, "lines": 7},
        {"type": "output", "run": "r1", "stream": "stdout", "dropped": 0, "lines": [7]},
        {"type": "output", "run": "r1", "stream": 1, "dropped": 0, "lines": ["x"]},
        {"type": "exited", "run": "r1", "status": "0", "killed_by": None},
        {"type": "exited", "run": "r1", "status": 0, "killed_by": "somebody"},
        {"type": "exited", "run": "r1"},
    ],
    ids=str,
)
def test_a_message_of_another_shape_means_that_the_guard_is_lost(
    played: Played, frame: dict[str, Any]
) -> None:
    """Some ended the client's thread, and with it the sidecar; others were handed on as they were."""
    played.ours.send(json.dumps(frame).encode())
    assert played.lost.wait(10)
    assert played.names() == {"GuardLost"}


@contextmanager
def _playing(folder: Path, *messages: bytes) -> Iterator[None]:
    """Be the guard in *folder* for one visitor: say these to whoever comes, and hear what he answers."""
    listening = listener(folder)

    def serve() -> None:
        with suppress(OSError):
            sock, _ = listening.accept()
            with sock:
                for message in messages:
                    sock.send(message)
                sock.settimeout(5)
                while sock.recv(wire.FRAME_MAX):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        listening.close()
        (folder / wire.SOCKET_NAME).unlink()


HELLO = {"type": "hello", "protocol": wire.PROTOCOL, "guard_pid": 1, "enforcement": "kernel", "run": None}
STATE = {**HELLO, "type": "state", "seq": 0, "finished": None}


def _greetings() -> Iterator[tuple[bytes, ...]]:
    hello = json.dumps(HELLO).encode()
    for raw in FIXED:
        if raw and len(raw) < wire.FRAME_MAX:
            yield (raw,)
            yield hello, raw
    for field in ("enforcement", "run", "finished"):
        for odd in (*ODD, {**RUN, "epoch": "7"}, {**RUN, "deadline_ms": None}, {"run": "r1"}):
            raw = json.dumps({**STATE, field: odd}).encode()
            if len(raw) < wire.FRAME_MAX and not (field != "enforcement" and odd is None):
                yield hello, raw
        yield hello, json.dumps({name: STATE[name] for name in STATE if name != field}).encode()


def test_a_guard_that_talks_nonsense_is_an_error_and_no_guard(tmp_path: Path) -> None:
    """The test itself plays the guard, so that it would be killed where a silent guard is."""
    for messages in _greetings():
        with _playing(tmp_path, *messages), pytest.raises(GuardError) as caught:
            connect.attach(tmp_path, Instant(CLOCK.now() + 5_000), CLOCK)
        assert "\n" not in str(caught.value)
