"""Goal: status and history say what the store says, in the document of docs/cli.md, and in 80 columns.

Method: views made by hand for the sentences; the real command on the real local backend for the documents.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from sidecar.cli import main, printing
from sidecar.cli.looking import page
from sidecar.core.model import EpochRecord, LockRecord, NodeRecord, ServerStats, Settings, View
from sidecar.core.units import Epoch
from sidecar.operate.status import status
from tests.cli.stage import Stage, request

NOW = 1_700_000_000_000
A = NodeRecord(
    node="node-a",
    instance="i",
    role="active",
    state="running",
    message="Serving",
    epoch=Epoch(17),
    mark=Epoch(17),
    enforcement="kernel",
    priority=100,
    eligible=True,
    available=False,
    failback=False,
    version="0.1.0",
    seen_at_unix_ms=NOW - 400,
    lease_left_ms=8_500,
    server=ServerStats(4711, 5230.2, 913_000_000, 3.1),
    api="http://10.0.0.1:8009",
)
B = replace(
    A,
    node="node-b",
    role="standby",
    state="monitoring",
    message="Monitoring Master Server Status",
    available=True,
    lease_left_ms=None,
    server=None,
    api=None,
)
LOCK = LockRecord("node-a", "i", Epoch(17), 10_000)
WELL = View(1, LOCK, epoch=EpochRecord(Epoch(17), "node-a"), nodes=(B, A))
VACANT = replace(WELL, lock=None, nodes=(B,))


def document(view: View) -> dict[str, object]:
    return status(view, cluster="plant-7", backend="etcd", now_unix_ms=NOW)


def test_the_document_is_the_one_of_the_specification() -> None:
    found = document(WELL)

    assert found["nodes"][0] == {  # type: ignore[index]
        "node": "node-a",
        "role": "active",
        "state": "running",
        "message": "Serving",
        "epoch": 17,
        "lease_remaining_s": 8.1,
        "enforcement": "kernel",
        "priority": 100,
        "eligible": True,
        "available": False,
        "last_seen_s": 0.4,
        "version": "0.1.0",
        "server": {"pid": 4711, "uptime_s": 5230.2, "rss_bytes": 913_000_000, "cpu_percent": 3.1},
        "api": "http://10.0.0.1:8009",
    }
    del found["nodes"]
    assert found == {
        "cluster": "plant-7",
        "backend": "etcd",
        "paused": False,
        "active": "node-a",
        "epoch": 17,
        "pending": None,
        "paused_nodes": [],
        "settings": [],
        "notices": [],
    }


def test_clocks_that_disagree_give_no_negative_ages() -> None:
    ahead = replace(A, seen_at_unix_ms=NOW + 5_000, lease_left_ms=-3)
    node = document(replace(WELL, nodes=(ahead,)))["nodes"][0]  # type: ignore[index]

    assert (node["last_seen_s"], node["lease_remaining_s"]) == (0, 0)


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (
            replace(WELL, settings=Settings(paused=True, by="bob@there", at_unix_ms=NOW)),
            "paused by bob@there since",
        ),
        (replace(WELL, settings=Settings(paused_nodes=("node-b",))), "paused: node-b"),
        (VACANT, "nobody is active"),
        (replace(VACANT, nodes=()), "no node shows itself"),
        (replace(VACANT, nodes=(replace(B, available=False),)), "no node is able to take over"),
        (replace(VACANT, settings=Settings(paused=True)), "nobody takes over while paused"),
        (replace(VACANT, epoch=EpochRecord(Epoch(3))), "epoch 3 is behind 17, seen by node-b"),
        (replace(WELL, lock=replace(LOCK, state="broken", by="bob@there")), "broken by bob@there"),
        (replace(WELL, nodes=(B,)), "node-a holds the lock at epoch 17 but shows no sign of life"),
        (
            replace(WELL, nodes=(B,), unreadable=("nodes/node-a",)),
            "node-a holds the lock at epoch 17 but says nothing that can be read here",
        ),
        (
            replace(VACANT, unreadable=("epoch", "nodes/node-c"), mark_unreadable=Epoch(21)),
            "nobody is active: the store's epoch cannot be read, and 21 was seen by a node that cannot be "
            "read here; see `sidecar failover --raise-epoch`",
        ),
        (
            replace(VACANT, unreadable=("nodes/node-c",), mark_unreadable=Epoch(21)),
            "epoch 17 is behind 21, seen by a node that cannot be read here",
        ),
        (
            replace(WELL, lock=replace(LOCK, node="node-b")),
            "node-a was active and does not hold the lock",
        ),
        (
            replace(WELL, unreadable=("nodes/node-c",)),
            "the key nodes/node-c holds nothing this sidecar can read",
        ),
        (replace(VACANT, unreadable=("lock",)), "`sidecar failover` replaces it"),
    ],
)
def test_what_an_operator_should_know_is_said(view: View, says: str) -> None:
    notices = document(view)["notices"]

    assert any(says in notice for notice in notices), notices  # type: ignore[attr-defined]
    assert says.split()[0] in page(document(view), "node-a", 80)


def test_bug_a_node_of_a_newer_version_was_said_not_to_be_there_or_not_to_be_able() -> None:
    for nodes in ((), (replace(B, available=False),)):
        found = document(replace(VACANT, nodes=nodes, unreadable=("nodes/node-c",)))

        assert found["notices"] == [
            "the key nodes/node-c holds nothing this sidecar can read",
            "nobody is active",
        ]


def test_bug_who_had_lost_its_lease_was_called_active_for_as_long_as_the_store_kept_its_lock() -> None:
    """A store that was away for more than a TTL comes back with the lock in it."""
    lost = replace(A, role="standby", state="monitoring", message="Monitoring Master Server Status")
    found = document(replace(WELL, nodes=(lost, B)))

    assert found["notices"] == [
        "node-a holds the lock at epoch 17 but does not serve any more: "
        "the lock is free within about 10.0 s of the store's return"
    ]
    assert "etcd: node-a holds the lock, epoch 17" in page(found, "node-a", 80)
    assert "is active" not in page(found, "node-a", 80)


BEHIND = (
    "the store's epoch 17 is behind 18, seen by node-b: it was wiped or restored, or some nodes use another "
    "store than others; see `sidecar failover --raise-epoch`"
)


@pytest.mark.parametrize("state", ["held", "broken"])
def test_bug_the_lock_of_a_restored_store_was_promised_to_become_free(state: Any) -> None:
    """On Consul it stands for ever, since who could see its end refuses the store."""
    lost = replace(A, role="standby", state="failed")
    view = replace(WELL, lock=replace(LOCK, state=state), nodes=(lost, replace(B, mark=Epoch(18))))

    assert document(view)["notices"] == [f"nobody is active: {BEHIND}"]


def test_a_store_that_is_behind_is_told_while_somebody_serves_in_it() -> None:
    view = replace(WELL, nodes=(A, replace(B, mark=Epoch(18))))

    assert document(view)["notices"] == [BEHIND]
    assert document(replace(view, unreadable=("epoch",)))["notices"] == [
        "the key epoch holds nothing this sidecar can read"
    ]


ENDS = "node-a was active and does not hold the lock: its server has ended, or ends by its deadline"
ENDED = (
    "node-a was last seen 20.0 s ago, as active; it does not hold the lock, "
    "and by the clocks its deadline has passed"
)


@pytest.mark.parametrize(
    ("seen_ago_ms", "lease_left_ms", "says"),
    [(8_000, 8_500, ENDS), (20_000, 4_800, ENDED), (86_400_000, 4_800, ENDS)],
    ids=["in time", "too late", "by another clock"],
)
def test_bug_the_server_of_a_dead_node_was_said_to_be_about_to_end(
    seen_ago_ms: int, lease_left_ms: int, says: str
) -> None:
    """On Consul the record of a node outlives it by up to 20 s."""
    dead = replace(A, seen_at_unix_ms=NOW - seen_ago_ms, lease_left_ms=lease_left_ms)
    serves = replace(A, node="node-b", epoch=Epoch(18), mark=Epoch(18))
    lock = replace(LOCK, node="node-b", epoch=Epoch(18))
    view = replace(WELL, lock=lock, epoch=EpochRecord(Epoch(18)), nodes=(dead, serves))

    assert document(view)["notices"] == [says]


@pytest.mark.parametrize(
    ("off_ms", "says"),
    [
        (-50_000, []),
        (50_000, []),
        (
            -86_400_000,
            ["the wall clocks of this machine and of node-a differ: only SEEN and LEASE are wrong by that"],
        ),
        (
            86_400_000,
            ["the wall clocks of this machine and of node-a differ: only SEEN and LEASE are wrong by that"],
        ),
    ],
)
def test_bug_a_node_by_another_clock_looked_dead_for_a_day(off_ms: int, says: list[str]) -> None:
    view = replace(WELL, nodes=(replace(A, seen_at_unix_ms=NOW + off_ms), B))

    def notices(*, just_read: bool) -> object:
        found = status(view, cluster="c", backend="etcd", now_unix_ms=NOW, just_read=just_read)
        return found["notices"]

    assert notices(just_read=True) == says
    assert notices(just_read=False) == [], "an old view is no sign of a wrong clock"


def test_when_no_clock_agrees_with_this_machines_all_are_named_as_one() -> None:
    found = status(WELL, cluster="c", backend="etcd", now_unix_ms=NOW + 86_400_000, just_read=True)

    assert found["notices"] == [
        "the wall clocks of this machine and of all nodes differ: only SEEN and LEASE are wrong by that"
    ]


def test_who_has_just_taken_the_lock_is_not_said_to_be_through_with_it() -> None:
    """Its record is a moment older than the lock."""
    before = replace(A, role="standby", state="monitoring", mark=Epoch(16))
    found = document(replace(WELL, nodes=(before, B)))

    assert found["notices"] == []
    assert "node-a holds the lock, epoch 17" in page(found, "node-a", 80)


def test_a_request_under_way_is_pending_and_a_finished_one_is_not() -> None:
    asked = request(state="confirmed", asked_at_unix_ms=NOW - 1_500)

    pending = document(replace(WELL, request=asked))["pending"]
    assert pending == {
        "id": "f00d" * 8,
        "kind": "switchover",
        "state": "confirmed",
        "from": "node-a",
        "to": "node-b",
        "epoch": 1,
        "by": "bob@there",
        "age_s": 1.5,
    }
    assert document(replace(WELL, request=replace(asked, state="done")))["pending"] is None


def test_the_page_fits_80_columns_and_loses_nothing() -> None:
    long = replace(B, node="node-" + "b" * 40, message="Cooling down: " + "exit status 3, " * 8)
    view = replace(WELL, nodes=(A, long), lock=replace(LOCK, node="x" * 60), request=request(by="b" * 60))
    text = click.unstyle(page(document(view), "node-a", 80))

    assert max(len(line) for line in text.splitlines()) <= 80
    assert " ".join(text.split()).count("exit status 3,") == 8
    assert "node-a*" in text
    assert "4711" in text


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    evil = replace(A, message="\x1b[2J\x07gone\n")

    assert "\x1b" not in click.unstyle(page(document(replace(WELL, nodes=(evil,))), "node-x", 80))


# ---- the commands


def run(config_file: Path, *args: str) -> str:
    result = CliRunner().invoke(main, [*args, "-c", str(config_file)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_and_yaml_say_the_same(stage: Stage, config_file: Path) -> None:
    stage.appear("node-b")
    stage.acquire("node-a")

    found = json.loads(run(config_file, "status", "-o", "json"))
    same = yaml.safe_load(run(config_file, "status", "-o", "yaml"))

    assert found["active"] == same["active"] == "node-a"
    assert [node["node"] for node in found["nodes"]] == ["node-a", "node-b"]
    assert found.keys() == same.keys()


def test_the_table_has_no_colours_where_there_is_no_terminal(stage: Stage, config_file: Path) -> None:
    stage.acquire("node-a")

    text = run(config_file, "status")

    assert "node-a is active, epoch 1" in text
    assert "\x1b" not in text


def test_history_tells_the_newest_first_and_where_the_time_went(stage: Stage, config_file: Path) -> None:
    stage.acquire("node-a")
    stage.record("first start")
    stage.release()
    stage.acquire("node-b")
    stage.record("switchover to node-b", "node-a")

    found = json.loads(run(config_file, "history", "-o", "json"))
    assert [entry["epoch"] for entry in found] == [2, 1]
    at = found[0].pop("at")
    assert at.startswith(time.strftime("20", time.gmtime()))
    assert at.endswith("Z")
    assert found[0] == {
        "epoch": 2,
        "from": "node-a",
        "to": "node-b",
        "cause": "switchover to node-b",
        "detect_s": 9.1,
        "lock_s": 0.04,
        "start_s": 61.0,
    }
    assert len(json.loads(run(config_file, "history", "-n", "1", "-o", "json"))) == 1
    table = run(config_file, "history")
    assert max(len(line) for line in table.splitlines()) <= 80
    assert " ".join(table.split()).count("node-b") == 2


def test_no_history_is_no_error(stage: Stage, config_file: Path) -> None:
    assert run(config_file, "history") == "no change of active is recorded\n"
    assert json.loads(run(config_file, "history", "-o", "json")) == []


def test_a_time_is_never_cut() -> None:
    row = ("2026-11-26 03:59:29", "2", "node-a", "node-b", "0.0s", "0.1s", "2.4s", "switchover to node-b")
    head = ["=WHEN", ">EPOCH", "FROM", "TO", ">DETECT", ">LOCK", ">START", "CAUSE"]

    text = printing.table(head, [row], width=80)

    assert "2026-11-26 03:59:29" in text.splitlines()[1]
    assert max(map(len, text.splitlines())) <= 80
