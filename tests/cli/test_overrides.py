"""Goal: set and unset change one setting of one node, keep all else in the key, and say who has heard.

Method: as test_handshake.py; once with a real sidecar, which has to go by it within a second.
"""

import json
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from sidecar import documents
from sidecar.cli import main
from sidecar.clock import BootClock
from sidecar.core.model import Author, Override, Settings
from sidecar.core.units import Instant
from sidecar.errors import BadDocument, OutcomeUnknown, Refused, TimedOut
from sidecar.operate import status, words
from sidecar.operate.maintenance import pause_cluster, resume_cluster
from sidecar.operate.overrides import set_override, unset_override
from sidecar.operate.settings import Changed
from tests.cli.stage import Stage
from tests.cli.test_program import WITHIN_S, one_line, sidecar, spawn


@pytest.fixture
def two(stage: Stage) -> Stage:
    stage.appear("node-b")
    stage.acquire("node-a")
    return stage


def hear(stage: Stage, node: str) -> None:
    """Play the node, which shows what it goes by."""
    view = stage.await_view(lambda view: view.settings.by == "op@here")
    stage.appear(node, heard=view.versions["settings"])


def test_it_is_set_when_the_node_shows_that_it_goes_by_it(two: Stage) -> None:
    with two.acting(lambda: hear(two, "node-b")):
        found = set_override(two.desk(), "node-b", "priority", 50)

    assert found == Changed(changed=True, notes=(), silent=())
    settings = two.view().settings
    assert settings.overrides == (Override("node-b", priority=50),)
    (author,) = settings.authors
    assert (author.setting, author.node, author.by) == ("priority", "node-b", "op@here")


def test_a_node_that_has_not_heard_is_named(two: Stage) -> None:
    assert set_override(two.desk(), "node-b", "eligible", False, within_ms=100).silent == ("node-b",)


def test_setting_it_again_changes_nothing_and_keeps_the_author(two: Stage) -> None:
    two.write(Settings(overrides=(Override("node-b", 50),), by="bob@there"))

    assert set_override(two.desk(), "node-b", "priority", 50, within_ms=0).changed is False
    assert two.view().settings.by == "bob@there"


def test_one_setting_is_unset_and_the_others_stay(two: Stage) -> None:
    authors = (
        Author("priority", "node-b", "bob@there", 7, 1),
        Author("eligible", "node-b", "al@there", 8, 2),
    )
    overrides = (Override("node-a", 1), Override("node-b", 50, False))
    two.write(Settings(True, overrides=overrides, authors=authors))

    assert unset_override(two.desk(), "node-b", "priority", within_ms=0).changed
    settings = two.view().settings
    assert settings.overrides == (Override("node-a", 1), Override("node-b", eligible=False))
    assert (settings.paused, settings.authors) == (True, authors[1:])

    unset_override(two.desk(), "node-b", "eligible", within_ms=0)
    assert two.view().settings.overrides == (Override("node-a", 1),)


def test_what_is_not_set_or_not_there_is_refused(two: Stage) -> None:
    with pytest.raises(Refused, match="priority of node-b is not set"):
        unset_override(two.desk(), "node-b", "priority")
    with pytest.raises(Refused, match="node-x is not there; there are: node-a, node-b"):
        set_override(two.desk(), "node-x", "priority", 1)


def test_a_node_that_is_gone_can_still_be_set_back(two: Stage) -> None:
    two.write(Settings(overrides=(Override("node-z", 1),)))

    found = unset_override(two.desk(), "node-z", "priority")

    assert found.changed
    assert "node-z is not there now" in found.notes[0]


def test_bug_a_node_of_a_newer_version_was_said_not_to_be_there_now(two: Stage) -> None:
    two.write(Settings(overrides=(Override("node-b", 1),)))
    two.garble("nodes/node-b")

    found = unset_override(two.desk(), "node-b", "priority")

    assert found.notes == ("node-b says nothing that can be read here: whether it has heard is not known",)


