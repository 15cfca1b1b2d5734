"""Goal: every call to a Consul that misbehaves ends in time, and its error tells the truth about its effect.

Method: small false servers on 127.0.0.1 answer wrongly, slowly, by the byte or not at all; a real Consul with
ACLs checks the token; every request that reaches a false server is kept and looked through for secrets.

Not covered: a name server that hangs (the resolver is the system's).
"""

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from backends._consul_transport import TOKENS_KEPT
from backends.consul import ConsulBackend, connect
from sidecar.clock import BootClock
from sidecar.core.model import Settings
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.errors import BackendError, ConfigError, Denied, NotSent, OutcomeUnknown
from sidecar.ports import BackendSettings, Grant, Hold
from tests.contract.steps import Doing, node
from tests.harness.process import crowded, found_at, free_port, wait_until
from tests.harness.stores import Consul, Tls, acl, unique

CLOCK = BootClock()
TOKEN = "11112222-3333-4444-5555-666677778888"
OVER_MS = 200  # C8
HOLD = Hold("a", "a-1", Epoch(1), 5_000, "cas")
LOCK_ROW = {
    "Key": "aggregate-sidecar/plant/lock",
    "ModifyIndex": 7,
    "Value": "eyJ2IjoxLCJub2RlIjoiYSIsImluc3RhbmNlIjoiYS0xIiwiZXBvY2giOjEsInR0bF9tcyI6NTAwMH0=",
}

Call = Callable[[ConsulBackend, Instant], object]
CALLS: dict[str, Call] = {
    "info": lambda b, at: b.info(deadline=at),
    "acquire": lambda b, at: b.acquire("a", "a-1", 5_000, floor=NO_EPOCH, deadline=at),
    "renew": lambda b, at: b.renew(HOLD, deadline=at),
    "release": lambda b, at: b.release(HOLD, cause="stop", deadline=at),
    "break": lambda b, at: b.break_lock(Epoch(1), to=None, by="me", request=None, ttl_ms=5_000, deadline=at),
    "raise": lambda b, at: b.raise_epoch(Epoch(1), ttl_ms=5_000, by="me", deadline=at),
    "read": lambda b, at: b.read(deadline=at),
    "watch": lambda b, at: b.await_change(0, deadline=at),
    "write": lambda b, at: b.write(Settings(), expected=0, deadline=at),
    "withdraw": lambda b, at: b.withdraw("a", "a-1", deadline=at),
    "history": lambda b, at: b.read_history(5, deadline=at),
}


