"""The decisions one by one, and every bug found in them by its name.

Method: one call of `decide` from a state that is written out, sometimes a few in a row. What
happens when nodes, store and clocks meet is `test_simulation`; the whole table is `test_table`.
"""

from dataclasses import replace

import pytest

from sidecar.core import state as s
from sidecar.core.advance import KILLS_MAX, LEASE_OVER
from sidecar.core.candidate import in_force, rank
from sidecar.core.decide import begin, decide
from sidecar.core.model import NOBODY, LockRecord, NodeRecord, Override, Settings, View
from sidecar.core.outlook import describe, wake_at
from sidecar.core.units import NO_EPOCH, Epoch, Instant, lease_deadline, silence_ms, usable_ms
from tests.core.made import (
    BUSY,
    EPOCH,
    LEASE,
    MONITORING,
    NOW,
    POLICY,
    at,
    grant,
    lock,
    other,
    request,
    serving,
    step,
    view,
)

FREE = replace(BUSY, call=None, view=view(epoch=7, by="b"), vacant_since=NOW)


def shown(node: s.Node, policy: s.Policy = POLICY, *, after_ms: int = 0) -> NodeRecord:
    """What the others get to know of *node*."""
    return describe(node, at(after_ms), policy, enforcement="kernel", version="0", unix_ms=0, server=None)


# Units


def test_a_lease_counts_from_before_it_was_sent_and_errs_towards_lost() -> None:
    assert lease_deadline(NOW, 10_000) == at(9_900)
    assert (usable_ms(101), silence_ms(101)) == (99, 103)
    with pytest.raises(ValueError, match="positive"):
        lease_deadline(NOW, 0)


# The end of a lease


@pytest.mark.parametrize(
    ("after_ms", "phase", "orders"),
    [
        (4_999, s.Serving, ()),
        (5_000, s.Stopping, (s.StopServer(3, at(8_000)),)),
        (7_999, s.Stopping, (s.StopServer(3, at(8_000)),)),
        (8_000, s.Ending, (s.StopServer(3, at(8_000)), s.KillServer(3))),
    ],
)
def test_an_active_leaves_before_its_lease_does(
    after_ms: int, phase: type[s.Phase], orders: tuple[s.Action, ...]
) -> None:
    after = step(serving(), s.Tick(), after_ms=after_ms)

    assert (type(after.node.phase), after.actions) == (phase, orders)


def test_a_renewal_extends_the_guard_and_never_shortens() -> None:
    later = step(serving(), grant(sent_after_ms=500), after_ms=600)
    earlier = step(serving(), s.Granted(EPOCH, at(-5_000), at(4_900)))

    assert later.actions == (s.ExtendServer(3, at(10_400)),)
    assert earlier.node.phase == serving()


def test_a_grant_while_the_server_ends_for_good_revives_nothing() -> None:
    ending = s.Ending(3, at(8_000), EPOCH)

    after = step(ending, grant())

    assert after.node.phase == ending
    assert after.node.memory.spent == EPOCH


def test_a_call_that_failed_changes_nothing_but_the_next_attempt() -> None:
    after = step(serving(), s.CallFailed("down"))
    lasting = step(serving(), s.CallFailed("denied", lasting=True))

    assert after.node.phase == serving()
    assert after.actions == ()
    assert after.node.memory.call_at == at(POLICY.retry_ms)
    assert lasting.node.memory.call_at == at(POLICY.renew_every_ms)


def test_a_lost_lock_is_owed_until_the_tree_is_proven_dead() -> None:
    lost = step(serving(), s.Lost(EPOCH), replace(BUSY, call="renew"))
    assert lost.node.phase == s.Ending(3, at(3_000), EPOCH)
    assert lost.actions == (s.StopServer(3, at(3_000)),)

    gone = decide(lost.node, s.ServerGone(3, 0), at(100), POLICY)
    assert gone.actions == (s.Release(EPOCH, "lost, server proven dead"),)


def test_a_broken_lock_is_lost_and_the_stop_stays_inside_the_lease() -> None:
    broken = s.Seen(view(lock(state="broken")))

    after = step(serving(), broken, after_ms=4_990)

    assert after.node.phase == s.Ending(3, at(7_990), EPOCH)
    assert step(serving(), s.Seen(view(lock("b", 6, state="broken")))).node.phase == serving()


def test_waiting_gives_a_lost_lock_back_at_once() -> None:
    after = step(s.Waiting(LEASE, at(500)), s.Lost(EPOCH))

    assert after.node.phase == s.Idle()
    assert after.actions == (s.Release(EPOCH, "lost, server proven dead"),)


def test_a_grant_of_another_epoch_means_that_ours_had_ended() -> None:
    after = step(serving(), grant(8))

    assert after.node.phase == s.Ending(3, at(3_000), Epoch(8))
    assert after.node.memory.spent == 8


def test_a_grant_of_another_epoch_while_waiting_is_owed_too() -> None:
    after = step(s.Waiting(LEASE, at(500)), grant(8))

    assert after.node.phase == s.Idle()
    assert after.node.memory.owed is not None
    assert after.node.memory.owed.epoch == 8


def test_a_view_without_our_lock_makes_us_look_at_once() -> None:
    quiet = replace(BUSY, call=None, call_at=at(1_500))

    assert step(serving(), s.Seen(view()), quiet).actions == (s.Renew(EPOCH),)
    assert step(serving(), s.Seen(view(lock())), quiet).actions == ()


# Taking the lock


def test_an_idle_node_starts_under_the_grant_and_saves_its_mark_first() -> None:
    after = step(s.Idle(), grant(8), replace(FREE, call="acquire"))

    assert after.actions == (
        s.SaveMark(s.Mark(Epoch(8), "a")),
        s.StartServer(4, "active", Epoch(8), at(9_900)),
    )


