"""What an etcd error means for people: one line, and what would help. No decision hangs on it."""

from dataclasses import dataclass
from typing import Any

from backends._grpc import grpc
from backends._tls import Files

REASON_CHARS = 160
NO_LEADER = "etcd has no leader: fewer than half of its members reach each other"


@dataclass(frozen=True, slots=True)
class Words:
    """What has to be known of the configuration to say it."""

    prefix: str  # of all keys of the cluster
    username: str | None
    tls: Files | None

    def plain(self, error: Any) -> str:
        """Return one line. The texts looked for are gRPC's and etcd's own, and only a guess at the reason."""
        if not (isinstance(error, grpc.RpcError) and hasattr(error, "code")):
            return "closed while it was asked"
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "no answer in time"
        text = " ".join(str(error.details() or error.code().name).split())
        about_tls = self.tls.explain(text) if self.tls is not None else None
        if about_tls is not None:
            return about_tls
        lower = text.lower()
        for part, plain in self._guesses().items():
            if part in lower:
                return plain
        return text[:REASON_CHARS]

    @staticmethod
    def foremost(told: str, new: str) -> str:
        """Return which reason to tell when all members have failed: that most are down, not that one is."""
        return told if NO_LEADER in told else new

    def _guesses(self) -> dict[str, str]:
        who = f" (user {self.username})"
        if self.username is None:
            who = "; set etcd.username and etcd.password_file"
        return {
            "connection refused": "connection refused: is etcd running there?",
            "no leader": NO_LEADER,
            "user name is empty": "etcd wants a user: set etcd.username and etcd.password_file",
            "permission denied": "permission denied: the user's role needs readwrite on the keys below "
            f"{self.prefix}{who}",
            "name resolution": "the name cannot be resolved",
            "dns resolution": "the name cannot be resolved",
            "domain name not found": "the name cannot be resolved",
            "handshake": "TLS handshake failed (certificate, or no TLS there?)",
            "ssl": "TLS failed (certificate, or no TLS there?)",
            "no route": "no route to host",
            "unreachable": "network unreachable",
            "reset by peer": "connection reset (does it want TLS, https://?)",
            "socket closed": "connection closed (does it want TLS, https://?)",
            "server preface": "no answer to the connection",
            "settings frame": "no answer to the connection: etcd is starting, frozen, or another program",
        }
