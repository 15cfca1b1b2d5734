"""Goal: every path says what it should over real HTTP, and no client can take more than its share.

Method: the real API on a real socket, told its turns by the test; commands go to the real local store, where
the nodes are played. Times are shorter than in production, see `Limits`.
Not covered: a whole sidecar (tests/system/test_api.py), thousands of connections (scripts/bench api).
"""

import gzip
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from sidecar import events
from sidecar.api.access import IN_THE_CLEAR, Access
from sidecar.api.feed import INCOMING_MAX, KEPT_MAX, READERS_MAX, Feed
from sidecar.api.limits import USUAL
from sidecar.api.server import Api
from sidecar.clock import BootClock, wall_ms
from sidecar.config import Secret, from_text
from sidecar.core import state as s
from sidecar.errors import ConfigError
from tests.api.served import TOKEN, WITHIN_S, Served, lease, served
from tests.cli.stage import Stage
from tests.core.made import POLICY, lock, other, request, view
from tests.harness.process import found_at, free_port, wait_until
from tests.harness.tools import Tls

HEALTH = ("/active", "/standby", "/live", "/ready")
COMMANDS = ("/switchover", "/failover", "/pause", "/resume", "/restart")
BUSY_VIEW = view(lock("a"), nodes=(other("b"), other("a", role="active", state="running")))


def serve(api: Served, left_ms: int = 60_000) -> None:
    api.tell(s.Serving(lease(left_ms), 3), BUSY_VIEW)


# For load balancers.


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_each_method_of_a_load_balancer_gets_the_same_answer(api: Served, method: str) -> None:
    serve(api)
    assert [api.ask(method, path).status for path in HEALTH] == [200, 503, 200, 200]
    api.tell(s.Idle(), BUSY_VIEW)
    assert [api.ask(method, path).status for path in HEALTH] == [503, 200, 200, 200]
    assert (api.ask(method, "/active").body == b"") is (method == "HEAD")


def test_active_ends_by_itself_when_the_loop_stands_still(api: Served) -> None:
    """No turn after the one that promised a second: the answer changes at the guard's instant."""
    granted = lease(3_000)
    kill_at = granted.kill_at(POLICY)
    api.tell(s.Serving(granted, 3), BUSY_VIEW)

    seen: list[tuple[int, int]] = []
    with suppress(RemoteDisconnected):  # a yes that is not true any more as it is to be sent
        while not seen or seen[-1][1] == 200:
            asked_at = BootClock().now()
            seen.append((asked_at, api.get("/active").status))

    assert seen[0][1] == 200
    assert all(asked_at < kill_at for asked_at, status in seen if status == 200)
    assert "lease" in api.get("/active").json["reason"]


def test_active_ends_when_the_server_is_known_to_be_dead(api: Served) -> None:
    serve(api)
    api.gone.add(3)

    assert api.get("/active").json["reason"] == "the server is dead"


class _OnceAlive(set[s.Run]):
    """Known to be dead from the second look on."""

    looks = 0

    def __contains__(self, run: object) -> bool:
        self.looks += 1
        return self.looks > 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_bug_a_yes_of_before_a_freeze_was_sent_after_it(tmp_path: Path, method: str) -> None:
    gone = _OnceAlive()
    with served(tmp_path, gone=gone) as api:
        serve(api)
        with pytest.raises(ConnectionResetError):
            api.ask(method, "/active")
        assert gone.looks == 2
        assert api.ask(method, "/active").status == 503, "the next one is answered"


# For people and programs.


def test_status_is_the_command_s_and_says_how_old_it_is(api: Served) -> None:
    serve(api)
    answer = api.get("/status")
    found = answer.json

    assert (found["active"], found["node"], found["cluster"]) == ("a", "node-a", "plant-7")
    assert 0 <= found["view_age_s"] < WITHIN_S
    assert int(answer.headers["Age"]) <= WITHIN_S
    own = next(node for node in found["nodes"] if node["node"] == "a" and node["api"])
    assert (own["role"], own["enforcement"], own["api"]) == ("active", "kernel", api.api.url)