class Fake(http.server.ThreadingHTTPServer):
    """Answers reads well enough for a lock to be seen, and writes as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.read: tuple[int, str] = (200, json.dumps({"Results": [{"KV": LOCK_ROW}], "Errors": None}))
        self.write: tuple[int, str] = (500, "it broke")
        self.seen: list[str] = []
        self.tokens: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(f"{self.command} {self.path} {body.decode()}")
        self.server.tokens.append(self.headers.get("X-Consul-Token"))
        reads = self.command == "GET" or b'"get-tree"' in body
        status, text = self.server.read if reads else self.server.write
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Consul-Index", "7")
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_PUT = do_DELETE = _answer  # noqa: N815 - the names http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def false() -> Iterator[Fake]:
    with Fake() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def to() -> Iterator[Callable[..., ConsulBackend]]:
    with ExitStack() as stack:

        def make(url: str, cluster: str = "plant", **options: object) -> ConsulBackend:
            settings = BackendSettings(cluster, {"address": url, **options})
            return stack.enter_context(closing(connect(settings, CLOCK)))

        yield make


def soon(ms: int = 2_000) -> Instant:
    return Instant(CLOCK.now() + ms)


def watch_on(backend: ConsulBackend, revision: int) -> None:
    while backend.await_change(revision, deadline=soon(20_000)) is None:
        pass


def serve(behave: Callable[[socket.socket], None], stack: ExitStack) -> str:
    """Return the URL of a server that hands every connection to *behave*."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
    stack.callback(lambda: listener.shutdown(socket.SHUT_RDWR))

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            stack.callback(client.close)
            threading.Thread(target=behave, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def trickle(client: socket.socket) -> None:
    """Send an answer that never ends, a byte at a time: no single read ever takes long."""
    pause = threading.Event()
    try:
        client.recv(65_536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not pause.wait(0.03):
            client.sendall(b" ")
    except OSError:
        return


def trickle_headers(client: socket.socket) -> None:
    pause = threading.Event()
    try:
        client.recv(65_536)
        client.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not pause.wait(0.03):
            client.sendall(b"x")
    except OSError:
        return


def swallow(client: socket.socket) -> None:
    try:
        while client.recv(65_536):
            pass
    except OSError:
        return


@pytest.mark.parametrize("behave", [swallow, trickle, trickle_headers])
@pytest.mark.parametrize("name", CALLS)
def test_no_call_outlives_its_deadline(
    to: Callable[..., ConsulBackend], name: str, behave: Callable[[socket.socket], None]
) -> None:
    with ExitStack() as stack:
        backend = to(serve(behave, stack))
        asked_at = CLOCK.now()
        with pytest.raises((NotSent, OutcomeUnknown)) as caught:
            CALLS[name](backend, soon(250))
        assert CLOCK.now() - asked_at <= 250 + OVER_MS
        assert isinstance(caught.value, OutcomeUnknown) == (name == "write")  # all others look first


def test_a_connect_that_gets_no_answer_ends_in_time(to: Callable[..., ConsulBackend]) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        stack.enter_context(crowded(full))
        backend = to(f"http://127.0.0.1:{full.getsockname()[1]}")
        asked_at = CLOCK.now()
        with pytest.raises(NotSent):
            CALLS["write"](backend, soon(250))
        assert CLOCK.now() - asked_at <= 250 + OVER_MS


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://no-such-host.invalid:8500"])
def test_what_cannot_be_reached_was_not_sent(to: Callable[..., ConsulBackend], address: str) -> None:
    for name, call in CALLS.items():
        with pytest.raises(NotSent, match=address.removeprefix("http://")):
            call(to(address), soon(1_500))
        assert name


def test_a_deadline_already_passed_sends_nothing(to: Callable[..., ConsulBackend], false: Fake) -> None:
    backend = to(false.url)
    for name, call in CALLS.items():
        if name != "watch":  # None: no change until then
            with pytest.raises(NotSent):
                call(backend, Instant(CLOCK.now() - 1))
    assert false.seen == []


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, "No cluster leader", NotSent),
        (500, "rpc error making call: No cluster leader", NotSent),
        (500, "leadership lost while committing log", OutcomeUnknown),
        (502, "", OutcomeUnknown),
        (503, "", OutcomeUnknown),
        (504, "", OutcomeUnknown),
        (429, "rate limit exceeded", NotSent),
        (400, "bad request", NotSent),
        (404, "", NotSent),
        (413, "too large", NotSent),
        (301, "", OutcomeUnknown),
        (403, "Permission denied", Denied),
        (401, "ACL support disabled", Denied),
        (409, '{"Errors": [{"OpIndex": 0, "What": "Permission denied"}]}', Denied),
        (409, "<html>", NotSent),
        (200, "<html>", OutcomeUnknown),
        (200, '{"Results": 5}', OutcomeUnknown),
        (200, '{"Results": [], "Errors": null}', OutcomeUnknown),
        (200, "null", OutcomeUnknown),
    ],
)
def test_the_answer_to_a_write_tells_its_effect(
    to: Callable[..., ConsulBackend], false: Fake, status: int, body: str, kind: type[BackendError]
) -> None:
    false.write = (status, body)
    for name in ("write", "renew", "break"):
        with pytest.raises(BackendError) as caught:
            CALLS[name](to(false.url), soon())
        assert type(caught.value) is kind, name
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(500, "No cluster leader", NotSent), (503, "", NotSent), (200, "<html>", NotSent), (403, "", Denied)],
)
def test_a_failed_read_has_no_effect(
    to: Callable[..., ConsulBackend], false: Fake, status: int, body: str, kind: type[BackendError]
) -> None:
    false.read = (status, body)
    for name, call in CALLS.items():
        if name != "write":
            with pytest.raises(BackendError) as caught:
                call(to(false.url), soon())
            assert type(caught.value) is kind, name


