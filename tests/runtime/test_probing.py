"""The prober: sick means failures in a row, ready is told once, and a run that is over is told of no more.

Method: the real thread over scripted probes. Not covered: probes themselves (tests/system).
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from sidecar.clock import BootClock
from sidecar.core import state as s
from sidecar.core.units import Instant
from sidecar.probes import OK, Finding
from sidecar.runtime.probing import All, Prober, Watching
from tests.runtime.stubs import WITHIN_S, Inbox

NO = Finding(False, "port 6460: connection refused")


class Answers:
    """A probe that gives these answers, the last one for ever; a test can wait for how often it was asked."""

    def __init__(self, *answers: Finding | Callable[[], Finding]) -> None:
        self._answers = list(answers)
        self.asked = 0
        self._news = threading.Condition()

    def check(self, deadline: Instant) -> Finding:
        with self._news:
            self.asked += 1
            self._news.notify_all()
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer if isinstance(answer, Finding) else answer()

    def await_asked(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self.asked >= count, WITHIN_S), f"asked {self.asked} times"


QUICK = Watching(
    ready=None, alive=None, ready_every_ms=1, ready_timeout_ms=100, every_ms=1, timeout_ms=100, failures=3
)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def prober(inbox: Inbox) -> Iterator[Prober]:
    made = Prober(BootClock(), inbox.put)
    yield made
    made.close()


def test_sick_means_so_many_failures_in_a_row(prober: Prober, inbox: Inbox) -> None:
    go_on = threading.Event()

    def hold() -> Finding:
        go_on.wait(WITHIN_S)
        return OK

    alive = Answers(NO, NO, OK, NO, NO, OK, hold, NO, NO, NO, OK)
    prober.look_at(1, "active", replace(QUICK, alive=alive), None)
    alive.await_asked(7)
    assert inbox.next() == s.ServerReady(1)
    assert inbox.rest() == [], "never three in a row so far"
    go_on.set()
    alive.await_asked(12)

    assert inbox.rest() == [s.ServerSick(1, "3 probes failed in a row: port 6460: connection refused")]


def test_the_failures_of_the_run_before_do_not_count(prober: Prober, inbox: Inbox) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> Finding:
        held.set()
        go_on.wait(WITHIN_S)
        return NO

    before, after = Answers(NO, hold), Answers(NO, OK)
    prober.look_at(1, "active", replace(QUICK, alive=before), None)
    assert held.wait(WITHIN_S)
    prober.look_at(2, "active", replace(QUICK, alive=after), None)
    go_on.set()
    after.await_asked(3)

    assert [told for told in inbox.rest() if isinstance(told, s.ServerSick)] == []


def test_ready_is_told_once_and_only_when_it_is(prober: Prober, inbox: Inbox) -> None:
    ready, alive = Answers(NO, NO, OK), Answers(OK)
    prober.look_at(1, "active", replace(QUICK, ready=ready, alive=alive), None)
    alive.await_asked(3)

    assert (ready.asked, inbox.rest()) == (3, [s.ServerReady(1)])


def test_one_that_is_known_to_be_ready_is_asked_whether_it_lives(prober: Prober, inbox: Inbox) -> None:
    ready, alive = Answers(NO), Answers(NO, NO, NO, OK)
    prober.look_at(0, "active", replace(QUICK, ready=ready, alive=alive), None, ready=True)
    alive.await_asked(4)

    assert ready.asked == 0
    assert inbox.rest() == [s.ServerSick(0, "3 probes failed in a row: port 6460: connection refused")]


def test_a_late_answer_does_not_make_a_run_ready_that_is_over(prober: Prober, inbox: Inbox) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> Finding:
        held.set()
        go_on.wait(WITHIN_S)
        return OK

    prober.look_at(1, "active", replace(QUICK, ready=Answers(hold)), None)
    assert held.wait(WITHIN_S)
    prober.forget(1)
    go_on.set()
    after = Answers(OK)
    prober.look_at(2, "active", replace(QUICK, alive=after), None)
    after.await_asked(2)

    assert inbox.rest() == [s.ServerReady(2)]


def test_bug_a_run_that_was_ended_as_it_became_ready_was_probed_on() -> None:
    made: Prober = Prober(BootClock(), lambda _seen: made.forget(1))

    made.look_at(1, "active", replace(QUICK, alive=Answers(NO)), None)

    assert made._subject is None
    made.close()


def test_forgetting_another_run_changes_nothing(prober: Prober, inbox: Inbox) -> None:
    alive = Answers(OK)
    prober.look_at(2, "active", replace(QUICK, alive=alive), None)
    prober.forget(1)
    alive.await_asked(5)


def test_a_standby_that_activated_itself_is_told(prober: Prober, inbox: Inbox) -> None:
    activated = Answers(NO, NO, OK)
    prober.look_at(1, "standby", QUICK, activated)

    assert inbox.next() == s.ServerReady(1)
    assert inbox.next() == s.ServerActivated(1)


def test_a_probe_that_raises_does_not_end_the_probing(prober: Prober, inbox: Inbox) -> None:
    def raises() -> Finding:
        raise ZeroDivisionError("x")

    prober.look_at(1, "active", replace(QUICK, ready=Answers(raises, OK)), None)

    assert inbox.next() == s.ServerReady(1)


def test_of_several_probes_the_first_no_is_the_answer() -> None:
    last = Answers(OK)

    assert All((Answers(OK), Answers(NO), last)).check(Instant(0)) == NO
    assert last.asked == 0
    assert All((Answers(OK), last)).check(Instant(0)) == OK
