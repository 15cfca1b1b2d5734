"""The supervised servers: how each kind gets its role, starts, and shows that it serves."""

from sidecar.servers.aggregate import AggregateKind
from sidecar.servers.command import CommandKind
from sidecar.servers.kind import MONITORING, SERVING, Launch, ServerKind, Standby

__all__ = [
    "MONITORING",
    "SERVING",
    "AggregateKind",
    "CommandKind",
    "Launch",
    "ServerKind",
    "Standby",
]
