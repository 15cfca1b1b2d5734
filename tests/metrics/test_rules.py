"""Alerts, dashboard and docs/metrics.md name exactly the metrics there are, and alerts do what they say.

Method: every expression is taken apart and compared with a real exposition: names, labels, and values of
labels; promtool looks at all three and plays the unit tests of the alerts.
Not covered: what Grafana draws.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.tools import need
from tests.metrics.stage import OWN, exposition, samples

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "compose" / "prometheus"
PAGE = (ROOT / "docs" / "metrics.md").read_text()
TEXT = exposition()
SAMPLES = samples(TEXT)
NAMES = {sample.name for sample in SAMPLES}
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"job", "instance"}
WORDS = {"and", "or", "unless", "bool", "offset"}
SERIES_MAX = 250


def dashboard_expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"].removeprefix("label_values(").split(",")[0]


EXPRESSIONS = [*(rule["expr"] for rule in ALERTS.values()), *dashboard_expressions()]


def taken_apart(expression: str) -> tuple[set[str], set[str], list[tuple[str, str, list[str]]]]:
    """Return the metrics an expression names, the labels it joins by, and its matchers by metric."""
    matchers = []
    for metric, inside in re.findall(r"(\w+)\{([^}]*)\}", expression):
        for label, _, wanted in re.findall(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"', inside):
            matchers.append((metric, label, wanted.split("|")))
    bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"', " ", expression)
    joined = re.findall(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)", bare)
    labels = {label.strip() for one in joined for label in one.split(",") if label.strip()}
    bare = re.sub(r"\b(?:by|on|without|ignoring|group_left)\s*\([^)]*\)", " ", bare)
    names = {name for name in re.findall(r"[a-zA-Z_]\w*(?!\w)(?!\s*\()", bare) if name not in WORDS}
    return names, labels, matchers


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_only_what_there_is(expression: str) -> None:
    names, labels, matchers = taken_apart(expression)
    has = {label for sample in SAMPLES if sample.name in names for label in sample.labels} | OWN

    assert names, "nothing was found in it"
    assert names <= NAMES | OF_PROMETHEUS
    assert labels <= has
    for metric, label, wanted in matchers:
        if label in LABELS_OF_PROMETHEUS or "$" in wanted[0]:
            continue
        values = {sample.labels.get(label) for sample in SAMPLES if sample.name == metric}
        assert set(wanted) <= values, f"{metric}: {label}"


def test_the_check_sees_a_name_or_value_that_does_not_exist() -> None:
    names, labels, matchers = taken_apart('sum by (nod) (rate(aggregate_x{role="activ"}[5m])) > 0.1 * up')

    assert (names, labels) == ({"aggregate_x", "up"}, {"nod"})
    assert matchers == [("aggregate_x", "role", ["activ"])]


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    used = {name.removesuffix("_bucket") for one in EXPRESSIONS for name in taken_apart(one)[0]}
    own = {name for name in families() if name.startswith("aggregate_sidecar_")}

    assert own - used == set()


def families() -> dict[str, str]:
    """Return the type of each metric, as the text says it."""
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", TEXT.decode(), re.MULTILINE))


def test_the_page_has_every_metric_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\| ([^|]+) \|$", PAGE, re.MULTILINE)
    labels: dict[str, set[str]] = {name: set() for name in families()}
    for sample in SAMPLES:
        name = sample.name if sample.name in labels else re.sub("_(bucket|sum|count)$", "", sample.name)
        labels[name] |= sample.labels.keys()

    assert {name: kind for name, kind, _, _ in rows} == families()
    for name, _, said, meaning in rows:
        assert labels[name] == set(re.findall(r"`(\w+)`", said)), name
        assert len(meaning) > 15, name


def test_the_page_has_every_alert_with_its_severity_and_what_to_do() -> None:
    found = dict(re.findall(r"^### (AggregateSidecar\w+)\n(\w+)\. ", PAGE, re.MULTILINE))

    assert found == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/metrics.md#{name.lower()}"
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}


def test_every_cause_stands_on_the_page() -> None:
    for sample in SAMPLES:
        if sample.name.endswith(("acquisitions_total", "server_ends_total")):
            for value in sample.labels.values():
                assert value in PAGE, value


def test_every_alert_is_played_and_its_look_alike_too() -> None:
    played = [
        (case["alertname"], bool(case.get("exp_alerts")))
        for name in ("alerts_test.yml", "alerts_slow_test.yml")
        for test in yaml.safe_load((FOLDER / name).read_text())["tests"]
        for case in test["alert_rule_test"]
    ]

    assert sorted(played) == sorted((name, fires) for name in ALERTS for fires in (True, False))


def promtool(*words: str, given: bytes = b"") -> None:
    done = subprocess.run([need("promtool"), *words], cwd=FOLDER, input=given, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("tests", ["alerts_test.yml", "alerts_slow_test.yml"])
def test_promtool_plays_the_alerts(tests: str) -> None:
    promtool("test", "rules", tests)


def test_promtool_finds_nothing_wrong_with_rules_and_scrape() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


def test_promtool_finds_nothing_wrong_with_a_full_exposition() -> None:
    promtool("check", "metrics", given=TEXT)


def test_the_panels_are_whole() -> None:
    panels = DASHBOARD["panels"]
    places = [
        (panel["gridPos"]["y"], column)
        for panel in panels
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
    ]

    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert len(places) == len(set(places)), "two panels begin at one place"
    assert all(column < 24 for _, column in places)


def test_there_are_few_series() -> None:
    assert len(SAMPLES) < SERIES_MAX
