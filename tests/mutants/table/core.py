"""The core: what a lease is worth, taking and keeping and losing the lock, requests, leaving."""

# ruff: noqa: E501 - one mutant, one line

from tests.mutants.mutant import Mutant

DECIDE, TABLE, REQUESTS, HOOKS = (
    "tests/core/test_decide.py",
    "tests/core/test_table.py",
    "tests/core/test_requests.py",
    "tests/core/test_hooks.py",
)

MUTANTS = (
    # units: what a lease is worth
    Mutant("lease counted from too late", "sidecar/core/units.py", "(sent_at + usable", "(sent_at + 900 + usable", f"{DECIDE}::test_a_lease_counts_from_before_it_was_sent_and_errs_towards_lost", schedules=25, slice=True),
    Mutant("clock drift ignored", "sidecar/core/units.py", "DRIFT_PERMILLE = 10", "DRIFT_PERMILLE = 0", f"{DECIDE}::test_a_lease_counts_from_before_it_was_sent_and_errs_towards_lost", schedules=10),
    Mutant("silence cut short", "sidecar/core/units.py", "return ttl_ms + -(-ttl_ms *", "return ttl_ms * 3 // 4 + -(-ttl_ms *", f"{DECIDE}::test_a_lease_counts_from_before_it_was_sent_and_errs_towards_lost", schedules=25),
    Mutant("deadline of a lease doubled", "sidecar/core/units.py", "sent_at + usable_ms", "sent_at + 2 * usable_ms", f"{DECIDE}::test_a_lease_counts_from_before_it_was_sent_and_errs_towards_lost", schedules=10),
    # bugs that the simulation has found
    Mutant("failback for ever to a node that does not take it", "sidecar/core/advance.py", "        and record.node != memory.declined\n", "", f"{DECIDE}::test_bug_failback_was_tried_again_and_again_to_a_node_that_did_not_take_the_lock"),
    Mutant("an epoch that others had is believed", "sidecar/core/decide.py", "        spent=max(memory.spent, _taken_by_others(view, policy)),\n", "", f"{DECIDE}::test_bug_a_late_request_got_an_epoch_from_a_wiped_store_that_another_node_had_had"),
    Mutant("an epoch that two nodes had is one store's", "sidecar/core/decide.py", "return Epoch(memory.mark + 1), None", "return memory.mark, memory.marked", f"{DECIDE}::test_bug_a_late_request_made_a_wiped_store_look_as_new_as_the_old_one"),
    # taking the lock
    Mutant("spent epoch believed", "sidecar/core/decide.py", "grant.epoch > memory.spent and ", "", f"{DECIDE}::test_a_grant_that_may_not_be_used_is_given_back_and_spent"),
    Mutant("a restart forgets whose the last epoch was", "sidecar/core/decide.py", ", marked=mark.node", "", f"{DECIDE}::test_a_sidecar_that_was_restarted_knows_whose_the_last_epoch_was"),
    Mutant("a found server's epoch is nobody's", "sidecar/core/decide.py", "mark=found.epoch, marked=policy.node", "mark=found.epoch", f"{DECIDE}::test_a_sidecar_that_was_restarted_knows_whose_the_last_epoch_was"),
    Mutant("epoch mark ignored for grants", "sidecar/core/decide.py", " and grant.epoch >= memory.mark", "", f"{DECIDE}::test_a_grant_that_may_not_be_used_is_given_back_and_spent"),
    Mutant("mark not raised by views", "sidecar/core/decide.py", "        mark=mark,\n        marked=marked,\n", "        marked=marked,\n", f"{DECIDE}::test_a_hold_that_never_reached_us_is_asked_for_again_or_given_back"),
    Mutant("mark not saved", "sidecar/core/decide.py", "if memory.mark > mark:", "if False:", f"{DECIDE}::test_an_idle_node_starts_under_the_grant_and_saves_its_mark_first", schedules=10),
    Mutant("store behind not noticed", "sidecar/core/candidate.py", "memory.view.epoch.epoch < memory.mark", "False", f"{DECIDE}::test_nobody_campaigns_in_a_store_that_is_behind"),
    Mutant("floor of the acquisition forgotten", "sidecar/core/advance.py", "s.Acquire(memory.mark)", "s.Acquire(s.NO_EPOCH)", f"{DECIDE}::test_nobody_campaigns_in_a_store_that_is_behind"),
    Mutant("restart believes its old hold", "sidecar/core/decide.py", ", spent=mark.epoch", "", f"{DECIDE}::test_bug_a_late_release_of_an_earlier_life_freed_the_lock_under_the_server"),
    Mutant("late grant used", "sidecar/core/decide.py", "unwanted or now >= lease.stop_at(policy)", "unwanted", f"{DECIDE}::test_a_grant_that_may_not_be_used_is_given_back_and_spent"),
    Mutant("unwanted grant kept", "sidecar/core/decide.py", "not believed or unwanted or", "not believed or", f"{DECIDE}::test_a_grant_that_may_not_be_used_is_given_back_and_spent"),
    Mutant("promoting starts before the standby is gone", "sidecar/core/decide.py", "return s.Step(s.Node(promoting, memory), (s.StopServer(phase.run, kill_at),))", "return start(memory, lease, now, policy)", f"{DECIDE}::test_a_standby_tree_is_gone_before_the_active_starts", schedules=10),
    Mutant("rank ignored", "sidecar/core/candidate.py", "rank(memory.view, policy) * policy", "0 * policy", f"{DECIDE}::test_each_rank_holds_back_a_moment"),
    Mutant("cool-down ignored", "sidecar/core/candidate.py", "and now >= memory.cool_until", "", f"{DECIDE}::test_a_hold_that_never_reached_us_is_asked_for_again_or_given_back"),
    Mutant("a priority that was set is ignored", "sidecar/core/candidate.py", "priority = policy.priority if found.priority is None else found.priority", "priority = policy.priority", f"{DECIDE}::test_what_was_set_at_run_time_counts_before_the_configuration"),
    Mutant("a node that was made ineligible competes", "sidecar/core/candidate.py", "eligible = policy.eligible if found.eligible is None else found.eligible", "eligible = policy.eligible", f"{DECIDE}::test_what_was_set_at_run_time_counts_before_the_configuration", schedules=50),
    Mutant("pause ignored by candidates", "sidecar/core/candidate.py", "and not paused(memory, policy)", "", f"{DECIDE}::test_nobody_campaigns_in_maintenance", schedules=100),
    # keeping it
    Mutant("never renewed", "sidecar/core/advance.py", "or _renew(node, phase, now)", "", f"{DECIDE}::test_a_view_without_our_lock_makes_us_look_at_once", schedules=10),
    Mutant("never leaves before the end", "sidecar/core/advance.py", "or _lease_short(node, phase, now, policy)", "", f"{DECIDE}::test_an_active_leaves_before_its_lease_does", schedules=10),
    Mutant("end of the lease not noticed", "sidecar/core/advance.py", "_lease_over(node, phase, now, policy)\n        or", "", f"{DECIDE}::test_an_active_leaves_before_its_lease_does"),
    Mutant("stop begins later", "sidecar/core/state.py", "self.kill_at(policy) - policy.stop_grace_ms", "self.kill_at(policy)", f"{DECIDE}::test_an_active_leaves_before_its_lease_does", schedules=10),
    Mutant("renewal shortens the lease", "sidecar/core/decide.py", "grant.deadline <= phase.lease.deadline", "False", f"{DECIDE}::test_a_renewal_extends_the_guard_and_never_shortens"),
    Mutant("guard is not told of the renewal", "sidecar/core/decide.py", "return s.Step(s.Node(replace(phase, lease=lease), memory), orders)", "return s.Step(s.Node(replace(phase, lease=lease), memory))", f"{DECIDE}::test_a_renewal_extends_the_guard_and_never_shortens", schedules=10),
    Mutant("late grant revives what was lost", "sidecar/core/decide.py", "ending = replace(phase, owes=max(phase.owes, grant.epoch))", "ending: s.Phase = s.Serving(lease, phase.run)", f"{DECIDE}::test_a_grant_while_the_server_ends_for_good_revives_nothing"),
    # losing it
    Mutant("lost ignored", "sidecar/core/moves.py", "phase.lease.epoch != epoch:", "phase.lease.epoch != epoch or True:", f"{DECIDE}::test_an_active_leaves_before_its_lease_does", schedules=600),
    Mutant("broken lock ignored", "sidecar/core/decide.py", "lock.state == \"broken\" and lock", "False and lock", f"{DECIDE}::test_a_broken_lock_is_lost_and_the_stop_stays_inside_the_lease"),
    Mutant("lost lock believed again", "sidecar/core/moves.py", "memory = replace(memory, spent=max(memory.spent, epoch), change=None", "memory = replace(memory, change=None", f"{DECIDE}::test_a_lock_that_was_lost_is_never_believed_again"),
    Mutant("graceful beyond the lease", "sidecar/core/moves.py", "min(Instant(now + policy.stop_grace_ms), phase.lease.kill_at(policy))", "Instant(now + 9 * policy.stop_grace_ms)", f"{DECIDE}::test_an_active_leaves_before_its_lease_does"),
    Mutant("kill forgotten", "sidecar/core/advance.py", "(s.KillServer(phase.run),)", "()", f"{DECIDE}::test_an_active_leaves_before_its_lease_does", schedules=25),
    Mutant("released before proof", "sidecar/core/decide.py", "return _stop_asked(node, now, policy, keep=keep)", "return s.Step(s.Node(s.Idle(), replace(memory, owed=s.Owed(memory.mark, '', Instant(now + 9999)))))", f"{DECIDE}::test_a_stop_ends_the_server_then_the_hold_then_the_sidecar", schedules=10),
    Mutant("owed before proof", "sidecar/core/moves.py", "return s.Step(s.Node(s.Ending(phase.run, kill_at, epoch), memory), orders(phase, kill_at))", "return s.Step(s.Node(s.Ending(phase.run, kill_at), replace(memory, call='release')), (*orders(phase, kill_at), s.Release(epoch, '')))", f"{DECIDE}::test_an_active_leaves_before_its_lease_does", schedules=10),
    Mutant("nothing owed after proof", "sidecar/core/decide.py", "if owes != NO_EPOCH:", "if False:", f"{DECIDE}::test_a_lost_lock_is_owed_until_the_tree_is_proven_dead"),
    Mutant("a cause is forgotten with the lease", "sidecar/core/moves.py", "(memory.unsettled, memory.owed)", "(memory.owed,)", f"{DECIDE}::test_bug_a_lock_that_could_be_given_back_only_after_an_outage_forgot_why"),
    Mutant("any death is proof", "sidecar/core/decide.py", "or phase.run != gone.run:", ":", f"{DECIDE}::test_a_standby_tree_is_gone_before_the_active_starts"),
    Mutant("self-activation ignored", "sidecar/core/decide.py", "return _activated(node, run, now)", "return s.Step(node)", f"{DECIDE}::test_bug_a_standby_that_activated_itself_lived_on_while_it_was_being_ended", schedules=25),
    Mutant("self-activation ignored while ending", "sidecar/core/decide.py", "s.Standing | s.Promoting | s.Stopping | s.Ending) or", "s.Standing) or", f"{DECIDE}::test_bug_a_standby_that_activated_itself_lived_on_while_it_was_being_ended"),
    Mutant("hold of a tree that cannot die", "sidecar/core/advance.py", "phase.kills < KILLS_MAX", "True", f"{DECIDE}::test_bug_a_tree_that_could_not_be_killed_kept_the_lock_for_ever"),
    # the server
    Mutant("budget of restarts ignored", "sidecar/core/moves.py", "spent = vetoed or len(failures) > policy.restart_attempts", "spent = vetoed", f"{DECIDE}::test_a_server_restarts_in_place_within_its_budget_and_then_hands_over"),
    Mutant("no restart in place", "sidecar/core/moves.py", "if memory.quit is not None or ((spent or rolls_back) and", "if True or ((spent or rolls_back) and", f"{DECIDE}::test_a_server_restarts_in_place_within_its_budget_and_then_hands_over"),
    Mutant("candidate does not hand back", "sidecar/core/moves.py", "(spent or rolls_back)", "spent", f"{DECIDE}::test_a_candidate_that_fails_hands_back_at_once"),
    Mutant("paused node starts servers", "sidecar/core/advance.py", "    if _maintenance(node.memory, policy):\n        return None\n    return start(", "    if False:\n        return None\n    return start(", f"{DECIDE}::test_a_crash_while_paused_is_not_answered_by_a_start"),
    Mutant("once ignored", "sidecar/core/decide.py", "if policy.once:", "if False:", f"{DECIDE}::test_once_ends_with_the_command"),
    Mutant("once ignored when lost", "sidecar/core/moves.py", "if policy.once and memory.quit is None:", "if False:", f"{DECIDE}::test_once_ends_with_the_lock"),
    Mutant("once that never ran its command is done", "sidecar/core/decide.py", "else int(policy.once)", "else 0", f"{DECIDE}::test_bug_once_that_was_stopped_before_its_command_ran_said_done"),
    Mutant("once that lost the lock ends as its command", "sidecar/core/decide.py", " and after == s.GiveUp(\"stopped\"):", ":", f"{DECIDE}::test_once_ends_with_the_lock"),
    # requests
    Mutant("confirmation not needed", "sidecar/core/requests.py", "case \"accepted\":\n            return _abandon(node, request, \"the command did not confirm it\", now, policy)\n        case _:\n            if held", "case _:\n            if held", f"{REQUESTS}::test_a_switchover_that_is_not_confirmed_is_abandoned", schedules=15, slice=True),
    Mutant("pause leaves a hand-over half done", "sidecar/core/candidate.py", "return held_back(memory, policy) and not _needed(memory.view, policy.node)", "return held_back(memory, policy)", f"{REQUESTS}::test_a_pause_does_not_leave_a_handover_half_done"),
    Mutant("a hand-over frees every paused node", "sidecar/core/candidate.py", "return node in (request.source, request.to) or node not in view.settings.paused_nodes", "return True", f"{REQUESTS}::test_a_handover_frees_no_node_that_is_paused_by_itself"),
    Mutant("restart in maintenance tries for ever", "sidecar/core/requests.py", "if isinstance(phase, s.Waiting) and held_back(memory, policy):", "if False:", f"{REQUESTS}::test_a_restart_in_maintenance_that_fails_is_told_and_not_tried_for_ever"),
    Mutant("switchover begun in maintenance", "sidecar/core/requests.py", "if held_back(node.memory, policy) or", "if False and", f"{REQUESTS}::test_a_switchover_confirmed_after_the_pause_stops_nothing"),
    Mutant("pause gives the lock away", "sidecar/core/moves.py", "if held_back(memory, policy) and not rolls_back:", "if False:", f"{DECIDE}::test_in_maintenance_a_server_that_fails_too_often_does_not_cost_the_lock"),
    Mutant("failback to a node that gave up", "sidecar/core/outlook.py", "policy.failback and not memory.gave_up", "policy.failback", f"{DECIDE}::test_a_node_that_gave_up_wants_no_failback_until_it_served"),
    Mutant("asked is enough", "sidecar/core/requests.py", "match request.state:\n        case \"asked\":\n            reason", "match request.state:\n        case \"never\":\n            reason", f"{REQUESTS}::test_a_switchover_is_accepted_once_and_names_the_node", schedules=10),
    Mutant("abandoned request carried out", "sidecar/core/requests.py", "request.state in FINISHED or memory", "memory", f"{REQUESTS}::test_a_restart_stops_and_starts_under_the_same_epoch_even_while_paused", schedules=10),
    Mutant("request of another epoch carried out", "sidecar/core/requests.py", "if request.epoch < phase.lease.epoch:", "if False:", f"{DECIDE}::test_bug_a_request_that_came_back_with_a_restored_store_was_never_concluded", schedules=10),
    Mutant("rolled back called done", "sidecar/core/requests.py", "request.to in (None, policy.node) and request.source != policy.node", "True", f"{REQUESTS}::test_the_next_active_tells_what_became_of_it", schedules=25),
    Mutant("an answer that was lost is not given again", "sidecar/core/requests.py", " and now < memory.answered_until", "", f"{REQUESTS}::test_bug_an_answer_that_a_restored_store_has_not_got_was_never_given_again"),
    Mutant("an answer is given again and again", "sidecar/core/requests.py", "now < memory.answered_until", "False", f"{REQUESTS}::test_bug_an_answer_that_a_restored_store_has_not_got_was_never_given_again"),
    Mutant("failed answer not repeated", "sidecar/core/decide.py", "memory, answered=None, answer_at=", "memory, answer_at=", f"{REQUESTS}::test_a_switchover_is_accepted_once_and_names_the_node"),
    Mutant("unconfirmed called done", "sidecar/core/requests.py", "request.kind == \"switchover\" and request.state != \"confirmed\"", "False", f"{REQUESTS}::test_the_next_active_tells_what_became_of_it"),
    Mutant("failback at once", "sidecar/core/advance.py", "memory.better[1] + policy.ttl_ms", "memory.better[1]", f"{DECIDE}::test_a_preferred_node_that_has_been_able_for_a_ttl_gets_the_lock"),
    # leaving
    Mutant("exits with the lock", "sidecar/core/advance.py", "settled = memory.owed is None and memory.call is None", "settled = True", f"{DECIDE}::test_a_grant_that_may_not_be_used_is_given_back_and_spent"),
    # hooks
    Mutant("a start that was refused is tried again in place", "sidecar/core/moves.py", "spent = vetoed or len(", "spent = len(", f"{HOOKS}::test_a_start_that_is_refused_goes_to_another_node_at_once"),
    Mutant("a refusal is told as a failure", "sidecar/core/moves.py", "after = s.GiveUp(reason) if vetoed else ", "after = ", f"{HOOKS}::test_a_start_that_is_refused_goes_to_another_node_at_once"),
    Mutant("a refusal is not taken for one", "sidecar/core/decide.py", ", vetoed=gone.vetoed)", ")", f"{HOOKS}::test_a_start_that_is_refused_goes_to_another_node_at_once"),
    Mutant("released before after_stop is over", "sidecar/core/advance.py", "now < memory.call_at or memory.clearing is not None:\n        return None\n    order", "now < memory.call_at:\n        return None\n    order", f"{HOOKS}::test_the_lock_is_released_when_after_stop_is_over", schedules=25),
    Mutant("after_stop keeps the sidecar no longer", "sidecar/core/advance.py", " and memory.call is None and memory.clearing is None", " and memory.call is None", f"{HOOKS}::test_nobody_campaigns_stands_by_or_leaves_before_after_stop_is_over"),
    Mutant("a restart in place does not wait for after_stop", "sidecar/core/advance.py", "now < phase.until or node.memory.clearing is not None:", "now < phase.until:", f"{HOOKS}::test_a_restart_in_place_waits_for_after_stop"),
    Mutant("a standby does not wait for after_stop", "sidecar/core/advance.py", "now < memory.standby_at or memory.clearing is not None or", "now < memory.standby_at or", f"{HOOKS}::test_nobody_campaigns_stands_by_or_leaves_before_after_stop_is_over"),
    Mutant("a restart that was asked for does not wait for after_stop", "sidecar/core/requests.py", "case s.Waiting(lease=lease) if memory.clearing is None:", "case s.Waiting(lease=lease):", f"{HOOKS}::test_a_restart_that_was_asked_for_waits_for_after_stop"),
    Mutant("a campaign does not wait for after_stop", "sidecar/core/candidate.py", "        and memory.clearing is None\n", "", f"{HOOKS}::test_nobody_campaigns_stands_by_or_leaves_before_after_stop_is_over"),
    Mutant("any after_stop that is over is the one", "sidecar/core/decide.py", "None if memory.clearing == run else memory.clearing", "None", f"{HOOKS}::test_the_end_of_another_after_stop_is_none"),
)  # fmt: skip
