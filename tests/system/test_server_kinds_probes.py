"""Probes answer by their deadline, say why not in one line, and are not fooled.

Method: real sockets on loopback that accept, refuse, stay silent, drip or talk nonsense; real commands. Not
covered: names, which have no deadline when they are looked up.
"""

import http.server
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.errors import ConfigError
from sidecar.probes import OK, CommandProbe, Finding, HttpProbe, Probe, TcpProbe, within
from tests.harness.process import crowded, found_at, free_port, wait_until

LATE_MS = 3_000
"""How much later than its deadline an answer may come on a machine that tests share."""


def timed(probe: Probe, timeout_ms: int) -> Finding:
    clock = BootClock()
    deadline = Instant(clock.now() + timeout_ms)
    finding = probe.check(deadline)
    assert clock.now() - deadline < LATE_MS
    return finding


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", free_port()), backlog=1) as listener:
        yield listener


@pytest.fixture
def answers(listener: socket.socket) -> Callable[[Callable[[socket.socket], None]], int]:
    """Give every connection to a function, on a thread; return the port."""

    def serve(talk: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                talk(connection)

    def start(talk: Callable[[socket.socket], None]) -> int:
        threading.Thread(target=serve, args=(talk,), daemon=True).start()
        return int(listener.getsockname()[1])

    return start


# -- tcp ----------------------------------------------------------------------------------------


def test_every_port_must_accept(answers: Callable[..., int]) -> None:
    is_open, closed = answers(lambda _connection: None), free_port()
    assert timed(TcpProbe([is_open]), 20_000) == OK
    finding = timed(TcpProbe([is_open, closed]), 20_000)
    assert finding == Finding(False, f"127.0.0.1:{closed}: connection refused")


def test_the_first_address_that_accepts_is_enough(answers: Callable[..., int]) -> None:
    port = answers(lambda _connection: None)
    assert timed(TcpProbe([port], ["127.0.0.9", "127.0.0.1"]), 20_000) == OK
    assert timed(TcpProbe([port], ["127.0.0.9"]), 20_000).reason.startswith("127.0.0.9:")


def test_a_full_backlog_is_no_answer(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with crowded(listener):
        time.sleep(0.05)
        finding = timed(TcpProbe([port]), 200)
        assert finding.reason == f"127.0.0.1:{port}: no answer in time"


@pytest.mark.parametrize("hangs", ["name server", "addresses"])
def test_bug_a_look_at_a_name_outlived_its_deadline(
    hangs: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How late a hang was found was not what `validate` says."""
    over, address = threading.Event(), listener.getsockname()

    def look_up(*_words: object, **_more: object) -> list[tuple[object, ...]]:
        if hangs == "name server":
            over.wait(20)
        return found_at(*[address] * 8)

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    probe = HttpProbe(f"http://server.example:{address[1]}/")

    with crowded(listener):
        assert "no answer in time" in timed(probe, 300).reason
    over.set()


def test_each_address_of_a_name_has_its_share_of_the_time(
    answers: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = answers(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, crowded(full):
        places = found_at(full.getsockname(), ("127.0.0.1", port))
        monkeypatch.setattr("socket.getaddrinfo", lambda *_words, **_more: places)

        assert timed(HttpProbe("http://server.example/"), 4_000) == OK


@pytest.mark.parametrize("family", ["IPv4", "IPv6 that takes IPv4", "IPv6"])
def test_bug_a_hung_server_looked_well_until_its_backlog_was_full(family: str) -> None:
    """Java's is 50: 100 s, where 9 s were promised."""
    six = family != "IPv4"
    host = {"IPv4": "127.0.0.1", "IPv6": "::1"}.get(family, "::")
    kind = socket.AF_INET6 if six else socket.AF_INET
    with socket.create_server((host, 0), family=kind, backlog=50, dualstack_ipv6=host == "::") as hung:
        port, at = hung.getsockname()[1], "::1" if host == "::1" else "127.0.0.1"
        probe = TcpProbe([port], [at])

        assert timed(probe, 200).reason == f"{at}:{port}: connected, but not accepted in time"
        assert timed(TcpProbe([port], [at], accepting=False), 20_000) == OK

        taken: list[tuple[socket.socket, object]] = []
        late = threading.Timer(0.2, lambda: taken.extend(hung.accept() for _ in range(3)))
        late.start()  # the two from above stand before it
        assert timed(probe, 20_000) == OK
        late.join()
        for connection, _ in taken:
            connection.close()


def test_a_server_that_hangs_up_at_once_has_accepted(answers: Callable[..., int]) -> None:
    probe = TcpProbe([answers(lambda _connection: None)])
    for _ in range(50):
        assert timed(probe, 20_000) == OK


def test_a_connection_of_a_socket_with_itself_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux may pick the probed port as the source port. Happens once in 28 000; here it is made to."""
    low, high = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    to_itself = []

    def from_there(address: tuple[str, int], timeout_s: float) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.settimeout(timeout_s)
        made.connect(address)
        to_itself.append(made.getsockname() == made.getpeername())
        return made

    monkeypatch.setattr(socket, "create_connection", from_there)
    for port in random.sample(range(low, high), 50):
        found = TcpProbe([port]).check(Instant(BootClock().now() + 20_000))
        if to_itself:  # else somebody has the port
            break
    assert not found.ok
    assert to_itself == [True]  # the premise


def test_a_deadline_in_the_past_is_still_answered(listener: socket.socket) -> None:
    probe = TcpProbe([listener.getsockname()[1]])
    clock = BootClock()
    before = clock.now()
    probe.check(Instant(before - 1000))
    assert clock.now() - before < LATE_MS


# -- http ---------------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204 if self.path == "/health?deep=1" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", free_port()), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_status_counts(web: http.server.HTTPServer) -> None:
    base = f"http://127.0.0.1:{web.server_port}"
    assert timed(HttpProbe(f"{base}/health?deep=1", 204), 20_000) == OK
    assert timed(HttpProbe(f"{base}/", 503), 20_000) == OK
    assert timed(HttpProbe(base), 20_000).reason == f"{base}: status 503, expected 200"


def test_https_without_asking_whose_certificate_it_is(web: http.server.HTTPServer, tmp_path: Path) -> None:
    key, cert = tmp_path / "key", tmp_path / "cert"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=somebody-else"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    assert timed(HttpProbe(f"https://127.0.0.1:{web.server_port}/", 503), 20_000) == OK


def test_silence_ends_at_the_deadline(listener: socket.socket) -> None:
    for scheme in ("http", "https"):
        probe = HttpProbe(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/")
        assert timed(probe, 200).reason.endswith("no answer in time")


def test_a_drip_does_not_move_the_deadline(answers: Callable[..., int]) -> None:
    def drip(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.05)

    assert timed(HttpProbe(f"http://127.0.0.1:{answers(drip)}/"), 300).reason.endswith("no answer in time")


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n", b"\xff" * 40_000])
def test_nonsense_is_no_answer(answers: Callable[..., int], said: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(said)

    finding = timed(HttpProbe(f"http://127.0.0.1:{answers(talk)}/"), 20_000)
    assert not finding.ok
    assert "\n" not in finding.reason


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:80",
        "ftp://a/",
        "http://",
        "http://a:x/",
        "http://a/\r\nX: y",
        "http://[::1/",
        "http://a/ b",
    ],
)
def test_a_bad_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="not an http or https address"):
        HttpProbe(url)


# -- command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 0", ""), ("exit 3", "sh: exit code 3"), ("kill -9 $$", "sh: killed by signal 9")],
)
def test_the_exit_code_counts(script: str, reason: str) -> None:
    assert timed(CommandProbe(["sh", "-c", script]), 20_000) == Finding(not reason, reason)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    reason = timed(CommandProbe([str(tmp_path / "nothing")]), 20_000).reason
    assert reason == "nothing: cannot be started: no such file or directory"


def test_where_and_with_what_it_runs(tmp_path: Path) -> None:
    script = 'test "$A$HOME" = "1$HOME" && test "$PWD" = "$B"'
    probe = CommandProbe(["sh", "-c", script], tmp_path, {"A": "1", "B": str(tmp_path)})
    assert timed(probe, 3000) == OK


def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! $$ > {pids}; wait"
    assert timed(CommandProbe(["sh", "-c", script]), 3_000).reason == "sh: not finished in time"
    started = pids.read_text().split()
    assert len(started) == 2
    for pid in started:
        wait_until(lambda: _gone(pid), f"{pid} is killed")  # noqa: B023


def _gone(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_it_leaves_open_does_not_hold_the_probe() -> None:
    """A daemon that keeps the output open made a probe hang in other supervisors."""
    assert within(CommandProbe(["sh", "-c", "sleep 60 & exit 0"]), 20_000) == OK
