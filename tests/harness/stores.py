"""Real etcd and Consul for tests, started from .cache/tools (scripts/_setup), with faults as verbs.

    with Etcd.run(tmp_path, ETCD34) as etcd:
        etcd.freeze(); etcd.thaw(); etcd.kill(); etcd.restart(); etcd.wipe()

Everything listens on 127.0.0.1 alone. A store that does not become ready says why with its log.
``start`` and ``restart`` return when the store *serves writes*, not when its port is open.

Not covered: loss between etcd members; the containers (tests/harness/containers.py) do that.
"""

import base64
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from tests.harness.process import READY_WITHIN_S, STOP_WITHIN_S, Process, free_port, wait_until
from tests.harness.tools import ETCD34, ETCD35, Tls, libfaketime, need, tool, unique

__all__ = [
    "ETCD34",
    "ETCD35",
    "Consul",
    "Etcd",
    "EtcdCluster",
    "Store",
    "Tls",
    "acl",
    "b64",
    "heal_all",
    "libfaketime",
    "need",
    "tool",
    "unique",
]

REQUEST_WITHIN_S = 2.0
LOOPBACK = "127.0.0.1"
# Fast enough for a test, slow enough for two busy cores: an election needs 10 heartbeats.
HEARTBEAT_MS, ELECTION_MS = 50, 500


class Store:
    """One server process with its data; what etcd and Consul have in common."""

    def __init__(self, process: Process, data: Path, url: str, tls: Tls | None) -> None:
        self.process, self.data, self.url, self.tls = process, data, url, tls

    @property
    def address(self) -> str:
        """Return HOST:PORT."""
        return self.url.partition("://")[2]

    @property
    def host_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self.ready)

    def stop(self) -> None:
        self.process.stop()

    def freeze(self) -> None:
        self.process.freeze()

    def thaw(self) -> None:
        self.process.thaw()

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        """End it in good order, if it still runs, and start it again on the same data."""
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Lose all data, as a store rebuilt from nothing at the same address."""
        self.kill()
        shutil.rmtree(self.data)
        self.start()

    def heal(self) -> None:
        """Undo whatever verb was left in force."""
        if self.process.running() and not self.process.frozen:
            return
        self.thaw()
        if not self.process.running():
            self.process.start()
        self.process.wait_ready(self.ready)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the body of one HTTP answer.

        Raises:
            OSError: no answer, or one that is not 2xx (``urllib.error.HTTPError``).
        """
        request = urllib.request.Request(self.url + path, body, dict(headers or {}), method=method)
        context = self.tls.context() if self.tls else None
        with urllib.request.urlopen(request, timeout=REQUEST_WITHIN_S, context=context) as answer:
            return bytes(answer.read())