@pytest.mark.parametrize("off_by_ms", [-3_600_000, 3_600_000])
def test_a_wrong_clock_of_another_node_makes_it_neither_old_nor_young(api: Served, off_by_ms: int) -> None:
    """What an operator sees of an active elsewhere: its lease runs down until the store shows a new word."""
    words = other("b", seen_at_unix_ms=wall_ms() + off_by_ms, lease_left_ms=60_000)
    api.tell(s.Idle(), view(lock("b"), nodes=(words,)))

    def node() -> Any:
        return next(node for node in api.get("/status").json["nodes"] if node["node"] == "b")

    first = node()
    assert first["last_seen_s"] < WITHIN_S
    api.tell(s.Idle(), view(lock("b"), nodes=(words, other("c"))))  # news, but not of b
    wait_until(lambda: node()["lease_remaining_s"] < first["lease_remaining_s"], "the lease to run down")
    wait_until(lambda: node()["last_seen_s"] > first["last_seen_s"], "its words to grow old")

    api.tell(s.Idle(), view(lock("b"), nodes=(replace(words, seen_at_unix_ms=wall_ms()),)))
    assert node()["lease_remaining_s"] > 60 - WITHIN_S


def test_status_says_that_it_has_seen_nothing(api: Served) -> None:
    assert "not known" in api.get("/status").json["notices"][0]


def test_history_is_that_of_the_store_and_read_after_each_change(stage: Stage, api: Served) -> None:
    stage.acquire("node-a")
    stage.record("first start")
    held = lock("a", epoch=1)
    api.tell(s.Idle(), view(held, 1, nodes=(other("a", role="active", state="running", epoch=1),)))

    wait_until(lambda: api.get("/history").status == 200, "the history")
    wait_until(lambda: api.get("/history").json != [], "the entry")

    assert [(entry["epoch"], entry["cause"]) for entry in api.get("/history?n=5").json] == [
        (1, "first start")
    ]
    assert [api.get(f"/history?n={n}").status for n in ("0", "1001", "x", "-1")] == [400] * 4


def test_metrics_are_what_the_renderer_returns(api: Served, tmp_path: Path) -> None:
    assert api.get("/metrics").status == 404
    with served(tmp_path, metrics=lambda: b"up 1\n") as other_api:
        answer = other_api.get("/metrics")
    assert (answer.body, answer.headers["Content-Type"]) == (
        b"up 1\n",
        "text/plain; version=0.0.4; charset=utf-8",
    )


def test_a_path_that_breaks_is_an_alarm_and_no_traceback(tmp_path: Path) -> None:
    def broken() -> bytes:
        raise LookupError("no such metric")

    heard: list[events.Event] = []
    with events.listening(heard.append), served(tmp_path, metrics=broken) as api:
        answers = [api.get("/metrics") for _ in range(3)]

    assert [answer.status for answer in answers] == [500] * 3
    assert b"LookupError" not in answers[0].body
    assert [e.text for e in heard if isinstance(e, events.Raised)] == [
        "api: /metrics: internal error: LookupError: no such metric"
    ]


def test_the_page_needs_nothing_from_elsewhere(api: Served) -> None:
    answer = api.get("/")

    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert b"://" not in answer.body.replace(b"http://www.w3.org/2000/svg", b""), "a name, never fetched"


def test_what_is_not_there_is_said_in_json(api: Served) -> None:
    assert api.get("/nothing").json == {"message": "not found"}
    wrong = api.ask("POST", "/active")
    assert (wrong.status, set(wrong.headers["Allow"].split(","))) == (405, {"GET", "HEAD", "OPTIONS"})


# /events


