"""Goal: this version reads what 0.1.0 wrote, and what the version after it may write, as docs/install.md
promises ("Versions in one cluster").

Method: what 0.1.0 wrote lies in tests/data/0.1.0, as its own code made it: every key of the store, the marks
on disk, what guard and sidecar say to each other, a configuration with every key, the embedded store. Each is
read to a value that is written out here, and again with one field more at each level. A test that fails here
means that nodes of two versions would not understand each other: mend the code, never the files.

Not covered: two versions at work together (tests/system/test_upgrade.py).
"""

import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from sidecar.clock import BootClock
from sidecar.config import from_text
from sidecar.config.schema import KEYS, flat
from sidecar.core import model
from sidecar.core.model import (
    Author,
    EpochRecord,
    HistoryEntry,
    LockRecord,
    NodeRecord,
    Override,
    Request,
    ServerStats,
    Settings,
)
from sidecar.core.state import Mark
from sidecar.core.units import Epoch, Instant
from sidecar.documents import decode, encode
from sidecar.guard import connect, proof, record, told, wire
from sidecar.guard import events as g
from sidecar.plugins import load_backend
from sidecar.ports import BackendSettings, Hold
from sidecar.runtime.locking import Kept, from_note, to_note
from sidecar.runtime.marks import MarkFile
from tests.harness.played import listener

FOLDER = Path(__file__).parents[1] / "data" / "0.1.0"
WITHIN_S = 20
AT = 1_795_700_000_000
CLOCK = BootClock()

LOCK = LockRecord("node-a", "node-a-0123456789ab", Epoch(7), 10_000, "held", None, None, None)
ASKED = Request("f00d", "switchover", "asked", Epoch(7), "node-a", "node-b", "op@here", AT, None)
SET = Settings(
    paused=True,
    paused_nodes=("node-b",),
    by="op@here",
    at_unix_ms=AT,
    overrides=(Override("node-a", 50, False), Override("node-b", None, True)),
    authors=(
        Author("paused", None, "op@here", 321, AT),
        Author("priority", "node-a", "op@here", 322, AT),
    ),
)
HISTORY = HistoryEntry(Epoch(7), "node-a", "node-b", "lease expired", AT, 9_100, 40, 61_000)
ACTIVE = NodeRecord(
    node="node-a",
    instance="node-a-0123456789ab",
    role="active",
    state="running",
    message="Serving",
    epoch=Epoch(7),
    mark=Epoch(7),
    enforcement="kernel",
    priority=100,
    eligible=True,
    available=False,
    failback=True,
    version="0.1.0",
    seen_at_unix_ms=AT,
    lease_left_ms=8_500,
    server=ServerStats(4711, 5230.25, 913_000_000, 3.5),
    api="http://10.0.0.11:8009",
    heard=5,
)
STANDBY = NodeRecord(
    node="node-b",
    instance="node-b-0123456789ab",
    role="standby",
    state="monitoring",
    message="Monitoring Master Server Status",
    epoch=Epoch(0),
    mark=Epoch(7),
    enforcement="process",
    priority=50,
    eligible=False,
    available=True,
    failback=False,
    version="0.1.0",
    seen_at_unix_ms=AT,
    lease_left_ms=None,
    server=None,
    api=None,
    heard=0,
)
KEYS_OF_THE_STORE: dict[str, Any] = {
    "lock-held": LOCK,
    "lock-broken": replace(LOCK, state="broken", to="node-b", by="op@here", request="f00d"),
    "epoch-held": EpochRecord(Epoch(7), "node-a", None),
    "epoch-released": EpochRecord(Epoch(7), "node-a", "switchover to node-b"),
    "node-active": ACTIVE,
    "node-standby": STANDBY,
    "request-asked": ASKED,
    "request-accepted": replace(ASKED, state="accepted"),
    "request-confirmed": replace(ASKED, kind="failover", state="confirmed"),
    "request-done": replace(ASKED, state="done", reason="node-b is active"),
    "request-rolled_back": replace(ASKED, state="rolled_back", reason="node-b: Cooling down"),
    "request-failed": replace(
        ASKED, kind="restart", to=None, state="failed", reason="the server did not start"
    ),
    "request-refused": replace(ASKED, state="refused", reason="node-b is not eligible"),
    "request-abandoned": replace(ASKED, state="abandoned", reason="the command did not confirm it"),
    "settings-none": Settings(False, (), None, None, (), ()),
    "settings-all": SET,
    "history": HISTORY,
    "history-unobserved": HistoryEntry(Epoch(1), "node-a", None, "first start", AT, None, None, None),
}
HOLD = Hold("node-a", "node-a-0123456789ab", Epoch(7), 10_000, "7587862041234567890")
NOTE = (FOLDER / "note.json").read_text().strip()