def test_many_at_once_are_all_kept(two: Stage) -> None:
    """Eight operators, one key: a write that finds another version is made again."""
    nodes = [f"n{number}" for number in range(8)]
    two.appear(*nodes)
    desks = [two.desk() for _ in nodes]
    threads = [
        threading.Thread(target=set_override, args=(desk, node, "priority", 7, 0))
        for desk, node in zip(desks, nodes, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)

    settings = two.view().settings
    assert {(found.node, found.priority) for found in settings.overrides} == {(node, 7) for node in nodes}
    assert len(settings.authors) == len(nodes)


def test_what_an_own_try_may_have_done_is_not_refused(two: Stage) -> None:
    """Our unset is done, its answer lost, and somebody pauses before we look again."""
    desk = two.desk()

    class Lossy:
        def __getattr__(self, name: str) -> object:
            return getattr(desk.backend, name)

        def write(self, value: Settings, *, expected: int, deadline: Instant) -> int:
            desk.backend.write(value, expected=expected, deadline=deadline)
            two.write(replace(two.view().settings, paused=True, by="bob@there"))
            raise OutcomeUnknown("127.0.0.1:1: the answer was lost")

    two.write(Settings(overrides=(Override("node-b", 1),)))

    with pytest.raises(TimedOut, match="unknown whether it is written: priority of node-b is not set"):
        unset_override(replace(desk, backend=Lossy()), "node-b", "priority")  # type: ignore[arg-type]


# ---- what other versions write


OTHERS = {
    "v": 1,
    "paused": False,
    "paused_nodes": [],
    "new": {"deep": [1, {"unknown": 2}]},
    "unknown": "a name like ours",
    "overrides": [{"node": "node-b", "priority": 5, "colour": "red"}],
    "authors": [{"setting": "priority", "node": "node-b", "by": "x", "pid": 1, "at_unix_ms": 2, "why": "y"}],
}


def test_what_other_versions_wrote_is_kept_at_every_level() -> None:
    settings = documents.decode("settings", json.dumps(OTHERS).encode(), Settings)
    again: dict[str, Any] = json.loads(documents.encode(replace(settings, paused=True)))

    assert settings.override("node-b").priority == 5
    del again["by"], again["at_unix_ms"], again["overrides"][0]["eligible"]
    assert again == OTHERS | {"paused": True}


def test_it_is_kept_through_every_command(two: Stage) -> None:
    two.write(documents.decode("settings", json.dumps(OTHERS).encode(), Settings))

    pause_cluster(two.desk(), None, within_ms=0)
    set_override(two.desk(), "node-b", "priority", 6, within_ms=0)
    unset_override(two.desk(), "node-b", "priority", within_ms=0)
    resume_cluster(two.desk(), None, within_ms=0)

    found = two.view().settings
    assert found.unknown == {"new": OTHERS["new"], "unknown": OTHERS["unknown"]}
    assert found.overrides == (Override("node-b", unknown={"colour": "red"}),)


@pytest.mark.parametrize("wrong", [1, [1], [{"node": "b", "priority": "x"}]])
def test_what_is_mistyped_is_no_document(wrong: object) -> None:
    with pytest.raises(BadDocument, match="settings: not a readable document"):
        documents.decode("settings", msgspec.json.encode({"v": 1, "overrides": wrong}), Settings)


# ---- the commands


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["priority", "high"], "expected a whole number, got 'high'"),
        (["priority", "-1"], "must be 0 to 1000000, got -1"),
        (["eligible", "maybe"], "expected true or false"),
        (["colour", "red"], "'colour' is not one of 'priority', 'eligible'"),
    ],
)
def test_values_are_those_of_the_configuration(config_file: Path, args: list[str], says: str) -> None:
    result = CliRunner().invoke(main, ["set", "-c", str(config_file), "--", "node-b", *args])

    assert result.exit_code == 2
    assert says in one_line(result.stderr)