class Etcd(Store):
    """One etcd member, alone or of an `EtcdCluster`."""

    def __init__(
        self,
        folder: Path,
        version: str = ETCD34,
        name: str = "etcd",
        peers: Mapping[str, str] | None = None,
        tls: Tls | None = None,
        extra: Sequence[str] = (),
        host: str = LOOPBACK,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        data = folder / f"{name}.data"
        url = f"{'https' if tls else 'http'}://{host}:{free_port()}"
        peers = peers or {name: f"http://{LOOPBACK}:{free_port()}"}
        cluster = ",".join(f"{member}={peer}" for member, peer in peers.items())
        command: list[str | Path] = [need(f"etcd-{version}"), "--name", name, "--data-dir", data]
        command += ["--listen-client-urls", url, "--advertise-client-urls", url]
        command += ["--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]]
        command += ["--initial-cluster", cluster]
        command += ["--heartbeat-interval", str(HEARTBEAT_MS)]
        command += ["--election-timeout", str(ELECTION_MS)]
        if tls:
            command += ["--trusted-ca-file", tls.ca, "--cert-file", tls.cert]
            command += ["--key-file", tls.key, "--client-cert-auth"]
        process = Process(name, [*command, *extra], folder / f"{name}.log")
        super().__init__(process, data, url, tls)
        self.version, self.name = version, name
        self.peer_url, self.peers = peers[name], cluster
        self._login: tuple[str, str] | None = None

    @classmethod
    @contextmanager
    def run(cls, folder: Path, version: str = ETCD34, **options: Any) -> Iterator[Self]:
        """Run a single member for the length of the ``with`` block."""
        etcd = cls(folder, version, **options)
        try:
            etcd.start()
            with _running(etcd):
                yield etcd
        finally:
            etcd.stop()

    def ready(self) -> bool:
        with suppress(OSError, ValueError):
            return str(json.loads(self.request("GET", "/health"))["health"]) == "true"
        return False

    def wipe(self) -> None:
        """Lose all data and, as that includes them, all users."""
        self.log_out()
        super().wipe()

    def call(self, path: str, **body: Any) -> dict[str, Any]:
        """Call etcd's JSON gateway, ``call("kv/range", key=b64("x"))``, as root if there are users.

        Raises:
            OSError: no answer, or an error (``urllib.error.HTTPError``).
        """
        headers = {"Content-Type": "application/json"}
        if self._login is not None:
            login = json.dumps(dict(zip(("name", "password"), self._login, strict=True))).encode()
            token = json.loads(self.request("POST", "/v3/auth/authenticate", login))["token"]
            headers["Authorization"] = token
        answer = self.request("POST", f"/v3/{path}", json.dumps(body).encode(), headers)
        return dict(json.loads(answer))

    def put(self, key: str, value: str) -> None:
        self.call("kv/put", key=b64(key), value=b64(value))

    def get(self, key: str) -> str | None:
        found = self.call("kv/range", key=b64(key)).get("kvs")
        return base64.b64decode(found[0].get("value", "")).decode() if found else None

    def keys(self, prefix: str) -> dict[str, str]:
        """Return every key below *prefix* with its value."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self.call("kv/range", key=b64(prefix), range_end=b64(end)).get("kvs", [])
        plain = ({k: base64.b64decode(kv.get(k, "")).decode() for k in ("key", "value")} for kv in found)
        return {kv["key"]: kv["value"] for kv in plain}

    def delete(self, prefix: str) -> None:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        self.call("kv/deleterange", key=b64(prefix), range_end=b64(end))

    def compact(self) -> int:
        """Forget every revision but the newest, which is returned."""
        revision = self.revision()
        self.call("kv/compaction", revision=str(revision), physical=True)
        return revision

    def revision(self) -> int:
        """Return the store's revision, which every write raises."""
        return int(self.call("kv/range", key=b64("harness"))["header"]["revision"])

    def no_space(self, *, set_it: bool) -> None:
        """Raise or clear the alarm that a full disk raises: reads go on, writes are refused."""
        member = self.status()["header"]["member_id"]
        action = "ACTIVATE" if set_it else "DEACTIVATE"
        self.call("maintenance/alarm", action=action, memberID=member, alarm="NOSPACE")

    def token(self, user: str, password: str) -> str:
        """Log in as *user*; return the token."""
        login = json.dumps({"name": user, "password": password}).encode()
        return str(json.loads(self.request("POST", "/v3/auth/authenticate", login))["token"])

    def accepts(self, token: str) -> bool:
        """Tell whether a request with that token is answered."""
        headers = {"Authorization": token, "Content-Type": "application/json"}
        body = json.dumps({"key": b64("harness")}).encode()
        try:
            self.request("POST", "/v3/kv/range", body, headers)
        except urllib.error.HTTPError:
            return False
        return True

    def set_password(self, user: str, password: str) -> None:
        """Give *user* a password, the same or another; every token of that user is void from now on."""
        self.call("auth/user/changepw", name=user, password=password)

    def save(self, to: Path) -> None:
        """Write a snapshot of the store."""
        self._etcdctl("snapshot", "save", to)

    def restore(self, snapshot: Path) -> None:
        """Replace this member's data by *snapshot*; it must not run."""
        shutil.rmtree(self.data, ignore_errors=True)
        words: list[str | Path] = ["snapshot", "restore", snapshot, "--data-dir", self.data]
        words += ["--name", self.name, "--initial-cluster", self.peers]
        words += ["--initial-advertise-peer-urls", self.peer_url]
        self._etcdctl(*words)

    def _etcdctl(self, *words: str | Path) -> None:
        options: list[str | Path] = [need("etcdctl-3.4"), "--endpoints", self.url]
        if self._login is not None:
            options += ["--user", ":".join(self._login)]
        command = [str(word) for word in (*options, *words)]
        env = {**os.environ, "ETCDCTL_API": "3"}
        subprocess.run(command, check=True, capture_output=True, timeout=STOP_WITHIN_S * 2, env=env)

    def revoke(self, lease_id: int) -> None:
        self.call("lease/revoke", ID=str(lease_id))

    def leases(self) -> list[int]:
        return [int(lease["ID"]) for lease in self.call("lease/leases").get("leases", [])]

    def status(self) -> dict[str, Any]:
        """Return what ``etcdctl endpoint status`` shows; ``leader`` is absent without one."""
        return self.call("maintenance/status")

    def enable_auth(self, user: str = "root", password: str = "secret-of-root") -> None:
        """Demand user and password from now on; ``root`` may do everything."""
        self.call("auth/user/add", name="root", password=password)
        self.call("auth/role/add", name="root")
        self.call("auth/user/grant", user="root", role="root")
        if user != "root":
            self.call("auth/user/add", name=user, password=password)
            self.call("auth/role/add", name=user)
            everything = {"permType": "READWRITE", "key": b64("\0"), "range_end": b64("\0")}
            self.call("auth/role/grant", name=user, perm=everything)
            self.call("auth/user/grant", user=user, role=user)
        self.call("auth/enable")
        self._login = ("root", password)

    def log_in(self, user: str = "root", password: str = "secret-of-root") -> None:
        """Use that login from now on: another member of the cluster has enabled authentication."""
        self._login = (user, password)

    def log_out(self) -> None:
        """Go on as nobody: the users are gone with the data."""
        self._login = None

    def disable_auth(self) -> None:
        self.call("auth/disable")
        self._login = None


S = TypeVar("S", bound=Store)


class Members(Generic[S]):
    """Several servers that elect a leader, and the verbs that they have in common."""

    ELECTED_WITHIN_S: ClassVar[float] = READY_WITHIN_S
    members: list[S]

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def start(self) -> None:
        """Start all members together: the first one alone would wait for the second for ever."""
        for member in self.members:
            member.process.start()
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until every member serves."""
        for member in self.members:
            member.process.wait_ready(member.ready, self.ELECTED_WITHIN_S)

    def leader(self) -> int:
        """Return the index of the member that leads, once there is one."""
        wait_until(lambda: self._leader() is not None, "a leader is elected", self.ELECTED_WITHIN_S)
        index = self._leader()
        return self.leader() if index is None else index

    def heal(self) -> None:
        """Undo whatever verb was left in force, on every member."""
        for member in self.members:
            member.thaw()
            if not member.process.running():
                member.process.start()
        self.await_ready()

    def _up(self) -> Iterator[tuple[int, S]]:
        """Give those that can be asked, with their indexes."""
        for index, member in enumerate(self.members):
            if member.process.running() and not member.process.frozen:
                yield index, member

    def _leader(self) -> int | None:
        raise NotImplementedError


class EtcdCluster(Members["Etcd"]):
    """Three etcd members on this machine."""

    def __init__(self, folder: Path, version: str = ETCD34, size: int = 3, **options: Any) -> None:
        peers = {f"etcd{n + 1}": f"http://{LOOPBACK}:{free_port()}" for n in range(size)}
        self.members = [Etcd(folder, version, name, peers, **options) for name in peers]

    @classmethod
    @contextmanager
    def run(cls, folder: Path, version: str = ETCD34, **options: Any) -> Iterator[Self]:
        """Run the cluster for the length of the ``with`` block."""
        cluster = cls(folder, version, **options)
        with ExitStack() as stack:
            for member in cluster.members:
                stack.callback(member.stop)
            cluster.start()
            stack.enter_context(_running(cluster))
            yield cluster

    @property
    def addresses(self) -> list[str]:
        return [member.address for member in self.members]

    def followers(self) -> list[int]:
        leader = self.leader()
        return [index for index in range(len(self.members)) if index != leader]

    def move_leader(self, to: int) -> None:
        """Hand leadership to member *to* in good order."""
        source, target = self.members[self.leader()], self.members[to]
        member_id = target.status()["header"]["member_id"]
        if source is not target:
            source.call("maintenance/transfer-leadership", targetID=member_id)
        wait_until(lambda: self._leader() == to, f"{target.name} leads")

    def kill(self, index: int) -> None:
        self.members[index].kill()

    def freeze(self, index: int) -> None:
        self.members[index].freeze()

    def thaw(self, index: int) -> None:
        self.members[index].thaw()

    def restart(self, index: int) -> None:
        """Restart one member; returns when it serves, which needs a majority."""
        self.members[index].restart()

    def enable_auth(self, user: str, password: str) -> None:
        """Demand user and password from now on, at every member."""
        self.members[self.leader()].enable_auth(user, password)
        for member in self.members:
            member.log_in("root", password)

    def restore(self, snapshot: Path) -> None:
        """Replace all data by *snapshot*, as ``etcdctl snapshot restore`` on every member."""
        for member in self.members:
            member.kill()
            member.restore(snapshot)
        self.start()

    def wipe(self) -> None:
        """Lose all data of all members and, as that includes them, all users."""
        for member in self.members:
            member.kill()
            member.log_out()
            shutil.rmtree(member.data)
        self.start()

    def _leader(self) -> int | None:
        votes: dict[str, int] = {}
        index_of: dict[str, int] = {}
        for index, member in self._up():
            with suppress(OSError):
                status = member.status()
                index_of[status["header"]["member_id"]] = index
                leader = status.get("leader", "0")
                votes[leader] = votes.get(leader, 0) + 1
        best = max(votes, key=lambda leader: votes[leader], default="0")
        majority = votes.get(best, 0) > len(self.members) // 2
        return index_of.get(best) if majority else None


class Consul(Store):
    """One Consul server that keeps its data when it is restarted."""

    def __init__(
        self,
        folder: Path,
        tls: Tls | None = None,
        extra: Mapping[str, Any] | None = None,
        name: str = "consul",
        serf: Mapping[str, int] | None = None,
        host: str = LOOPBACK,
        wan: Mapping[str, int] | None = None,
    ) -> None:
        """*serf*: port of each server; *wan*: of each datacenter, this one is called *name*."""
        folder.mkdir(parents=True, exist_ok=True)
        data, config = folder / f"{name}.data", folder / f"{name}.json"
        port = free_port()
        serf = serf or {name: free_port()}
        ports = {"server": free_port(), "serf_lan": serf[name]} | dict.fromkeys(
            ("dns", "grpc", "serf_wan", "http", "https"), -1
        )
        if wan:
            ports["serf_wan"] = wan[name]
        settings = {
            "ports": ports | {"https" if tls else "http": port},
            "performance": {"raft_multiplier": 1},
            "leave_on_terminate": False,  # a restart must find itself in its own peer set
            "skip_leave_on_interrupt": True,
            "disable_update_check": True,
            "limits": {"http_max_conns_per_client": 2_000},
            "log_level": "INFO",
        }
        if tls:
            settings |= {"ca_file": str(tls.ca), "cert_file": str(tls.cert)}
            settings |= {"key_file": str(tls.key), "verify_incoming_https": True}
        if wan:
            settings |= {"datacenter": name, "advertise_addr_wan": LOOPBACK}
            settings |= {"retry_join_wan": [f"{LOOPBACK}:{at}" for other, at in wan.items() if other != name]}
            settings |= {"retry_interval_wan": "1s"}
        config.write_text(json.dumps(settings | dict(extra or {})))
        command: list[str | Path] = [need("consul"), "agent", "-server", f"-bootstrap-expect={len(serf)}"]
        command += [f"-node={name}", f"-bind={LOOPBACK}", f"-client={host}"]
        command += [f"-data-dir={data}", f"-config-file={config}"]
        command += [f"-retry-join={LOOPBACK}:{port}" for other, port in serf.items() if other != name]
        command += ["-retry-interval=1s"]
        process = Process(name, command, folder / f"{name}.log")
        url = f"{'https' if tls else 'http'}://{host}:{port}"
        super().__init__(process, data, url, tls)
        self.raft_port = ports["server"]
        acl = (extra or {}).get("acl", {})
        self.token: str | None = acl.get("tokens", {}).get("master")

    @classmethod
    @contextmanager
    def run(cls, folder: Path, **options: Any) -> Iterator[Self]:
        """Run one server for the length of the ``with`` block."""
        consul = cls(folder, **options)
        try:
            consul.start()
            with _running(consul):
                yield consul
        finally:
            consul.stop()

    def ready(self) -> bool:
        with suppress(OSError):
            return self.call("PUT", "/v1/kv/harness-ready", b"1").strip() == b"true"
        return False

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of one answer, asked with the master token if there is one.

        Raises:
            OSError: no answer, or an error (``urllib.error.HTTPError``).
        """
        return self.request(method, path, body, {"X-Consul-Token": self.token} if self.token else {})

    def put(self, key: str, value: str) -> None:
        self.call("PUT", f"/v1/kv/{key}", value.encode())

    def get(self, key: str) -> str | None:
        try:
            return self.call("GET", f"/v1/kv/{key}?raw").decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def keys(self, prefix: str) -> dict[str, str]:
        """Return every key below *prefix* with its value."""
        try:
            found = json.loads(self.call("GET", f"/v1/kv/{prefix}?recurse"))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return {}
            raise
        return {e["Key"]: base64.b64decode(e["Value"] or "").decode() for e in found}

    def delete(self, prefix: str) -> None:
        self.call("DELETE", f"/v1/kv/{prefix}?recurse")


_run: list[Store | Members[Any]] = []


@contextmanager
def _running(store: Store | Members[Any]) -> Iterator[None]:
    _run.append(store)
    try:
        yield
    finally:
        _run.remove(store)


def heal_all() -> None:
    """Undo whatever verb was left in force on any store that a ``run`` has started."""
    for store in _run:
        store.heal()


def acl(token: str = "00000000-0000-0000-0000-00000000cafe") -> dict[str, Any]:
    """Return the ``extra`` of a Consul that denies everything without *token*."""
    rules = {"enabled": True, "default_policy": "deny", "tokens": {"master": token}}
    return {"acl": rules}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
