"""What is said of an operation that has come about, on the command line and by HTTP."""

from typing import TYPE_CHECKING

from sidecar.operate.asking import Done
from sidecar.operate.settings import Changed
from sidecar.operate.words import span

if TYPE_CHECKING:
    from sidecar.config import Config


def patience_ms(config: "Config") -> int:
    """Return how long what is asked for may take when all goes slowly but well."""
    return config.server.stop_timeout_ms + config.server.start_timeout_ms + 2 * config.lock.ttl_ms


def became(done: Done) -> str:
    """Say who is active now."""
    return f"{done.node} is active at epoch {done.epoch}{_gap(done)}"


def restarted(done: Done) -> str:
    """Say whose server was restarted."""
    return f"{done.node}: the server was restarted{_gap(done)}"


def maintained(found: Changed, what: str, how: str) -> list[str]:
    """Say that *what* is paused or resumed, and what to know besides."""
    return [f"{what}: {'' if found.changed else 'already '}{how}", *found.notes]


def unheard(found: Changed) -> str | None:
    """Say which nodes do not show it yet, as far as that is known."""
    if not found.silent:
        return None
    nodes = ", ".join(found.silent)
    if found.trouble is not None:
        return f"it is not known whether {nodes} heard of it: {found.trouble}; see `sidecar status`"
    return f"not yet heard by {nodes}; see `sidecar status`"


def _gap(done: Done) -> str:
    if done.without_active_ms is None:
        return ""
    gap = f"{done.without_active_ms} ms" if done.without_active_ms < 1000 else span(done.without_active_ms)
    return f"; nobody was active for {gap}, as seen from here"