def test_a_standby_tree_is_gone_before_the_active_starts() -> None:
    granted = step(s.Standing(3, ready=True), grant(8), replace(FREE, call="acquire"))
    assert granted.node.phase == s.Promoting(s.Lease(Epoch(8), at(9_900)), 3, at(3_000))
    assert granted.actions == (s.SaveMark(s.Mark(Epoch(8), "a")), s.StopServer(3, at(3_000)))

    early = decide(granted.node, s.ServerGone(2, 0), at(10), POLICY)
    assert isinstance(early.node.phase, s.Promoting)

    gone = decide(granted.node, s.ServerGone(3, 0), at(10), POLICY)
    assert gone.actions == (s.StartServer(4, "active", Epoch(8), at(9_900)),)


@pytest.mark.parametrize(
    ("seen", "memory"),
    [
        (grant(7), replace(FREE, call="acquire", spent=EPOCH)),  # spent
        (grant(6), replace(FREE, call="acquire")),  # below the mark
        (grant(8, sent_after_ms=-6_000), replace(FREE, call="acquire")),  # too late to use
        (grant(8), replace(FREE, call="acquire", quit=s.Quit())),
        (grant(8), replace(FREE, call="acquire", view=view(paused=True))),
    ],
    ids=["spent", "older than the mark", "late", "stopping", "paused"],
)
def test_a_grant_that_may_not_be_used_is_given_back_and_spent(seen: s.Granted, memory: s.Memory) -> None:
    after = step(s.Idle(), seen, memory)

    assert after.node.phase == s.Idle()
    assert s.Release(seen.epoch, "not needed") in after.actions
    assert after.node.memory.spent >= seen.epoch


def test_nobody_campaigns_in_a_store_that_is_behind() -> None:
    behind = s.Seen(view(epoch=6))

    assert step(s.Idle(), behind, replace(FREE, view=None)).actions == ()
    assert step(s.Idle(), s.Seen(view(epoch=7)), replace(FREE, view=None)).actions == (s.Acquire(EPOCH),)


def test_bug_a_store_was_believed_though_a_record_that_cannot_be_read_said_it_was_behind() -> None:
    nobody_knows = s.Memory(mark=NO_EPOCH)
    wiped = view(epoch=0, by=None)

    assert s.Acquire(NO_EPOCH) in step(s.Idle(), s.Seen(wiped), nobody_knows).actions
    told = step(s.Idle(), s.Seen(replace(wiped, mark_unreadable=EPOCH)), nobody_knows)
    assert told.actions == (s.SaveMark(s.Mark(EPOCH, None)),)


def test_a_hold_that_never_reached_us_is_asked_for_again_or_given_back() -> None:
    stray = s.Seen(view(lock("a", 8), epoch=8))

    assert s.Acquire(Epoch(8)) in step(s.Idle(), stray, FREE).actions
    cooling = step(s.Idle(), stray, replace(FREE, cool_until=at(5_000)))
    assert s.Release(Epoch(8), "not needed") in cooling.actions
    assert step(s.Idle(), stray, replace(FREE, spent=Epoch(8))).actions == (
        s.SaveMark(s.Mark(Epoch(8), "a")),
    )


def test_each_rank_holds_back_a_moment() -> None:
    seen = view(by="c", nodes=(other("b", priority=200), other("0"), other("z")))
    memory = replace(FREE, view=seen)

    assert rank(seen, None, POLICY) == 2
    hold_back_ms = 2 * POLICY.hold_back_ms
    assert step(s.Idle(), s.Tick(), memory, after_ms=hold_back_ms - 1).actions == ()
    assert step(s.Idle(), s.Tick(), memory, after_ms=hold_back_ms).actions == (s.Acquire(EPOCH),)


def rank_at(found: View, broken: LockRecord | None = None) -> int:
    return rank(found, broken, POLICY)


def test_who_died_is_not_waited_for_and_who_is_named_goes_first() -> None:
    b, c = other("b", priority=200), other("c")
    to_c = request(state="confirmed", source="b", to="c")

    assert rank_at(view(by="b", nodes=(b,))) == 0
    assert rank_at(view(by="b", released="stopped", nodes=(b,))) == 1
    assert rank_at(view(by="b", released="switchover", nodes=(c,), request=to_c)) == 5
    to_a = replace(to_c, to="a")
    assert rank_at(view(by="b", released="switchover", nodes=(b, c), request=to_a)) == 0
    forced = request("failover", "confirmed", source="b", to=None)
    assert rank_at(view(by="x", nodes=(b, c), request=forced)) == 0
    gave_up = view(epoch=8, by="c", released="failed", nodes=(b, c), request=to_c)
    assert rank_at(gave_up) == 2  # the candidate, then the source


def test_bug_a_failover_that_had_broken_nothing_decided_who_becomes_active() -> None:
    """It overwrote a switchover that was being carried out, and was killed before it broke the lock."""
    b, c = other("b"), other("c")
    asked = request("failover", "asked", source="b", to="c")

    assert rank_at(view(by="b", released="switchover to a", nodes=(b, c), request=asked)) == 0


def test_bug_a_second_failover_that_came_too_late_undid_whom_the_first_had_named() -> None:
    b, c = other("b"), other("c")
    late = request("failover", "confirmed", source="b", to="c")
    for_us = lock("b", state="broken", by="op@here", to="a", request="first")
    free = view(by="b", nodes=(b, c), request=late)

    assert rank_at(free, for_us) == 0
    assert rank_at(free, replace(for_us, to="c")) == 5  # c, and four ranks for it to come
    assert rank_at(free, replace(for_us, epoch=Epoch(EPOCH - 1))) == 5  # of an earlier vacancy
    assert (
        rank_at(replace(free, request=None), replace(for_us, node="", to=None)) == 0
    )  # the epoch was raised


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (Override("a", priority=7), (7, True)),
        (Override("a", eligible=False), (100, False)),
        (Override("a", 0, True), (0, True)),
        (Override("b", 7, False), (100, True)),
    ],
)
def test_what_was_set_at_run_time_counts_before_the_configuration(
    found: Override, counts: tuple[int, bool]
) -> None:
    policy = in_force(POLICY, Settings(overrides=(found,)))

    assert (policy.priority, policy.eligible) == counts
    assert replace(policy, priority=100, eligible=True) == POLICY


