"""What a client may use up."""

from typing import Any, NamedTuple


class Limits(NamedTuple):
    """Times in seconds. Only tests have others than these."""

    open_max: int = 200
    """Connections at once, 15 KB each. A sidecar has 1024 descriptors by default and needs 60 of them."""
    handshakes_max: int = 50
    handshake_within_s: float = 5.0
    head_within_s: float = 15.0
    """From opening, or from the last answer, to the last byte of the next request's head."""
    body_within_s: float = 5.0
    body_max_bytes: int = 16_384
    """A command's body has 100 bytes."""
    commands_max: int = 4
    """At once; the cluster carries out one at a time anyway."""

    def of_library(self) -> dict[str, Any]:
        """Return what aiohttp sees to."""
        return {
            "keepalive_timeout": self.head_within_s,
            "max_line_size": 4_096,
            "max_field_size": 8_190,
            "max_headers": 64,
            "lingering_time": 0.2,  # s in which the rest of an unwanted body is dropped, before it is cut off
            "auto_decompress": False,  # a few KB can stand for a GB
            "tcp_keepalive": True,
        }


USUAL = Limits()
