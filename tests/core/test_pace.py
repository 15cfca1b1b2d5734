"""Goal: what happens to all nodes at once does not keep them in step: renewals, publishings, tries again.

Method: the real core renews for many holders that were granted in the same instant, on a simulated clock; the
pauses are drawn many times. `./scripts/bench scale` measures the same on real stores.
"""

import heapq
from collections import Counter
from dataclasses import replace

import pytest

from sidecar.clock import Backoff
from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.units import Epoch, Instant, lease_deadline
from sidecar.runtime.policy import RENEW_SOONER_MAX, own_period_ms
from sidecar.runtime.watching import publish_pause_s
from tests.core.made import POLICY

HOLDERS, PERIODS = 200, 40


def renewals(policies: list[s.Policy], until_ms: int) -> list[int]:
    """Return when holders with these policies renew, whose leases were all granted at 0."""
    nodes, sent = list[s.Node](), list[int]()
    due: list[tuple[Instant, int]] = []
    for number, policy in enumerate(policies):
        granted = s.Granted(Epoch(1), Instant(0), lease_deadline(Instant(0), policy.ttl_ms))
        memory = s.Memory(mark=Epoch(1))
        lease = s.Lease(Epoch(1), granted.deadline)
        nodes.append(decide(s.Node(s.Serving(lease, 1), memory), granted, Instant(0), policy).node)
        due.append((nodes[-1].memory.call_at, number))
    heapq.heapify(due)
    while due[0][0] < until_ms:
        at, number = heapq.heappop(due)
        policy = policies[number]
        step = decide(nodes[number], s.Tick(), at, policy)
        assert s.Renew(Epoch(1)) in step.actions
        sent.append(at)
        granted = s.Granted(Epoch(1), at, lease_deadline(at, policy.ttl_ms))
        nodes[number] = decide(step.node, granted, at, policy).node
        heapq.heappush(due, (nodes[number].memory.call_at, number))
    return sent


def busiest_part(sent: list[int], since_ms: int, period_ms: int) -> float:
    """Return which part of the renewals since then fell into the busiest tenth of a period."""
    found = Counter((at - since_ms) * 10 // period_ms for at in sent if since_ms <= at < since_ms + period_ms)
    return max(found.values()) / found.total()


def test_renewals_that_were_in_step_spread_over_their_whole_period() -> None:
    period_ms = POLICY.renew_every_ms
    policies = [
        replace(POLICY, renew_every_ms=own_period_ms(period_ms, f"a-{number}")) for number in range(HOLDERS)
    ]

    sent = renewals(policies, until_ms=(PERIODS + 2) * period_ms)

    assert busiest_part(sent, period_ms // 2, period_ms) > 0.5, "they begin in step, or this shows nothing"
    assert busiest_part(sent, PERIODS * period_ms, period_ms) < 0.2


def test_an_own_period_is_never_longer_than_configured() -> None:
    periods = [own_period_ms(2_000, f"a-{number}") for number in range(HOLDERS)]

    assert 2_000 * (1 - RENEW_SOONER_MAX) <= min(periods) < 1_850
    assert 1_950 < max(periods) <= 2_000
    assert own_period_ms(2_000, "a-1") == own_period_ms(2_000, "a-1")


def test_publishing_is_in_time_and_never_in_step() -> None:
    pauses = [publish_pause_s(9_000) for _ in range(HOLDERS)]

    assert max(pauses) <= 3.0  # C12: at least every third of the TTL
    assert min(pauses) > 2.0
    assert max(pauses) - min(pauses) > 0.3


def test_a_backoff_grows_to_its_limit_and_begins_again() -> None:
    backoff = Backoff(0.05, 0.4)
    for longest in (0.05, 0.1, 0.2, 0.4, 0.4):
        assert longest / 2 <= backoff.next_s() <= longest

    backoff.reset()

    assert backoff.next_s() <= 0.05


@pytest.mark.parametrize("tries", [1, 5])
def test_two_nodes_that_fail_together_do_not_try_again_together(tries: int) -> None:
    def last_pause() -> float:
        backoff = Backoff(0.1, 1.0)
        return [backoff.next_s() for _ in range(tries)][-1]

    pauses = [last_pause() for _ in range(HOLDERS)]

    assert max(pauses) > 1.5 * min(pauses)