def test_a_node_says_which_settings_it_goes_by() -> None:
    assert shown(s.Node(s.Idle(), s.Memory())).heard == 0
    assert shown(s.Node(s.Idle(), FREE)).heard == 1


def test_nobody_campaigns_in_maintenance() -> None:
    assert step(s.Idle(), s.Seen(view(paused=True)), FREE).actions == ()


def test_a_lock_that_was_lost_is_never_believed_again() -> None:
    lost = step(serving(), s.Lost(EPOCH))
    gone = decide(lost.node, s.ServerGone(3, 0), at(100), POLICY)
    over = decide(gone.node, s.Lost(EPOCH), at(200), POLICY)
    late = decide(over.node, grant(), at(300), POLICY)

    assert late.node.phase == s.Idle()
    assert late.actions == (s.Release(EPOCH, "not needed"),)


# Failures of the server


def test_a_server_restarts_in_place_within_its_budget_and_then_hands_over() -> None:
    memory = replace(BUSY, view=view(lock(), nodes=(other(),)))
    pauses = []
    for _ in range(2):
        after = step(serving(), s.ServerGone(3, 1), memory)
        assert isinstance(after.node.phase, s.Waiting)
        pauses.append(after.node.phase.until - NOW)
        memory = after.node.memory
    assert pauses == [1_000, 2_000]

    after = step(serving(), s.ServerGone(3, 1), replace(memory, call=None))
    assert after.node.phase == s.Idle()
    assert after.actions == (s.Release(EPOCH, "server failed: server ended with status 1"),)
    assert after.node.memory.cool_until == at(POLICY.backoff_max_ms)


def test_with_nobody_to_hand_over_to_the_budget_does_not_end() -> None:
    memory = replace(BUSY, failures=(NOW, NOW), view=view(lock()))

    after = step(serving(), s.ServerGone(3, 1), memory)

    assert after.node.phase == s.Waiting(LEASE, at(POLICY.backoff_max_ms))


def test_a_sick_server_is_stopped_and_started_again_unless_paused() -> None:
    after = step(serving(), s.ServerSick(3, "hangs"))
    assert after.node.phase == s.Stopping(LEASE, 3, at(3_000), s.Again(at(1_000)))

    paused = replace(BUSY, view=view(lock(), paused=True))
    assert step(serving(), s.ServerSick(3, "hangs"), paused).node.phase == serving()
    assert step(serving(), s.ServerSick(2, "hangs")).node.phase == serving()


def test_a_server_that_is_not_ready_in_time_is_stopped() -> None:
    starting = s.Starting(LEASE, 3, at(100))

    after = step(starting, s.Tick(), after_ms=100)

    assert after.node.phase == s.Stopping(LEASE, 3, at(3_100), s.Again(at(1_100)))


def test_a_candidate_that_fails_hands_back_at_once() -> None:
    asked = request(state="confirmed", epoch=6, source="b", to="a")
    memory = replace(BUSY, view=view(lock(), nodes=(other(),), request=asked), call=None)

    after = step(s.Starting(LEASE, 3, at(100)), s.ServerGone(3, 1, "no licence"), memory)

    assert after.node.phase == s.Idle()
    assert after.actions == (s.Release(EPOCH, "server failed: no licence"),)


def test_in_maintenance_a_server_that_fails_too_often_does_not_cost_the_lock() -> None:
    memory = replace(BUSY, failures=(NOW, NOW), view=view(lock(), nodes=(other(),), paused=True))
    gone = step(serving(), s.ServerGone(3, 1), memory)
    assert isinstance(gone.node.phase, s.Waiting)
    assert gone.actions == ()


def test_in_maintenance_a_slow_start_is_not_stopped() -> None:
    memory = replace(BUSY, view=view(lock(), paused=True))
    starting = s.Starting(replace(LEASE, deadline=at(99_000)), 3, NOW)
    assert step(starting, s.Tick(), memory).actions == ()
    resumed = step(starting, s.Seen(view(lock())), memory)
    assert isinstance(resumed.node.phase, s.Stopping)


def test_a_node_that_gave_up_wants_no_failback_until_it_served() -> None:
    """Else the lock would go to and fro, with an interruption for each time the cool-down is over."""
    policy = replace(POLICY, failback=True, priority=200, restart_attempts=0)
    memory = replace(BUSY, view=view(lock(), nodes=(other(),)))
    gone = step(s.Starting(LEASE, 3, at(60_000)), s.ServerGone(3, 1), memory, policy=policy)
    assert isinstance(gone.node.phase, s.Idle)
    assert not shown(gone.node, policy, after_ms=1_000_000).failback
    grants = s.Granted(Epoch(EPOCH + 1), at(1_000_000), at(1_009_900))
    again = decide(s.Node(s.Idle(), replace(gone.node.memory, owed=None)), grants, at(1_000_000), policy)
    ready = decide(again.node, s.ServerReady(again.node.memory.runs), at(1_000_001), policy)
    assert shown(ready.node, policy, after_ms=1_000_001).failback


def test_why_a_server_is_down_is_not_forgotten_at_the_next_renewal() -> None:
    gone = step(serving(), s.ServerGone(3, 1))
    hiccup = decide(gone.node, s.CallFailed("no answer in time"), at(10), POLICY)
    renewed = decide(hiccup.node, grant(sent_after_ms=10), at(20), POLICY)
    assert (
        shown(renewed.node, POLICY, after_ms=20).message == "Restarting in place: server ended with status 1"
    )