def test_bug_a_datacenter_that_is_not_there_was_not_named(
    to: Callable[..., ConsulBackend], false: Fake
) -> None:
    false.read = (500, "No path to datacenter")

    with pytest.raises(
        NotSent, match=r"No path to datacenter: consul\.datacenter is nosuch; `consul catalog"
    ):
        CALLS["read"](to(false.url, datacenter="nosuch"), soon())


def test_bug_nobody_was_seen_in_another_datacenter(
    to: Callable[..., ConsulBackend], tmp_path: Path, namespace: str
) -> None:
    """A session is of the node of the agent that is asked, which the other datacenter does not know."""
    wan = {"dc1": free_port(), "dc2": free_port()}
    with ExitStack() as stack:
        near, far = (stack.enter_context(Consul.run(tmp_path / dc, name=dc, wan=wan)) for dc in wan)

        def joined() -> bool:
            with suppress(OSError):
                return near.call("PUT", "/v1/kv/joined?dc=dc2", b"1").strip() == b"true"
            return False

        wait_until(joined, "the datacenters to know each other", 60)
        backend = to(near.url, namespace, datacenter="dc2")
        for _ in range(2):  # made, then renewed
            backend.publish(node("a"), ttl_ms=10_000, deadline=soon(5_000))
        assert [found.node for found in backend.read(deadline=soon()).nodes] == ["a"]
        assert far.get(f"aggregate-sidecar/{namespace}/nodes/a") is not None
        backend.withdraw("a", "a-1", deadline=soon())
        assert backend.read(deadline=soon()).nodes == ()


def test_a_missing_right_to_read_nodes_is_named(to: Callable[..., ConsulBackend], false: Fake) -> None:
    false.write = (500, "rpc error making call: Missing node registration")

    with pytest.raises(OutcomeUnknown, match=r'the token needs node_prefix "" read in dc2'):
        CALLS["write"](to(false.url, datacenter="dc2"), soon())


