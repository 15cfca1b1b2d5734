"""What is done to the plant, and the longest interruption that each may cost a client.

A bound is a worst case that ``sidecar validate`` computes from the configuration, plus what it leaves out:
the start of the server (the longest that the history shows) and HAProxy's share. It is computed after the
fact, as starts become known by then.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ha.plant import NODES, Plant, now_ms
from tests.harness.process import wait_until

PROXY_S = 1.0
"""From a server that is active to a client that is served: 250 ms to the check that sees it, 500 ms in which
HAProxy holds a connection that found nobody, 50 ms to the client's next try; the rest for a busy machine."""
NOTHING_S = 1.0
"""What should change nothing: one request may be lost (the client gives it up after 1 s)."""
BACKOFF_S = 2.0  # server.restarts.backoff, doubled: two faults of this kind may meet the same node
BUSY_S = 1.0  # a start in place is in no history, and may be longer than those that are
OTHER_WITHIN_S = 90.0
OUTAGE_S = 12.0  # longer than the lease
OBSERVED_S = 6.0  # twice what HAProxy needs to take a server for down


class Bound(NamedTuple):
    """How long, and of what it is made."""

    s: float
    says: str


class Fault(NamedTuple):
    """*act* does it, waits for what it must lead to, undoes it; returns for how many s the part was away,
    where the bound rests on that. *moves*: must the epoch change? None: it may.
    """

    name: str
    act: Callable[[Plant, str, int], float | None]
    bound: Callable[[Plant, float], Bound]
    moves: bool | None


# -- bounds -------------------------------------------------------------------------------------


def _nothing(plant: Plant, _away_s: float) -> Bound:
    return Bound(NOTHING_S, "none: one request lost at most")


def _in_place(plant: Plant, _away_s: float) -> Bound:
    start_s = plant.longest_start_s()
    says = f"backoff {BACKOFF_S:.0f} + start {start_s:.1f} + proxy {PROXY_S:.0f} + busy {BUSY_S:.0f}"
    return Bound(BACKOFF_S + start_s + PROXY_S + BUSY_S, says)


def _crash(plant: Plant, _away_s: float) -> Bound:
    crash_s, start_s = plant.figures()["node_crash"], plant.longest_start_s()
    return Bound(
        crash_s + start_s + PROXY_S, f"crash {crash_s:.1f} + start {start_s:.1f} + proxy {PROXY_S:.0f}"
    )


def _outage(plant: Plant, away_s: float) -> Bound:
    if away_s <= plant.figures()["outage_ridden"]:
        return _nothing(plant, away_s)
    found = _crash(plant, away_s)
    return Bound(away_s + found.s, f"outage {away_s:.1f} + {found.says}")


def _switchover(plant: Plant, _away_s: float) -> Bound:
    start_s = plant.sidecar("history")[0]["start_s"]
    return Bound(start_s + 3.0, f"start {start_s:.1f} + 3")


def _restart(plant: Plant, away_s: float) -> Bound:
    return Bound(away_s + PROXY_S, f"its restart {away_s:.1f} + {PROXY_S:.0f}")


# -- acts ---------------------------------------------------------------------------------------


def _await_other(plant: Plant, epoch: int) -> None:
    since_ms = now_ms()
    wait_until(
        lambda: plant.answered(since_ms, epoch), "the client is served in a later epoch", OTHER_WITHIN_S
    )


def _await_other_run(plant: Plant, run: str) -> None:
    what = "the client is served by another run of the server"
    wait_until(lambda: plant.client.answers[-1].run != run, what, OTHER_WITHIN_S)


def _observe() -> None:
    """Let time go by in which something that should not happen would be seen."""
    time.sleep(OBSERVED_S)


def _kill_sidecar(plant: Plant, active: str, _epoch: int) -> None:
    plant.kill_process(active, "bin/sidecar run")
    wait_until(lambda: plant.says_active(active), "the next sidecar has adopted the server", OTHER_WITHIN_S)
    _observe()


def _kill_server(plant: Plant, active: str, _epoch: int) -> None:
    run = plant.client.answers[-1].run
    plant.kill_process(active, "/opt/ha/node/server.py")
    _await_other_run(plant, run)


def _kill_guard(plant: Plant, active: str, _epoch: int) -> None:
    run = plant.client.answers[-1].run
    plant.kill_process(active, "sidecar/guard/guard.py")
    _await_other_run(plant, run)


def _kill_node(plant: Plant, active: str, epoch: int) -> None:
    plant.compose.kill(active)
    _await_other(plant, epoch)
    plant.compose.start(active)


def _cut_off(plant: Plant, active: str, epoch: int) -> None:
    plant.compose.disconnect(active)
    _await_other(plant, epoch)
    plant.compose.connect(active)
    if plant.backend == "consul":  # its agent tells the others an address that it may have no more
        plant.kill_process(active, "consul agent")


def _kill_member(plant: Plant, _active: str, _epoch: int) -> None:
    leader = plant.leader()
    member = next(one for one in plant.stores if one != leader)
    plant.compose.kill(member)
    plant.compose.start(member)
    _observe()


def _kill_leader(plant: Plant, _active: str, _epoch: int) -> None:
    leader = plant.leader()
    plant.compose.kill(leader)
    plant.compose.start(leader)
    _observe()


def _kill_two(plant: Plant, _active: str, _epoch: int, for_s: float = 0.0) -> float:
    leader = plant.leader()
    two = (leader, next(one for one in plant.stores if one != leader))
    since_ms = now_ms()
    for member in two:
        plant.compose.kill(member)
    time.sleep(for_s)
    for member in two:
        plant.compose.start(member)
    plant.leader()
    return (now_ms() - since_ms) / 1000


def _reload(plant: Plant, _active: str, _epoch: int) -> None:
    plant.compose.kill("haproxy", "USR2")
    _observe()


def _restart_database(plant: Plant, _active: str, _epoch: int) -> float:
    since_ms = now_ms()
    plant.compose.restart("postgres", grace_s=10)
    return (now_ms() - since_ms) / 1000


def _hand_over(plant: Plant, active: str, _epoch: int) -> None:
    to = next(node for node in NODES if node != active)
    plant.compose.exec(active, "sidecar", "switchover", "--to", to, "--yes")


FAULTS = (
    Fault("switchover", _hand_over, _switchover, True),
    Fault("sidecar", _kill_sidecar, _nothing, False),
    Fault("server", _kill_server, _in_place, False),
    Fault("guard", _kill_guard, _in_place, None),
    Fault("node", _kill_node, _crash, True),
    Fault("cut-off", _cut_off, _crash, True),
    Fault("store-member", _kill_member, _nothing, False),
    Fault("store-leader", _kill_leader, _nothing, False),
    Fault("store-majority", _kill_two, _outage, None),
    Fault("store-outage", partial(_kill_two, for_s=OUTAGE_S), _outage, None),
    Fault("haproxy-reload", _reload, _nothing, False),
    Fault("database", _restart_database, _restart, False),
)