def test_a_crash_while_paused_is_not_answered_by_a_start() -> None:
    paused = replace(BUSY, view=view(lock(), paused=True))
    waiting = s.Waiting(LEASE, NOW)

    assert step(waiting, s.Tick(), paused).node.phase == waiting
    asked = replace(paused, restart_request="r1")
    assert isinstance(step(waiting, s.Tick(), asked).node.phase, s.Starting)


@pytest.mark.parametrize(("status", "code"), [(3, 3), (0, 0), (-9, 137), (None, 1)])
def test_once_ends_with_the_command(status: int | None, code: int) -> None:
    policy = replace(POLICY, once=True)

    after = step(serving(), s.ServerGone(3, status), replace(BUSY, call=None), policy=policy)
    assert after.actions == (s.Release(EPOCH, "command ended"),)
    released = decide(after.node, s.Released(EPOCH), NOW, policy)
    assert released.actions == (s.Exit(code, kept=False),)


@pytest.mark.parametrize(("status", "code"), [(0, 0), (-15, 143), (None, 1)])
def test_once_that_is_stopped_ends_with_the_command(status: int | None, code: int) -> None:
    policy = replace(POLICY, once=True)

    asked = step(serving(), s.StopAsked(), replace(BUSY, call=None), policy=policy)
    gone = decide(asked.node, s.ServerGone(3, status), NOW, policy)

    assert decide(gone.node, s.Released(EPOCH), NOW, policy).actions == (s.Exit(code, kept=False),)


def test_bug_once_that_was_stopped_before_its_command_ran_said_done() -> None:
    policy = replace(POLICY, once=True)

    stopped = step(s.Idle(), s.StopAsked(), replace(FREE, vacant_since=None), policy=policy)

    assert stopped.actions == (s.Exit(1, kept=False),)


def test_once_ends_with_the_lock() -> None:
    policy = replace(POLICY, once=True)

    lost = step(serving(), s.Lost(EPOCH), policy=policy)
    short = step(serving(), s.Tick(), after_ms=5_000, policy=policy)

    assert lost.node.memory.quit == short.node.memory.quit == s.Quit(1)
    stopped = decide(short.node, s.StopAsked(), at(5_001), policy)
    gone = decide(stopped.node, s.ServerGone(3, 0), at(5_002), policy)
    assert gone.node.memory.quit == s.Quit(1), "what is lost is lost, however the command ends"


# Standby trees


def test_a_standby_tree_backs_off_when_it_fails() -> None:
    memory = replace(BUSY, view=view(lock("b")), standby_failures=1)

    after = step(s.Standing(3), s.ServerGone(3, 1), memory, policy=MONITORING)

    assert after.node.phase == s.Idle()
    assert after.node.memory.standby_at == at(2_000)
    again = decide(after.node, s.Tick(), at(2_000), MONITORING)
    assert again.node.phase == s.Standing(4)
    ready = decide(again.node, s.ServerReady(4), at(2_100), MONITORING)
    assert ready.node.phase == s.Standing(4, ready=True)
    assert ready.node.memory.standby_failures == 0


def test_no_standby_tree_where_the_lock_is_about_to_be_had_or_nothing_is_known() -> None:
    vacant = replace(FREE, call="acquire")
    unknown = s.Memory(born_at=NOW)

    assert step(s.Idle(), s.Tick(), vacant, policy=MONITORING).node.phase == s.Idle()
    assert step(s.Idle(), s.Tick(), unknown, policy=MONITORING).node.phase == s.Idle()
    late = step(s.Idle(), s.Tick(), unknown, after_ms=10_000, policy=MONITORING)
    assert late.node.phase == s.Standing(1)
    paused = replace(vacant, view=view(lock("b"), paused=True), vacant_since=None)
    assert step(s.Idle(), s.Tick(), paused, policy=MONITORING).node.phase == s.Idle()


# Failing back


def test_a_preferred_node_that_has_been_able_for_a_ttl_gets_the_lock() -> None:
    lease = s.Lease(EPOCH, at(60_000))
    better = other("b", priority=200, failback=True)
    memory = replace(BUSY, view=view(lock(), nodes=(better,)))

    first = step(s.Serving(lease, 3), s.Tick(), memory)
    assert first.node.memory.better == ("b", NOW)
    before = decide(first.node, s.Tick(), at(9_999), POLICY)
    assert isinstance(before.node.phase, s.Serving)
    due = decide(first.node, s.Tick(), at(10_000), POLICY)
    assert due.node.phase == s.Stopping(lease, 3, at(40_000), s.GiveUp("failback to b"))
    left = decide(first.node, s.Seen(view(lock())), at(10_000), POLICY)
    assert left.node.memory.better is None


# Stopping this sidecar


def test_a_stop_ends_the_server_then_the_hold_then_the_sidecar() -> None:
    asked = step(serving(), s.StopAsked())
    assert asked.node.phase == s.Stopping(LEASE, 3, at(30_000), s.GiveUp("stopped"))
    renewed = decide(asked.node, grant(), at(50), POLICY)
    gone = decide(renewed.node, s.ServerGone(3, 0), at(100), POLICY)
    assert gone.actions == (s.Release(EPOCH, "stopped"),)
    failed = decide(gone.node, s.CallFailed("down"), at(200), POLICY)
    assert failed.actions == ()
    over = decide(failed.node, s.Tick(), at(9_900), POLICY)
    assert over.actions == (s.Exit(0, kept=False),)
    assert decide(over.node, s.Tick(), at(9_900), POLICY) == s.Step(over.node)


