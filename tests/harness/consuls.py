"""Three Consul servers on this machine, with faults as verbs; demands tokens (ACLs, default deny)."""

import json
import shutil
import urllib.error
from contextlib import suppress
from pathlib import Path

from tests.harness.process import free_port, wait_until
from tests.harness.stores import LOOPBACK, Consul, Members, acl

CLIENT_TOKEN = "00000000-0000-0000-0000-00000000beef"
_POLICY = 'key_prefix "" { policy = "write" } session_prefix "" { policy = "write" } '
_POLICY += 'node_prefix "" { policy = "read" } agent_prefix "" { policy = "read" }'


class ConsulCluster(Members[Consul]):
    """Three servers; clients use `CLIENT_TOKEN`."""

    ELECTED_WITHIN_S = 30.0

    def __init__(self, folder: Path, size: int = 3, host: str = LOOPBACK) -> None:
        serf = {f"consul{n + 1}": free_port() for n in range(size)}
        self.members = [Consul(folder, extra=acl(), name=name, serf=serf, host=host) for name in serf]

    def await_ready(self) -> None:
        """Wait until every server serves, and give the clients their token."""
        super().await_ready()
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

        wait_until(granted, "Consul takes the clients' token", self.ELECTED_WITHIN_S)

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

    def _leader(self) -> int | None:
        for _, member in self._up():
            with suppress(OSError, ValueError):
                said = json.loads(member.call("GET", "/v1/status/leader"))
                for index, one in self._up():
                    if said and said.endswith(f":{one.raft_port}"):
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
