"""Three Consul servers on this machine, with faults as verbs; demands tokens (ACLs, default deny)."""

import json
import shutil
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.harness.process import free_port, wait_until
from tests.harness.stores import LOOPBACK, Consul, acl

CLIENT_TOKEN = "00000000-0000-0000-0000-00000000beef"
ELECTED_WITHIN_S = 30.0
_POLICY = 'key_prefix "" { policy = "write" } session_prefix "" { policy = "write" } '
_POLICY += 'node_prefix "" { policy = "read" } agent_prefix "" { policy = "read" }'


class ConsulCluster:
    """Three servers that elect a leader; clients use `CLIENT_TOKEN`."""

    def __init__(self, folder: Path, size: int = 3, host: str = LOOPBACK) -> None:
        serf = {f"consul{n + 1}": free_port() for n in range(size)}
        self.members = [Consul(folder, extra=acl(), name=name, serf=serf, host=host) for name in serf]

    @classmethod
    @contextmanager
    def run(cls, folder: Path, **options: Any) -> Iterator[Self]:
        """Run the cluster for the length of the ``with`` block."""
        cluster = cls(folder, **options)
        try:
            cluster.start()
            yield cluster
        finally:
            for member in cluster.members:
                member.stop()

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def start(self) -> None:
        """Start all servers together, and give the clients their token."""
        for member in self.members:
            member.process.start()
        for member in self.members:
            member.process.wait_ready(member.ready, ELECTED_WITHIN_S)
        self.grant()

    def grant(self) -> None:
        """Make the clients' token, if it is not there."""
        name = "harness-client"

        def granted() -> bool:
            with suppress(OSError):
                if not self.accepts():
                    self._put("/v1/acl/policy", {"Name": name, "Rules": _POLICY})
                    self._put("/v1/acl/token", {"SecretID": CLIENT_TOKEN, "Policies": [{"Name": name}]})
            return self.accepts()

        wait_until(granted, "Consul takes the clients' token", ELECTED_WITHIN_S)

    def revoke(self) -> None:
        """Delete the clients' token."""
        leader = self.members[self.leader()]
        tokens = json.loads(leader.call("GET", "/v1/acl/tokens"))
        for token in tokens:
            if any(policy["Name"] == "harness-client" for policy in token.get("Policies") or ()):
                leader.call("DELETE", f"/v1/acl/token/{token['AccessorID']}")

    def accepts(self) -> bool:
        """Tell whether a request with the clients' token is answered by the leader."""
        with suppress(OSError, TimeoutError):
            self.members[self.leader()].request(
                "GET", "/v1/kv/?keys&separator=/", headers={"X-Consul-Token": CLIENT_TOKEN}
            )
            return True
        return False

    def _put(self, path: str, body: object) -> None:
        try:
            self.members[self.leader()].call("PUT", path, json.dumps(body).encode())
        except urllib.error.HTTPError as error:
            if b"already" not in error.read():  # the policy was made before
                raise

    def leader(self) -> int:
        """Return the index of the server that leads, once there is one."""
        wait_until(lambda: self._leader() is not None, "Consul elects a leader", ELECTED_WITHIN_S)
        index = self._leader()
        return self.leader() if index is None else index

    def _leader(self) -> int | None:
        for member in self.members:
            if member.process.frozen or not member.process.running():
                continue
            with suppress(OSError, ValueError):
                said = json.loads(member.call("GET", "/v1/status/leader"))
                for index, one in enumerate(self.members):
                    alive = one.process.running() and not one.process.frozen
                    if alive and said and said.endswith(f":{one.raft_port}"):
                        return index
        return None

    def save(self) -> bytes:
        """Return a snapshot of everything."""
        return self.members[self.leader()].call("GET", "/v1/snapshot")

    def restore(self, snapshot: bytes) -> None:
        """Replace everything by *snapshot*, while the servers run, as ``consul snapshot restore``."""
        self.members[self.leader()].call("PUT", "/v1/snapshot", snapshot)

    def wipe(self) -> None:
        """Lose all data of all servers."""
        for member in self.members:
            member.kill()
            for path in member.data.iterdir():  # the folder itself may be a mount
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.start()

    def heal(self) -> None:
        """Undo whatever verb was left in force, on every server."""
        for member in self.members:
            member.thaw()
            if not member.process.running():
                member.process.start()
        for member in self.members:
            member.process.wait_ready(member.ready, ELECTED_WITHIN_S)
        self.grant()