def test_asked_twice_there_is_no_more_patience() -> None:
    asked = step(serving(), s.StopAsked())

    again = decide(asked.node, s.StopAsked(), at(10), POLICY)

    assert again.actions == (s.KillServer(3),)


def test_a_kept_server_is_left_to_the_guard() -> None:
    assert step(serving(), s.StopAsked(keep_server=True)).actions == (s.Exit(0, kept=True),)
    standing = step(s.Standing(3), s.StopAsked(keep_server=True), replace(FREE, vacant_since=None))
    assert standing.actions == (s.Exit(0, kept=True),)
    ended = step(s.Standing(3), s.StopAsked())
    later = replace(BUSY, call=None, call_at=at(500))
    assert ended.node.phase == s.Ending(3, at(30_000))
    waiting = step(s.Waiting(LEASE, at(99)), s.StopAsked(keep_server=True), later)
    assert waiting.actions == (s.Release(EPOCH, "stopped"),)


# The beginning


def test_a_found_active_server_is_taken_over_under_its_deadline() -> None:
    found = s.StartServer(0, "active", EPOCH, LEASE.deadline)

    node = begin(POLICY, NOW, s.Mark(), found)
    assert node.phase == s.Starting(LEASE, 0, at(60_000))
    renew = decide(node, s.Tick(), NOW, POLICY)
    assert renew.actions == (s.Renew(EPOCH),)
    ready = decide(renew.node, s.ServerReady(0), NOW, POLICY)
    assert ready == s.Step(s.Node(s.Serving(LEASE, 0), renew.node.memory))
    stopping = begin(POLICY, NOW, s.Mark(), found, stopping=True, ready=True)
    assert stopping.phase == s.Stopping(LEASE, 0, at(8_000), s.Again(NOW))


def test_bug_a_found_server_that_was_ready_had_the_whole_start_timeout_again() -> None:
    """One that hung was found out after that, not by its probes; a slow one did not count as active."""
    node = begin(POLICY, NOW, s.Mark(), s.StartServer(0, "active", EPOCH, LEASE.deadline), ready=True)

    assert node.phase == s.Serving(LEASE, 0)
    assert decide(node, s.Tick(), NOW, POLICY).actions == (s.Renew(EPOCH),)
    sick = decide(node, s.ServerSick(0, "no answer"), NOW, POLICY)
    assert isinstance(sick.node.phase, s.Stopping)


def test_a_found_standby_server_goes_on() -> None:
    found = s.StartServer(0, "standby", NO_EPOCH, at(99_999))

    assert begin(POLICY, NOW, s.Mark(EPOCH), found).phase == s.Standing(0)


# Looking ahead


def test_the_next_look_is_never_later_than_a_second_nor_than_what_is_due() -> None:
    assert wake_at(s.Node(serving(), BUSY), NOW, POLICY) == at(1_000)
    assert wake_at(s.Node(serving(), BUSY), at(4_700), POLICY) == at(5_000)
    assert wake_at(s.Node(s.Ending(3, at(300)), BUSY), NOW, POLICY) == at(300)
    assert wake_at(s.Node(s.Waiting(LEASE, at(200)), BUSY), NOW, POLICY) == at(200)
    owed = replace(FREE, owed=s.Owed(EPOCH, "", at(120)))
    assert wake_at(s.Node(s.Idle(), owed), NOW, POLICY) == at(120)


FAILED = replace(FREE, cool_until=at(1), trouble="no licence")
PAUSED = replace(FREE, view=view(paused=True))


@pytest.mark.parametrize(
    ("phase", "memory", "state", "available"),
    [
        (serving(), FREE, "running", False),
        (serving(), PAUSED, "paused", False),
        (s.Starting(LEASE, 3, NOW), FREE, "starting", False),
        (s.Promoting(LEASE, 3, NOW), FREE, "starting", False),
        (s.Waiting(LEASE, NOW), FREE, "starting", False),
        (s.Waiting(LEASE, NOW), PAUSED, "paused", False),
        (s.Stopping(LEASE, 3, NOW, s.GiveUp("x")), FREE, "stopping", False),
        (s.Stopping(LEASE, 3, NOW, s.Again(NOW)), FREE, "stopping", False),
        (s.Ending(3, NOW), FREE, "stopping", False),
        (s.Ending(3, NOW, EPOCH), FREE, "stopping", False),
        (s.Finished(0), FREE, "stopped", False),
        (s.Standing(3, ready=True), FREE, "monitoring", True),
        (s.Standing(3), FREE, "starting", True),
        (s.Idle(), FREE, "starting", True),
        (s.Idle(), replace(FREE, standby_failures=1, trouble="x"), "failed", True),
        (s.Idle(), FAILED, "failed", False),
        (s.Idle(), PAUSED, "paused", False),
        (s.Idle(), replace(FREE, quit=s.Quit()), "stopped", False),
        (s.Idle(), replace(FREE, view=view(epoch=6)), "failed", False),
        (s.Idle(), replace(FREE, owed=s.Owed(EPOCH, "", at(9))), "starting", False),
    ],
)
def test_what_a_node_says_of_itself(phase: s.Phase, memory: s.Memory, state: str, available: bool) -> None:
    record = shown(s.Node(phase, memory), MONITORING)

    assert (record.state, record.available) == (state, available)
    holding = isinstance(phase, s.Holding)
    assert record.role == ("active" if holding else "standby")
    assert record.lease_left_ms == (9_000 if holding else None)


# How a change is told


def told(*seen: s.Observation) -> s.Change:
    """Return the change that an idle node tells of after *seen*, each 10 ms after the one before."""
    node = s.Node(s.Idle(), s.Memory(mark=EPOCH))
    for number, one in enumerate(seen):
        node = decide(node, one, at(10 * number), POLICY).node
    assert node.memory.change is not None
    return node.memory.change