class Reader:
    """Reads server-sent events from a socket of its own."""

    def __init__(self, api: Served, after: str | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", api.port), WITHIN_S)
        again = f"Last-Event-ID: {after}\r\n" if after else ""
        self.socket.sendall(f"GET /events HTTP/1.1\r\nHost: x\r\n{again}\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.number: str | None = None

    def next(self, *names: str) -> dict[str, Any]:
        """Return the next event that is called one of *names*."""
        name = ""
        for raw in self.file:
            key, _, value = raw.decode().strip().partition(": ")
            if key == "id":
                self.number = value
            name = value if key == "event" else name
            if key == "data" and name in names:
                return dict(json.loads(value))
        raise AssertionError("the stream has ended")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def reader(api: Served) -> Iterator[Reader]:
    made = Reader(api)
    yield made
    made.close()


def probe_failed(failures: int) -> events.ProbeFailed:
    return events.ProbeFailed(run=3, reason="no answer", failures=failures, of=3)


def test_events_tell_the_state_then_what_happens(api: Served, reader: Reader) -> None:
    assert reader.next("status")["active"] is None

    serve(api)
    assert reader.next("status")["active"] == "a"

    api.tell(s.Serving(lease(60_000), 3), view(lock("a"), request=request()))
    assert reader.next("request")["state"] == "asked"

    events.emit(probe_failed(2))
    assert reader.next("probe_failed")["failures"] == 2


def test_a_reader_that_comes_back_gets_what_it_has_missed(api: Served, reader: Reader) -> None:
    reader.next("status")
    events.emit(probe_failed(1))
    reader.next("probe_failed")
    events.emit(probe_failed(2))
    reader.next("probe_failed")

    with closing(Reader(api, after=str(int(str(reader.number)) - 1))) as again:
        again.next("status")
        assert again.next("probe_failed")["failures"] == 2


def test_a_reader_that_comes_back_late_is_not_dropped_for_all_it_has_missed() -> None:
    feed, drops = Feed("a"), list[None]()
    for number in range(KEPT_MAX):
        feed.hear(probe_failed(number))
    feed.spread()

    with feed.reading(b"{}", "0", lambda: drops.append(None)) as back:
        frames = [back.waiting.get_nowait() for _ in range(back.waiting.qsize())]

    assert drops == []
    assert b'"failures":%d,' % (KEPT_MAX - 1) in frames[-1]


def test_events_pile_up_nowhere() -> None:
    feed = Feed("a")
    for number in range(2 * INCOMING_MAX):
        feed.hear(probe_failed(number))
    assert len(feed._incoming) == INCOMING_MAX

    feed.spread()
    assert len(feed._kept) == KEPT_MAX


def test_what_is_prose_for_the_log_is_not_told(api: Served, reader: Reader) -> None:
    reader.next("status")
    events.emit(events.Notice(text="x"))
    events.emit(probe_failed(1))

    assert reader.next(events.Notice.NAME, events.ProbeFailed.NAME)["failures"] == 1


def test_only_so_many_readers_and_one_that_leaves_makes_room(api: Served) -> None:
    with ExitStack() as stack:
        readers = [stack.enter_context(closing(Reader(api))) for _ in range(READERS_MAX)]
        for one in readers:
            one.next("status")
        with open_connection(api, b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n") as refused:
            assert refused.recv(1000).startswith(b"HTTP/1.1 503")

        readers[0].close()
        wait_until(lambda: not api.api._feed.is_full, "room for one more")


def test_a_reader_that_takes_nothing_is_dropped(api: Served) -> None:
    serve(api)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    slow.settimeout(WITHIN_S)
    slow.connect(("127.0.0.1", api.port))
    slow.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    slow.recv(100)
    long = events.Raised(text="x" * 50_000)
    feed = api.api._feed

    def dropped() -> bool:
        for _ in range(20):
            events.emit(long)
        return not feed.has_readers

    wait_until(dropped, "the slow reader to be dropped")
    slow.close()
    serve(api)  # the turn of before may be too old by now
    assert api.get("/live").status == 200


# Commands: who may.


@pytest.mark.parametrize("path", COMMANDS)
def test_without_a_configured_token_there_are_no_commands(tmp_path: Path, path: str) -> None:
    with served(tmp_path, environ={}) as api:
        answer = api.post(path, token="")
    assert (answer.status, answer.json["exit_code"]) == (403, 4)
    assert "token_file" in answer.json["message"]


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_needs_the_token(api: Served, path: str) -> None:
    for header in (None, "Basic eDp5", "Bearer", f"Token {TOKEN}"):
        answer = api.ask("POST", path, headers={"Authorization": header} if header else {})
        assert (answer.status, answer.headers["Www-Authenticate"]) == (401, "Bearer"), header
    for token in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é"):
        answer = api.post(path, token=token)
        assert (answer.status, answer.headers["Www-Authenticate"]) == (401, 'Bearer error="invalid_token"')


def test_the_token_comes_from_a_file_and_changes_with_a_reload(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    text = f"cluster: c\nbackend: local\napi: {{listen: '127.0.0.1:1', token_file: {tmp_path}/token}}\n"
    with served(tmp_path, environ={}, token_file=str(tmp_path / "token")) as api:
        assert api.post("/nothing", token="first").status == 404
        assert api.ask("POST", "/pause", b"[]", {"Authorization": "bearer first"}).status == 400
        (tmp_path / "token").write_text("second\n")
        api.api.reload(from_text(text, {}, source="test"))
        assert api.post("/pause", token="first").status == 401


def test_plain_http_from_elsewhere_is_refused_unless_allowed(tmp_path: Path) -> None:
    own = _own_address()
    port = free_port()
    with served(tmp_path, listen=f"0.0.0.0:{port}") as api:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        refused = api.ask("POST", "/pause", b"[]", headers, host=own)
        assert (refused.status, "plain HTTP" in refused.json["message"]) == (403, True)
        assert api.ask("GET", "/live", host=own).status == 503, "reading is free"
        assert api.post("/pause", b"[]").status == 400, "and so is this machine"
    with served(tmp_path, listen=f"0.0.0.0:{port}", plain_http_commands=True) as api:
        assert api.ask("POST", "/pause", b"[]", headers, host=own).status == 400


@pytest.mark.parametrize(
    ("own_address", "taken"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("x", False),
        (None, False),
    ],
)
def test_plain_http_is_taken_at_an_address_of_the_loopback_alone(
    own_address: str | None, *, taken: bool
) -> None:
    access = Access(Secret(TOKEN), encrypted=False, plain_too=False)

    assert access.denial(f"Bearer {TOKEN}", own_address) == (None if taken else IN_THE_CLEAR)


def _own_address() -> str:
    """Return an address of this machine that is not the loopback's; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def test_a_wrong_token_is_in_the_log_without_the_token(api: Served) -> None:
    heard: list[events.Event] = []
    with events.listening(heard.append):
        for _ in range(5):
            api.post("/pause", token="guess")

    (notice,) = (event for event in heard if isinstance(event, events.Notice))
    assert notice.text == "api: a command with a wrong token from 127.0.0.1"


# Commands: what they do.


def test_switchover_reports_what_was_observed(stage: Stage, api: Served) -> None:
    stage.acquire("node-a")
    stage.appear("node-b")
    with stage.acting(lambda: stage.obey("node-b")):
        answer = api.post("/switchover", {"to": "node-b"})
    found = answer.json

    assert answer.status == 200
    assert (found["outcome"], found["exit_code"], found["node"], found["epoch"]) == ("done", 0, "node-b", 2)
    assert found["message"].startswith("node-b is active at epoch 2")
    assert found["said"][-1] == "node-a hands over to node-b"
    assert stage.view().request.by == "127.0.0.1 by HTTP"  # type: ignore[union-attr]


def test_failover_wants_force_and_says_what_is_at_risk(stage: Stage, api: Served) -> None:
    stage.acquire("node-a")
    stage.appear("node-b")
    answer = api.post("/failover", {})

    assert (answer.status, answer.json["outcome"], answer.json["exit_code"]) == (409, "refused", 4)
    assert '"force": true' in answer.json["message"]
    assert any("what it has not written is lost" in risk for risk in answer.json["risks"])
    assert stage.view().lock.state == "held"  # type: ignore[union-attr]

    forced = api.post("/failover", {"force": True, "timeout": "300ms"})
    assert (forced.status, forced.json["outcome"], forced.json["exit_code"]) == (504, "unknown", 5)
    assert stage.view().lock.state == "broken"  # type: ignore[union-attr]


def test_pause_and_resume_change_the_settings(stage: Stage, api: Served) -> None:
    assert api.post("/pause").json["message"] == "cluster plant-7: paused"
    assert stage.view().settings.paused
    assert api.post("/pause", {}).json["changed"] is False
    assert api.post("/resume").json["outcome"] == "done"
    assert not stage.view().settings.paused


def test_a_refusal_is_the_command_s(stage: Stage, api: Served) -> None:
    for path, body, says in (
        ("/switchover", {}, "nobody is active"),
        ("/restart", {"node": "node-x"}, "node-x is not there"),
        ("/resume", {}, "the cluster is not paused"),
        ("/failover", {"raise_epoch": True, "force": True}, "is not behind"),
    ):
        answer = api.post(path, body)
        assert (answer.status, answer.json["exit_code"]) == (409, 4), answer
        assert says in answer.json["message"]


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"too": "b"}', b'{"to": 1}', b'{"to": "../x"}', b'{"timeout": "soon"}', b"\xff"]
)
def test_what_is_not_understood_is_not_done(stage: Stage, api: Served, body: bytes) -> None:
    answer = api.ask("POST", "/switchover", body, {"Authorization": f"Bearer {TOKEN}"})

    assert (answer.status, answer.json["outcome"], answer.json["exit_code"]) == (400, "bad_request", 2)


@pytest.mark.parametrize(
    ("path", "field"),
    [("/switchover", "to"), ("/failover", "to"), ("/pause", "node"), ("/restart", "timeout")],
)
def test_bug_a_bad_name_in_a_body_was_not_said_to_be_which(api: Served, path: str, field: str) -> None:
    assert api.post(path, {field: ""}).json["message"].startswith(f"{field}: ")


def test_only_so_many_commands_at_once(stage: Stage, tmp_path: Path) -> None:
    stage.acquire("node-a")
    stage.appear("node-b")
    with served(tmp_path, limits=USUAL._replace(commands_max=1)) as api:
        waiting = threading.Thread(target=lambda: api.post("/switchover", {"to": "node-b"}))
        waiting.start()
        stage.await_request("asked")
        answer = api.post("/pause")
        stage.answer("refused", "not now")
        waiting.join(WITHIN_S)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "5")


def test_bug_a_command_for_which_there_was_no_thread_kept_its_place(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_job: object) -> None:
        raise RuntimeError("can't start new thread")

    stage.acquire("node-a")
    with served(tmp_path, limits=USUAL._replace(commands_max=1)) as api:
        with monkeypatch.context() as patched:
            patched.setattr("sidecar.api.routes.in_thread", none_left)
            assert api.post("/pause").status == 500
        assert api.post("/pause").status == 200


# TLS.


def test_a_new_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    old, new = Tls.make(tmp_path / "old"), Tls.make(tmp_path / "new")
    (tmp_path / "tls").mkdir()
    cert, key = tmp_path / "tls/cert.pem", tmp_path / "tls/key.pem"

    def put(tls: Tls) -> None:
        for source, target in ((tls.key, key), (tls.cert, cert)):
            target.with_suffix(".new").write_bytes(source.read_bytes())
            target.with_suffix(".new").replace(target)

    put(old)
    heard: list[events.Event] = []
    files: dict[str, Any] = {"tls_cert_file": str(cert), "tls_key_file": str(key)}
    with events.listening(heard.append), served(tmp_path, tls=old.context(), **files) as api:
        assert api.api.url.startswith("https://")
        assert api.post("/pause", b"[]").status == 400, "commands are taken over TLS"
        with closing(api.connect()) as kept:
            kept.request("GET", "/openapi.json")
            kept.getresponse().read()
            cert.write_text("nonsense")
            wait_until(lambda: any(isinstance(e, events.Raised) for e in heard), "an alarm")
            assert api.get("/live").status == 503, "the old one stays"

            put(new)
            wait_until(lambda: _accepts(api, new.context()), "the new certificate")
            kept.request("GET", "/openapi.json")
            assert kept.getresponse().status == 200, "a connection of before goes on"
        assert not _accepts(api, old.context())


def _accepts(api: Served, context: ssl.SSLContext) -> bool:
    api.tls = context
    try:
        return api.get("/live").status == 503
    except ssl.SSLError:
        return False


def test_a_bad_certificate_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("nonsense")
    bad = str(tmp_path / "cert")
    files: dict[str, Any] = {"tls_cert_file": bad, "tls_key_file": bad}

    with pytest.raises(ConfigError, match=r"^api\.tls_cert_file: "), served(tmp_path, **files):
        pass


def test_an_encrypted_key_is_an_error_and_no_question(tmp_path: Path) -> None:
    tls, locked = Tls.make(tmp_path), tmp_path / "locked.pem"
    encrypt = f"openssl pkey -aes256 -passout pass:x -in {tls.key} -out {locked}"
    subprocess.run(encrypt.split(), check=True, capture_output=True)
    files: dict[str, Any] = {"tls_cert_file": str(tls.cert), "tls_key_file": str(locked)}

    with pytest.raises(ConfigError, match="the key is encrypted"), served(tmp_path, **files):
        pass


# Bounds.

SMALL = USUAL._replace(open_max=20, head_within_s=1.0, body_within_s=0.5)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, limits=SMALL) as made:
        yield made


@contextmanager
def silent(folder: Path, count: int, **limits: Any) -> Iterator[tuple[Served, list[socket.socket]]]:
    """Serve TLS, and open *count* connections that never begin a handshake."""
    tls = Tls.make(folder / "tls")
    files: dict[str, Any] = {"tls_cert_file": str(tls.cert), "tls_key_file": str(tls.key)}
    with (
        served(folder, tls=tls.context(), limits=USUAL._replace(**limits), **files) as made,
        ExitStack() as stack,
    ):
        yield made, [stack.enter_context(open_connection(made)) for _ in range(count)]


def open_connection(api: Served, text: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", api.port), WITHIN_S)
    made.sendall(text)
    return made


def test_idle_connections_make_room_for_a_check(tmp_path: Path) -> None:
    """At once, not when they have been silent for too long."""
    with served(tmp_path, limits=SMALL._replace(head_within_s=60.0)) as api, ExitStack() as stack:
        idle = [stack.enter_context(open_connection(api)) for _ in range(10 * SMALL.open_max)]
        assert api.get("/openapi.json").status == 200
        assert all(_is_closed(one) for one in idle[: -SMALL.open_max])


def test_a_reader_of_events_is_not_closed_to_make_room(small: Served) -> None:
    with closing(Reader(small)) as reader, ExitStack() as stack:
        reader.next("status")
        for _ in range(2 * SMALL.open_max):
            stack.enter_context(open_connection(small))
        assert small.get("/openapi.json").status == 200, "all of them have come in"

        events.emit(probe_failed(1))
        assert reader.next("probe_failed")["failures"] == 1


def test_a_handshake_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    with silent(tmp_path, 1, handshake_within_s=0.5) as (_, (one,)):
        assert _is_closed(one)


def test_handshakes_that_do_not_come_make_room_for_a_check(tmp_path: Path) -> None:
    with silent(tmp_path, 20, handshakes_max=5, handshake_within_s=60.0) as (api, waiting):
        assert api.get("/openapi.json").status == 200
        assert all(_is_closed(one) for one in waiting[:-5])


def test_a_head_that_does_not_end_is_cut_off(small: Served) -> None:
    with open_connection(small, b"GET /active HTTP/1.1\r\nHost: x\r\nX-A: ") as slow:
        started = BootClock().now()
        slow.settimeout(0.1)
        while not _is_closed(slow, b"a"):
            assert BootClock().now() - started < WITHIN_S * 1_000
        assert BootClock().now() - started >= SMALL.head_within_s * 500


def _is_closed(one: socket.socket, send: bytes = b"") -> bool:
    try:
        one.sendall(send)
        return one.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    "head",
    [
        b"GET /active HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(500)),
        b"GET /active HTTP/1.1\r\nX: " + b"a" * 100_000,
        b"GET /" + b"a" * 100_000,
        b"\x16\x03\x01 not HTTP \r\n\r\n",
    ],
    ids=["many headers", "a long header", "a long path", "no HTTP"],
)
def test_a_flood_of_headers_is_refused(small: Served, head: bytes) -> None:
    with open_connection(small) as one:
        try:
            one.sendall(head)
            answer = one.recv(100)
        except ConnectionError:
            return  # cut off while it was sent
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))


PAUSE = b"POST /pause HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()


def test_a_huge_body_is_not_read(small: Served) -> None:
    with open_connection(small, PAUSE + b"Content-Length: 1000000000\r\n\r\n") as one:
        assert one.recv(100).startswith(b"HTTP/1.1 413")
    with open_connection(small, PAUSE + b"Transfer-Encoding: chunked\r\n\r\n") as one:
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        deadline = BootClock().now() + 10_000

        def pour() -> None:
            while BootClock().now() < deadline:
                one.sendall(chunk)

        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):  # cut off, however much is still to come
            pour()
    assert small.get("/openapi.json").status == 200


def test_a_body_of_no_given_length_is_read_up_to_the_limit(small: Served) -> None:
    size = SMALL.body_max_bytes + 1
    chunk = b"%x\r\n%b\r\n" % (size, b" " * size)
    with open_connection(small, PAUSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunk) as one:
        assert one.recv(100).startswith(b"HTTP/1.1 413")


def test_a_packed_body_is_not_unpacked(api: Served) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Encoding": "gzip"}

    assert api.ask("POST", "/pause", gzip.compress(b"{}"), headers).status == 400


def test_a_slow_body_is_given_up(small: Served) -> None:
    with open_connection(small, PAUSE + b"Content-Length: 9\r\n\r\n") as one:
        assert one.recv(100).startswith(b"HTTP/1.1 408")


def test_a_body_that_was_not_taken_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    with served(tmp_path, limits=SMALL._replace(commands_max=1)) as api:
        for length, status in ((9, 408), (1_000_000, 413)):
            with open_connection(api, PAUSE + b"Content-Length: %d\r\n\r\n" % length) as one:
                assert one.recv(100).startswith(b"HTTP/1.1 %d" % status)
            assert api.post("/pause", b"[]").status == 400


# The thread.


def test_an_address_that_is_taken_is_an_error_at_the_start(api: Served) -> None:
    text = f"cluster: c\nbackend: local\napi: {{listen: '127.0.0.1:{api.port}'}}\n"

    with pytest.raises(
        ConfigError, match=rf"^api\.listen: 127\.0\.0\.1:{api.port}: .*address already in use"
    ):
        Api(from_text(text, {}, source="test"), BootClock(), lambda _run: True).open()


def test_bug_the_zone_of_an_address_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link-local address belongs to an interface: without it the kernel says "invalid argument"."""
    asked: list[object] = []

    def create_server(address: object, **_more: object) -> socket.socket:
        asked.append(address)
        return socket.socket()

    monkeypatch.setattr("socket.getaddrinfo", lambda *_words, **_more: found_at(("fe80::1", 8009, 0, 7)))
    monkeypatch.setattr("socket.create_server", create_server)
    text = "cluster: c\nbackend: local\napi: {listen: '[fe80::1%eth0]:8009'}\n"
    made = Api(from_text(text, {}, source="test"), BootClock(), lambda _run: True)
    made.open()
    made.close()

    assert asked == [("fe80::1", 8009, 0, 7)]


def test_a_loop_that_dies_is_an_alarm_and_begins_again(api: Served) -> None:
    serve(api)
    heard: list[events.Event] = []
    with events.listening(heard.append):
        loop = api.api._loop
        assert loop is not None
        loop.call_soon_threadsafe(loop.stop)
        wait_until(lambda: any(isinstance(e, events.Raised) for e in heard), "an alarm")

    wait_until(lambda: _up(api), "the API to be back")
    assert api.get("/active").status == 200


def _up(api: Served) -> bool:
    serve(api)  # a turn that is too old is no sign of life
    try:
        return api.get("/live").status == 200
    except OSError:
        return False
