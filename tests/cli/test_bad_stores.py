"""Goal: a store that cannot be used costs an operator one line, with its address and what would help.

Method: real stores that refuse, each in its own way, and whole processes, since a library may write to
stderr behind our back. Not covered: what the calls of a backend raise then (tests/contract).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from tests.cli.test_program import one_line, sidecar
from tests.harness.process import free_port, wait_until
from tests.harness.stores import ETCD35, Consul, Etcd, EtcdCluster, Tls, acl

PASSWORD, TOKEN = "secret-1", "00000000-0000-0000-0000-00000000cafe"
Section = Mapping[str, object]


@pytest.fixture
def said(tmp_path: Path) -> "Said":
    return Said(tmp_path)


class Said:
    """Runs commands on a store and returns the one line that each must say, with exit status 3."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def __call__(self, store: str, section: Section, *command: str, api: Section | None = None) -> str:
        home = {"state": str(self.folder / "state"), "run": str(self.folder / "run")}
        server = {"kind": "command", "command": ["/bin/sleep", "60"]}
        text = {
            "cluster": "c",
            "node": "a",
            "backend": store,
            store: section,
            "server": server,
            "paths": home,
            "api": api or {},
        }
        config = self.folder / "sidecar.yml"
        config.write_text(yaml.safe_dump(text))
        done = sidecar(*(command or ("status",)), "-c", config)
        assert (done.returncode, done.stdout) == (3, ""), done.stderr
        return one_line(done.stderr)


# etcd


def etcd(*urls: str, **more: str) -> Section:
    return {"endpoints": list(urls), **more}


def test_etcd_that_is_not_there(said: Said) -> None:
    port = free_port()
    assert f"127.0.0.1:{port}: connection refused: is etcd running there?" in said(
        "etcd", etcd(f"http://127.0.0.1:{port}")
    )


def test_etcd_at_a_name_that_is_none(said: Said) -> None:
    line = said("etcd", etcd("http://no-such-host.invalid:2379"))
    assert "no-such-host.invalid:2379: the name cannot be resolved" in line


def test_etcd_without_the_tls_that_is_asked_of_it(said: Said, etcd34: Etcd) -> None:
    line = said("etcd", etcd(f"https://{etcd34.address}"))
    assert f"{etcd34.address}: TLS handshake failed (certificate, or no TLS there?)" in line


def test_etcd_with_tls_that_is_not_asked_of_it_or_not_trusted(said: Said, tmp_path: Path) -> None:
    tls = Tls.make(tmp_path / "tls")
    with Etcd.run(tmp_path / "etcd", ETCD35, tls=tls) as store:
        assert "does it want TLS, https://?" in said("etcd", etcd(f"http://{store.address}"))
        assert f"{store.address}: TLS" in said("etcd", etcd(store.url))


@pytest.fixture(scope="module")
def etcd_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with Etcd.run(tmp_path_factory.mktemp("users"), ETCD35) as store:
        store.enable_auth("sidecar", PASSWORD)
        store.call("auth/user/add", name="guest", password="guest")
        yield store


@pytest.mark.parametrize(
    ("user", "password", "says"),
    [
        ("sidecar", "secret-2", "wrong user name or password for sidecar"),
        ("guest", "guest", "permission denied: the user's role needs readwrite"),
        (None, None, "set etcd.username and etcd.password_file"),
    ],
)
@pytest.mark.parametrize("command", ["status", "pause"])
def test_etcd_that_lets_one_not_in(
    said: Said, etcd_users: Etcd, user: str | None, password: str | None, says: str, command: str
) -> None:
    login = {}
    if user is not None and password is not None:
        login = {"username": user, "password_file": said.file("password", password)}
    line = said("etcd", etcd(etcd_users.url, **login), command)
    assert etcd_users.address in line
    assert says in line
    assert "secret" not in line


def test_etcd_without_a_majority(said: Said, tmp_path: Path) -> None:
    with EtcdCluster.run(tmp_path / "cluster") as cluster:
        for index in cluster.followers():
            cluster.kill(index)
        alive = cluster.members[cluster_alive(cluster)]
        wait_until(lambda: alive.status().get("leader", "0") == "0", "the last one knows that it is alone")
        assert f"{alive.address}: etcd has no leader" in said("etcd", etcd(alive.url))


def cluster_alive(cluster: EtcdCluster) -> int:
    return next(i for i, member in enumerate(cluster.members) if member.process.running())


# Consul


def consul_at(url: str, **more: str) -> Section:
    return {"address": url, **more}


@pytest.mark.parametrize(("command", "path"), [("status", "/status"), ("history", "/history")])
def test_a_store_that_is_not_there_is_not_all_that_may_be_asked(said: Said, command: str, path: str) -> None:
    section = consul_at(f"http://127.0.0.1:{free_port()}")
    assert "what the sidecar here knows" not in said("consul", section, command)
    line = said("consul", section, command, api={"listen": "127.0.0.1:8019"})
    assert line.endswith(f"(what the sidecar here knows without it: http://127.0.0.1:8019{path})\n")


def test_consul_that_is_not_there(said: Said) -> None:
    port = free_port()
    line = said("consul", consul_at(f"http://127.0.0.1:{port}"))
    assert f"127.0.0.1:{port}: cannot connect: connection refused: is Consul running there?" in line


def test_consul_without_the_tls_that_is_asked_of_it(said: Said, consul: Consul) -> None:
    line = said("consul", consul_at(f"https://{consul.address}"))
    assert f"{consul.address}: cannot connect: no TLS there: use http://" in line


def test_something_that_is_not_consul(said: Said, etcd34: Etcd) -> None:
    line = said("consul", consul_at(etcd34.url))
    assert f"{etcd34.address}: 404" in line
    assert "is that Consul's HTTP API?" in line


@pytest.mark.parametrize("token", [None, "no-such-token"])
def test_consul_that_lets_one_not_in(said: Said, tmp_path: Path, token: str | None) -> None:
    """Without a token Consul shows an empty store; that must not look like a cluster without nodes."""
    with Consul.run(tmp_path / "consul", extra=acl(TOKEN)) as store:
        wait_until(lambda: store.call("GET", "/v1/status/leader"), "Consul has a leader")
        more = {} if token is None else {"token_file": said.file("token", token)}
        commands: Sequence[str] = ("status", "pause", "history")
        for command in commands:
            line = said("consul", consul_at(store.url, **more), command)
            assert store.address in line
            assert "consul.token_file" in line