@pytest.mark.parametrize("released", ["switchover to a", None])
def test_bug_a_change_was_told_without_its_cause_when_the_watch_was_faster(released: str | None) -> None:
    """The view showed our own acquisition before the store's answer to it was taken in."""
    before = (s.Seen(view(lock("b"), by="b")), s.Seen(view(by="b", released=released)))
    slow = told(*before, s.Tick(), grant(8))
    fast = told(*before, s.Seen(view(lock(epoch=8), epoch=8)), grant(8))

    assert fast == slow
    assert (fast.previous, fast.cause, fast.lock_ms) == ("b", released or "lease expired", 20)
    assert fast.detect_ms == (0 if released else 10)


def test_a_node_whose_record_expires_has_given_no_sign_of_life() -> None:
    alive = s.Seen(view(lock("b"), by="b", nodes=(other("b"),)))
    record_gone, lock_gone = s.Seen(view(lock("b"), by="b")), s.Seen(view(by="b"))

    assert told(alive, record_gone, lock_gone, grant(8)).detect_ms == 20


@pytest.mark.parametrize(("epoch", "detect_ms"), [(EPOCH, 10), (NO_EPOCH, 20)])
def test_bug_a_holder_that_had_ended_its_server_gave_a_sign_of_life(epoch: int, detect_ms: int) -> None:
    """23 s without a server were told as 0.5 s: its lease had run out while the store was away."""
    alive = s.Seen(view(lock("b"), by="b", nodes=(other("b", epoch=EPOCH, role="active"),)))
    later = s.Seen(view(lock("b"), by="b", nodes=(other("b", epoch=epoch, seen_at_unix_ms=1),)))

    assert told(alive, later, s.Seen(view(by="b")), grant(8)).detect_ms == detect_ms


@pytest.mark.parametrize("released", ["lost, server proven dead", None])
def test_a_forced_failover_is_told_as_one(released: str | None) -> None:
    broken = s.Seen(view(lock("b", state="broken", by="op@here"), by="b"))
    free = s.Seen(view(by="b", released=released))

    assert told(broken, free, grant(8)).cause == "failover by op@here"
    next_one = s.Seen(view(epoch=8, by="c"))
    assert told(broken, free, next_one, grant(9)).cause == "lease expired"


def test_bug_a_view_from_before_our_own_grant_was_called_a_restored_store() -> None:
    """With the advice to raise the epoch, in the moment between grant and watch."""
    serves = step(s.Idle(), grant(8), replace(FREE, call="acquire"))
    policy, before = replace(POLICY, once=True), FREE.view
    assert before is not None
    gone = decide(serves.node, s.ServerGone(serves.node.memory.runs, 0), at(10), policy)
    late = decide(gone.node, s.Seen(before), at(900), policy)
    again = decide(late.node, s.Seen(before), at(1_500), policy)

    assert "restored" not in shown(gone.node, after_ms=2_000).message
    assert "restored" not in shown(late.node, after_ms=2_000).message
    assert "restored" in shown(again.node, after_ms=1_500).message


def test_a_change_tells_where_the_time_went() -> None:
    memory = replace(FREE, call="acquire", vacant_since=at(-300), sign_at=at(-2_300))
    died = step(s.Idle(), grant(8), memory).node.memory.change
    left = replace(memory, view=view(by="b", released="stopped"))
    first = replace(memory, view=view(epoch=0, by=None), vacant_since=None, mark=NO_EPOCH)

    assert died == s.Change("b", "lease expired", 2_000, 300, NOW)
    assert step(s.Idle(), grant(8), left).node.memory.change == s.Change("b", "stopped", 0, 300, NOW)
    assert step(s.Idle(), grant(1), first).node.memory.change == s.Change(
        None, "first start", None, None, NOW
    )
    ready = s.Node(s.Starting(LEASE, 3, at(9)), replace(BUSY, change=died))
    assert decide(ready, s.ServerReady(3), at(40), POLICY).actions == (s.RecordChange(EPOCH, died, 40),)


# Bugs that were found, by name. Most of them by the simulation.


def test_bug_a_late_request_made_a_wiped_store_look_as_new_as_the_old_one() -> None:
    """It got the epoch that another node had had, and gave it back; at the next one a second active began."""
    seen = step(s.Idle(), s.Seen(view(lock("b", 8), 8, by="b")), s.Memory(call="acquire"))
    late = decide(seen.node, grant(8), at(1), POLICY)

    shown = decide(late.node, s.Seen(view(None, 8, by="a", released="not needed")), at(2), POLICY)

    assert shown.actions == (s.SaveMark(s.Mark(Epoch(9))),), "nothing is asked of it"
    raised = decide(shown.node, s.Seen(view(None, 9, by=None)), at(3), POLICY)
    assert raised.node.memory.mark == 9


def test_what_the_store_tells_of_the_holder_counts_as_seen() -> None:
    """The watch may lag: the answer to our own request is the newest that we know."""
    taken = step(s.Idle(), s.Taken(Epoch(8), "b"), replace(FREE, call="acquire"))

    assert taken.actions == (s.SaveMark(s.Mark(Epoch(8), "b")),)
    assert step(s.Idle(), s.Taken(Epoch(6), "b"), replace(FREE, call="acquire")).actions == ()
    unknown = step(s.Idle(), s.Taken(Epoch(8), NOBODY), replace(FREE, call="acquire"))
    assert unknown.actions == (s.SaveMark(s.Mark(Epoch(8))),)


def test_bug_an_epoch_that_the_store_had_told_to_be_of_another_was_believed() -> None:
    """Our first request of all, long on its way, got it in a store that had been wiped since."""
    taken = step(s.Idle(), s.Taken(Epoch(8), "b"), replace(FREE, view=None, call="acquire"))

    late = decide(taken.node, grant(8), at(1), POLICY)
    assert late.actions == (s.Release(Epoch(8), "not needed"),)
    shown = decide(taken.node, s.Seen(view(lock(epoch=8), 8)), at(1), POLICY)
    assert shown.node.memory.mark == 9
    assert not any(isinstance(action, s.Acquire) for action in shown.actions)


