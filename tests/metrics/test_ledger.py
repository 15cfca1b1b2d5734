"""What is told is counted, once and under few names, and nobody waits for it; gauges are as of the scrape.

Method: facts as the program's parts make them, into the real registry, read back from the text.
Not covered: that the parts tell them (test_node.py).
"""

import ast
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar import events as e
from sidecar.clock import ManualClock
from sidecar.core import state as s
from sidecar.core.model import NodeRecord, View
from sidecar.core.units import Epoch
from sidecar.errors import BackendError, Conflict, Denied, NotHolder, NotSent, OutcomeUnknown
from sidecar.metrics import Metrics
from sidecar.metrics.calls import CALLS, OUTCOMES, MeasuredBackend, Shown
from sidecar.metrics.causes import OTHER, kind_of
from sidecar.metrics.ledger import Fact
from sidecar.metrics.overlap import Overlaps
from sidecar.ports import Backend
from tests.core.made import EPOCH, LEASE, MONITORING, NOW, lock, other, view
from tests.metrics.stage import measuring, record, samples, turn, value
from tests.runtime.stubs import WITHIN_S, Store, grant, hold

CORE = Path(__file__).parents[2] / "sidecar" / "core"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def metrics(clock: ManualClock) -> Iterator[Metrics]:
    with measuring(clock) as made:
        yield made


def told(metrics: Metrics, *facts: Fact) -> bytes:
    for fact in facts:
        metrics._told(fact)
    return metrics.render()


# Calls.


def leaves() -> set[type[BackendError]]:
    return set(BackendError.__subclasses__())


def test_every_error_of_a_backend_has_a_name() -> None:
    assert set(OUTCOMES) == leaves()


def test_every_call_of_a_backend_is_passed_on_and_told() -> None:
    store, facts = Store(), list[Any]()
    measured = MeasuredBackend(store.backend, ManualClock(NOW), facts.append)
    names = [name for name in vars(Backend) if not name.startswith("_") and name != "close"]
    answer = object()

    for name in names:
        store.script(name, answer)
        code = getattr(MeasuredBackend, name).__code__
        plain = code.co_argcount - 1
        args = [f"argument {number}" for number in range(plain)]
        given = {key: object() for key in code.co_varnames[plain + 1 :][: code.co_kwonlyargcount]}
        returned = getattr(measured, name)(*args, **given)

        asked, seen = store.asked[-1]
        positional = [*seen.pop("args")]
        assert asked == name
        assert [*positional, *seen.values()] == [*args, *given.values()] or (positional, seen) == (
            args,
            given,
        )
        assert returned in (answer, None)
    assert [fact.name for fact in facts if hasattr(fact, "outcome")] == names
    assert set(names) == set(CALLS)


@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (grant(), "ok", None),
        (NotHolder("x"), "lost", None),
        (NotSent("x"), "failed", "not_sent"),
        (Denied("x"), "failed", "denied"),
        (OutcomeUnknown("x"), "unknown", "outcome_unknown"),
        (ZeroDivisionError("x"), "failed", "internal"),
    ],
    ids=repr,
)
def test_a_renewal_is_counted_by_its_outcome_with_its_time(
    metrics: Metrics, clock: ManualClock, answer: Any, outcome: str, error: str | None
) -> None:
    store = Store()

    def renew(*_args: Any, **_given: Any) -> Any:
        clock.advance(30)
        if isinstance(answer, Exception):
            raise answer
        return answer

    store.script("renew", renew)
    backend = metrics.measured(store.backend)
    if isinstance(answer, Exception):
        with pytest.raises(type(answer)):
            backend.renew(hold(), deadline=NOW)
    else:
        assert backend.renew(hold(), deadline=NOW) is answer

    text = metrics.render()
    assert value(text, "renewals_total", outcome=outcome) == 1
    assert sum(x.value for x in samples(text) if x.name.endswith("_renewals_total")) == 1
    assert value(text, "renewal_duration_seconds_sum") == pytest.approx(0.03)
    assert value(text, "renewal_duration_seconds_bucket", le="0.02") == 0
    assert value(text, "renewal_duration_seconds_bucket", le="0.05") == 1
    assert value(text, "backend_requests_total", call="renew") == 1
    errors = [x.labels for x in samples(text) if x.name.endswith("_backend_errors_total") and x.value]
    assert errors == ([] if error is None else [{"call": "renew", "error": error}])