def test_status_tells_what_is_set_by_whom_and_how_to_end_it(two: Stage) -> None:
    authors = (Author("priority", "node-b", "bob@there", 4711, 1_700_000_000_000),)
    two.write(Settings(overrides=(Override("node-b", 50),), authors=authors, paused_nodes=("node-b",)))

    found = status.status(two.view(), cluster="c", backend="local", now_unix_ms=0)

    assert found["settings"] == [
        {"setting": "paused", "node": "node-b", "value": True, "by": None, "pid": None, "at": None},
        {
            "setting": "priority",
            "node": "node-b",
            "value": 50,
            "by": "bob@there",
            "pid": 4711,
            "at": "2023-11-14T22:13:20.000Z",
        },
    ]
    (notice,) = [notice for notice in found["notices"] if "priority" in notice]  # type: ignore[attr-defined]
    assert re.match(r"priority of node-b is 50, set by bob@there \(pid 4711\) since 2023-11-1", notice)
    assert notice.endswith("`sidecar unset node-b priority` ends that")


def test_a_later_change_does_not_make_its_author_the_one_who_paused(two: Stage) -> None:
    pause_cluster(two.desk(), None, within_ms=0)
    set_override(replace(two.desk(), by="al@there"), "node-b", "priority", 1, within_ms=0)

    view = two.view()
    notices = str(status.status(view, cluster="c", backend="local", now_unix_ms=0)["notices"])
    assert "paused by op@here (pid " in notices
    assert "set by al@there (pid " in notices
    assert "paused by op@here;" in str(words.paused(view))


def test_a_real_node_goes_by_it_within_a_second_and_reloads_its_file(stage: Stage, config_file: Path) -> None:
    text = config_file.read_text()
    process = spawn("run", "-c", config_file)
    assert process.stderr is not None
    try:
        stage.await_view(lambda view: (a := view.node("node-a")) is not None and a.state == "running")
        clock = BootClock()
        began = clock.now()
        found = set_override(stage.desk(), "node-a", "eligible", False)
        took_ms = clock.now() - began
        record = stage.view().node("node-a")
        assert record is not None
        assert (found.silent, record.eligible, record.state) == ((), False, "running"), "it stays active"
        assert took_ms < 10_000, "a second, on a machine that is not busy"

        changed = text + "node_options: {priority: 7, eligible: true}\nlock: {ttl: 20s}\n"
        config_file.write_text(changed)
        process.send_signal(signal.SIGHUP)
        view = stage.await_view(lambda view: (a := view.node("node-a")) is not None and a.priority == 7)
        assert view.node("node-a").eligible is False, "what was set counts before the file"  # type: ignore[union-attr]
        line = next(line for line in process.stderr if "reloaded" in line)
        assert 'changed="node_options.priority: 100 -> 7"' in line
        assert 'needs_restart="lock.ttl: 10s -> 20s; lock.renew_every: 2s -> 4s;' in line

        config_file.write_text(changed + "colour: red\n")
        process.send_signal(signal.SIGHUP)
        line = next(line for line in process.stderr if "reload refused" in line)
        assert "colour: unknown key" in line
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0


HANGS = """
import sys, threading
from pathlib import Path
from sidecar.config import load
from sidecar.runtime.main import Mode, run

def hang():
    print("reading", flush=True)
    threading.Event().wait()

sys.exit(run(load(Path(sys.argv[1]), {}), Mode(), hang))
"""


def test_a_file_that_hangs_while_it_is_reloaded_delays_no_decision(stage: Stage, config_file: Path) -> None:
    command = [sys.executable, "-c", HANGS, str(config_file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        stage.await_view(lambda view: (a := view.node("node-a")) is not None and a.state == "running")
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "reading\n"
        assert set_override(stage.desk(), "node-a", "priority", 7).silent == ()
    finally:
        with process:
            process.terminate()
            try:
                process.communicate(timeout=WITHIN_S)
            finally:
                process.kill()
    assert process.returncode == 0, "it ends all the same"


def test_set_says_what_it_did(two: Stage, config_file: Path) -> None:
    result = sidecar("set", "-c", config_file, "node-z", "eligible", "no")
    assert result.returncode == 4
    assert "node-z is not there" in one_line(result.stderr)

    def play() -> None:
        view = two.await_view(lambda view: view.settings.overrides)
        two.appear("node-a", heard=view.versions["settings"])

    with two.acting(play):
        done = CliRunner().invoke(main, ["set", "-c", str(config_file), "node-a", "eligible", "no"])
    assert (done.exit_code, done.output) == (0, "eligible of node-a: set to false\n")
