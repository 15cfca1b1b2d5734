"""The configuration: one file, the environment over it, checked as a whole before anything starts.

Does not check what only the machine or the store can tell (ports in use, the user, the store's shortest
TTL): ``doctor`` and the start do.
"""

from sidecar.config.change import Change, diff, with_live
from sidecar.config.command_line import for_exec
from sidecar.config.given import SECRET_VARIABLES, without_secrets
from sidecar.config.load import DEFAULT_PATH, from_text, load
from sidecar.config.schema import (
    Alive,
    Config,
    Guard,
    HttpProbe,
    Lock,
    Log,
    NodeOptions,
    Paths,
    Probes,
    Ready,
    Restarts,
    Server,
)
from sidecar.config.secret import Secret

__all__ = [
    "DEFAULT_PATH",
    "SECRET_VARIABLES",
    "Alive",
    "Change",
    "Config",
    "Guard",
    "HttpProbe",
    "Lock",
    "Log",
    "NodeOptions",
    "Paths",
    "Probes",
    "Ready",
    "Restarts",
    "Secret",
    "Server",
    "diff",
    "for_exec",
    "from_text",
    "load",
    "with_live",
    "without_secrets",
]
