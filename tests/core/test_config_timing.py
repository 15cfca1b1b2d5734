"""The worst cases that ``validate`` promises are the sums they say, and follow the configuration.

Method: figures of small configurations against sums done by hand. Not covered: whether the world keeps
them; the system tests and the benchmarks measure that.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config import Config, from_text, timing
from sidecar.core.state import Policy
from sidecar.errors import ConfigError

HEAD = "cluster: c\nnode: n\n"
BACKENDS = {
    "etcd": 'backend: etcd\netcd: {endpoints: ["http://h:2379"]}\n',
    "consul": "backend: consul\n",
    "local": "backend: local\n",
}


def config(text: str = "", backend: str = "etcd") -> Config:
    return from_text(HEAD + BACKENDS[backend] + text, {}, source="x")


def figure(name: str, found: Config) -> timing.Figure:
    return next(each for each in timing.figures(found) if each.name == name)


def worst(name: str, text: str = "", backend: str = "etcd") -> int | None:
    return figure(name, config(text, backend)).ms


@pytest.mark.parametrize(
    ("name", "ms"),
    [
        ("node_crash", 10_000 + 1_000 + 100 + 1_500 + 3_000),
        ("server_crash", (1_000 + 2_000 + 4_000) + 1_500 + 100 + 1_500 + 3_000),
        ("server_hang", 3 * (2_000 + 1_000) + 3_000 + 1_000),
        ("switchover", 3 * (1_500 + 100) + 60_000 + 1_500 + 100 + 1_500 + 3_000),
        ("failover", 1_500 + 10_000 + 1_000 + 100 + 1_500 + 3_000),
        ("outage_ridden", 9_900 - 1_000 - 3_000 - 2_000 - 1_500 - 500),
        ("sidecar_away", 9_900 - 1_000 - 3_000 - 2_000 - 1_500),
        ("isolated", 9_900 - 1_000),
    ],
)
def test_the_defaults_on_etcd(name: str, ms: int) -> None:
    assert worst(name) == ms


def test_each_backend_has_its_own_expiry() -> None:
    stopped = "server: {standby: stopped}\n"

    assert worst("node_crash", stopped, "etcd") == 10_000 + 1_000 + 100 + 1_500
    assert worst("node_crash", stopped, "consul") == 10_100 + 100 + 1_500
    assert worst("node_crash", stopped, "local") == 10_000 + 20 + 1_500


def test_etcd_grants_whole_seconds_and_two_at_least() -> None:
    assert timing.granted_ms(config("lock: {ttl: 1s}\n")) == 2_000
    assert timing.granted_ms(config("lock: {ttl: 2500ms}\n")) == 3_000
    assert timing.granted_ms(config("lock: {ttl: 2500ms}\n", "local")) == 2_500
    assert timing.notes(config("lock: {ttl: 1s}\n"))[0].startswith("etcd grants 2s where 1s is asked")


def test_pauses_are_capped() -> None:
    text = "server: {restarts: {attempts: 4, backoff: 10s, backoff_max: 15s}}\n"

    assert figure("server_crash", config(text)).terms[0].ms == 10_000 + 3 * 15_000


HOOKS = "hooks: {before_active: [x], after_stop: [y], before_active_timeout: 700ms, after_stop_timeout: 2s}\n"


@pytest.mark.parametrize(
    ("name", "ms"),
    [
        ("node_crash", 700),
        ("server_crash", 3 * (700 + 2_000) + 2_000 + 700),
        ("server_hang", 2_000 + 700),
        ("switchover", 2_000 + 700),
        ("failover", 700),
        ("outage_ridden", 0),
        ("isolated", 0),
    ],
)
def test_hooks_count_where_they_are_on_the_path(name: str, ms: int) -> None:
    with_hooks, without = worst(name, HOOKS), worst(name)
    assert with_hooks is not None
    assert without is not None

    assert with_hooks - without == ms


def test_after_stop_keeps_the_lock_for_no_longer_than_the_lease() -> None:
    text = "hooks: {after_stop: [y], timeout: 60s}\n"

    terms = {term.what: term.ms for term in figure("switchover", config(text)).terms}
    assert terms["after_stop: its timeout"] == 9_900 - 1_500


def test_hooks_that_run_beside_cost_no_time() -> None:
    text = "hooks: {on_active: [x], on_standby: [y]}\n"

    assert timing.figures(config(text)) == timing.figures(config())


def test_a_hang_that_nobody_looks_for_is_never_found() -> None:
    found = figure("server_hang", config("server: {kind: command, command: [run]}\n"))

    assert found.ms is None
    assert found.as_dict()["worst_s"] is None
    assert "no check" in found.note


def test_a_figure_is_data() -> None:
    shown = figure("isolated", config()).as_dict()

    assert shown["worst_s"] == 8.9
    assert shown["terms"] == [
        {"what": "lease trusted, 0.99 × ttl", "s": 9.9},
        {"what": "kill_margin", "s": -1.0},
    ]


@pytest.mark.parametrize("ttl", ["1s", "3s", "10s", "1m"])
def test_ranks_wait_as_long_as_the_core_makes_them(ttl: str) -> None:
    found = config(f"lock: {{ttl: {ttl}}}\n")
    lock: dict[str, Any] = dict.fromkeys(Policy.__dataclass_fields__, 0)

    assert timing.hold_back_ms(found) == Policy(**(lock | {"ttl_ms": found.lock.ttl_ms})).hold_back_ms


@settings(deadline=None)
@given(
    st.sampled_from(sorted(BACKENDS)),
    st.integers(1_000, 100_000),
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)),
)
def test_every_figure_is_its_sum_and_nothing_is_promised_before_the_lease_is_over(
    backend: str, ttl_ms: int, percent: tuple[int, int, int, int]
) -> None:
    names = ("renew_every", "request_timeout", "stop_grace", "kill_margin")
    parts = "".join(f", {name}: {ttl_ms * part // 100}ms" for name, part in zip(names, percent, strict=True))
    try:
        found = config(f"lock: {{ttl: {ttl_ms}ms{parts}}}\n", backend)
    except ConfigError:
        return

    for each in timing.figures(found):
        total = sum(term.ms for term in each.terms)
        assert each.ms == (max(0, total) if each.name == "outage_ridden" else total)
    crash, dead = worst_of(found, "node_crash"), worst_of(found, "isolated")
    assert dead < timing.granted_ms(found) <= crash
    assert worst_of(found, "sidecar_away") > 0
    assert worst_of(found, "failover") >= crash


def worst_of(found: Config, name: str) -> int:
    ms = figure(name, found).ms
    assert ms is not None
    return ms