def test_what_other_nodes_have_seen_counts_too() -> None:
    """The store was restored while we were down: none can have seen more than the store it publishes in."""
    restored = view(nodes=(other("b", mark=Epoch(9)),))

    seen = step(s.Idle(), s.Seen(restored), replace(FREE, view=None))

    assert seen.actions == (s.SaveMark(s.Mark(Epoch(9))),), "nothing is asked of it"
    sound = view(epoch=9, by="b", nodes=(other("b", mark=Epoch(9)),))
    assert step(s.Idle(), s.Seen(sound), replace(FREE, view=None)).actions[0] == s.SaveMark(
        s.Mark(Epoch(9), "b")
    )


def test_who_had_the_epoch_is_kept_where_it_was_not_known() -> None:
    """As after an upgrade from a version that kept the epoch alone."""
    node = begin(POLICY, NOW, s.Mark(EPOCH))

    first = decide(node, s.Seen(view(by="b")), NOW, POLICY)

    assert first.actions[0] == s.SaveMark(s.Mark(EPOCH, "b"))
    assert s.SaveMark not in map(type, decide(first.node, s.Seen(view(by="b")), at(1), POLICY).actions)


def test_a_sidecar_that_was_restarted_knows_whose_the_last_epoch_was() -> None:
    node = begin(POLICY, NOW, s.Mark(Epoch(8), "b"))
    assert decide(node, s.Seen(view(None, 8, by="b")), NOW, POLICY).node.memory.mark == 8
    assert (
        decide(node, s.Seen(view(None, 8, by="a", released="not needed")), NOW, POLICY).node.memory.mark == 9
    )

    found = s.StartServer(0, "active", Epoch(8), LEASE.deadline)
    later = begin(POLICY, NOW, s.Mark(Epoch(9), "b"), found).memory
    assert (later.mark, later.marked) == (9, "b")
    serves = begin(POLICY, NOW, s.Mark(EPOCH, "b"), found)
    assert decide(serves, s.Seen(view(lock("b", 8), 8, by="b")), NOW, POLICY).node.memory.mark == 9


def test_bug_a_lock_that_could_be_given_back_only_after_an_outage_forgot_why() -> None:
    """On Consul it still stands when the store is back, and `history` called the failover "not needed"."""
    short = step(serving(), s.Tick(), after_ms=5_000)
    gone = decide(short.node, s.ServerGone(3, -15), at(5_100), POLICY)
    assert gone.node.memory.owed == s.Owed(EPOCH, "lease ran short", LEASE.deadline)
    over = decide(gone.node, s.CallFailed("no answer in time"), at(30_000), POLICY)
    assert over.node.memory.owed is None
    calling = s.Node(over.node.phase, replace(over.node.memory, call="acquire"))

    late = decide(calling, grant(sent_after_ms=30_000), at(30_001), POLICY)

    assert late.actions == (s.Release(EPOCH, "lease ran short"),)


def test_bug_a_late_release_of_an_earlier_life_freed_the_lock_under_the_server() -> None:
    """Restarted without a server, a sidecar believed its old hold, whose release was on its way."""
    node = begin(POLICY, NOW, s.Mark(EPOCH, "a"))
    held = decide(node, s.Seen(view(lock())), NOW, POLICY)
    assert held.actions == ()

    again = decide(held.node, grant(), NOW, POLICY)

    assert again.node.phase == s.Idle()
    assert again.actions == (s.Release(EPOCH, "not needed"),)


@pytest.mark.parametrize(
    "phase",
    [
        s.Standing(3),
        s.Ending(3, at(20_000)),
        s.Promoting(LEASE, 3, at(3_000)),
        s.Stopping(LEASE, 3, at(3_000), s.GiveUp("stopped")),
    ],
    ids=lambda phase: type(phase).__name__,
)
def test_bug_a_standby_that_activated_itself_lived_on_while_it_was_being_ended(phase: s.Phase) -> None:
    after = step(phase, s.ServerActivated(3))

    assert after.actions[-1] == s.KillServer(3)
    assert any(isinstance(action, s.Alarm) for action in after.actions)
    assert step(phase, s.ServerActivated(2)).node.phase == phase


def test_bug_a_planned_stop_was_cut_short_by_the_lease_of_its_beginning() -> None:
    """With a TTL of 10 s no server ever got its stop_timeout of 60 s, though the lease was renewed."""
    asked = step(serving(), s.StopAsked())
    assert asked.actions == (s.StopServer(3, at(30_000)),)

    renewed = decide(asked.node, grant(sent_after_ms=7_000), at(7_100), POLICY)
    later = decide(renewed.node, s.Tick(), at(8_500), POLICY)
    over = decide(renewed.node, s.Tick(), at(15_900), POLICY)

    assert s.KillServer(3) not in later.actions
    assert over.actions[-1] == s.KillServer(3)


def test_bug_a_tree_that_could_not_be_killed_kept_the_lock_for_ever() -> None:
    node = s.Node(s.Stopping(s.Lease(EPOCH, at(99_000)), 3, NOW, s.GiveUp("stopped")), BUSY)
    kills = 0
    for second in range(KILLS_MAX + 1):
        node, actions = decide(node, s.Tick(), at(second * 1_000), POLICY)
        kills += s.KillServer(3) in actions

    assert kills == KILLS_MAX + 1
    assert isinstance(node.phase, s.Ending)
    assert node.phase.owes == EPOCH