WORDS: dict[str, tuple[object, set[str]]] = {
    "lock": (model.LockState, {"held", "broken"}),
    "role": (model.Role, {"active", "standby"}),
    "state": (
        model.ServerState,
        {"starting", "running", "stopping", "stopped", "monitoring", "failed", "paused"},
    ),
    "enforcement": (model.Enforcement, {"kernel", "process", "none"}),
    "request": (model.RequestKind, {"switchover", "failover", "restart"}),
    "request's state": (
        model.RequestState,
        {"asked", "accepted", "confirmed", "done", "rolled_back", "failed", "refused", "abandoned"},
    ),
    "guard's enforcement": (g.Enforcement, {"kernel", "process"}),
    "killed by": (g.KilledBy, {"deadline", "order", "guard"}),
}
"""0.1.0 cannot read a document with another word: what is new is said in a new field."""


def raw(name: str) -> bytes:
    return (FOLDER / name).read_bytes().strip()


def novel(document: bytes) -> Iterator[bytes]:
    """Return *document* as it is, and with one field more at each level."""
    yield document
    for path in _levels(json.loads(document)):
        found = json.loads(document)
        at = found
        for step in path:
            at = at[step]
        at["novelty"] = {"of": ["a later", "version", 7]}
        yield json.dumps(found).encode()


