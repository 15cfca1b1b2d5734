"""Commands: compare before write, the epoch in a request, break then wait, and what may be called done."""

# ruff: noqa: E501 - one mutant, one line

from tests.mutants.mutant import Mutant

HAND, OVER, MAINTAIN, OVERRIDES = (
    "tests/cli/test_handshake.py",
    "tests/cli/test_failover.py",
    "tests/cli/test_maintenance.py",
    "tests/cli/test_overrides.py",
)
PROGRAM, TRUTH = "tests/cli/test_program.py", "tests/cli/test_handshake.py::test_the_truth_about_a_switchover"
SHOWN = "tests/cli/test_status.py"
STATUS = f"{PROGRAM}::test_the_outcome_of_a_switchover_is_its_exit_status"

MUTANTS = (
    # the handshake
    Mutant("a request is confirmed that was never accepted", "sidecar/operate/asking.py", "            if found.state != \"asked\" and self.desk.clock.now() < limit:\n                return found\n", "            return found\n", f"{HAND}::test_a_refusal_of_the_active_is_passed_on"),
    Mutant("a request is confirmed after the time limit", "sidecar/operate/asking.py", "if found.state != \"asked\" and self.desk.clock.now() < limit:", "if found.state != \"asked\":", f"{HAND}::test_the_time_limit_holds_for_the_answer_too"),
    Mutant("a confirmed request of somebody else is overwritten", "sidecar/operate/asking.py", "    if other is not None:\n        raise Refused", "    if False:\n        raise Refused", f"{HAND}::test_a_confirmed_switchover_cannot_be_overtaken"),
    Mutant("a request that was overtaken is waited for", "sidecar/operate/asking.py", "return found if found is not None and found.id == self.request.id else None", "return found", f"{HAND}::test_a_command_that_is_overtaken_says_so"),
    Mutant("an interrupted command leaves its request behind", "sidecar/operate/asking.py", "                self._withdraw(\"interrupted\", (\"asked\", \"accepted\"))\n", "", f"{HAND}::test_an_interruption_before_the_confirmation_withdraws_the_request"),
    Mutant("a request without an answer is left behind", "sidecar/operate/asking.py", "(\"asked\", \"accepted\") if over else (\"asked\",)", "()", f"{HAND}::test_an_active_that_does_not_answer_leaves_an_abandoned_request"),
    Mutant("a withdrawal overwrites an acceptance", "sidecar/operate/asking.py", "            if found is None or found.state not in only_from:\n                return found\n", "            if found is None:\n                return found\n", f"{HAND}::test_an_acceptance_at_the_last_moment_still_counts"),
    Mutant("a request is written over whatever is there", "sidecar/operate/asking.py", "placed, expected = False, self.follower.view.versions.get(\"request\", 0)", "placed, expected = False, self.desk.read().versions.get(\"request\", 0)", f"{HAND}::test_of_two_commands_at_once_one_is_refused"),
    Mutant("a request is of no epoch", "sidecar/operate/asking.py", "epoch = view.holder.epoch if view.holder is not None else view.epoch.epoch", "epoch = NO_EPOCH", f"{HAND}::test_a_request_is_of_the_epoch_that_was_seen"),
    Mutant("a lost answer to a request is a failure", "sidecar/operate/asking.py", "        return placed or self.current is not None", "        return placed", f"{HAND}::test_a_lost_answer_is_looked_up_and_never_assumed"),
    Mutant("a confirmation whose answer was lost did not happen", "sidecar/operate/asking.py", "            if self.unsure:\n                raise TimedOut(f\"it is unknown", "            if False:\n                raise TimedOut(f\"it is unknown", f"{HAND}::test_a_confirmation_whose_answer_is_lost_with_the_store_is_unknown"),
    # what is called done
    Mutant("done is the active of before", "sidecar/operate/handover.py", "if holder is None or holder.epoch <= request.epoch or not serves(view):\n        return None\n    if not concluded", "if holder is None or not serves(view):\n        return None\n    if not concluded", TRUTH, slice=True),
    Mutant("done is whoever holds the lock", "sidecar/operate/handover.py", "if holder is None or holder.epoch <= request.epoch or not serves(view):\n        return None\n    if not concluded", "if holder is None or holder.epoch <= request.epoch:\n        return None\n    if not concluded", f"{HAND}::test_done_is_not_said_before_the_new_active_was_seen_to_run"),
    Mutant("done is any other node", "sidecar/operate/handover.py", "    if wanted:\n", "    if True:\n", f"{HAND}::test_another_node_than_the_wanted_one_is_a_failure"),
    Mutant("a paused node has concluded what another did", "sidecar/operate/handover.py", "request.epoch + 1 == holder.epoch", "request.epoch < holder.epoch", f"{HAND}::test_bug_a_paused_node_whose_server_never_ran_was_said_to_be_active"),
    Mutant("a server of another epoch serves", "sidecar/operate/handover.py", "(record.role, record.epoch) != (\"active\", holder.epoch)", "record.role != \"active\"", f"{HAND}::test_a_server_of_an_earlier_epoch_is_not_the_one_that_took_over"),
    Mutant("a roll-back is waited for", "sidecar/operate/handover.py", "        case \"rolled_back\":\n            return Not(", "        case \"rolled_backwards\":\n            return Not(", f"{HAND}::test_what_did_not_come_about_is_a_failure_with_its_reason"),
    Mutant("a restart is done while the server still stops", "sidecar/operate/handover.py", "record is None or record.state in (\"starting\", \"stopping\", \"failed\"):\n        return None\n    return Done", "record is None:\n        return None\n    return Done", f"{HAND}::test_a_restart_is_done_when_the_server_runs_and_not_before"),
    Mutant("a failed restart is waited for", "sidecar/operate/handover.py", "    if request.state in (\"failed\", \"abandoned\", \"refused\", \"rolled_back\"):\n", "    if False:\n", f"{HAND}::test_a_restart_that_fails_says_why"),
    Mutant("an unknown outcome is a failure", "sidecar/operate/asking.py", "raise TimedOut(f\"{what}: outcome unknown after", "raise Failed(f\"{what}: outcome unknown after", f"{HAND}::test_an_active_that_dies_after_the_confirmation_leaves_the_outcome_unknown"),
    Mutant("an interruption claims that nothing happens", "sidecar/operate/asking.py", "raise TimedOut(f\"interrupted; the {what} goes on without", "raise Failed(f\"interrupted; the {what} goes on without", f"{HAND}::test_an_interruption_after_the_confirmation_does_not_claim_to_stop_it"),
    Mutant("a switchover begins in maintenance", "sidecar/operate/handover.py", "reason = held or words.unfit(view, to, holder.node)", "reason = words.unfit(view, to, holder.node)", f"{HAND}::test_what_makes_no_sense_is_refused_before_anything_is_written"),
    Mutant("a node that cannot is asked to take over", "sidecar/operate/words.py", "    if not record.available:\n        return f\"{to} is not able", "    if False:\n        return f\"{to} is not able", f"{HAND}::test_what_makes_no_sense_is_refused_before_anything_is_written"),
    # how long nobody was active, and what status says of it
    Mutant("the last words of a dead node are service", "sidecar/operate/asking.py", "    holder = view.holder\n    record = view.node(holder.node) if holder is not None else None\n    if holder is None or record is None:\n        return False\n    return (record.role, record.state, record.epoch) == (\"active\", \"running\", holder.epoch)", "    return any((record.role, record.state) == (\"active\", \"running\") for record in view.nodes)", f"{HAND} -k last_words"),
    Mutant("what a node was at another epoch is service", "sidecar/operate/asking.py", "return (record.role, record.state, record.epoch) == (\"active\", \"running\", holder.epoch)", "return (record.role, record.state) == (\"active\", \"running\")", f"{HAND} -k last_words"),
    Mutant("nobody was active since the command began", "sidecar/operate/asking.py", "elif not serves and self._served and self._since is None:", "elif not serves and self._since is None:", f"{HAND} {OVER} -k had_begun_before or raised_over_every_mark"),
    Mutant("the lock of a restored store becomes free", "sidecar/operate/status.py", "        return [f\"nobody is active: {behind}\" if over else behind]\n", "        pass\n", f"{SHOWN} -k promised_to_become_free"),
    Mutant("a broken lock hides that the store is behind", "sidecar/operate/status.py", "    if (behind := _behind(view)) is not None:\n        return [f\"nobody is active: {behind}\"]\n", "    behind = _behind(view)\n    if behind is not None and view.lock is None:\n        return [f\"nobody is active: {behind}\"]\n", f"{SHOWN} -k promised_to_become_free"),
    Mutant("the server of a dead node is about to end", "sidecar/operate/status.py", "left_ms < ago_ms and not", "left_ms < 0 and not", f"{SHOWN} -k about_to_end"),
    Mutant("a deadline has passed by another clock", "sidecar/operate/status.py", "left_ms < ago_ms and not clocks_differ(record, now_unix_ms, left_ms)", "left_ms < ago_ms", f"{SHOWN} -k about_to_end"),
    # break, then wait
    Mutant("the lock is broken though it changed hands", "sidecar/operate/failover.py", "    _still(follower.view, what)\n", "", f"{OVER}::test_a_lock_that_changed_hands_is_not_even_asked_for"),
    Mutant("the lock of whoever holds it now is broken", "sidecar/operate/failover.py", "            desk.backend.break_lock(\n                what.epoch,", "            desk.backend.break_lock(\n                desk.read().epoch.epoch,", f"{OVER}::test_the_lock_that_changed_hands_in_between_is_not_broken"),
    Mutant("a failover is over when the lock is broken", "sidecar/operate/handover.py", "    if holder is None or holder.epoch <= request.epoch or not serves(view):\n        return None\n    if holder.node == request.to", "    if holder is None:\n        return Done(request.to or \"\", request.epoch)\n    if holder.node == request.to", f"{OVER}::test_done_is_who_has_taken_over"),
    Mutant("a failover is done when the old active is back", "sidecar/operate/handover.py", "if holder.node == request.to or (request.to is None and holder.node != request.source):\n        return Done(holder.node, holder.epoch)\n    if holder.epoch", "if True:\n        return Done(holder.node, holder.epoch)\n    if holder.epoch", f"{OVER}::test_the_wrong_taker_is_a_failure"),
    Mutant("a break whose answer was lost did not happen", "sidecar/operate/failover.py", "            if over and unsure:\n", "            if False:\n", f"{OVER}::test_a_break_whose_answer_is_lost_with_the_store_is_unknown"),
    Mutant("a break that the first try did is called a failure", "sidecar/operate/failover.py", "if unsure or _is_broken(follower.view, request):", "if _is_broken(follower.view, request):", f"{OVER}::test_a_break_whose_effect_is_gone_already_is_waited_for"),
    Mutant("a failover begins unseen", "sidecar/operate/failover.py", "        _note(desk, follower, request, \"asked\", until)\n", "        pass\n", f"{OVER}::test_done_is_who_has_taken_over"),
    Mutant("a failover overtakes what is being carried out", "sidecar/operate/failover.py", "    if overtaken is None:\n", "    if True:\n", f"{OVER}::test_bug_a_failover_overtook_a_confirmed_switchover_before_it_had_broken_anything"),
    Mutant("a failover that came about is left as abandoned", "sidecar/operate/failover.py", "(request.id, \"abandoned\"):", "(request.id, \"asked\"):", f"{OVER}::test_bug_a_failover_that_came_about_was_left_as_abandoned"),
    Mutant("a failover in maintenance", "sidecar/operate/failover.py", "reason = held or words.unfit(view, to, source)", "reason = words.unfit(view, to, source)", f"{OVER}::test_paused_is_refused"),
    Mutant("an epoch is raised by one", "sidecar/operate/failover.py", "what.floor + UNSEEN", "what.floor", f"{OVER}::test_the_epoch_is_raised_over_every_mark"),
    Mutant("the epoch is raised to what this node alone has seen", "sidecar/operate/failover.py", "return max(own_mark, view.mark)", "return own_mark", f"{OVER}::test_the_epoch_is_raised_over_every_mark_of_others"),
    Mutant("the epoch is raised to what the others have seen", "sidecar/operate/failover.py", "return max(own_mark, view.mark)", "return view.mark", f"{OVER}::test_the_epoch_is_raised_over_every_mark"),
    Mutant("the epoch is raised under a holder", "sidecar/operate/failover.py", "        raise Refused(f\"{held}; stop its sidecar first, then raise the epoch\")", "        pass", f"{OVER}::test_an_epoch_that_need_not_be_raised_is_refused"),
    # bugs that the simulation has found
    Mutant("a raise whose answer was lost did not happen", "sidecar/operate/failover.py", "            if unsure:  # a try whose answer was lost may have done it, and others", "            if False:  # a try whose answer was lost may have done it, and others", f"{OVER}::test_bug_a_raise_whose_answer_was_lost_was_called_not_done"),
    Mutant("a hand-over that others may have hidden has failed", "sidecar/operate/handover.py", "    if overtaken:\n", "    if False:\n", f"{OVER}::test_bug_a_switchover_that_was_overtaken_before_it_was_seen_was_called_failed"),
    Mutant("a dead lock in an old store stands for ever", "sidecar/operate/failover.py", "    while not follower.view.vacant and desk.clock", "    while False and desk.clock", f"{OVER}::test_bug_the_lock_of_somebody_who_is_gone_kept_the_epoch_of_a_restored_store"),
    # what a newer version has written
    Mutant("a node that cannot be read is not there", "sidecar/operate/words.py", "    if node in unread(view):\n        return f\"{node} is there", "    if False:\n        return f\"{node} is there", f"{HAND}::test_bug_a_node_of_a_newer_version_was_said_not_to_be_there"),
    Mutant("an active that cannot be read shows no sign of life", "sidecar/operate/words.py", "\"says nothing that can be read here\" if node in unread(view) else", "\"says nothing that can be read here\" if False else", f"{OVER}::test_bug_an_active_of_a_newer_version_showed_no_sign_of_life"),
    Mutant("a restart of a node that cannot be read is overtaken", "sidecar/operate/asking.py", " or request.source in unread(view))", ")", f"{HAND}::test_a_restart_of_a_node_of_a_newer_version_is_not_overtaken"),
    Mutant("a node that cannot be read has heard of a pause", "sidecar/operate/maintenance.py", "silent + [name for name in unread(view) if node in (None, name)]", "silent", f"{MAINTAIN}::test_bug_a_node_of_a_newer_version_counted_as_having_heard"),
    Mutant("a failover replaces a request that nobody was told of", "sidecar/operate/failover.py", "if \"request\" in set(view.unreadable) - set(what.view.unreadable):", "if False:", f"{OVER}::test_what_a_newer_version_asks_for_after_the_question_is_not_replaced"),
    # maintenance
    Mutant("paused is said before the nodes show it", "sidecar/operate/settings.py", "    while (left := silent(follower.view, settings)) and desk.clock", "    while not (left := ()) and False and desk.clock", f"{MAINTAIN}::test_a_node_that_has_not_heard_is_named"),
    Mutant("who has not heard is said of the last news", "sidecar/operate/settings.py", "            follower.refresh(desk.after(LOOK_MS))\n", "            pass\n", "tests/cli/test_maintenance.py::test_who_has_not_heard_is_looked_up_at_the_end"),
    Mutant("who could not be looked at has not heard", "sidecar/operate/outcome.py", "if found.trouble is not None:", "if False:", "tests/cli/test_maintenance.py -k could_not_look"),
    Mutant("an interrupted change is made all the same", "sidecar/operate/settings.py", "            if desk.halted():\n                raise Failed(\"interrupted; nothing was changed\")\n", "", "tests/cli/test_maintenance.py -k before_it_is_written"),
    Mutant("the second signal means that nothing will happen", "sidecar/cli/consent.py", "        if not halt.began:", "        if True:", "tests/cli/test_program.py -k second_signal_said"),
    Mutant("a failover breaks the lock after its time", "sidecar/operate/failover.py", "    until, unsure = min(until, desk.after(BREAK_WITHIN_MS)), False", "    until, unsure = desk.after(BREAK_WITHIN_MS), False", "tests/cli/test_failover.py -k outlasted"),
    Mutant("settings are written over whatever is there", "sidecar/operate/settings.py", "expected=view.versions.get(\"settings\", 0)", "expected=desk.read().versions.get(\"settings\", 0)", f"{MAINTAIN}::test_two_pauses_at_once_are_both_kept"),
    Mutant("a pause that may be written is said not to be", "sidecar/operate/settings.py", "        if unsure:  # refused perhaps because an earlier try of ours has done it\n            raise TimedOut", "        if False:\n            raise TimedOut", f"{MAINTAIN}::test_what_may_be_written_is_said_to_be_unknown_when_the_store_goes_away"),
    Mutant("a setting is said to be heard before the node shows it", "sidecar/operate/overrides.py", "heard = record is None or record.heard == view.versions.get(\"settings\", 0)", "heard = True", f"{OVERRIDES}::test_a_node_that_has_not_heard_is_named"),
    Mutant("refused by what an earlier try has done", "sidecar/operate/settings.py", "except (BackendError, Refused, Failed) as error:", "except (BackendError, Failed) as error:", f"{OVERRIDES}::test_what_an_own_try_may_have_done_is_not_refused"),
    Mutant("resuming a node resumes all", "sidecar/operate/maintenance.py", "tuple(n for n in settings.paused_nodes if n != node)", "()", f"{MAINTAIN}::test_resuming_one_node_leaves_the_others_paused"),
    # exit statuses
    Mutant("an unknown outcome ends with 1", "sidecar/errors.py", "    exit_code = 5\n", "    exit_code = 1\n", STATUS),
    Mutant("a refusal ends with 1", "sidecar/errors.py", "    \"\"\"An operation was not tried, because it is unsafe or impossible now.\"\"\"\n\n    exit_code = 4", "    \"\"\"An operation was not tried, because it is unsafe or impossible now.\"\"\"\n\n    exit_code = 1", STATUS),
    Mutant("a store that is not there ends with 1", "sidecar/errors.py", "    \"\"\"A backend did not do what it was asked; only its leaves are raised.\"\"\"\n\n    exit_code = 3", "    \"\"\"A backend did not do what it was asked; only its leaves are raised.\"\"\"\n\n    exit_code = 1", f"{PROGRAM} -k test_a_store_that_is_not_there_is_3 and status"),
    Mutant("a failure ends with 0", "sidecar/cli/program.py", "        return fail(str(error), error.exit_code)", "        return fail(str(error), 0)", STATUS),
    Mutant("a full disk under stdout is an internal error", "sidecar/cli/program.py", "if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename is None:", "if False:", f"{PROGRAM}::test_what_cannot_be_shown_is_one_line_and_1"),
    Mutant("validate takes any certificate", "sidecar/operate/checking.py", "        _certificate(config)\n", "", f"{PROGRAM}::test_bug_validate_called_good_what_run_refuses"),
    Mutant("validate takes any folder", "sidecar/operate/checking.py", "        _folders(config)\n", "", f"{PROGRAM}::test_bug_validate_called_good_what_run_refuses"),
    Mutant("a configured enforcement is called refused", "sidecar/runtime/main.py", "asked = config.guard.enforcement == \"process\"", "asked = False", f"{PROGRAM}::test_bug_the_log_called_refused_what_was_configured"),
    Mutant("an empty value is as good as none", "sidecar/cli/options.py", "if given[param.name] == \"\":", "if False:", f"{PROGRAM}::test_bug_an_empty_value_was_as_good_as_none"),
    Mutant("what cannot be printed is not done", "sidecar/cli/printing.py", "    except OSError as error:\n        settle(sys.stdout)\n", "    except BrokenPipeError as error:\n        settle(sys.stdout)\n", f"{PROGRAM}::test_bug_what_could_not_be_printed_was_a_switchover_that_failed"),
    Mutant("a full disk under stderr ends a command on its way", "sidecar/cli/printing.py", "    with suppress(OSError):\n", "    with suppress(BrokenPipeError):\n", f"{PROGRAM}::test_bug_what_could_not_be_printed_was_a_switchover_that_failed"),
    Mutant("SIGHUP at the start ends the sidecar", "sidecar/cli/running.py", "    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nothing to reload yet, and no reason to end\n", "", f"{PROGRAM}::test_sighup_at_the_start_does_not_end_the_sidecar"),
)  # fmt: skip
