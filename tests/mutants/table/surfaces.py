"""What is seen and touched from outside: the API, systemd, the log, metrics, the doctor, and the hooks themselves."""

# ruff: noqa: E501 - one mutant, one line

from tests.mutants.mutant import Mutant

ANSWERS, SERVED, LEDGER = (
    "tests/api/test_answers.py",
    "tests/api/test_served.py",
    "tests/metrics/test_ledger.py",
)
SYSTEMD, TELLING, HOOKS = (f"tests/runtime/test_{name}.py" for name in ("systemd", "telling", "hooks"))
DOCTOR, CONFIG = "tests/cli/test_doctor.py", "tests/core/test_config.py"

MUTANTS = (
    # the API: what a load balancer is told
    Mutant("active until the lease's own end", "sidecar/api/answers.py", "if now >= phase.lease.kill_at(turn.policy):", "if now >= phase.lease.deadline:", f"{ANSWERS}::test_active_until_the_instant_at_which_the_guard_kills", slice=True),
    Mutant("a dead server is active", "sidecar/api/answers.py", "return None if runs(phase.run) else \"the server is dead\"", "return None", f"{ANSWERS}::test_a_server_known_to_be_dead_is_not_active"),
    Mutant("a loop that is stuck is live", "sidecar/api/answers.py", "    if now - turn.at < LIVE_WITHIN_MS:\n", "    if turn.at <= now:\n", f"{ANSWERS}::test_live_while_the_loop_turns"),
    Mutant("a standby whose loop is stuck could take over", "sidecar/api/answers.py", "    if (stuck := why_not_live(turn, now)) is not None:\n        return stuck\n", "", f"{ANSWERS}::test_a_node_without_the_lock_is_standby_while_its_loop_turns"),
    Mutant("a standby that does not see the store is ready", "sidecar/api/answers.py", "if view_age_ms is None or view_age_ms > turn.policy.ttl_ms:", "if view_age_ms is None:", f"{ANSWERS}::test_a_standby_that_does_not_see_the_store_is_not_ready"),
    Mutant("each turn makes the view young", "sidecar/api/memory.py", "if view is not None and view is not before:", "if view is not None:", f"{ANSWERS}::test_the_view_grows_old_although_the_loop_turns"),
    Mutant("each view makes the words of all nodes young", "sidecar/api/memory.py", "return last if last is not None and last[0] == record else (record, now)", "return (record, now)", f"{ANSWERS}::test_the_words_of_another_node_grow_old_although_the_store_shows_something_new"),
    # the API: who may give commands
    Mutant("without a token everybody may", "sidecar/api/access.py", "            return NO_TOKEN\n", "            return None\n", f"{SERVED}::test_without_a_configured_token_there_are_no_commands"),
    Mutant("a part of the token is enough", "sidecar/api/access.py", "return hmac.compare_digest(*digests)", "return token.startswith(given)", f"{SERVED}::test_a_command_needs_the_token"),
    Mutant("a token is taken in the clear from elsewhere", "sidecar/api/access.py", "if not self._any_address and not _is_loopback(own_address):", "if False:", f"{SERVED}::test_plain_http_is_taken_at_an_address_of_the_loopback_alone"),
    Mutant("the API's trouble ends a server that runs", "sidecar/runtime/main.py", "        if trouble and self._servers.adopted is None:\n", "        if trouble:\n", "tests/system/test_api.py -k test_bug_what_was_wrong_with_the_api and port"),
    Mutant("what is printed takes the room of alarms", "sidecar/log.py", ", leaving=OWN_LINES)", ")", "tests/runtime/test_log.py::test_bug_a_server_that_flooded_the_log_threw_our_alarms_away"),
    Mutant("a hook's line may look like ours", "sidecar/runtime/main.py", "lambda name, line: self._outlet.hook(name, line)\n", "lambda name, line: self._outlet.put(f\"{name} {line}\")\n", "tests/system/test_hooks.py::test_hooks_of_a_switchover_and_of_one_that_is_refused"),
    Mutant("a standby of its age is a restart", "sidecar/metrics/ledger.py", "        if ended.role == \"standby\" and ended.how == \"deadline\":\n            self._before = None  # of its age: the next one is no restart, but begins anew\n", "", "tests/metrics/test_ledger.py::test_bug_a_standby_that_was_replaced_for_its_age_was_a_restart"),
    Mutant("plain HTTP needs no setting", "sidecar/api/server.py", "plain_too=api.plain_http_commands)", "plain_too=True)", f"{SERVED}::test_plain_http_from_elsewhere_is_refused_unless_allowed"),
    Mutant("a token that was changed is good until the restart", "sidecar/api/server.py", "        self._access.token = config.api.token\n", "", f"{SERVED}::test_the_token_comes_from_a_file_and_changes_with_a_reload"),
    Mutant("a wrong token is in the log", "sidecar/api/routes.py", "a command with a wrong token from {_peer(request)}", "a command with a wrong token from {_peer(request)}: {request.headers.get('Authorization')}", f"{SERVED}::test_a_wrong_token_is_in_the_log_without_the_token"),
    Mutant("a secret is shown where it is printed", "sidecar/config/secret.py", "        return HIDDEN\n", "        return repr(self._value)\n", f"{CONFIG}::test_a_secret_of_the_environment_is_never_shown"),
    # the API: what a client may use up
    Mutant("a yes is sent whatever became of it", "sidecar/api/routes.py", "        if not self._holds():", "        if False:", "tests/api/test_served.py -k yes_of_before_a_freeze and GET"),
    Mutant("a body of no given length is read to its end", "sidecar/api/routes.py", "client_max_size=self._limits.body_max_bytes", "client_max_size=0", f"{SERVED}::test_a_body_of_no_given_length_is_read_up_to_the_limit"),
    Mutant("a packed body is unpacked", "sidecar/api/limits.py", "\"auto_decompress\": False", "\"auto_decompress\": True", f"{SERVED}::test_a_packed_body_is_not_unpacked"),
    Mutant("a late body keeps its place", "sidecar/api/routes.py", "        except TimeoutError:\n            self._slots.release()\n", "        except TimeoutError:\n", f"{SERVED}::test_a_body_that_was_not_taken_leaves_its_place_to_the_next"),
    Mutant("any number of commands at once", "sidecar/api/routes.py", "if not self._slots.acquire(blocking=False):", "if False:", f"{SERVED}::test_only_so_many_commands_at_once"),
    Mutant("idle connections keep everybody else out", "sidecar/api/door.py", "in tuple(self._quiet)[: max(0, excess)]:", "in tuple(self._quiet)[:0]:", f"{SERVED}::test_idle_connections_make_room_for_a_check"),
    Mutant("who is worked for is closed to make room", "sidecar/api/door.py", "        self._quiet.pop(connection, None)\n        self._busy.add(connection)\n", "", f"{SERVED}::test_a_reader_of_events_is_not_closed_to_make_room"),
    Mutant("a handshake that does not come is waited for", "sidecar/api/door.py", "None if context is None else self._limits.handshake_within_s", "None if context is None else 60.0", f"{SERVED}::test_a_handshake_that_does_not_come_is_given_up"),
    Mutant("any number of handshakes at once", "sidecar/api/door.py", "while len(self._entering) >= self._limits.handshakes_max:", "while False:", f"{SERVED}::test_handshakes_that_do_not_come_make_room_for_a_check"),
    Mutant("a head may take for ever", "sidecar/api/limits.py", "\"keepalive_timeout\": self.head_within_s", "\"keepalive_timeout\": 3_600.0", f"{SERVED}::test_a_head_that_does_not_end_is_cut_off"),
    Mutant("any number of headers", "sidecar/api/limits.py", "\"max_headers\": 64", "\"max_headers\": 64_000", f"{SERVED}::test_a_flood_of_headers_is_refused"),
    # the API: events, certificates, the thread
    Mutant("any number of readers", "sidecar/api/routes.py", "if feed.is_full or transport is None:", "if transport is None:", f"{SERVED}::test_only_so_many_readers_and_one_that_leaves_makes_room"),
    Mutant("a reader that takes nothing is kept", "sidecar/api/feed.py", "            self._drop()\n", "            pass\n", f"{SERVED}::test_a_reader_that_takes_nothing_is_dropped"),
    Mutant("a reader that comes back late is dropped at once", "sidecar/api/feed.py", "self._since(after)[-WAITING_MAX // 2 :]", "self._since(after)", f"{SERVED}::test_a_reader_that_comes_back_late_is_not_dropped_for_all_it_has_missed"),
    Mutant("events pile up where nobody looks", "sidecar/api/feed.py", "deque(maxlen=INCOMING_MAX)", "deque()", f"{SERVED}::test_events_pile_up_nowhere"),
    Mutant("a new certificate waits for the restart", "sidecar/api/tls.py", "        if stamp == self._seen:\n            return\n", "        return\n", f"{SERVED}::test_a_new_certificate_is_served_without_a_restart"),
    Mutant("an encrypted key asks the terminal", "sidecar/api/tls.py", ", password=_no_password)", ")", f"{SERVED}::test_an_encrypted_key_is_an_error_and_no_question"),
    # systemd
    Mutant("ready before the first turn", "sidecar/runtime/systemd.py", "            self._socket.setblocking(False)\n", "            self._socket.setblocking(False)\n            self._say([\"READY=1\"])\n", f"{SYSTEMD}::test_it_is_ready_with_the_first_turn_and_says_what_it_is", slice=True),
    Mutant("the watchdog of another process is ours", "sidecar/runtime/systemd.py", "watched = known and pid == str(os.getpid())", "watched = known", f"{SYSTEMD}::test_the_watchdogs_period_is_its_own"),
    Mutant("the loop sleeps through the watchdog's period", "sidecar/runtime/shell.py", "min(wake_at(self.node, now, self.policy), due_at)", "wake_at(self.node, now, self.policy)", f"{SYSTEMD}::test_the_loop_turns_in_time_for_a_short_watchdog"),
    Mutant("what was not heard is not said again", "sidecar/runtime/systemd.py", "        if not self._say(words):\n            return Instant(now + AGAIN_MS)\n", "        self._say(words)\n", f"{SYSTEMD}::test_a_manager_that_does_not_listen_stops_nobody"),
    Mutant("a stop has only the time it was given", "sidecar/runtime/systemd.py", "words += [\"STOPPING=1\", f\"EXTEND_TIMEOUT_USEC={STOPPING_US}\"]", "words += [\"STOPPING=1\"]", f"{SYSTEMD}::test_a_stop_is_told_and_time_asked_for_as_long_as_it_lasts"),
    Mutant("a reload never ends", "sidecar/runtime/systemd.py", "        self._told = None\n\n    def _say", "\n    def _say", f"{SYSTEMD}::test_a_reload_is_told_before_and_after"),
    Mutant("a hook may speak for the sidecar", "sidecar/runtime/systemd.py", "environ.pop(\"NOTIFY_SOCKET\", \"\")", "environ.get(\"NOTIFY_SOCKET\", \"\")", f"{SYSTEMD}::test_the_variables_are_for_nobody_else"),
    Mutant("an error text may speak for the sidecar", "sidecar/runtime/systemd.py", "' '.join(record.message.split())", "record.message", f"{SYSTEMD}::test_an_error_text_cannot_speak_for_the_sidecar"),
    # the line per change of role
    Mutant("of a lock that was left nothing is told", "sidecar/runtime/telling.py", "lease = _lease(new) or _lease(old)", "lease = _lease(new)", f"{TELLING}::test_leaving_tells_why_and_of_which_lock_how_much_was_left"),
    Mutant("leaving the lock is information", "sidecar/runtime/telling.py", "concerns = _lease(before.phase) or _lease(after.phase) or", "concerns = _lease(after.phase) or", f"{TELLING}::test_leaving_tells_why_and_of_which_lock_how_much_was_left"),
    # metrics
    Mutant("a restart in place counts as an acquisition", "sidecar/metrics/ledger.py", "frozenset((\"idle\", \"standing\"))", "frozenset((\"idle\", \"standing\", \"waiting\"))", f"{LEDGER}::test_taking_the_lock_is_counted_by_what_freed_it"),
    Mutant("a renewal of unknown outcome counts as lost", "sidecar/metrics/ledger.py", "\"outcome_unknown\": \"unknown\"", "\"outcome_unknown\": \"lost\"", f"{LEDGER}::test_a_renewal_is_counted_by_its_outcome_with_its_time"),
    Mutant("the alarm of an overlap never ends", "sidecar/metrics/ledger.py", "self.overlapping = self._overlaps.look(view)", "self.overlapping = max(self.overlapping, self._overlaps.look(view))", f"{LEDGER}::test_an_overlap_is_shown_as_long_as_it_lasts"),
    Mutant("a record that is left behind is an overlap", "sidecar/metrics/overlap.py", "known.times + again)", "known.times + 1)", f"{LEDGER}::test_what_a_change_of_active_looks_like_is_no_overlap"),
    Mutant("the lease stands still with the loop", "sidecar/metrics/gauges.py", "yield from _standing(record, lease, now)", "yield from _standing(record, lease, turn.at)", f"{LEDGER}::test_the_role_ends_with_the_lease_though_the_loop_does_not_turn"),
    Mutant("who tells a metric counts it", "sidecar/metrics/metrics.py", "self._lane.put(lambda: self._ledger.take(fact))", "self._ledger.take(fact)", f"{LEDGER}::test_a_fact_that_cannot_be_counted_costs_nobody_anything_else"),
    Mutant("a scrape waits for the counting", "sidecar/metrics/metrics.py", "counted.wait(self._flush_within_s)", "counted.wait()", f"{LEDGER}::test_a_scrape_does_not_wait_for_who_counts"),
    # the doctor
    Mutant("trying the rights writes the settings", "sidecar/doctor/store.py", "expected=NO_VERSION, deadline", "expected=0, deadline", f"{DOCTOR}::test_a_machine_that_is_well_has_no_error_and_is_as_it_was"),
    Mutant("a secret that everybody may read is well kept", "sidecar/doctor/files.py", "stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP", "stat.S_IWOTH | stat.S_IWGRP", f"{DOCTOR}::test_secrets_are_their_owners_alone"),
    Mutant("a check that hangs holds up the others", "sidecar/doctor/examine.py", "self._thread.join(left_s(self._until, clock))", "self._thread.join()", f"{DOCTOR}::test_a_check_that_hangs_or_breaks_is_a_finding"),
    # hooks
    Mutant("any exit status of a hook is good", "sidecar/hooks/errand.py", "return self.status == 0", "return self.status is not None", f"{HOOKS}::test_how_a_hook_ended_is_told"),
    Mutant("a hook that leaves its session gets away", "sidecar/hooks/keeper.py", "    kernel.set_child_subreaper()\n", "", f"{HOOKS}::test_at_its_time_limit_the_whole_tree_is_killed"),
    Mutant("a sidecar that does not read holds up the time limit", "sidecar/hooks/keeper.py", "    control.setblocking(False)\n", "", f"{HOOKS}::test_a_sidecar_that_does_not_read_does_not_move_the_time_limit"),
    Mutant("the hook of a keeper that hangs runs on", "sidecar/hooks/errand.py", "            tree.signal_descendants(keeper.pid, signal.SIGKILL)", "            pass", f"{HOOKS}::test_bug_the_hook_of_a_keeper_that_does_not_answer_ran_on"),
    Mutant("a line of a hook has any length", "sidecar/hooks/keeper.py", "cut(self.rest, data, LINE_BYTES)", "cut(self.rest, data, 1 << 20)", f"{HOOKS}::test_a_long_line_is_cut_into_several"),
    Mutant("a hook has the environment of the sidecar", "sidecar/hooks/errand.py", "env=self._environment", "env=None", f"{HOOKS}::test_a_hook_sees_its_role_and_nothing_of_our_own"),
    Mutant("the deciding thread waits for a hook", "sidecar/runtime/hooks.py", "self._lane.put(lambda: self._announce(state))", "self._announce(state)", f"{HOOKS}::test_one_that_was_overtaken_is_not_begun"),
    Mutant("what waits beside is begun after one of the server lane", "sidecar/runtime/hooks.py", "        self._overtaken = self._told\n", "", f"{HOOKS}::test_what_waits_beside_is_not_begun_after_one_of_the_server_lane"),
    Mutant("doctor: a guard of another version is well", "sidecar/doctor/machine.py", "    elif found.version == __version__:", "    elif found:", f"{DOCTOR}::test_bug_nothing_said_that_the_guard_was_of_the_version_before"),
    Mutant("doctor: a node that cannot be read is not there", "sidecar/doctor/store.py", "if not others and not words.unread(view):", "if not others:", f"{DOCTOR}::test_bug_a_node_of_a_newer_version_was_said_not_to_be_there"),
    Mutant("doctor: what a store says of itself is left out", "sidecar/doctor/store.py", "in info.advice:", "in ():", "tests/cli/test_doctor.py::test_what_a_store_says_of_itself_is_a_warning"),
)  # fmt: skip
