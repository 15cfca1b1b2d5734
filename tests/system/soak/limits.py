"""How soon after the last fault heals somebody must be active, as the sum it is made of.

The parts that come from the configuration are what ``sidecar validate`` prints; what no configuration
bounds, the start of the programs themselves on this machine, is stated beside them.
"""

from sidecar.config.schema import Config
from sidecar.config.timing import Term, figures, granted_ms

LOAD_ALLOWANCE_MS = 20_000
"""Two cores carry some dozens of processes: a sidecar that starts in 0.5 s on an idle machine was seen
to take 5 s here, and up to three have to start, one of them twice. Not a bound of the product's."""
ELECTION_MS = 2_000
"""A new leader of etcd or Consul; etcd starts every lease anew with it (``validate`` says so)."""


def return_terms(config: Config, start_ms: int) -> tuple[Term, ...]:
    """Return the parts of the bound; *start_ms* is how long the server takes to start.

    The largest figure covers the others: whatever the faults left behind, one of them describes it.
    """
    wanted = ("node_crash", "server_crash", "failover")
    worst = max((f for f in figures(config) if f.name in wanted), key=lambda figure: figure.ms or 0)
    restart_ms = config.server.restarts.backoff_max_ms
    terms = [
        Term(f"validate: {worst.title}", worst.ms or 0),
        Term("every node has just given its server up: restarts.backoff_max", restart_ms),
        Term("the server starts", start_ms),
        Term("allowance for the load of this machine", LOAD_ALLOWANCE_MS),
    ]
    if config.backend != "local":
        terms.insert(1, Term("a new leader starts the leases anew", granted_ms(config) + ELECTION_MS))
    return tuple(terms)