def test_bug_an_address_where_nothing_answers_was_never_left(
    to: Callable[..., ConsulBackend], false: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name has several, and a program that hangs at the first one still accepts."""
    with ExitStack() as stack:
        hangs = serve(swallow, stack).rpartition(":")[2]
        places = found_at(("127.0.0.1", int(hangs)), false.server_address)
        monkeypatch.setattr("socket.getaddrinfo", lambda *_words, **_more: places)
        backend = to("http://consul.example:8500")
        with pytest.raises(NotSent, match="no answer in time"):
            CALLS["read"](backend, soon(250))

        CALLS["read"](backend, soon())


def test_the_token_is_in_the_header_and_nowhere_else(
    to: Callable[..., ConsulBackend], false: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "of-somebody-else")
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    false.write = (403, f"{TOKEN} is not allowed\nto do that")
    backend = to(false.url, token_file=str(file), datacenter="dc7")
    messages = []
    for call in CALLS.values():
        try:
            call(backend, soon(300))
        except BackendError as error:
            messages.append(str(error))
    assert messages
    assert false.seen
    assert set(false.tokens) == {TOKEN}
    assert not [text for text in (*messages, *false.seen) if TOKEN in text]
    paths = [text.split()[1] for text in false.seen if "/v1/kv/" in text or "/v1/txn" in text]
    assert paths
    assert all("dc=dc7" in path for path in paths)
    reads = [text.split()[1] for text in false.seen if text.startswith("GET /v1/kv/") or "get-tree" in text]
    assert all("consistent=1" in path for path in reads)


def test_bug_close_did_not_end_a_handshake(to: Callable[..., ConsulBackend], tmp_path: Path) -> None:
    """A Consul that hangs still accepts; the call that waited for its half of TLS went on to its deadline."""
    files = {"ca_file": str(Tls.make(tmp_path / "tls").ca)}
    with ExitStack() as stack:
        greeted = threading.Event()

        def hang(client: socket.socket) -> None:
            client.recv(1)  # the client's hello
            greeted.set()
            swallow(client)

        backend = to(serve(hang, stack).replace("http:", "https:"), **files)
        call = Doing(lambda: backend.read(deadline=soon(20_000)))
        assert greeted.wait(5)
        closed_at = CLOCK.now()
        backend.close()
        with pytest.raises(NotSent):
            call.result()
        assert call.ended_at - closed_at < 1_000


def test_close_ends_a_blocking_query_and_everything_after_it(
    to: Callable[..., ConsulBackend], consul: Consul, namespace: str
) -> None:
    with ExitStack() as stack:
        hung = to(serve(swallow, stack))
        watching = to(consul.url, namespace)
        view = watching.read(deadline=soon())
        errors: list[BackendError] = []

        def run(call: Call, backend: ConsulBackend) -> None:
            try:
                call(backend, soon(20_000))
            except BackendError as error:
                errors.append(error)

        calls: list[tuple[Call, ConsulBackend]] = [
            (lambda b, _: watch_on(b, view.revision), watching),
            (CALLS["read"], hung),
            (CALLS["write"], hung),
        ]
        threads = [threading.Thread(target=run, args=args) for args in calls]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(hung._client.http._open) == 2, "both calls are under way", 5)
        wait_until(lambda: watching._watched, "the watch is under way", 5)
        closed_at = CLOCK.now()
        for backend in (hung, watching, hung):
            backend.close()
        for thread in threads:
            thread.join(2)
        assert CLOCK.now() - closed_at < 1_000
        assert sorted(type(error).__name__ for error in errors) == ["NotSent", "NotSent", "OutcomeUnknown"]
        for call in CALLS.values():
            with pytest.raises(NotSent):
                call(hung, soon())


def test_a_write_on_a_kept_connection_that_dies_is_not_sent_twice(to: Callable[..., ConsulBackend]) -> None:
    """The first one may have been carried out: only the caller can know whether it may be done again."""
    writes: list[bytes] = []
    answer = json.dumps({"Results": [{"KV": LOCK_ROW}], "Errors": None}).encode()

    def behave(client: socket.socket) -> None:
        heard = b""
        with suppress(OSError):
            while data := client.recv(65_536):
                heard += data
                if b'"cas"' in heard:
                    writes.append(heard)
                    client.close()  # it has read the request, and dies before it answers
                    return
                if heard.endswith(b"]"):  # of a read's operations
                    heard = b""
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer)
                    client.sendall(head + answer)

    with ExitStack() as stack:
        backend = to(serve(behave, stack))
        backend.read(deadline=soon())  # its connection is kept
        with pytest.raises(OutcomeUnknown):
            CALLS["write"](backend, soon())

    assert len(writes) == 1


def test_a_connection_that_the_server_closed_meanwhile_costs_nothing(
    to: Callable[..., ConsulBackend], consul: Consul, namespace: str
) -> None:
    backend = to(consul.url, namespace)
    grant = backend.acquire("a", "a-1", 20_000, floor=NO_EPOCH, deadline=soon())
    assert isinstance(grant, Grant)
    backend.read(deadline=soon())
    consul.restart()
    assert backend.renew(grant.hold, deadline=soon()).hold == grant.hold


def test_a_real_consul_with_acls(to: Callable[..., ConsulBackend], tmp_path: Path) -> None:
    with Consul.run(tmp_path, extra=acl(TOKEN)) as consul:
        allowed, stranger = to(consul.url, token=TOKEN), to(consul.url, token="no-such-token")
        nobody = to(consul.url)
        wait_until(lambda: _works(allowed), "the ACL system is up")
        grant = allowed.acquire("a", "a-1", 5_000, floor=NO_EPOCH, deadline=soon())
        assert isinstance(grant, Grant)
        with pytest.raises(Denied):
            stranger.renew(grant.hold, deadline=soon())
        for call in ("acquire", "write", "renew", "read"):
            with pytest.raises(Denied):  # sees an empty store, and may not write: never NotHolder
                CALLS[call](nobody, soon())
        assert allowed.renew(grant.hold, deadline=soon()).hold == grant.hold


def _works(backend: ConsulBackend) -> bool:
    try:
        backend.write(Settings(), expected=0, deadline=soon())
    except BackendError:
        return False
    return True


def test_a_real_consul_with_tls(to: Callable[..., ConsulBackend], tmp_path: Path) -> None:
    tls = Tls.make(tmp_path / "tls")
    files = {"ca_file": str(tls.ca), "cert_file": str(tls.cert), "key_file": str(tls.key)}
    with Consul.run(tmp_path / "consul", tls=tls) as consul:
        backend = to(consul.url, unique("tls"), **files)
        grant = backend.acquire("a", "a-1", 5_000, floor=NO_EPOCH, deadline=soon())
        assert isinstance(grant, Grant)
        view = backend.read(deadline=soon())
        assert backend.await_change(view.revision, deadline=soon(150)) is None
        closing_thread = threading.Timer(0.1, backend.close)
        closing_thread.start()
        asked_at = CLOCK.now()
        with pytest.raises(NotSent):
            watch_on(backend, view.revision)
        assert CLOCK.now() - asked_at < 1_000
        for options in ({}, {"ca_file": str(tls.ca)}):
            with pytest.raises(NotSent):
                to(consul.url, **options).read(deadline=soon())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"adress": "http://x"}, r"consul\.adress: unknown key; did you mean address"),
        ({"address": "consul://x:1"}, r"consul\.address"),
        ({"address": "http://"}, r"consul\.address"),
        ({"address": "http://x:99999"}, r"consul\.address"),
        ({"address": "http://u:p@x"}, r"consul\.address.*token_file"),
        ({"address": "http://x/v1"}, r"consul\.address"),
        ({"address": 8500}, r"consul\.address: expected a text"),
        ({"token_file": "/nowhere/at/all"}, r"consul\.token_file: /nowhere/at/all: no such file"),
        ({"token": "two words"}, r"consul\.token"),
        ({"token": "a\r\nX-Evil: 1"}, r"consul\.token"),
        ({"ca_file": "/etc/ssl"}, r"consul\.ca_file: useless"),
        ({"address": "https://x", "ca_file": "/nowhere"}, r"consul\.ca_file: /nowhere"),
        ({"address": "https://x", "cert_file": "/nowhere"}, r"consul\.key_file: needed"),
        ({"address": "https://x", "cert_file": "/n", "key_file": "/n"}, r"consul\.cert_file: /n"),
        ({"datacenter": ""}, r"consul\.datacenter"),
    ],
)
def test_an_unusable_option_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        connect(BackendSettings("plant", options), CLOCK)
    assert "two words" not in str(caught.value)


def test_bug_a_query_that_was_answered_at_once_was_asked_again_at_once(
    false: Fake, to: Callable[..., ConsulBackend]
) -> None:
    """By something in between that does not wait: as many requests as it could answer, 500 a second."""
    backend = to(false.url)
    view = backend.read(deadline=soon())
    before = len(false.seen)

    backend.await_change(view.revision, deadline=soon(2_000))

    asked = len(false.seen) - before
    assert 2 <= asked < 30, f"{asked} requests in two seconds"


def test_bug_every_token_that_was_ever_used_was_kept(
    false: Fake, to: Callable[..., ConsulBackend], tmp_path: Path
) -> None:
    """To keep it out of messages; a token may be replaced every few minutes."""
    file = tmp_path / "token"
    file.write_text("token-0\n")
    transport = to(false.url, token_file=str(file))._client._transport
    for number in range(1, 100):
        file.write_text(f"token-{number}\n")
        transport._take_token()

    assert len(transport._used_tokens) <= TOKENS_KEPT
    assert "token-99" in transport._used_tokens, "the one in use"
    assert "token-98" in transport._used_tokens, "with which a request may be under way"


def test_every_read_asks_a_majority(false: Fake, to: Callable[..., ConsulBackend]) -> None:
    """A stale read can delay a takeover, and would show a lock that is gone."""
    backend = to(false.url)
    calls: list[Call] = [CALLS["read"], lambda b, at: b.await_change(1 << 40, deadline=at), CALLS["history"]]
    for call in calls:
        with suppress(BackendError):
            call(backend, soon(300))

    reads = [seen for seen in false.seen if seen.startswith("GET /v1/kv/") or "get-tree" in seen]
    assert len(reads) >= 3
    assert [seen for seen in reads if "consistent" not in seen.split(" ")[1]] == []
