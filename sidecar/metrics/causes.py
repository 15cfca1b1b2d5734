"""Kinds of causes for which the lock changed hands: few, where the causes themselves name nodes and errors.

A cause crosses the store as the text that people read, so this is where texts are told apart. One that no
rule here knows, of another version perhaps, is ``other``; tests/metrics/test_ledger.py holds the rules
against the core's texts.
"""

RULES = (
    ("first start", "first_start"),
    ("lease expired", "lease_expired"),
    ("failover by ", "forced_failover"),
    ("switchover to ", "switchover"),
    ("failback to ", "failback"),
    ("server failed", "server_failed"),
    ("before_active refused", "vetoed"),
    ("lease ran short", "lease_short"),
    ("the lease could not be renewed in time", "lease_short"),
    ("lost, server proven dead", "lost"),
    ("stopped", "stopped"),
    ("command ended", "command_ended"),
    ("not needed", "not_needed"),
)
OTHER = "other"
KINDS = (*dict.fromkeys(kind for _, kind in RULES), OTHER)


def kind_of(cause: str) -> str:
    """Return the kind of *cause*."""
    return next((kind for beginning, kind in RULES if cause.startswith(beginning)), OTHER)
