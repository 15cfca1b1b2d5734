"""The parts of the etcd backend that no healthy etcd puts to the test: terms, spares and codes.

Method: leases over a client that answers as the test says; codes by errors made by hand.
Not covered: real members (test_etcd.py, test_faults.py).
"""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from backends._etcd_client import Answer, Client, LeaseGone, _AuthDisabled, _judge, _TokenRefused
from backends._etcd_leases import Lease, Leases
from backends._grpc import grpc
from sidecar.clock import ManualClock
from sidecar.core.units import Instant
from sidecar.errors import Denied, NotSent

NOW = 10_000
DEADLINE = Instant(NOW + 60_000)


class Member:
    """Answers keep-alives and checks in the terms it is told, 100 ms after they were sent."""

    def __init__(self, *terms: tuple[int, int], ttl_s: int = 10) -> None:
        self.term, self.clock = 3, ManualClock(NOW)
        self._ttl_s = ttl_s
        self._terms = list(terms)
        self._check = 0

    def call(self, method: str, _request: object, _deadline: Instant, *, effect: bool) -> Answer:
        self.clock.advance(100)
        if method == "LeaseKeepAlive":
            alive, self._check = self._terms.pop(0)
            return self._answer(alive)
        self.term = self._check
        return self._answer(self._check)

    def _answer(self, term: int) -> Answer:
        body: Any = SimpleNamespace(ID=7, TTL=self._ttl_s, header=SimpleNamespace(raft_term=term))
        return Answer(body, False)


def test_a_new_lease_is_worth_what_etcd_gave() -> None:
    member = Member(ttl_s=5)
    leases = Leases(cast(Client, member), member.clock)

    assert leases.grant(2, DEADLINE) == Lease(7, 5, Instant(NOW))


def test_a_lease_that_is_gone_is_not_extended() -> None:
    """The check alone might still find the lock: etcd revokes a lease and its keys a moment apart."""
    member = Member((3, 3), ttl_s=0)
    leases = Leases(cast(Client, member), member.clock)

    with pytest.raises(LeaseGone):
        leases.extend(7, None, DEADLINE, effect=True)


def test_a_keep_alive_of_a_deposed_leader_is_done_again() -> None:
    """Its word never got to its successor, under which the lease may end as if there had been none."""
    member = Member((3, 4), (4, 4))
    leases = Leases(cast(Client, member), member.clock)

    lease, _ = leases.extend(7, None, DEADLINE, effect=True)

    assert lease.since == NOW + 200, "the second keep-alive counts"


def test_a_keep_alive_in_one_term_counts_from_before_it_was_sent() -> None:
    member = Member((3, 3))
    leases = Leases(cast(Client, member), member.clock)

    lease, _ = leases.extend(7, None, DEADLINE, effect=True)

    assert (lease.since, lease.ttl_s) == (NOW, 10)


def test_a_spare_that_is_too_short_is_not_used() -> None:
    member = Member()
    leases = Leases(cast(Client, member), member.clock)

    leases.keep_spare(Lease(7, 2, Instant(NOW)))
    assert leases.take_spare(3) is None
    assert leases.take_spare(2) is None, "it is gone: nobody keeps it alive any more"
    leases.keep_spare(Lease(8, 3, Instant(NOW)))
    assert leases.take_spare(3) == Lease(8, 3, Instant(NOW))


class Failed(grpc.RpcError):
    """What gRPC raises, as far as it is looked at."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


@pytest.mark.parametrize(
    ("code", "method", "verdict"),
    [
        ("RESOURCE_EXHAUSTED", "Txn", NotSent),  # no space: etcd did nothing
        ("FAILED_PRECONDITION", "Txn", NotSent),
        ("OUT_OF_RANGE", "Txn", NotSent),
        ("UNIMPLEMENTED", "Txn", NotSent),
        ("PERMISSION_DENIED", "Txn", Denied),
        ("UNAUTHENTICATED", "Txn", _TokenRefused),
        ("INVALID_ARGUMENT", "Txn", _TokenRefused),
        ("NOT_FOUND", "LeaseKeepAlive", LeaseGone),
        ("FAILED_PRECONDITION", "Authenticate", _AuthDisabled),
        ("UNAVAILABLE", "Txn", None),  # the rest says nothing of what happened
        ("UNKNOWN", "Txn", None),
        ("INTERNAL", "Txn", None),
        ("DEADLINE_EXCEEDED", "Txn", None),
        ("CANCELLED", "Txn", None),
        ("ABORTED", "Txn", None),
    ],
)
def test_what_a_code_says_of_what_happened(code: str, method: str, verdict: type | None) -> None:
    found = _judge(method, Failed(grpc.StatusCode[code]), "127.0.0.1:1: x")

    assert found is None if verdict is None else type(found) is verdict


def test_an_error_without_a_code_says_nothing() -> None:
    assert _judge("Txn", ValueError("x"), "x") is None