def _levels(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(found, dict):
        yield path
    if isinstance(found, dict | list):
        for step, inner in found.items() if isinstance(found, dict) else enumerate(found):
            yield from _levels(inner, (*path, step))


def known(value: Any) -> Any:
    """Return *value* without what a later version has written into settings, which is kept there."""
    if not isinstance(value, Settings):
        return value
    overrides = tuple(replace(one, unknown={}) for one in value.overrides)
    authors = tuple(replace(one, unknown={}) for one in value.authors)
    return replace(value, unknown={}, overrides=overrides, authors=authors)


def keeps(new: Any, old: Any) -> bool:
    """Tell whether *new* has everything that *old* has, of the same type, at each level."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(name in new and keeps(new[name], old[name]) for name in old)
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(keeps, new, old))
    return type(new) is type(old)


# ---- the store


@pytest.mark.parametrize("name", KEYS_OF_THE_STORE)
def test_a_key_of_the_store(name: str) -> None:
    expected = KEYS_OF_THE_STORE[name]

    for document in novel(raw(f"{name}.json")):
        found = decode(name, document, type(expected))

        assert known(found) == expected
        if isinstance(expected, Settings):
            assert encode(found).count(b"novelty") == document.count(b"novelty")
    assert keeps(json.loads(encode(expected)), json.loads(raw(f"{name}.json")))


@pytest.mark.parametrize("name", WORDS)
def test_there_are_no_words_but_those_of_0_1_0(name: str) -> None:
    literal, words = WORDS[name]

    assert set(get_args(literal)) == words


def test_the_embedded_store(tmp_path: Path) -> None:
    path = tmp_path / "local.db"
    shutil.copy(FOLDER / "local.db", path)
    backend = load_backend("local")(BackendSettings("plant-7", {"path": str(path)}), CLOCK)
    try:
        soon = Instant(CLOCK.now() + WITHIN_S * 1000)
        view, entries = backend.read(deadline=soon), backend.read_history(10, deadline=soon)
    finally:
        backend.close()

    assert (view.lock, view.nodes, view.unreadable) == (None, (), ())
    assert view.epoch == EpochRecord(Epoch(1), "node-a", "switchover to node-b")
    assert view.request == KEYS_OF_THE_STORE["request-done"]
    assert view.settings == SET
    assert view.versions == {"request": 4, "settings": 5}
    assert entries == (replace(HISTORY, epoch=Epoch(1)),)


# ---- the node's disk


def test_the_mark(tmp_path: Path) -> None:
    for document in novel(raw("plant-7.epoch.json")):
        (tmp_path / "plant-7.epoch.json").write_bytes(document)
        assert MarkFile(tmp_path, "plant-7").load() == Mark(Epoch(7), "node-a")
    assert MarkFile(tmp_path, "plant-7").save(Mark(Epoch(8), "node-b"))
    assert keeps(
        json.loads((tmp_path / "plant-7.epoch.json").read_text()), json.loads(raw("plant-7.epoch.json"))
    )


KEEPERS: dict[str, dict[str, object]] = {
    "active": {
        "v": 1,
        "keeper_pid": 3471,
        "keeper_start": 639752,
        "boot_id": "68add664-32e5-4e0a-b258-d016752fffba",
        "pid_namespace": "pid:[4026531836]",
        "enforcement": "kernel",
        "run": "a1b2c3d4-1",
        "role": "active",
        "deadline_ms": 6457550,
        "token": "3470-6397525-1",
        "cgroup": None,
    },
    "standby": {
        "v": 1,
        "keeper_pid": 3525,
        "keeper_start": 639822,
        "boot_id": "68add664-32e5-4e0a-b258-d016752fffba",
        "pid_namespace": "pid:[4026531836]",
        "enforcement": "process",
        "run": "a1b2c3d4-1",
        "role": "standby",
        "deadline_ms": 6458250,
        "token": "3517-6398215-1",
        "cgroup": "/sys/fs/cgroup/unified/sidecar-3517-6398215-1",
    },
}


@pytest.mark.parametrize("role", KEEPERS)
def test_what_proves_an_earlier_server_dead(tmp_path: Path, role: str) -> None:
    for document in novel(raw(f"keeper-{role}.json")):
        (tmp_path / "keeper.json").write_bytes(document)
        found = record.read(str(tmp_path))
        assert found is not None
        assert {name: found[name] for name in found if name != "novelty"} == KEEPERS[role]
    record.write(str(tmp_path), KEEPERS[role])
    assert keeps(json.loads((tmp_path / "keeper.json").read_text()), json.loads(raw(f"keeper-{role}.json")))


CONFIGURED: dict[str, object] = {
    "cluster": "plant-7",
    "node": "node-a",
    "backend": "etcd",
    "etcd.endpoints": ("https://10.0.0.1:2379", "https://10.0.0.2:2379"),
    "etcd.ca_file": "ETC/ca.pem",
    "etcd.cert_file": "ETC/client.pem",
    "etcd.key_file": "ETC/client.key",
    "etcd.username": "sidecar",
    "etcd.password_file": "ETC/password",
    "consul.address": "https://10.0.0.9:8501",
    "consul.token_file": "ETC/token",
    "consul.datacenter": "dc1",
    "consul.ca_file": "ETC/ca.pem",
    "consul.cert_file": "ETC/client.pem",
    "consul.key_file": "ETC/client.key",
    "local.path": "/var/lib/aggregate-sidecar/plant-7.db",
    "lock.ttl": 20_000,
    "lock.renew_every": 3_000,
    "lock.request_timeout": 2_500,
    "lock.stop_grace": 5_000,
    "lock.kill_margin": 1_500,
    "node_options.priority": 50,
    "node_options.eligible": False,
    "node_options.failback": True,
    "server.kind": "aggregate",
    "server.home": "/srv/aggregate",
    "server.command": ("/srv/aggregate/ag_server_console", "-f", "other.xml"),
    "server.config_file": "other.xml",
    "server.standby": "stopped",
    "server.user": "aggregate",
    "server.environment": {"LANG": "C.UTF-8"},
    "server.start_timeout": 240_000,
    "server.stop_timeout": 50_000,
    "server.stop_signal": "INT",
    "server.stop_command": ("/srv/aggregate/ag_server_service", "stop"),
    "server.probes.ready.tcp": (6461,),
    "server.probes.ready.http.url": "http://127.0.0.1:8080/",
    "server.probes.ready.http.status": 204,
    "server.probes.ready.command": ("/usr/local/bin/is-ready",),
    "server.probes.ready.every": 500,
    "server.probes.ready.timeout": 2_000,
    "server.probes.alive.tcp": (6461, 8443),
    "server.probes.alive.http.url": "http://127.0.0.1:8080/alive",
    "server.probes.alive.http.status": 201,
    "server.probes.alive.command": ("/usr/local/bin/is-alive",),
    "server.probes.alive.every": 3_000,
    "server.probes.alive.timeout": 1_500,
    "server.probes.alive.failures": 4,
    "server.restarts.attempts": 2,
    "server.restarts.within": 540_000,
    "server.restarts.backoff": 2_000,
    "server.restarts.backoff_max": 40_000,
    "hooks.before_active": ("/usr/local/bin/hook", "before"),
    "hooks.on_active": ("/usr/local/bin/hook", "active"),
    "hooks.after_stop": ("/usr/local/bin/hook", "stop"),
    "hooks.on_standby": ("/usr/local/bin/hook", "standby"),
    "hooks.timeout": 8_000,
    "hooks.before_active_timeout": 7_000,
    "hooks.on_active_timeout": 6_000,
    "hooks.after_stop_timeout": 5_000,
    "hooks.on_standby_timeout": 4_000,
    "api.listen": "10.0.0.11:8009",
    "api.tls_cert_file": "ETC/api.pem",
    "api.tls_key_file": "ETC/api.key",
    "api.token_file": "ETC/api-token",
    "api.plain_http_commands": True,
    "log.format": "json",
    "log.level": "debug",
    "paths.state": "/srv/state",
    "paths.run": "/run/plant-7",
    "guard.enforcement": "kernel",
}
SECRETS = {"etcd.password", "consul.token", "api.token"}
"""Not in a file: from one of their own, or the environment."""


def test_a_configuration_with_every_key(tmp_path: Path) -> None:
    text = (FOLDER / "sidecar.yml").read_text()
    for name in re.findall(r"/etc/aggregate-sidecar/(\S+)", text):
        (tmp_path / name).write_text("secret\n")
        (tmp_path / name).chmod(0o600)

    found = flat(from_text(text.replace("/etc/aggregate-sidecar", str(tmp_path)), {}, source="sidecar.yml"))

    for key, value in CONFIGURED.items():
        shown = found[key]
        assert (shown.replace(str(tmp_path), "ETC") if isinstance(shown, str) else shown) == value, key
    assert KEYS.keys() >= CONFIGURED.keys() | SECRETS, "no key of 0.1.0 may go"


# ---- guard and sidecar


def test_the_note_that_a_guard_keeps() -> None:
    for document in novel(raw("note.json")):
        assert from_note(document.decode()) == Kept("plant-7", HOLD, ready=False)
    assert keeps(json.loads(to_note(Kept("plant-7", HOLD, ready=True))), json.loads(NOTE))


@pytest.mark.parametrize("role", ["active", "standby"])
def test_the_first_word_of_a_guard(tmp_path: Path, role: str) -> None:
    for document in novel(raw(f"hello-{role}.json")):
        with listener(tmp_path) as listening:
            thread = threading.Thread(target=_say, args=(listening, document), daemon=True)
            thread.start()
            found = connect.greeting(tmp_path, Instant(CLOCK.now() + WITHIN_S * 1000), CLOCK)
            thread.join(WITHIN_S)
        (tmp_path / wire.SOCKET_NAME).unlink()
        assert found == connect.Greeting(1, "0.1.0", role)


def _say(listening: socket.socket, what: bytes) -> None:
    with listening.accept()[0] as sock:
        sock.send(what)


RUNS: dict[str, g.AdoptedRun | None] = {
    "active": g.AdoptedRun(
        run="a1b2c3d4-1",
        role="active",
        epoch=Epoch(7),
        deadline_at=Instant(6457550),
        started_at=Instant(6397551),
        server_pid=3472,
        keeper_pid=3471,
        note=NOTE,
        stopping=False,
    ),
    "standby": g.AdoptedRun(
        run="a1b2c3d4-1",
        role="standby",
        epoch=Epoch(0),
        deadline_at=Instant(6458250),
        started_at=Instant(6398250),
        server_pid=3526,
        keeper_pid=3525,
        note=None,
        stopping=False,
    ),
    "finished": None,
}
TRACES: dict[str, record.Record | None] = {
    "active": {"keeper_pid": 3471, "token": "3470-6397525-1", "cgroup": None},
    "standby": {
        "keeper_pid": 3525,
        "token": "3517-6398215-1",
        "cgroup": "/sys/fs/cgroup/unified/sidecar-3517-6398215-1",
    },
    "finished": None,
}
END = g.Exited("a1b2c3d4-1", -signal.SIGKILL, "order")


@pytest.mark.parametrize("name", RUNS)
def test_what_a_guard_says_to_who_takes_control(name: str) -> None:
    for document in novel(raw(f"state-{name}.json")):
        state = wire.decode(document)
        told.check(state)
        assert told.adopted_run(state) == RUNS[name]
        assert told.traces_of_run(state) == TRACES[name]
        assert told.finished(state) == (END if name == "finished" else None)
        assert told.enforcement(state) == ("process" if name == "standby" else "kernel")


def test_what_a_guard_says_of_a_start_and_an_end() -> None:
    for document in novel(raw("started-standby.json")):
        started = wire.decode(document)
        assert (started["type"], started["run"], wire.whole(started, "server_pid")) == (
            "started",
            "a1b2c3d4-1",
            3526,
        )
        assert told.traces(started) == TRACES["standby"]
    for document in novel(raw("exited-active.json")):
        assert told.end_of_run(wire.decode(document)) == END


STARTED_AT_MS = 5_230_200
"""The first deadline in the orders of 0.1.0; they are given again as of now."""


@pytest.mark.parametrize("more", [{}, {"novelty": 7}], ids=["as it was", "with a field more"])
def test_the_orders_of_a_sidecar(tmp_path: Path, more: dict[str, object]) -> None:
    """Each is carried out by a guard of today, with the instants moved to now."""
    spawn = connect.Spawn(tmp_path / "run", "process", sys.executable, 1_000)
    found = connect.attach_or_spawn(spawn, Instant(CLOCK.now() + WITHIN_S * 1000), CLOCK)
    moved_ms = CLOCK.now() + 60_000 - STARTED_AT_MS
    given = []
    try:
        found.sock.settimeout(WITHIN_S)
        for line in raw("orders.jsonl").splitlines():
            order = json.loads(line) | more
            order |= {name: order[name] + moved_ms for name in ("deadline_ms", "kill_at_ms") if name in order}
            found.sock.send(json.dumps(order).encode())
            _await(found.sock, order)
            given.append(order["order"])
        assert proof.readable(found.guard_pidfd, WITHIN_S * 1000), "told to leave, without a server"
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(found.guard_pidfd, signal.SIGKILL)
        found.close()

    assert given == ["control", "ack", "start", "extend", "extend", "note", "stop", "kill", "shutdown"]


def _await(sock: socket.socket, order: dict[str, Any]) -> None:
    """Wait until *order* is answered and, where a server is to start or to end by it, has done so."""
    wanted = {"control": ["state"], "start": ["answer", "started"], "kill": ["answer", "exited"]}
    left = wanted.get(order["order"], ["answer"])
    while left:
        data, fds, _flags, _address = socket.recv_fds(sock, wire.FRAME_MAX, 1)
        for fd in fds:
            os.close(fd)
        assert data, f"{order['order']}: the guard has ended the connection"
        answer = wire.decode(data)
        assert answer["type"] != "error", answer
        if answer["type"] == "answer":
            assert (answer["order"], answer["ok"]) == (order["order"], True), answer
        left = [kind for kind in left if kind != answer["type"]]


def test_every_file_is_read() -> None:
    roles = ("active", "standby")
    named = {
        *KEYS_OF_THE_STORE,
        *(f"{kind}-{role}" for kind in ("keeper", "hello", "state") for role in roles),
    }
    named |= {"state-finished", "started-standby", "exited-active", "note", "plant-7.epoch"}
    others = {"orders.jsonl", "sidecar.yml", "local.db"}

    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in named} | others
