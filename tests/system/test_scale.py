"""Goal: ``./scripts/bench scale`` still measures: a small run over each store gives plausible figures.

Method: the quick plan, three clusters; what it prints and writes is read back. Its own judgement, that no two
nodes of a cluster were active at once, is its exit status.
Not covered: how fast anything is, which is the bench's business and not a test's.
"""

import json
import subprocess
from pathlib import Path

import pytest
from benchmark.scale import report
from benchmark.scale.fleet import Span, overlapping
from benchmark.scale.measure import Growth, Outage, Results, busiest_percent, quantile

from sidecar.core.units import Instant
from tests.harness.tools import ROOT, need


@pytest.mark.parametrize("store", ["etcd", "consul"])
def test_a_quick_run_measures_growth_and_outages(store: str, tmp_path: Path) -> None:
    need({"etcd": "etcd-3.4"}.get(store, store))
    found = tmp_path / "scale.json"
    command = ["scripts/bench", "scale", "--quick", "--store", store, "--json", str(found)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)

    assert done.returncode == 0, done.stderr
    whole = json.loads(found.read_text())
    assert [row["clusters"] for row in whole["growth"]] == [1, 3]
    assert [row["fault"] for row in whole["outages"]] == ["frozen", "killed"]
    for row in whole["growth"]:
        assert (row["nodes"], row["active"]) == (row["clusters"] * 3, row["clusters"])
        assert row["renewals"] > 0
        assert 0 < row["median_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["requests_per_s"] > row["clusters"]
        assert row["store_cpu_percent"] > 0
    for row in whole["outages"]:
        assert row["away_s"] >= (
            0.6 if row["fault"] == "frozen" else 0.1
        )  # one that was killed starts at once
        assert row["all_held_s"] is not None

    results = Results([Growth(**row) for row in whole["growth"]], [Outage(**row) for row in whole["outages"]])
    page = report.page(results, whole["machine"])
    assert page.count(f"| {report.NAMES[store]} |") == 5  # two of growth, what one costs, two outages


def test_two_active_at_once_are_seen() -> None:
    first = Span("a", Instant(0), Instant(100))
    assert overlapping("c", [first, Span("b", Instant(99), Instant(200))]) != []
    assert overlapping("c", [first, Span("b", Instant(100), Instant(200))]) == []
    first.ended = Instant(50)
    assert overlapping("c", [Span("b", Instant(60), Instant(200)), first]) == []


def test_figures_are_what_they_are_called() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1)) == (50, 99, 100)
    assert quantile([], 0.5) is None
    assert busiest_percent(range(0, 2_000, 10), 2) == 10
    assert busiest_percent([5, 2_005, 4_005], 2) == 100