def test_losing_a_race_for_a_document_is_no_error(metrics: Metrics) -> None:
    store = Store()
    store.script("write", Conflict("x"))

    with pytest.raises(Conflict):
        metrics.measured(store.backend).write(view().settings, expected=1, deadline=NOW)

    text = metrics.render()
    assert value(text, "backend_requests_total", call="write") == 1
    assert not any(x.value for x in samples(text) if "backend_errors" in x.name)


# Events.


def role_changed(before: str, after: str, why: str | None) -> e.RoleChanged:
    return e.RoleChanged(
        node="a", before=before, after=after, cause="Granted", why=why, previous="b", epoch=7,
        lease_left_ms=9_000, message="",
    )  # fmt: skip


def test_taking_the_lock_is_counted_by_what_freed_it(metrics: Metrics) -> None:
    text = told(
        metrics,
        role_changed("standing", "promoting", "switchover to a"),
        role_changed("promoting", "starting", None),
        role_changed("starting", "serving", None),
        role_changed("idle", "starting", "lease expired"),
        role_changed("waiting", "starting", "server ended"),
    )

    taken = {x.labels["cause"]: x.value for x in samples(text) if "acquisitions" in x.name and x.value}
    assert taken == {"switchover": 1, "lease_expired": 1}


def texts_of_causes() -> set[str]:
    """Return every text that the core gives as cause of a release, its beginning where it has parts."""
    found = set()
    for path in CORE.glob("*.py"):
        tree = ast.parse(path.read_text())
        known = {
            str(node.targets[0].id): node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                place = {"GiveUp": 0, "Owed": 1, "give_back": 2}.get(name)
                if place is not None and len(node.args) > place:
                    cause = node.args[place]
                    cause = known.get(cause.id, cause) if isinstance(cause, ast.Name) else cause
                    if isinstance(cause, ast.JoinedStr):
                        cause = cause.values[0]
                    if isinstance(cause, ast.Constant):
                        found.add(str(cause.value))
    return found


def test_every_cause_of_the_core_has_a_kind() -> None:
    texts = texts_of_causes() | {"first start", "lease expired", "failover by root@x"}  # of `decide._change`

    assert len(texts) >= 11, "the search found too little"
    assert {text for text in texts if kind_of(text) == OTHER} == set()
    assert kind_of("of a later version") == OTHER


def start(run: int, role: str = "active", epoch: int = 7) -> e.ServerStarted:
    return e.ServerStarted(run=run, role=role, epoch=epoch, pid=run)


def end(run: int, role: str = "active", epoch: int = 7, how: e.ServerEnd = "exited") -> e.ServerEnded:
    return e.ServerEnded(run=run, role=role, epoch=epoch, how=how, status=1, reason="")


def counted(text: bytes, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(x.labels.values()): x.value
        for x in samples(text)
        if x.name.endswith(f"{name}_total") and x.value
    }


def test_bug_a_standby_that_was_replaced_for_its_age_was_a_restart(metrics: Metrics) -> None:
    """Every standby, every 20 hours, and the alert said that it had ended or hung."""
    text = told(
        metrics,
        start(1, "standby", 0), end(1, "standby", 0, "deadline"),
        start(2, "standby", 0), e.ServerReady(run=2, role="standby"),
    )  # fmt: skip

    assert counted(text, "server_restarts") == {}


def test_hooks_are_counted_by_what_came_of_them(metrics: Metrics) -> None:
    done = e.HookEnded(hook="on_active", epoch=7, status=0, outcome="exit 0", took_ms=5)
    failed = e.HookFailed(hook="on_active", epoch=7, status=1, outcome="exit 1", took_ms=5)

    text = told(metrics, done, failed, failed)

    assert counted(text, "hooks") == {
        ("on_active", "ended"): 1,
        ("on_active", "failed"): 2,
    }


def test_starts_in_the_same_role_and_epoch_are_restarts(metrics: Metrics) -> None:
    text = told(
        metrics,
        start(1, "standby", 0), e.ServerReady(run=1, role="standby"), end(1, "standby", 0, "signalled"),
        start(2), e.ServerReady(run=2, role="active"), end(2),
        start(3), end(3, how="deadline"),
        end(4, how="not_started"),
        start(5), e.ServerReady(run=5, role="active"), end(5, how="killed"),
        start(6, epoch=9), e.ServerReady(run=6, role="active"), e.ServerReady(run=6, role="active"),
    )  # fmt: skip

    def pairs(name: str) -> dict[tuple[str, ...], float]:
        found = counted(text, name)
        return {tuple(sorted(key)): number for key, number in found.items()}

    assert pairs("server_starts") == {
        ("ready", "standby"): 1,
        ("active", "ready"): 3,
        ("active", "failed"): 2,
    }
    assert pairs("server_restarts") == {("active", "failed"): 2, ("active", "ready"): 1}
    assert pairs("server_ends") == {
        ("signalled", "standby"): 1, ("active", "exited"): 1, ("active", "deadline"): 1,
        ("active", "not_started"): 1, ("active", "killed"): 1,
    }  # fmt: skip


def probed(run: int, *, ok: bool, probe: e.ProbeKind = "self_activation") -> e.Probed:
    return e.Probed(run=run, probe=probe, ok=ok, reason="")


def test_a_standby_that_activated_itself_counts_once_however_often_it_is_seen(metrics: Metrics) -> None:
    text = told(
        metrics, probed(1, ok=True), probed(1, ok=False), probed(1, ok=False), probed(2, ok=False),
        probed(3, ok=False, probe="alive"),
    )  # fmt: skip

    assert value(text, "standby_self_activations_total") == 2
    assert value(text, "probes_total", probe="self_activation", result="failed") == 3
    assert value(text, "probes_total", probe="self_activation", result="ok") == 1
    assert value(text, "probes_total", probe="alive", result="failed") == 1


def test_events_reach_the_metrics_whatever_the_level_of_the_log(metrics: Metrics) -> None:
    e.LOG.setLevel("ERROR")
    e.emit(probed(1, ok=True, probe="alive"))
    e.emit(e.Raised(text="x"))
    e.emit(e.RequestEnded(kind="switchover", request="r", state="done", to="b", by="root@x", reason=None))

    text = metrics.render()
    assert value(text, "probes_total", probe="alive", result="ok") == 1
    assert value(text, "alarms_total") == 1
    assert value(text, "requests_total", kind="switchover", outcome="done") == 1


def test_who_tells_does_not_wait_for_who_counts(metrics: Metrics) -> None:
    go_on, done = threading.Event(), threading.Event()
    metrics._lane.put(lambda: void(go_on.wait(3 * WITHIN_S)))

    def tell() -> None:
        for _ in range(1_000):
            e.emit(e.Raised(text="x"))
        done.set()

    threading.Thread(target=tell, daemon=True).start()
    assert done.wait(WITHIN_S)
    go_on.set()

    assert value(metrics.render(), "alarms_total") == 1_000


def test_a_scrape_does_not_wait_for_who_counts() -> None:
    go_on, over = threading.Event(), threading.Event()

    def hold() -> None:
        go_on.wait(WITHIN_S)
        over.set()

    metrics = Metrics("plant-7", "a", "etcd", ManualClock(NOW), flush_within_s=0.01)
    metrics._lane.put(hold)

    text = metrics.render()

    assert not over.is_set()
    assert value(text, "alarms_total") == 0
    go_on.set()
    metrics.close()


def test_a_fact_that_cannot_be_counted_costs_nobody_anything_else(metrics: Metrics) -> None:
    broken = role_changed("idle", "starting", 5)  # type: ignore[arg-type]
    text = told(metrics, broken, e.Raised(text="x"))

    assert value(text, "alarms_total") == 1


def test_nothing_is_counted_after_the_end() -> None:
    metrics = Metrics("plant-7", "a", "etcd", ManualClock(NOW), flush_within_s=0.01)
    metrics.close()
    e.emit(e.Raised(text="x"))

    assert value(metrics.render(), "alarms_total") == 0


# Overlap.


def cluster(lock_epoch: int, said_at: int, epoch: int = EPOCH, role: str = "active") -> View:
    said = other("b", role=role, epoch=Epoch(epoch), seen_at_unix_ms=said_at)
    return view(lock("a", lock_epoch), lock_epoch, nodes=(said, record()))


def test_a_node_that_goes_on_as_active_after_another_got_the_lock_is_seen() -> None:
    overlaps = Overlaps()

    assert [overlaps.look(cluster(8, said_at)) for said_at in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert overlaps.look(cluster(8, 5, role="standby")) == 0


@pytest.mark.parametrize(
    "views",
    [
        [cluster(8, 1)] * 9,  # it is gone, and its record is not yet
        [cluster(8, 1), cluster(8, 2), cluster(8, 2)],  # one publishing was still under way
        [cluster(7, said_at) for said_at in range(9)],  # it has the lock
        [
            view(None, nodes=(other("b", role="active", seen_at_unix_ms=n),)) for n in range(9)
        ],  # nobody has it
        [cluster(7, 1), cluster(8, 2), cluster(8, 3), cluster(9, 4, 8), cluster(9, 5, 8)],  # it took it again
    ],
)
def test_what_a_change_of_active_looks_like_is_no_overlap(views: list[View]) -> None:
    overlaps = Overlaps()

    assert [overlaps.look(one) for one in views] == [0] * len(views)


def test_an_overlap_is_shown_as_long_as_it_lasts(metrics: Metrics) -> None:
    metrics.take(turn())

    text = told(metrics, *(Shown(cluster(8, said_at), NOW) for said_at in (1, 2, 3)))
    assert value(text, "overlapping_actives") == 1
    text = told(metrics, Shown(cluster(8, 4, role="standby"), NOW))
    assert value(text, "overlapping_actives") == 0


# Gauges.


def test_the_role_ends_with_the_lease_though_the_loop_does_not_turn(
    metrics: Metrics, clock: ManualClock
) -> None:
    metrics.take(turn())

    text = metrics.render()
    assert value(text, "role", role="active") == 1
    assert value(text, "lease_remaining_seconds") == 9.0
    clock.advance(LEASE.deadline - NOW)
    text = metrics.render()
    assert (value(text, "role", role="active"), value(text, "role", role="standby")) == (0, 0)
    assert value(text, "lease_remaining_seconds") == 0
    assert value(text, "loop_age_seconds") == 9.0


def test_a_standby_has_no_lease_and_no_server_has_no_size(metrics: Metrics) -> None:
    metrics.take(turn(s.Node(s.Standing(1, ready=True), s.Memory(view=view(lock("b")), mark=EPOCH))))
    told(metrics, record(), replace(record(), server=None))

    text = metrics.render()
    assert value(text, "role", role="standby") == 1
    assert value(text, "state", state="monitoring") == 1
    assert value(text, "available") == 1
    assert value(text, "lease_remaining_seconds") is None
    assert value(text, "server_resident_memory_bytes") is None


def test_maintenance_and_a_store_that_is_behind_are_seen(metrics: Metrics) -> None:
    node = s.Node(s.Idle(), s.Memory(view=view(epoch=3, paused=True), mark=EPOCH))
    metrics.take(turn(node))

    text = metrics.render()
    assert value(text, "paused") == 1
    assert (value(text, "store_epoch"), value(text, "epoch")) == (3, 7)


def test_the_age_of_the_watch_counts_from_the_last_view(metrics: Metrics, clock: ManualClock) -> None:
    store = Store()
    store.script("read", view())
    store.script("await_change", None)
    backend = metrics.measured(store.backend)
    metrics.take(turn())
    clock.advance(5_000)
    backend.read(deadline=NOW)
    clock.advance(2_000)
    backend.await_change(1, deadline=NOW)  # no news, which a store that is gone has none of either

    assert value(metrics.render(), "watch_age_seconds") == 2.0


PHASES = (
    s.Idle(),
    s.Ending(1, NOW),
    s.Promoting(LEASE, 1, NOW),
    s.Starting(LEASE, 1, NOW),
    s.Waiting(LEASE, NOW),
    s.Stopping(LEASE, 1, NOW, s.GiveUp("x")),
    s.Finished(0),
)


def test_no_phase_breaks_a_scrape(metrics: Metrics) -> None:
    for phase in PHASES:
        metrics.take(turn(s.Node(phase, s.Memory())))
        assert value(metrics.render(), "lease_ttl_seconds") == MONITORING.ttl_ms / 1000


def test_what_this_node_published_is_the_size_of_its_server(metrics: Metrics) -> None:
    metrics.take(turn())
    store = Store()
    store.script("publish", NotSent("x"))
    published: NodeRecord = record()

    with pytest.raises(NotSent):
        metrics.measured(store.backend).publish(published, ttl_ms=1, deadline=NOW)

    text = metrics.render()
    assert value(text, "server_resident_memory_bytes") == 913_000_000
    assert value(text, "server_cpu_ratio") == pytest.approx(0.031)


def void(_value: object) -> None:
    """Ignore a result."""
