"""Server kinds and probes: the role in ``server.xml``, what is ready, and what has activated itself."""

# ruff: noqa: E501 - one mutant, one line

from tests.mutants.mutant import Mutant

ERRORS, XML, KINDS, PROBES = (
    "tests/core/test_config_errors.py",
    "tests/core/test_serverxml.py",
    "tests/system/test_server_kinds.py",
    "tests/system/test_server_kinds_probes.py",
)

MUTANTS = (
    # server.xml
    Mutant("a standby is started as master", "sidecar/servers/serverxml.py", "\"standby\": \"2\"", "\"standby\": \"1\"", f"{XML}::test_a_role_changes_two_values_and_no_other_byte", slice=True),
    Mutant("an active is started as failover node", "sidecar/servers/serverxml.py", "\"active\": \"1\"", "\"active\": \"2\"", f"{XML}::test_a_role_changes_two_values_and_no_other_byte"),
    Mutant("the native detection is left as it was", "sidecar/servers/serverxml.py", "        \"clusterFailureDetectionTime\": str(DETECTION_MS),\n", "", f"{XML}::test_a_role_changes_two_values_and_no_other_byte"),
    Mutant("a key that is there twice is set once", "sidecar/servers/document.py", "for element in found if element.text != value]", "for element in found[:1] if element.text != value]", f"{XML}::test_any_file_gets_the_role_and_keeps_the_rest"),
    Mutant("a missing key stays missing", "sidecar/servers/document.py", "            if not found:\n", "            if False:\n", f"{XML}::test_any_file_gets_the_role_and_keeps_the_rest"),
    Mutant("a torn file is given up", "sidecar/servers/serverxml.py", "        return Document(_read(_beside(target, BACKUP))), f\"damaged ({torn})\"", "        raise BadXml(torn)", f"{XML}::test_every_prefix_is_repaired_from_the_backup"),
    Mutant("a file that somebody wrote so is repaired", "sidecar/servers/serverxml.py", "    except Foreign as error:\n        raise ConfigError(f\"{path}: {error}\") from error\n", "", f"{XML}::test_bug_a_sound_file_was_taken_for_torn_and_replaced_by_its_backup"),
    Mutant("a torn file is not kept", "sidecar/servers/serverxml.py", "            _replace(target, target, _read(target), suffix=TORN)\n", "", f"{XML}::test_every_prefix_is_repaired_from_the_backup"),
    Mutant("the backup stays as it once was", "sidecar/servers/serverxml.py", "if backup.with_values(wanted) == document.with_values(wanted):", "if True:", f"{XML}::test_the_backup_follows_what_the_operator_and_the_server_change"),
    Mutant("the first file is overwritten", "sidecar/servers/serverxml.py", "if not _beside(target, ORIGINAL).exists():", "if True:", f"{XML}::test_the_first_file_is_kept_for_ever"),
    Mutant("the file is written in place", "sidecar/servers/serverxml.py", "        new.replace(target)\n", "        target.write_bytes(b\"\")\n        target.write_bytes(new.read_bytes())\n        new.unlink()\n", f"{XML}::test_a_write_is_whole_or_not_at_all"),
    Mutant("the file is not on the disk when it gets its name", "sidecar/servers/serverxml.py", "            os.fsync(fd)\n        new", "        new", f"{XML}::test_a_write_is_whole_or_not_at_all"),
    Mutant("the file's mode is our own", "sidecar/servers/serverxml.py", "    os.fchmod(fd, stat.S_IMODE(was.st_mode))\n", "", f"{XML}::test_mode_and_owner_stay"),
    Mutant("copies keep the mode that the file had once", "sidecar/servers/serverxml.py", "        _follow(target, _beside(target, suffix))\n", "        pass\n", f"{XML}::test_bug_copies_kept_the_mode_that_the_file_had_once"),
    Mutant("any file by a copy's name is given to the server", "sidecar/servers/serverxml.py", "if ours and _access", "if _access", f"{XML}::test_no_file_of_somebody_else_is_given_to_the_server"),
    Mutant("a link by a copy's name is followed", "sidecar/servers/serverxml.py", "os.O_NONBLOCK | os.O_NOFOLLOW)", "os.O_NONBLOCK)", f"{XML}::test_no_file_of_somebody_else_is_given_to_the_server"),
    Mutant("a link is replaced by a file", "sidecar/servers/serverxml.py", "target = Path(os.path.realpath(path))  # a link stays a link", "target = path", f"{XML}::test_a_link_stays_a_link"),
    Mutant("a DOCTYPE is read", "sidecar/servers/document.py", "raise Foreign(\"a DOCTYPE is not allowed: take it out\")", "return", f"{XML}::test_a_doctype_is_refused"),
    Mutant("a server is asked at the ports that the file names now", "sidecar/servers/aggregate.py", "found = serverxml.read_started(self._file)\n        ports", "found = serverxml.read(self._file)\n        ports", f"{KINDS}::test_a_server_is_asked_where_it_was_when_it_was_prepared"),
    Mutant("a standby is looked for at the port that the file names now", "sidecar/servers/aggregate.py", "found = serverxml.read_started(self._file)\n        return", "found = serverxml.read(self._file)\n        return", f"{KINDS}::test_a_server_is_asked_where_it_was_when_it_was_prepared"),
    Mutant("a server is asked at the ports of the sidecar's start", "sidecar/runtime/main.py", "            watching=self._watched,\n", "            watching=lambda watching=self._watched(): watching,\n", "tests/system/test_nodes.py::test_bug_a_port_that_was_changed_between_two_starts_was_not_asked"),
    Mutant("what is wrong with the next start ends the server", "sidecar/runtime/main.py", "            if found is None:\n                raise\n", "            if True:\n                raise\n", "tests/system/test_nodes.py::test_bug_an_edit_of_server_xml_ended_the_server_at_the_next_start_of_the_sidecar"),
    Mutant("an embedded database is let pass", "sidecar/servers/aggregate.py", "            settings.refuse_embedded(found)\n", "            pass\n", f"{KINDS}::test_an_embedded_database_is_refused_unless_told_otherwise"),
    # the command
    Mutant("a server reads another file than gets the role", "sidecar/config/launcher.py", "if not files and _path(home, config_file) != _path(home, USUAL):", "if False:", f"{ERRORS}::test_bug_the_role_was_written_into_a_file_that_the_server_does_not_read"),
    Mutant("a server is told of another file than gets the role", "sidecar/config/launcher.py", "if _path(home, file) != _path(home, config_file):", "if False:", f"{ERRORS}::test_bug_the_role_was_written_into_a_file_that_the_server_does_not_read"),
    Mutant("a server is told of another home than gets the role", "sidecar/config/launcher.py", "if _path(home, folder) != _path(home, \"\"):", "if False:", f"{ERRORS}::test_bug_the_role_was_written_into_a_file_that_the_server_does_not_read"),
    Mutant("an option of a wrapper is the server's", "sidecar/config/launcher.py", "yield from words[(known[0] if known else 0) + 1 :]", "yield from words[1:]", f"{ERRORS}::test_a_command_that_reads_the_same_file_is_good"),
    Mutant("the server's file is looked for in words of the shell", "sidecar/config/launcher.py", "if last != \"-c\":", "if True:", f"{ERRORS}::test_bug_the_role_was_written_into_a_file_that_the_server_does_not_read"),
    # the kind aggregate
    Mutant("a server is looked for at loopback alone", "sidecar/servers/aggregate.py", "    return LOOPBACK, server_ip\n", "    return (LOOPBACK,)\n", f"{KINDS}::test_bug_a_server_at_another_address_of_loopback_was_not_found"),
    Mutant("a name is taken for an address", "sidecar/servers/settings.py", "            return str(ipaddress.ip_address(text)) if text else \"\"\n", "            return text\n", f"{XML}::test_bug_a_server_at_the_address_of_a_name_was_not_looked_for_there"),
    Mutant("a web port that is off has to be open", "sidecar/servers/settings.py", "if reader.text(key, str(default)) not in OFF:", "if True:", f"{XML}::test_bug_no_server_could_have_its_web_or_heartbeat_port_off"),
    Mutant("a server starts where one runs already", "sidecar/servers/aggregate.py", "        self._refuse_processes(ours)\n        edit", "        edit", f"{KINDS}::test_a_server_that_runs_already_is_refused_and_ours_is_not"),
    Mutant("a server of our own is a stranger", "sidecar/servers/aggregate.py", "rivals.processes(self._home, ours)", "rivals.processes(self._home, ())", f"{KINDS}::test_a_server_that_runs_already_is_refused_and_ours_is_not"),
    Mutant("a server starts on a port in use", "sidecar/servers/aggregate.py", "        self._refuse_busy(found)\n        return", "        return", f"{KINDS}::test_a_port_in_use_is_refused"),
    Mutant("a stopped standby keeps the active's role", "sidecar/servers/aggregate.py", "        edit = serverxml.set_role(self._file, role)\n        if role == \"standby\" and self.standby == \"stopped\":\n            return None\n", "        if role == \"standby\" and self.standby == \"stopped\":\n            return None\n        edit = serverxml.set_role(self._file, role)\n", f"{KINDS}::test_a_stopped_standby_gets_its_role_all_the_same"),
    Mutant("a standby outlives its own detection", "sidecar/servers/aggregate.py", "STANDBY_LIFETIME_MS = 20 * 3600 * 1000", "STANDBY_LIFETIME_MS = 25 * 3600 * 1000", f"{KINDS}::test_a_standby_monitors_and_would_detect_after_the_guard_has_ended_it"),
    Mutant("ready looks at the client port alone", "sidecar/servers/aggregate.py", "ports = tuple(found.serving_ports.values())", "ports = (found.client_port,)", f"{KINDS}::test_ready_means_both_ports"),
    Mutant("a standby that activated itself is looked for at the wrong port", "sidecar/servers/aggregate.py", "TcpProbe((found.client_port,), _hosts", "TcpProbe((found.client_port + 1,), _hosts", f"{KINDS}::test_a_standby_that_activates_itself_is_noticed"),
    Mutant("a standby that activated itself is not seen while it stands still", "sidecar/servers/aggregate.py", "TcpProbe((found.client_port,), _hosts(found.server_ip), accepting=False,", "TcpProbe((found.client_port,), _hosts(found.server_ip),", f"{KINDS}::test_a_standby_that_has_activated_itself_is_noticed_also_while_it_stands_still"),
    Mutant("a unit that starts a server at boot is let pass", "sidecar/servers/aggregate.py", "        self._refuse_rivals(boot.services(self._home, self._root), \"would start a server at boot\")\n", "", f"{KINDS}::test_an_enabled_unit_is_refused_with_what_to_do"),
    Mutant("a JVM that names the home by another path is let pass", "sidecar/servers/rivals.py", " or any(map(place.named_in, argv))", "", f"{KINDS}::test_bug_a_jvm_that_names_the_home_by_a_link_was_not_seen"),
    Mutant("a link to the home is another home", "sidecar/servers/place.py", "real = Path(os.path.realpath(Path(cwd or \"/\") / path))", "real = Path(cwd or \"/\") / path", f"{KINDS}::test_bug_a_jvm_that_names_the_home_by_a_link_was_not_seen"),
    Mutant("a unit of the vendor's that stands in the home is let pass", "sidecar/servers/boot.py", "found = [*words, *told]", "found = words", f"{KINDS}::test_bug_units_that_start_a_server_in_another_way_of_writing_were_let_pass"),
    Mutant("what a unit gives a shell is one word", "sidecar/servers/boot.py", "    return [*words, *(part", "    return words or [*words, *(part", f"{KINDS}::test_bug_units_that_start_a_server_in_another_way_of_writing_were_let_pass"),
    Mutant("a unit that a timer starts is let pass", "sidecar/servers/boot.py", "if name.endswith(_STARTERS):", "if False:", f"{KINDS}::test_bug_units_that_are_started_in_another_way_were_let_pass"),
    Mutant("drop-ins are not read", "sidecar/servers/boot.py", "(*files, *(drop_ins[key] for key in sorted(drop_ins) if key.endswith(\".conf\")))", "files", f"{KINDS}::test_bug_units_that_are_started_in_another_way_were_let_pass"),
    Mutant("a copy of the home is a server", "sidecar/servers/boot.py", "if direct and word.startswith(\"/\")]", "if word.startswith(\"/\")]", f"{KINDS}::test_units_that_start_no_server_after_all"),
    Mutant("an init script that goes to the home is let pass", "sidecar/servers/boot.py", "return bool(_LAUNCHER.search(text)) and place.named_in(text)", "return f\"{place.home}/ag_server\" in text", f"{KINDS}::test_bug_scripts_that_start_a_server_in_another_way_of_writing_were_let_pass"),
    Mutant("a stopped standby command runs", "sidecar/servers/command.py", "if role == \"standby\" and self.standby == \"stopped\":", "if False:", f"{KINDS}::test_a_command_runs_on_the_active_alone"),
    # probes
    Mutant("one open port is enough", "sidecar/probes.py", "                return findings[0] if findings else Finding(False, f\"port {port}: no address\")\n", "                continue\n            return OK\n        return findings[0]\n", f"{PROBES}::test_every_port_must_accept"),
    Mutant("a connection of a socket with itself is a server", "sidecar/probes.py", "if connection.getsockname() == connection.getpeername():", "if False:", f"{PROBES}::test_a_connection_of_a_socket_with_itself_is_no_server"),
    Mutant("a port of a program that stands still is a server", "sidecar/probes.py", "if self.accepting and not", "if False and not", f"{PROBES}::test_bug_a_hung_server_looked_well_until_its_backlog_was_full"),
    Mutant("a program that hangs up has not accepted", "sidecar/accepted.py", "return (state, inode) == (_ESTABLISHED, 0)", "return bool(inode == 0)", f"{PROBES}::test_a_server_that_hangs_up_at_once_has_accepted"),
    Mutant("any HTTP status is good", "sidecar/probes.py", "if int(words[1]) != self.status:", "if False:", f"{PROBES}::test_the_status_counts"),
    Mutant("each drip of an answer gets the whole time", "sidecar/probes.py", "            stream.settimeout(self._left_s(deadline))\n            if not (more", "            if not (more", f"{PROBES}::test_a_drip_does_not_move_the_deadline"),
    Mutant("a probe's command that hangs is left running", "sidecar/probes.py", "        os.killpg(process.pid, signal.SIGKILL)", "        os.getpgid(process.pid)", f"{PROBES}::test_a_command_that_hangs_is_killed_with_all_it_started"),
    Mutant("any exit code of a probe's command is good", "sidecar/probes.py", "        if status == 0:\n            return OK", "        if status is not None:\n            return OK", f"{PROBES}::test_the_exit_code_counts"),
)  # fmt: skip
