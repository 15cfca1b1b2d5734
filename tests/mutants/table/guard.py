"""The guard, its keeper, and the sidecar's end of their socket: deadline, whole tree, proof, adoption."""

# ruff: noqa: E501 - one mutant, one line

from tests.mutants.mutant import Mutant

DEATH, ORDERS = "tests/system/test_guard.py", "tests/system/test_guard_orders.py"
UPGRADE = "tests/system/test_upgrade.py"
INSTANTS = f"{ORDERS}::test_the_instants_of_a_run"
PROVES = f"{ORDERS}::test_what_the_record_proves"

MUTANTS = (
    # the arithmetic of the deadline
    Mutant("the kernel kills at the deadline itself", "sidecar/guard/terms.py", "self.deadline_ms - (self.kill_margin_ms + 1) // 2", "self.deadline_ms", INSTANTS, slice=True),
    Mutant("the kernel's instant is rounded up", "sidecar/guard/terms.py", "(self.kill_margin_ms + 1) // 2", "self.kill_margin_ms // 2", INSTANTS),
    Mutant("the guard kills at the deadline itself", "sidecar/guard/terms.py", "return self.deadline_ms - self.kill_margin_ms", "return self.deadline_ms", INSTANTS),
    Mutant("an extension shortens", "sidecar/guard/terms.py", "max(self.deadline_ms, deadline_ms)", "deadline_ms", INSTANTS),
    Mutant("a later stop puts the kill off", "sidecar/guard/terms.py", "if self.stop_at_ms is None or kill_at_ms < self.stop_at_ms:", "if True:", INSTANTS),
    Mutant("a stop puts the kill off beyond the deadline", "sidecar/guard/terms.py", "min(self.stop_at_ms, self.deadline_kill_ms)", "self.stop_at_ms", INSTANTS),
    Mutant("at the instant of the kill it is not too late", "sidecar/guard/terms.py", "now_ms >= self.kill_ms", "now_ms > self.kill_ms", INSTANTS),
    # a stdout of the server's own
    Mutant("the guard keeps a stdout that came with a start", "sidecar/guard/daemon.py", "            wire.close_all(run.outlets)\n        except", "        except", f"{ORDERS} -k test_a_server_may_give_its_stdout_up and kernel"),
    Mutant("the guard keeps a stdout of a start that failed", "sidecar/guard/daemon.py", "        wire.close_all(self.run.outlets)\n        self.run = None", "        self.run = None", f"{ORDERS} -k when_the_record_cannot_be_written and kernel"),
    Mutant("the guard keeps descriptors that nobody asked for", "sidecar/guard/daemon.py", "            self.door.drop_given()", "            pass", f"{ORDERS} -k test_descriptors_that_nobody_asked_for_are_closed and kernel"),
    Mutant("a start goes without the stdout that did not come", "sidecar/guard/orders.py", "if len(guard.door.given) != 2:", "if False:", f"{ORDERS} -k test_what_a_start_brought_is_given_back_when_it_fails and kernel"),
    # who enforces it
    Mutant("the kernel's timer is not armed at the start", "sidecar/guard/daemon.py", "        self.death_timer.arm(run.terms.kernel_ms)\n        cage", "        cage", f"{DEATH} -k test_a_stopped_guard_does_not_save_its_server and kernel-root and guard"),
    Mutant("the kernel's timer stays at the first deadline", "sidecar/guard/daemon.py", "{error}\")\n        self._arm(run, cage)\n", "{error}\")\n", f"{ORDERS} -k test_an_extension_keeps_it_alive and kernel"),
    Mutant("the kernel's timer counts on another clock", "sidecar/guard/kernel.py", "rt.timer_create(_CLOCK_BOOTTIME,", "rt.timer_create(1,", f"{DEATH} -k boottime_and_on_no_other_clock and root"),
    Mutant("the kernel's timer counts from now", "sidecar/guard/kernel.py", "self._settime(self._timer, _TIMER_ABSTIME,", "self._settime(self._timer, 0,", f"{DEATH} -k test_a_stopped_guard_does_not_save_its_server and kernel-root and guard"),
    Mutant("the guard leaves the kill to the kernel", "sidecar/guard/daemon.py", "            self.kill(run, run.terms.reason())\n", "            pass\n", f"{DEATH} -k test_at_the_deadline_all_of_it_dies and kernel-root"),
    Mutant("the guard sleeps over the kill", "sidecar/guard/daemon.py", "at.append(self.run.terms.kill_ms)", "at.append(self.run.terms.deadline_ms)", f"{DEATH} -k test_at_the_deadline_all_of_it_dies and kernel-root"),
    Mutant("a late start starts", "sidecar/guard/daemon.py", "            if run.terms.too_late(kernel.now_ms()):\n                raise Refused(\"too late: its deadline has come\")\n            cage.go", "            cage.go", f"{ORDERS} -k test_a_guard_delayed_between_order_and_go and kernel"),
    Mutant("a late extension is accepted", "sidecar/guard/orders.py", "if run.killed_by or run.terms.too_late(kernel.now_ms()):", "if run.killed_by:", f"{ORDERS} -k test_an_extension_read_too_late and kernel"),
    Mutant("a second server beside the first", "sidecar/guard/orders.py", "    if guard.run:\n        raise Refused(f\"run {guard.run.id!r} is not over\")\n", "", f"{ORDERS}::test_a_second_client_cannot_start_beside_the_first"),
    Mutant("an order for another run is carried out", "sidecar/guard/orders.py", "if guard.run is None or guard.run.id != wire.text(frame, \"run\"):", "if guard.run is None:", f"{ORDERS} -k test_orders_for_another_run and kernel"),
    # the whole tree
    Mutant("the keeper outlives its guard", "sidecar/guard/keeper.py", "            kernel.set_parent_death_signal(signal.SIGKILL)\n            if self.namespaces", "            if self.namespaces", f"{DEATH} -k test_a_stopped_guard_does_not_save_its_server and kernel-root and everything"),
    Mutant("without a namespace a keeper does not hear of its guard's death", "sidecar/guard/keeper.py", "                self.orphaned = True\n                self._kill()", "                self.orphaned = True", f"{DEATH} -k test_the_server_dies_with_a_killed_guard and process-root"),
    Mutant("a stopped keeper is not woken by its guard's death", "sidecar/guard/keeper.py", "kernel.set_parent_death_signal(signal.SIGCONT)", "pass", f"{DEATH} -k test_a_stopped_guard_does_not_save_its_server and process-root and everything"),
    Mutant("strays of a killed keeper live on", "sidecar/guard/daemon.py", "if not cage.in_namespace and code != 0:", "if False:", f"{DEATH} -k test_the_server_dies_with_a_killed_keeper and process-root"),
    Mutant("an escaped daemon is not below the keeper", "sidecar/guard/keeper.py", "            kernel.set_child_subreaper()\n", "", f"{DEATH} -k test_at_the_deadline_all_of_it_dies and process-user"),
    Mutant("half a server lives on", "sidecar/guard/keeper.py", "if code != 0 and not self.stopping:", "if False:", f"{DEATH} -k test_half_a_server_is_killed and kernel-root"),
    Mutant("the end of the launcher is the end of the server", "sidecar/guard/keeper.py", "                self._tell({\"exit\": code})\n", "                self._tell({\"exit\": code})\n                os._exit(0)\n", f"{DEATH} -k test_a_launcher_may_leave_its_server_behind and kernel-root"),
    Mutant("a failed stop command is not followed by the signal", "sidecar/guard/keeper.py", "elif pid == self.stop_command and code != 0:", "elif False:", f"{ORDERS} -k test_a_stop_command_that_fails and kernel"),
    Mutant("the server keeps root's groups", "sidecar/guard/setup.py", "os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))", "pass", f"{ORDERS} -k test_the_server_alone_becomes_the_other_user and kernel"),
    Mutant("who has left the first group is not asked to stop", "sidecar/guard/keeper.py", "if self.rest_to_signal and not _is_group(self.root):", "if False:", f"{DEATH} -k test_bug_a_server_in_a_session_of_its_own and kernel-root"),
    Mutant("a group that says goodbye is asked again", "sidecar/guard/keeper.py", "if self.rest_to_signal and not _is_group(self.root):", "if self.rest_to_signal and self.root_status is not None:", f"{DEATH} -k test_bug_a_server_in_a_session_of_its_own and kernel-root"),
    # proof of death
    Mutant("any process with the keeper's pid is the keeper", "sidecar/guard/proof.py", "same = kernel.start_time(pid) == found.get(\"keeper_start\")", "same = True", PROVES, slice=True),
    Mutant("a record of an earlier boot holds a start up", "sidecar/guard/proof.py", "if found.get(\"boot_id\") != record.boot_id():", "if False:", PROVES),
    Mutant("a server of another container is taken for dead at once", "sidecar/guard/proof.py", "return isinstance(at, int) and _wait_until(Instant(at), deadline, clock)", "return True", PROVES),
    Mutant("a living keeper is proof of death", "sidecar/guard/proof.py", "            if not readable(pidfd, int(left_s(deadline, clock) * 1000)):\n                return False\n", "            readable(pidfd, 0)\n", PROVES),
    Mutant("a guard starts beside a server that may live", "sidecar/guard/connect.py", "if not proof.wait_for_orphans(spawn.run_dir, deadline, clock):", "if False:", f"{ORDERS}::test_no_guard_is_started_beside_a_server_that_may_live"),
    Mutant("an unreadable record is none", "sidecar/guard/proof.py", "raise GuardError(f\"{run_dir / record.NAME}: {error}\") from error", "return None", f"{ORDERS}::test_a_record_that_cannot_be_read_proves_nothing"),
    Mutant("a record without its boot is proof", "sidecar/guard/record.py", "(\"boot_id\", \"pid_namespace\", \"token\")", "(\"token\",)", "tests/system/test_guard_garbage.py::test_a_record_with_a_field_that_cannot_be_proves_nothing"),
    Mutant("a server starts without a record of it", "sidecar/guard/daemon.py", "        try:\n            self.write_record(run, cage)\n            self._arm", "        try:\n            self._arm", f"{ORDERS} -k test_a_record_that_cannot_be_written and kernel"),
    Mutant("without a namespace the keeper's death is proof", "sidecar/guard/follower.py", "if run.enforcement == \"kernel\" or self._nothing_left(run):", "if True:", f"{DEATH} -k test_guard_and_keeper_killed_at_once and process-user"),
    Mutant("strays are not looked for", "sidecar/guard/proof.py", "    for pid in strays:\n        tree.send(pid, signal.SIGKILL)\n    return not strays", "    return strays is not None", f"{DEATH} -k test_guard_and_keeper_killed_at_once and process-user"),
    Mutant("the guard's word is proof", "sidecar/guard/follower.py", "        if run.pidfd is None:\n            self._over(end)", "        self._over(end)", "tests/runtime/test_guard_client.py::test_the_word_of_the_guard_is_no_proof_while_the_keeper_lives"),
    Mutant("a keeper fails at a guard that died with a word unread", "sidecar/guard/keeper.py", "        data = wire.taken(lambda: self.control.recv(wire.FRAME_MAX))\n        match", "        data = self.control.recv(wire.FRAME_MAX)\n        match", f"{DEATH} -k test_bug_a_tree_outlived_its_stopped_guard and process-root"),
    Mutant("a keeper that fails leaves its tree to a dead guard", "sidecar/guard/keeper.py", "        if not namespaces:  # else our death ends all\n", "        if False:\n", f"{ORDERS}::test_a_keeper_that_fails_leaves_nothing_to_a_guard_that_may_be_dead"),
    Mutant("the last words of a keeper are lost", "sidecar/guard/cage.py", "            data, rest, _flags, _address = wire.taken(\n                lambda: self.control.recvmsg(4096 + 64, socket.CMSG_SPACE(12))\n            )\n        except BlockingIOError:\n            return None\n", "            data, rest, _flags, _address = self.control.recvmsg(4096 + 64, socket.CMSG_SPACE(12))\n        except BlockingIOError:\n            return None\n        except ConnectionResetError:\n            return \"end\"\n", f"{ORDERS}::test_bug_the_last_words_of_a_keeper_that_left_orders_unread_were_lost"),
    Mutant("the last words of a guard are lost", "sidecar/guard/connect.py", "wire.taken(lambda: sock.recvmsg(wire.FRAME_MAX, space, flags))", "sock.recvmsg(wire.FRAME_MAX, space, flags)", f"{ORDERS}::test_bug_the_last_words_of_a_guard_that_left_orders_unread_were_lost"),
    Mutant("the last orders of a client that leaves are lost", "sidecar/guard/door.py", "wire.taken(\n                lambda: link.sock.recvmsg_into([self._buffer], space, flags)\n            )", "link.sock.recvmsg_into([self._buffer], space, flags)", f"{ORDERS} -k test_bug_the_last_orders_of_a_client and kernel"),
    Mutant("a server that has never been counts as started", "sidecar/guard/cage.py", "case {\"started\": _} if self.root_pid is None:", "case {\"started\": _} if False:", f"{ORDERS} -k test_bug_a_server_that_died_before_its_command and kernel"),
    Mutant("a start that fails before the command gives no reason", "sidecar/guard/keeper.py", "            os.write(result, f\"before the command: {error.strerror or error}\".encode())\n        finally", "            pass\n        finally", f"{ORDERS}::test_a_start_that_fails_before_the_command_says_why"),
    Mutant("the keeper does not know the deadline", "sidecar/guard/keeper.py", "        self.end_timer.arm(self.ends_at.read())\n", "", f"{DEATH} -k test_bug_a_server_outlived_a_guard_that_sigkill and kernel-root"),
    Mutant("the keeper is not told of extensions", "sidecar/guard/daemon.py", "cage.ends_at.write(run.terms.kernel_ms)", "cage.ends_at.write(cage.ends_at.read() or run.terms.kernel_ms)", f"{DEATH} -k test_bug_a_server_outlived_a_guard_that_sigkill and kernel-root"),
    Mutant("a keeper starts what its dead guard had ordered", "sidecar/guard/keeper.py", "        if kernel.now_ms() >= self.ends_at.read():\n            self._leave()", "        if False:\n            self._leave()", f"{ORDERS} -k test_a_keeper_starts_nothing_at_its_deadline"),
    Mutant("a record that was removed is proof", "sidecar/guard/follower.py", "proof.read_record(self._spawn.run_dir) or run.traces", "proof.read_record(self._spawn.run_dir)", f"{DEATH} -k test_bug_without_its_record and process-user"),
    Mutant("a child of a dead keeper goes on", "sidecar/guard/keeper.py", "        if os.getppid() != self.pid:\n            os._exit(127)\n", "", f"{ORDERS}::test_a_child_of_a_keeper_that_is_dead_already_ends"),
    Mutant("a stop command that cannot be forked fails the keeper", "sidecar/guard/keeper.py", "        except OSError:  # no room for one more process\n            self._signal()\n            return\n", "        except OSError:\n            raise\n", f"{ORDERS}::test_bug_a_stop_command_that_could_not_be_forked_killed_at_once"),
    Mutant("a keeper that fails writes its log first", "sidecar/guard/keeper.py", "        if not namespaces:  # else our death ends all\n            _kill_all(cgroup)\n        traceback.print_exc()  # last", "        traceback.print_exc()\n        if not namespaces:\n            _kill_all(cgroup)\n        # last", f"{ORDERS} -k test_a_keeper_that_fails_leaves_nothing and full"),
    Mutant("a keeper that fails tries once", "sidecar/guard/keeper.py", "        with contextlib.suppress(Exception):  # again in a moment\n", "        if True:\n", f"{ORDERS} -k test_a_keeper_that_fails_leaves_nothing and moment"),
    Mutant("a log that cannot be written ends the guard", "sidecar/guard/daemon.py", "    with contextlib.suppress(OSError):\n        print(f\"guard: {text}\"", "    if True:\n        print(f\"guard: {text}\"", f"{ORDERS} -k test_bug_a_full_disk_with_the_log and kernel"),
    Mutant("a kill fails at a reaped keeper", "sidecar/guard/cage.py", "        if self.pidfd < 0:\n            return\n", "", f"{ORDERS}::test_bug_a_guard_failed_at_a_kill_after_its_keeper_was_reaped"),
    Mutant("a thread is the keeper", "sidecar/guard/proof.py", "(errno.ESRCH, errno.EINVAL, errno.ENOENT)", "(errno.ESRCH,)", f"{ORDERS}::test_bug_a_thread_with_the_number_of_a_dead_keeper_kept_the_node_out"),
    Mutant("the hook of a killed keeper runs on", "sidecar/hooks/errand.py", "            for pid in tree.marked(self._token):  # where it was killed, they are below it no more\n                tree.send(pid, signal.SIGKILL)\n", "", "tests/runtime/test_hooks.py::test_bug_the_hook_of_a_killed_keeper_ran_on"),
    # who is heard
    Mutant("the guard hears a client of another protocol", "sidecar/guard/daemon.py", "if wire.whole(frame, \"protocol\") != wire.PROTOCOL:", "if False:", f"{ORDERS}::test_what_is_no_order_ends_the_connection_and_nothing_else"),
    Mutant("the client takes on a guard of another protocol", "sidecar/guard/connect.py", "if protocol != wire.PROTOCOL:", "if False:", "tests/runtime/test_guard_client.py::test_a_guard_of_another_protocol_is_left_alone"),
    Mutant("an active server of another version is killed", "sidecar/guard/connect.py", "signal.SIGKILL if standby else signal.SIGTERM", "signal.SIGKILL", "tests/system/test_upgrade.py::test_a_strange_guard_keeps_its_active_server_and_leaves_with_it"),
    Mutant("a standby of another version stays for ever", "sidecar/guard/connect.py", "signal.SIGKILL if standby else signal.SIGTERM", "signal.SIGTERM", "tests/system/test_upgrade.py::test_a_strange_guard_is_ended_with_its_standby"),
    Mutant("an idle guard of another version stays for ever", "sidecar/guard/connect.py", "        return ours and enforcement in", "        return enforcement in", f"{UPGRADE}::test_bug_an_idle_guard_went_on_for_ever_after_an_upgrade"),
    Mutant("a standby's guard of another version stays for ever", "sidecar/guard/connect.py", "return ours or run.role != \"standby\"", "return True", f"{UPGRADE}::test_bug_the_guard_of_a_standby_went_on_for_ever_after_an_upgrade"),
    Mutant("an active's guard of another version is ended", "sidecar/guard/connect.py", "return ours or run.role != \"standby\"", "return ours", f"{UPGRADE}::test_the_guard_of_an_active_is_kept_whatever_version_it_is_of"),
    Mutant("an upgrade is tried that cannot take the active server over", "sidecar/guard/compatible.py", "found.role != \"active\" or found.protocol == wire.PROTOCOL:", "True:", f"{UPGRADE}::test_an_upgrade_is_told_before_that_an_active_server_cannot_be_taken_over"),
    Mutant("a guard that does not say its version is of this one", "sidecar/guard/connect.py", "state.get(\"version\") == __version__", "state.get(\"version\") in (None, __version__)", f"{UPGRADE}::test_a_guard_that_does_not_say_its_version_is_of_another"),
    Mutant("the guard hears another user", "sidecar/guard/door.py", "if wire.peer(sock)[1] != os.geteuid():", "if False:", f"{ORDERS} -k test_another_user_is_not_heard and kernel"),
    Mutant("the client obeys a guard of another user", "sidecar/guard/connect.py", "if uid != os.geteuid():", "if False:", "tests/runtime/test_guard_client.py::test_a_guard_of_another_user_is_refused"),
    Mutant("who is not in control gives orders", "sidecar/guard/daemon.py", "if link is not self.door.controller:", "if False:", f"{ORDERS}::test_what_is_no_order_ends_the_connection_and_nothing_else"),
    Mutant("the guard before stays in control", "sidecar/guard/door.py", "        self.controller = link\n", "        self.controller = self.controller or link\n", f"{ORDERS} -k test_a_new_client_takes_over and kernel"),
    Mutant("two guards in one run directory", "sidecar/guard/boot.py", "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", "tests/runtime/test_guard_client.py::test_one_guard_at_a_time"),
    Mutant("a guard that hangs is waited for", "sidecar/guard/connect.py", "signal.pidfd_send_signal(pidfd, signal.SIGKILL)", "pass", f"{ORDERS} -k test_a_guard_that_does_not_answer_is_replaced and kernel"),
    # adoption
    Mutant("the deadline found with a server is not its own", "sidecar/guard/told.py", "deadline_at=Instant(wire.whole(frame, \"deadline_ms\"))", "deadline_at=Instant(wire.whole(frame, \"started_at_ms\"))", f"{DEATH} -k test_a_new_sidecar_finds_the_server and kernel-root"),
    Mutant("the note found with a server is lost", "sidecar/guard/orders.py", "    if \"note\" in frame:\n        run.note = note\n", "", f"{ORDERS} -k test_notes_and_the_end_are_kept and kernel"),
    Mutant("the end of a server is forgotten before anybody knows it", "sidecar/guard/daemon.py", "self.finished = {**frame, \"run\": self.run.id}", "self.finished = None", f"{ORDERS} -k test_notes_and_the_end_are_kept and kernel"),
    Mutant("a guard told to leave leaves its server", "sidecar/guard/daemon.py", "while not (self.leaving and self.run is None):", "while not self.leaving:", f"{ORDERS} -k test_a_guard_told_to_leave_waits and kernel"),
    Mutant("an extension that waits is overwritten by an earlier one", "sidecar/guard/follower.py", "later = max(wire.whole(frame, \"deadline_ms\"), wire.whole(last, \"deadline_ms\"))", "later = wire.whole(last, \"deadline_ms\")", f"{ORDERS} -k test_the_newest_extension_survives and kernel"),
    Mutant("an idle keeper leaves its cgroup behind", "sidecar/guard/keeper.py", "            self._leave()  # the guard", "            os._exit(0)  # the guard", f"{DEATH}::test_bug_every_guard_left_a_cgroup_behind"),
    Mutant("the keeper of a killed guard leaves its cgroup behind", "sidecar/guard/keeper.py", "        if self.cgroup:\n            self.cgroup.remove()\n        os._exit(0)\n\n    def _leave", "        os._exit(0)\n\n    def _leave", f"{DEATH}::test_bug_every_guard_left_a_cgroup_behind"),
)  # fmt: skip
