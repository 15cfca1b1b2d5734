"""The shell: since when a grant counts, spent holds, late answers, what is kept on disk, and broken parts."""

# ruff: noqa: E501 - one mutant, one line

from tests.mutants.mutant import Mutant

LOCKING, WATCHING, MARKS = (f"tests/runtime/test_{name}.py" for name in ("locking", "watching", "marks"))
SERVING, PROBING, SHELL = (f"tests/runtime/test_{name}.py" for name in ("serving", "probing", "shell"))
OLDER = "tests/runtime/test_older.py"
HOOKS, NODES, BROKEN = (
    "tests/runtime/test_hooks.py",
    "tests/system/test_nodes.py",
    "tests/system/test_broken_parts.py",
)

MUTANTS = (
    # the lock lane
    Mutant("a grant counts from its answer", "sidecar/runtime/locking.py", "return s.Granted(grant.hold.epoch, grant.sent_at, grant.deadline)", "return s.Granted(grant.hold.epoch, self._clock.now(), Grant(grant.hold, self._clock.now(), grant.ttl_ms).deadline)", f"{LOCKING}::test_a_grant_is_told_as_of_the_sending_of_its_request", slice=True),
    Mutant("the hold of an earlier epoch is kept", "sidecar/runtime/locking.py", "self._holds = {grant.hold.epoch: grant.hold}", "self._holds[grant.hold.epoch] = grant.hold", f"{LOCKING}::test_a_hold_of_another_epoch_is_never_renewed"),
    Mutant("whatever hold there is is renewed", "sidecar/runtime/locking.py", "            hold = self._holds.get(epoch)\n            if hold is None:\n                return s.Lost(epoch)\n", "            hold = next(iter(self._holds.values()), None)\n            if hold is None:\n                return s.Lost(epoch)\n", f"{LOCKING}::test_a_hold_of_another_epoch_is_never_renewed"),
    Mutant("a released hold is kept", "sidecar/runtime/locking.py", "            self._holds.pop(epoch, None)\n", "", f"{LOCKING}::test_a_release_gives_up_exactly_its_hold_and_forgets_it"),
    Mutant("a hold is forgotten before it is released", "sidecar/runtime/locking.py", "            hold = self._holds.get(epoch)\n            if hold is None:  # the", "            hold = self._holds.pop(epoch, None)\n            if hold is None:  # the", f"{LOCKING}::test_a_release_that_may_have_failed_keeps_its_hold_for_the_next_try"),
    Mutant("a hold whose grant was lost is never released", "sidecar/runtime/locking.py", "                if not isinstance(again, Grant):\n", "                if True:\n", f"{LOCKING}::test_a_release_whose_grant_never_came_asks_for_it_again"),
    Mutant("a release asks a wiped store", "sidecar/runtime/locking.py", "policy.node, policy.instance, policy.ttl_ms, floor=floor, deadline=deadline\n                )\n                if", "policy.node, policy.instance, policy.ttl_ms, floor=Epoch(0), deadline=deadline\n                )\n                if", f"{LOCKING}::test_a_release_whose_grant_never_came_asks_for_it_again"),
    Mutant("a mark that the disk did not take is given up", "sidecar/runtime/shell.py", "        while not self._marks.save(mark) and not self._closing.wait(KEEP_AGAIN_S):\n            pass\n", "        self._marks.save(mark)\n", f"{SHELL}::test_bug_a_mark_that_could_not_be_kept_was_never_tried_again"),
    Mutant("a lower mark replaces a higher one", "sidecar/runtime/marks.py", "return _read(path).epoch > mark.epoch", "return False", f"{MARKS}::test_a_lower_mark_does_not_replace_a_higher_one"),
    Mutant("all sidecars of a machine write their marks to one file", "sidecar/runtime/marks.py", "{uuid.uuid4().hex}.new", "new", f"{MARKS}::test_bug_sidecars_of_one_machine_tore_each_others_mark"),
    Mutant("a lock call has no time limit", "sidecar/runtime/locking.py", "Instant(self._clock.now() + self._timeout_ms())", "Instant(self._clock.now() + 60_000)", f"{LOCKING}::test_each_call_has_the_time_limit_of_a_request"),
    Mutant("the floor of an acquisition is not passed on", "sidecar/runtime/locking.py", "floor=floor, deadline=deadline\n            )\n            return self._granted", "floor=Epoch(0), deadline=deadline\n            )\n            return self._granted", f"{LOCKING}::test_a_grant_is_told_as_of_the_sending_of_its_request"),
    Mutant("a definite no is a failed call", "sidecar/runtime/locking.py", "        except NotHolder:\n            self._health.well()\n            answer = s.Lost(epoch)\n", "", f"{LOCKING}::test_a_definite_no_is_the_loss_of_that_epoch"),
    Mutant("a failed call is a loss", "sidecar/runtime/locking.py", "answer = s.CallFailed(str(error), lasting=not error.retry)", "answer = s.Lost(epoch)", f"{LOCKING}::test_an_error_is_a_failed_call_and_never_a_loss"),
    Mutant("an unexpected exception leaves a call without an answer", "sidecar/runtime/locking.py", "        except Exception as error:  # an unexpected exception anywhere counts as a failed call\n            LOG.exception(\"internal_error\")\n            answer = s.CallFailed(f\"internal error: {error}\")\n", "", f"{LOCKING}::test_an_unexpected_exception_is_a_failed_call_and_the_lane_lives_on"),
    Mutant("a lane ends with the first exception", "sidecar/runtime/lanes.py", "                LOG.exception(\"internal_error\")\n", "                return\n", "tests/runtime/test_lanes.py::test_a_lane_outlives_a_job_that_raises"),
    Mutant("a lane ends before what is queued is done", "sidecar/runtime/lanes.py", "        self._jobs.put(None)\n        self._thread.join(within_s)", "        self._thread.join(0)\n        self._jobs = SimpleQueue()", "tests/runtime/test_lanes.py::test_a_lane_does_what_is_queued_in_order_and_ends"),
    Mutant("a note of another version is believed", "sidecar/documents.py", "        if version != VERSION:", "        if not version:", f"{LOCKING}::test_a_note_of_a_later_version_is_refused"),
    Mutant("two threads take a class apart", "sidecar/documents.py", "        with _preparing:\n", "        if True:\n", "tests/core/test_documents.py::test_bug_two_threads_that_decoded_to_a_class_for_the_first_time_ended_the_process"),
    # what is seen and shown
    Mutant("after a failure the old revision is waited on", "sidecar/runtime/watching.py", "            view = None\n            self._closing", "            self._closing", f"{WATCHING}::test_after_any_failure_all_is_read_anew"),
    Mutant("the watch ends with an unexpected exception", "sidecar/runtime/watching.py", "                if not self._closing.is_set():\n                    health.ill(error)\n            except Exception:  # outermost frame of the thread\n                LOG.exception(\"internal_error\")\n", "                if not self._closing.is_set():\n                    health.ill(error)\n", f"{WATCHING}::test_after_any_failure_all_is_read_anew"),
    Mutant("a view is not shown", "sidecar/runtime/watching.py", "        self._post(seen)\n", "        if view is None:\n            self._post(seen)\n", f"{WATCHING}::test_each_view_is_shown_and_the_next_is_asked_for_after_it"),
    Mutant("a store that is down is hammered", "sidecar/clock.py", "self._pause_s = min(self._max_s, self._pause_s * 2)", "self._pause_s = self._first_s", f"{WATCHING}::test_a_store_that_is_down_is_asked_less_and_less_often"),
    Mutant("a record expires between two publishings", "sidecar/runtime/watching.py", "return ttl_ms / 1000 / PUBLISH_PARTS", "return ttl_ms / 1000 * PUBLISH_PARTS", f"{WATCHING}::test_a_record_is_shown_again_before_it_expires_whatever_failed"),
    Mutant("a change waits for its turn", "sidecar/runtime/watching.py", "    def changed(self) -> None:\n        \"\"\"Publish soon.\"\"\"\n        self._changed.set()\n", "    def changed(self) -> None:\n        \"\"\"Publish soon.\"\"\"\n", f"{WATCHING}::test_a_change_is_shown_at_once"),
    # the mark
    Mutant("an unreadable mark is none", "sidecar/runtime/marks.py", "        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors\n", "        except (ValueError, RecursionError) as error:\n            return Mark()\n", f"{MARKS}::test_a_mark_that_cannot_be_read_is_not_forgotten", slice=True),
    Mutant("the mark is not on the disk when it gets its name", "sidecar/runtime/marks.py", "                os.fsync(file.fileno())\n", "", f"{MARKS}::test_bug_a_power_cut_could_take_the_newest_mark_back"),
    Mutant("the name of the mark is not on the disk", "sidecar/runtime/marks.py", "                os.fsync(folder)  # else", "                pass  # else", f"{MARKS}::test_bug_a_power_cut_could_take_the_newest_mark_back"),
    Mutant("the mark is written in place", "sidecar/runtime/marks.py", "new = self._path.with_name(f\"{self._path.stem}.{uuid.uuid4().hex}.new\")", "new = self._path", f"{MARKS}::test_bug_a_power_cut_could_take_the_newest_mark_back"),
    Mutant("whose the epoch was is not kept", "sidecar/runtime/marks.py", "json.dump(mark._asdict(), file)", "json.dump({\"epoch\": mark.epoch}, file)", f"{MARKS}::test_what_was_kept_is_known_again"),
    Mutant("a mark that cannot be written stops the sidecar", "sidecar/runtime/marks.py", "            LOG.debug(\"mark\", exc_info=True)\n", "            raise\n", f"{MARKS}::test_a_mark_that_cannot_be_written_stops_nobody"),
    # the shell
    Mutant("a broken part is not noticed", "sidecar/runtime/shell.py", "                raise RuntimeError(f\"internal error: {seen.what}\")\n", "                seen = s.Tick()\n", f"{SHELL}::test_a_broken_part_ends_the_shell"),
    Mutant("the mark is not saved", "sidecar/runtime/shell.py", "                self._files.put(lambda: self._keep(mark))\n", "                pass\n", f"{SHELL}::test_the_mark_is_kept_on_disk"),
    Mutant("the guard keeps no note of a renewed hold", "sidecar/runtime/shell.py", "self._servers.extend(run, deadline, self.note(self._epoch()))", "self._servers.extend(run, deadline, None)", f"{SHELL}::test_the_orders_go_where_they_belong"),
    Mutant("the guard is not told that the server is ready", "sidecar/runtime/shell.py", "                self._servers.keep(new.run, self.note(new.lease.epoch))\n", "                pass\n", f"{SHELL}::test_the_next_sidecar_is_told_at_once_that_the_server_is_ready"),
    Mutant("every note says that the server is ready", "sidecar/runtime/shell.py", "isinstance(self.node.phase, s.Serving)\n", "True\n", f"{SHELL}::test_the_next_sidecar_is_told_at_once_that_the_server_is_ready"),
    Mutant("the end of a request is told that was not written", "sidecar/runtime/shell.py", "            if not isinstance(error, OutcomeUnknown):\n                return\n", "", f"{SHELL}::test_bug_the_end_of_a_request_was_told_that_was_not_written"),
    Mutant("the end of a request is told again", "sidecar/runtime/shell.py", " and ended != self._ended:", ":", f"{SHELL}::test_bug_the_end_of_a_request_was_told_again_at_each_attempt"),
    Mutant("a server is started that was stopped while it was prepared", "sidecar/runtime/serving.py", "            if self._wanted != order.run:  # the disk hung for so long\n                raise GuardError(\"stopped before it was started\")\n", "", f"{SERVING}::test_bug_a_server_was_started_that_had_been_stopped_while_it_was_prepared"),
    Mutant("a server that was ready is asked whether it is", "sidecar/runtime/serving.py", "self._begun(0, found.server_pid, found.started_at, ready=ready)", "self._begun(0, found.server_pid, found.started_at)", f"{NODES}::test_bug_a_server_that_hung_as_the_sidecar_was_restarted_had_the_whole_start_timeout"),
    Mutant("a note of an older version makes ready", "sidecar/runtime/locking.py", "    ready: bool = False\n", "    ready: bool = True\n", f"{LOCKING}::test_a_note_of_a_version_that_does_not_say_is_of_a_server_that_is_not_ready"),
    Mutant("a request is answered without the hold", "sidecar/runtime/shell.py", "answer.request, expected=answer.expected, hold=hold, deadline=self._deadline()", "answer.request, expected=answer.expected, hold=None, deadline=self._deadline()", f"{SHELL}::test_an_answer_is_written_under_the_hold_and_over_what_was_seen"),
    Mutant("a failed answer is forgotten", "sidecar/runtime/shell.py", "            self._inbox.put(s.AnswerFailed())\n", "", f"{SHELL}::test_an_answer_that_failed_is_told_so_that_it_is_given_again"),
    Mutant("a change of active is written once or never", "sidecar/runtime/shell.py", "                if not error.retry:\n                    return\n", "                return\n", f"{SHELL}::test_a_change_is_written_until_it_is"),
    Mutant("a change of active is written at another epoch", "sidecar/runtime/shell.py", "            if self._epoch() != record.epoch:\n                return\n", "", f"{SHELL}::test_a_change_of_an_epoch_that_is_over_is_not_written"),
    Mutant("the end of the sidecar waits for the history", "sidecar/runtime/shell.py", " is not None and not self._closing.is_set():", " is not None:", f"{SHELL}::test_the_end_of_the_sidecar_does_not_wait_for_the_history"),
    Mutant("an older store leaves nothing in the log", "sidecar/runtime/shell.py", "            self._older.look(self.node)\n", "", f"{SHELL}::test_an_older_store_is_an_alarm"),
    Mutant("a view that is late is an older store", "sidecar/runtime/older.py", "if isinstance(phase, Holding) and phase.lease.epoch == mark:", "if False:", f"{OLDER}::test_what_is_no_older_store"),
    Mutant("a view that came before the mark is an older store", "sidecar/core/outlook.py", " or memory.view_at < memory.mark_at + VIEW_LAG_MS:", ":", f"{OLDER}::test_what_is_no_older_store"),
    Mutant("GET /status shows what the view cannot show yet as an older store", "sidecar/api/memory.py", "min(own.mark, view.epoch.epoch) if late else own.mark", "own.mark", "tests/api/test_answers.py -k store_was_wiped"),
    Mutant("an older store is an alarm with each view", "sidecar/runtime/older.py", "        if (view.epoch.epoch, mark) == self._told:\n            return\n", "", f"{OLDER} -k left_nothing_in_the_log"),
    Mutant("exec outlives its terminal", "sidecar/runtime/main.py", "            signal.signal(signal.SIGHUP, stop)\n", "            pass\n", "tests/system/test_exec.py -k terminal_that_was_gone"),
    Mutant("exec ends under nohup", "sidecar/runtime/main.py", "elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's\n", "else:\n", "tests/system/test_exec.py -k terminal_that_was_gone"),
    Mutant("exec that is told to stop as it begins leaves its folder", "sidecar/cli/running.py", "                signal.signal(number, leave)\n", "                pass\n", "tests/system/test_exec.py -k left_its_folder_behind"),
    # servers
    Mutant("a renewal during the preparation is lost", "sidecar/runtime/serving.py", "deadline_at=self._deadlines.get(order.run, order.deadline)", "deadline_at=order.deadline", f"{SERVING}::test_a_renewal_while_the_server_is_prepared_counts"),
    Mutant("a refused start is not told", "sidecar/runtime/serving.py", "                self._gone(self._names[name], None, reason)\n", "                pass\n", f"{SERVING}::test_a_late_start_is_the_end_of_its_run"),
    Mutant("a server that may run is called gone", "sidecar/runtime/serving.py", "            self._broken(f\"server lane: {error!r}\")", "            self._gone(order.run, None, str(error))", f"{SERVING}::test_an_unexpected_exception_at_a_start_is_told_as_broken"),
    Mutant("a guard client that broke is not noticed", "sidecar/runtime/serving.py", "                self._broken(\"guard client\")\n", "                pass\n", f"{SERVING}::test_a_guard_client_that_broke_is_told_as_broken"),
    Mutant("an order for a run that is gone goes to the next", "sidecar/runtime/serving.py", "name = next((name for name, known in self._names.items() if known == run), None)", "name = next(iter(self._names), None)", f"{SERVING}::test_orders_for_a_run_that_is_gone_touch_nobody_else"),
    Mutant("a lost guard is the end of serving", "sidecar/runtime/serving.py", "            self._guard.respawn()\n", "            pass\n", f"{SERVING}::test_a_server_is_started_again_after_its_guard_was_lost"),
    Mutant("the server sees our secrets", "sidecar/guard/connect.py", "{name: value for name, value in os.environ.items() if not name.startswith(OURS)}", "dict(os.environ)", f"{SERVING}::test_a_server_sees_its_role_and_nothing_of_our_own"),
    Mutant("a server that was found is not known", "sidecar/runtime/serving.py", "            self._names[found.run] = 0\n", "            self._names[found.run] = 1\n", f"{SERVING}::test_the_next_sidecar_goes_on_with_the_run_as_number_0"),
    Mutant("what the guard told before the beginning is lost", "sidecar/runtime/serving.py", "            for event in early:\n                self._take_in(event)\n", "", f"{SERVING}::test_what_happens_between_attaching_and_beginning_is_told"),
    # probing
    Mutant("one failed probe is sick", "sidecar/runtime/probing.py", "if failures >= watching.failures:", "if failures:", f"{PROBING}::test_sick_means_so_many_failures_in_a_row"),
    Mutant("failures need not be in a row", "sidecar/runtime/probing.py", "failures = 0 if finding.ok else failures + 1", "failures = failures if finding.ok else failures + 1", f"{PROBING}::test_sick_means_so_many_failures_in_a_row"),
    Mutant("failures of the run before count", "sidecar/runtime/probing.py", "                failures, last = 0, subject\n", "                last = subject\n", f"{PROBING}::test_the_failures_of_the_run_before_do_not_count"),
    Mutant("a late answer makes a run ready that is over", "sidecar/runtime/probing.py", "asked = self._subject is subject\n", "asked = True\n", f"{PROBING}::test_a_late_answer_does_not_make_a_run_ready_that_is_over"),
    Mutant("a standby that activated itself is not told", "sidecar/runtime/probing.py", "                self._post(s.ServerActivated(subject.run))\n", "                pass\n", f"{PROBING}::test_a_standby_that_activated_itself_is_told"),
    # a whole sidecar
    Mutant("the server of another cluster is taken over", "sidecar/runtime/main.py", "if (kept.cluster, kept.hold.node) != (self._config.cluster, self._config.node):", "if False:", f"{BROKEN}::test_the_server_of_another_cluster_is_refused_and_left_alone"),
    Mutant("the hold found with a server is not taken over", "sidecar/runtime/main.py", "        self._locks.adopt(kept.hold)\n", "", f"{NODES} -k test_restarted_sidecar_adopts_the_running_server and local"),
    Mutant("a file that hangs holds up the deciding thread", "sidecar/runtime/main.py", "            self._reloads.put(self._reload)\n", "            self._reload()\n", "tests/cli/test_overrides.py::test_a_file_that_hangs_while_it_is_reloaded_delays_no_decision"),
    Mutant("what was set is not gone by", "sidecar/runtime/shell.py", "self.policy = in_force(self._configured, Settings() if view is None else view.settings)", "self.policy = self._configured", "tests/runtime/test_shell.py::test_what_was_set_counts_before_the_configuration_through_a_reload"),
    Mutant("two sidecars in one run directory", "sidecar/runtime/alone.py", "        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "        pass\n", f"{NODES}::test_second_sidecar_of_a_node_is_refused"),
    # hooks
    Mutant("a refusal is not heard", "sidecar/runtime/serving.py", "        elif not outcome.ok:\n", "        elif False:\n", f"{HOOKS}::test_a_refusal_is_the_end_of_the_run", schedules=25),
    Mutant("a stop leaves before_active alone", "sidecar/runtime/serving.py", "            self._asked[run].errand.call_off()\n", "            pass\n", f"{HOOKS}::test_a_stop_ends_before_active_and_the_server_is_never_started"),
    Mutant("one that was stopped counts as a refusal", "sidecar/runtime/serving.py", "        if asked.errand.called_off:\n", "        if False:\n", f"{HOOKS}::test_a_stop_ends_before_active_and_the_server_is_never_started"),
    Mutant("the end of after_stop is not told", "sidecar/runtime/serving.py", "            self._post(s.Cleared(run))\n", "            pass\n", f"{HOOKS}::test_after_stop_runs_after_each_active_even_one_that_never_ran"),
    Mutant("what runs beside is not ended first", "sidecar/runtime/hooks.py", "        running = self._end_announcing()\n        if running is not None:\n            running.over", "        running = self._running\n        if running is not None:\n            running.over", f"{HOOKS}::test_what_runs_beside_is_ended_before_one_of_the_server_lane_runs"),
    Mutant("a hook that was overtaken is begun", "sidecar/runtime/hooks.py", "if state is self._told and state is not self._overtaken:", "if state is not self._overtaken:", f"{HOOKS}::test_one_that_was_overtaken_is_not_begun"),
    Mutant("a state is told again and again", "sidecar/runtime/hooks.py", "        if state != self._told:\n", "        if True:\n", f"{HOOKS}::test_each_state_is_told_once_and_each_run_anew"),
    Mutant("a hook has no time limit", "sidecar/hooks/keeper.py", "while (left_ms := deadline_ms - kernel.now_ms()) > 0:", "while (left_ms := deadline_ms + 1) > 0:", f"{HOOKS}::test_at_its_time_limit_the_whole_tree_is_killed"),
    Mutant("what a hook leaves behind lives on", "sidecar/hooks/keeper.py", "            tree.signal_descendants(os.getpid(), signal.SIGKILL)\n", "            pass\n", f"{HOOKS}::test_what_it_leaves_behind_is_killed_when_it_is_over"),
    Mutant("a hook outlives the sidecar", "sidecar/hooks/keeper.py", "        if control.fileno() in ready:\n", "        if False:\n", f"{HOOKS}::test_it_ends_with_the_sidecar_even_when_that_is_killed"),
    # what would not last for years
    Mutant("role and epoch of every run are kept", "sidecar/runtime/serving.py", "self._roles.pop(run), self._epochs.pop(run)", "self._roles[run], self._epochs[run]", f"{SERVING}::test_bug_something_was_kept_of_every_server_that_was_ever_started"),
    Mutant("a reason is told again after another", "sidecar/runtime/lanes.py", "            self._told.add(seen)\n", "            self._told = {seen}\n", "tests/runtime/test_lanes.py::test_bug_an_outage_of_several_endpoints_was_a_line_of_the_log_for_each_call"),
    Mutant("reasons that always differ are all told", "sidecar/runtime/lanes.py", " and len(self._told) < REASONS_MAX:", ":", "tests/runtime/test_lanes.py::test_bug_an_outage_of_several_endpoints_was_a_line_of_the_log_for_each_call"),
    # threads
    Mutant("a loss that is told during the greeting is forgotten", "sidecar/runtime/serving.py", "            self._guard.respawn()\n        except", "            self._guard.respawn()\n            self._lost = False\n        except", f"{SERVING}::test_bug_a_guard_that_was_lost_while_it_was_greeted_was_never_replaced"),
    Mutant("events overtake the early ones", "sidecar/runtime/serving.py", "        with self._telling:  # what comes", "        if True:  # what comes", f"{SERVING}::test_what_comes_while_the_early_events_are_told_waits_behind_them"),
    Mutant("a wake-up at the end is lost", "sidecar/runtime/watching.py", "            self._changed.clear()  # before looking: what is set meanwhile ends the wait\n            if self._closing.is_set():\n                return\n", "            if self._closing.is_set():\n                return\n            self._changed.clear()\n", f"{WATCHING}::test_bug_a_publisher_that_was_closed_as_it_began_anew_waited_for_its_next_turn"),
)  # fmt: skip