def test_bug_failback_was_tried_again_and_again_to_a_node_that_did_not_take_the_lock() -> None:
    """It said that it was able, but heard nothing of the vacancy: an outage every TTL."""
    able = other(priority=200, failback=True)
    seen = view(lock(), nodes=(able,))
    memory = replace(BUSY, view=seen, better=("b", at(-POLICY.ttl_ms)))

    left = step(serving(), s.Tick(), memory)
    assert isinstance(left.node.phase, s.Stopping)
    again = replace(left.node.memory, view=None, better=None)
    waiting = step(serving(), s.Seen(seen), again, after_ms=1)
    assert waiting.node.memory.better is None

    gone = decide(waiting.node, s.Seen(view(lock())), at(2), POLICY)
    back = decide(gone.node, s.Seen(seen), at(3), POLICY)
    assert back.node.memory.better == ("b", at(3))


def test_bug_a_pause_just_before_a_confirmation_left_the_node_to_failback_and_to_probes() -> None:
    """Found by seed 17021908: "paused before it began; nothing was stopped", and a failback stopped it."""
    confirmed = request(state="confirmed")
    seen = view(lock(), nodes=(other(priority=200, failback=True),), request=confirmed, paused=True)
    memory = replace(BUSY, better=("b", at(-POLICY.ttl_ms)))

    answered = step(serving(), s.Seen(seen), memory)
    assert answered.node.phase == serving()
    assert [action.request.state for action in answered.actions if isinstance(action, s.Answer)] == ["failed"]

    sick = decide(answered.node, s.ServerSick(3, "no answer"), at(1), POLICY)
    assert sick.node.phase == serving()


@pytest.mark.parametrize("held", [lock("b", 8), None], ids=["held", "released"])
def test_bug_a_late_request_got_an_epoch_from_a_wiped_store_that_another_node_had_had(
    held: LockRecord | None,
) -> None:
    """The store counted anew, and a request of before it was wiped reached it."""
    seen = step(s.Idle(), s.Seen(view(held, 8, by="b")), s.Memory(call="acquire"))

    late = decide(seen.node, grant(8), at(1), POLICY)

    assert late.node.phase == s.Idle()
    assert late.actions == (s.Release(Epoch(8), "not needed"),)


def test_bug_a_restart_of_a_server_that_was_lost_meanwhile_was_never_concluded() -> None:
    asked = request("restart", "confirmed", source="a")
    memory = replace(BUSY, view=view(lock("b", 8), 8, request=asked), restart_request="r1", mark=Epoch(8))

    after = step(s.Idle(), s.Tick(), memory)

    assert [a.request.state for a in after.actions if isinstance(a, s.Answer)] == ["failed"]


def test_bug_a_kept_standby_left_an_acquisition_behind() -> None:
    asked = step(s.Standing(3), s.StopAsked(keep_server=True), replace(FREE, call="acquire"))
    assert asked.actions == ()

    granted = decide(asked.node, grant(8), NOW, POLICY)
    assert granted.actions[-1] == s.Release(Epoch(8), "not needed")


def test_bug_an_answer_to_an_old_renewal_cleared_what_a_broken_lock_was_owed() -> None:
    owed = s.Owed(EPOCH, "stopped", at(9_000))

    after = step(s.Idle(), s.Lost(EPOCH), replace(BUSY, call="renew", owed=owed))
    gone = step(s.Idle(), s.Lost(EPOCH), replace(BUSY, call="release", owed=owed))

    assert after.actions == (s.Release(EPOCH, "stopped"),)
    assert gone.node.memory.owed is None


def test_bug_a_late_renewal_replaced_the_cause_of_a_release() -> None:
    owed = s.Owed(EPOCH, "switchover to b", at(9_000))

    after = step(s.Idle(), grant(), replace(BUSY, owed=owed, spent=EPOCH))

    assert after.actions == (s.Release(EPOCH, "switchover to b"),)


def test_bug_a_server_was_started_only_to_be_stopped_at_the_end_of_its_lease() -> None:
    after = step(
        s.Promoting(LEASE, 3, at(8_000)), s.ServerGone(3, 0), replace(BUSY, call=None), after_ms=5_000
    )

    assert after.actions == (s.Release(EPOCH, LEASE_OVER),)
    assert Instant(after.node.memory.owed.until if after.node.memory.owed else 0) == LEASE.deadline


def test_bug_a_request_that_came_back_with_a_restored_store_was_never_concluded() -> None:
    asked = request("switchover", "confirmed", epoch=6, source="b", to="a")
    before = replace(BUSY, view=view(lock(), request=replace(asked, state="done")), answered=("r1", "done"))

    after = step(serving(), s.Seen(view(lock(), request=asked)), before)

    assert [a.request.state for a in after.actions if isinstance(a, s.Answer)] == ["done"]


def test_bug_a_request_that_could_not_be_read_any_more_decided_by_its_last_good_value() -> None:
    """A switchover long over made a paused node ask for the lock, and a holder give up after one failure."""
    stale = request("switchover", "confirmed", epoch=3, source="a", to="b")
    shown = replace(view(None, 7, by="z", paused=True, request=stale), unreadable=("request",))
    policy = replace(POLICY, node="c", instance="c-1")
    free = decide(s.Node(s.Idle(), s.Memory(mark=EPOCH, marked="z")), s.Seen(shown), NOW, policy)
    assert s.Acquire(EPOCH) not in decide(free.node, s.Tick(), at(60_000), policy).actions

    held = replace(view(lock("b"), by="b", nodes=(other("a"),), request=stale), unreadable=("request",))
    policy = replace(POLICY, node="b", instance="b-1")
    starting = s.Node(s.Starting(LEASE, 1, at(60_000)), replace(BUSY, marked="b", runs=1, view=held))
    assert isinstance(decide(starting, s.ServerGone(1, 1), at(10), policy).node.phase, s.Waiting)
