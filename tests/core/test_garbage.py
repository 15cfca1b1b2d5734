"""Goal: whatever stands in a key of the store, nobody crashes, and nobody becomes active by it.

Method: Hypothesis writes documents that are wrong somehow. The codec reads each, or says one line;
the view of them all can be decided on in every phase and shown in every form; what is not readable is named,
and neither lock nor epoch is taken for less than was known. State files, notes and requests as well.
Not covered: the stores themselves (tests/contract/test_garbage.py), a cluster that runs meanwhile
(tests/system/test_garbage.py).
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import click
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backends._consul_board import Board, Lease
from backends.shared import EPOCH, LOCK, Entry, Reader, history, required_epoch
from sidecar.cli import printing
from sidecar.cli.looking import page
from sidecar.core import state as s
from sidecar.core.decide import decide
from sidecar.core.model import EpochRecord, HistoryEntry, LockRecord
from sidecar.core.outlook import describe, wake_at
from sidecar.core.requests import hear
from sidecar.core.units import Epoch, Instant
from sidecar.documents import EPOCH_MAX, decode, encode
from sidecar.errors import BackendError, BadDocument, ConfigError, EpochBehind
from sidecar.operate import status, words
from sidecar.ports import Hold
from sidecar.runtime.locking import Kept, from_note, to_note
from sidecar.runtime.marks import MarkFile
from tests.core.garbage import CONSUL_LOCK, FIXED, SOUND, TREES, documents
from tests.core.made import EPOCH as MINE
from tests.core.made import LEASE, MONITORING, NOW, POLICY, at

UNHURRIED = settings(deadline=None, max_examples=40)
KEYS = st.sampled_from(sorted(SOUND))


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Entry]:
    """Draw all keys of a cluster, most of them sound."""
    found = {}
    for key, sound in SOUND.items():
        fate = draw(st.integers(0, 3))
        if fate:
            raw = encode(sound) if fate > 1 else draw(documents(sound))
            found[key] = Entry(raw, draw(st.integers(1, 99)))
    return found


PHASES: tuple[s.Phase, ...] = (
    *(
        s.Idle(),
        s.Standing(1),
        s.Standing(1, ready=True),
        s.Ending(1, at(500)),
        s.Promoting(LEASE, 1, at(500)),
    ),
    *(s.Starting(LEASE, 1, at(9_000)), s.Serving(LEASE, 1), s.Waiting(LEASE, at(500))),
    *(s.Stopping(LEASE, 1, at(500), s.Again(NOW)), s.Stopping(LEASE, 1, at(500), s.GiveUp("x"))),
)


# Documents.


@UNHURRIED
@given(st.data(), KEYS)
def test_a_document_is_read_or_refused_in_one_line(data: st.DataObject, key: str) -> None:
    raw = data.draw(documents(SOUND[key]))
    try:
        found = decode(key, raw, type(SOUND[key]))
    except BadDocument as error:
        line = str(error)
    else:
        assert 0 <= getattr(found, "epoch", 0) <= EPOCH_MAX
        assert decode(key, encode(found), type(found)) == found
        return
    assert line.startswith(f"{key}: ")
    assert "\n" not in line


@pytest.mark.parametrize("raw", FIXED, ids=lambda raw: repr(raw[:24]))
@pytest.mark.parametrize("key", sorted(SOUND))
def test_what_is_no_document_is_refused_for_every_key(key: str, raw: bytes) -> None:
    fine = {"epoch": raw == b'{"v": 1}', "settings": raw.startswith((b'{"v": 1}', b'{"v": 1, "epoch"'))}
    lenient = fine.get(key, False) and raw.count(b"v") == 1  # all there may be has a default
    if not lenient:
        with pytest.raises(BadDocument, match=key):
            decode(key, raw, type(SOUND[key]))


# Views.


@UNHURRIED
@given(entries())
def test_a_view_names_what_it_cannot_read_and_shows_the_rest(found: dict[str, Entry]) -> None:
    view = Reader().view(1, found)

    for key, entry in found.items():
        readable = True
        try:
            decode(key, entry.value, type(SOUND[key]))
        except BadDocument:
            readable = False
        wrong_name = key == "nodes/node-a" and not view.nodes
        if not key.startswith("history/") and not wrong_name:
            assert (key in view.unreadable) is not readable
    if LOCK in view.unreadable:
        assert not view.vacant
        assert view.holder is None


@UNHURRIED
@given(st.data(), st.sampled_from(PHASES), st.booleans(), st.integers(0, 20_000))
def test_no_document_makes_a_node_act_without_proof(
    data: st.DataObject, phase: s.Phase, monitoring: bool, after_ms: int
) -> None:
    """One view with garbage in it, in every phase: the node goes on, and asks for no less than it knew."""
    view = Reader().view(1, data.draw(entries()))
    policy = MONITORING if monitoring else POLICY
    memory = s.Memory(call="renew" if data.draw(st.booleans()) else None)
    node = s.Node(phase, replace(memory, mark=MINE, spent=Epoch(MINE - 1), runs=3, born_at=Instant(0)))

    step = decide(node, s.Seen(view), at(after_ms), policy)
    again = decide(step.node, s.Tick(), at(after_ms + 1_000), policy)

    for found in (step, again):
        assert found.node.memory.mark >= MINE
        wake_at(found.node, at(after_ms), policy)
        describe(found.node, at(after_ms), policy, enforcement="kernel", version="", unix_ms=0, server=None)
        hear(found.node, at(after_ms), policy)
        for action in found.actions:
            match action:
                case s.Acquire(floor):
                    assert floor >= MINE
                    assert not view.lock_unreadable
                case s.SaveMark(mark):
                    assert mark.epoch >= MINE
                case s.StartServer(role="active", epoch=epoch):
                    assert epoch == LEASE.epoch, "only under the lease that was granted"
                    assert isinstance(phase, s.Holding)
                case s.Release(epoch):
                    assert not isinstance(found.node.phase, s.Serving | s.Starting)


@UNHURRIED
@given(entries())
@example({"request": Entry(encode(replace(SOUND["request"], asked_at_unix_ms=-(10**15))), 1)})
def test_whatever_is_there_can_be_shown(found: dict[str, Entry]) -> None:
    view = Reader().view(1, found)

    document = status.status(view, cluster="c", backend="etcd", now_unix_ms=1_700_000_000_000)

    assert json.loads(json.dumps(document, ensure_ascii=False).encode())["cluster"] == "c"
    yaml.safe_dump(document, allow_unicode=True)
    text = click.unstyle(page(document, "node-a", 80))
    assert all(char.isprintable() or char == "\n" for char in text)
    for node in ("node-a", None):
        words.unfit(view, node, "node-b")
    words.nobody_active(view)
    words.paused(view, "node-a")


@UNHURRIED
@given(st.lists(documents(SOUND["history/000000000007"]), max_size=4))
def test_any_history_can_be_shown(raws: list[bytes]) -> None:
    for entry in history((f"history/{number}", raw) for number, raw in enumerate(raws)):
        assert isinstance(entry, HistoryEntry)
        document = status.history_entry(entry)
        json.dumps(document)
        printing.seconds(document["detect_s"])
        status.local_time(entry.at_unix_ms)


# The lock and the epoch, as an acquisition sees them.


@UNHURRIED
@given(documents(SOUND["epoch"]), st.integers(0, EPOCH_MAX))
def test_an_epoch_is_at_least_what_was_known_or_refused(raw: bytes, floor: int) -> None:
    try:
        epoch = required_epoch(raw, Epoch(floor))
    except (BadDocument, EpochBehind):
        return
    assert floor <= epoch < EPOCH_MAX
    decode(EPOCH, encode(EpochRecord(Epoch(epoch + 1))), EpochRecord)  # what an acquisition writes next


@UNHURRIED
@given(documents(SOUND["epoch"]) | st.none(), documents(CONSUL_LOCK) | st.none(), st.integers(0, 9))
def test_consul_never_takes_a_lock_by_what_it_cannot_read(
    epoch: bytes | None, lock: bytes | None, floor: int
) -> None:
    found = {key: Entry(raw, 5) for key, raw in ((EPOCH, epoch), (LOCK, lock)) if raw is not None}
    board = Board()
    board.take(board.begin(), found, NOW)

    board.view(at(60_000))
    board.expires_at(NOW)
    standing = board.standing(at(60_000))

    assert standing is not None
    try:
        standing.require_readable(Epoch(floor))
    except BackendError:
        return
    assert standing.epoch >= floor
    if standing.free and standing.orphan is None:
        taken = decode(LOCK, encode(standing.next_lease("n", "n-1", 1_000)), Lease)
        assert taken.epoch > floor, "and every node can read what it would write"


@pytest.mark.parametrize("at_the_end", [EPOCH_MAX, EPOCH_MAX - 1])
def test_the_last_epoch_is_not_given_out(at_the_end: int) -> None:
    """One more could be read by nobody: the lock would be lost to everybody, its holder included."""
    raw = encode(EpochRecord(Epoch(at_the_end)))
    board = Board()
    board.take(board.begin(), {EPOCH: Entry(raw, 5)}, NOW)
    standing = board.standing(NOW)
    assert standing is not None
    for ask in (lambda: required_epoch(raw, Epoch(0)), lambda: standing.require_readable(Epoch(0))):
        if at_the_end == EPOCH_MAX:
            with pytest.raises(BadDocument, match=r"epoch: .* no larger one"):
                ask()
        else:
            ask()


# Files and notes.


def _try_mark(path: Path) -> int | None:
    """Return the mark, None where it was refused in one line that names the file."""
    try:
        return MarkFile(path.parent, "c").load().epoch
    except ConfigError as error:
        line = str(error)
    assert str(path) in line
    assert "\n" not in line
    return None


@settings(UNHURRIED, suppress_health_check=[HealthCheck.function_scoped_fixture])  # overwritten each time
@given(raw=documents(SOUND["epoch"]))
def test_a_mark_is_a_whole_number_or_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.epoch.json"
    path.write_bytes(raw)

    found = _try_mark(path)

    if found is not None:
        assert 0 <= found <= EPOCH_MAX
        written = json.loads(raw.decode(errors="replace"))["epoch"]
        assert type(written) is int
        assert found == written


@pytest.mark.parametrize(
    "text",
    [
        *('{"epoch": 7.9}', '{"epoch": "7"}', '{"epoch": true}', '{"epoch": -7}', '{"epoch": Infinity}', ""),
        *(
            '{"epoch": NaN}',
            '{"epoch": 1e3}',
            "[" * 100_000,
            '{"epoch": ' + "9" * 5_000 + "}",
            "[7]",
            "{}",
            "\0",
        ),
        *('{"epoch": 9007199254740992}', '{"epoch": null}', '{"epoch": [7]}'),
    ],
    ids=lambda text: text[:24],
)
def test_a_mark_that_is_none_is_not_taken_for_another(text: str, tmp_path: Path) -> None:
    """7.9 was read as 7, true as 1, -7 as a mark below every store; Infinity and deep nesting crashed."""
    path = tmp_path / "c.epoch.json"
    path.write_text(text)

    assert _try_mark(path) is None


def test_a_mark_that_is_a_pipe_or_a_folder_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "c.epoch.json"
    path.mkdir()
    assert _try_mark(path) is None
    path.rmdir()
    os.mkfifo(path)
    assert _try_mark(path) is None


HOLD = Hold("node-a", "node-a-1", Epoch(7), 10_000, "12:34")
KEPT = Kept("c", HOLD, ready=True)


def test_a_note_is_what_was_noted() -> None:
    assert from_note(to_note(KEPT)) == KEPT


@UNHURRIED
@given(st.data())
def test_a_note_is_a_hold_or_refused(data: st.DataObject) -> None:
    fields = json.loads(to_note(KEPT))
    for _ in range(data.draw(st.integers(0, 2))):
        name = data.draw(st.sampled_from(sorted(fields)) | st.text(max_size=5))
        fields[name] = data.draw(TREES)
    note = data.draw(st.sampled_from([json.dumps(fields), json.dumps(fields)[:-1]]) | st.text(max_size=20))
    try:
        cluster, hold, ready = from_note(note)
    except ValueError:
        return
    assert type(cluster) is type(hold.node) is type(hold.instance) is type(hold.cookie) is str
    assert type(hold.epoch) is type(hold.ttl_ms) is int
    assert type(ready) is bool
    decode(LOCK, encode(LockRecord(hold.node, hold.instance, hold.epoch, hold.ttl_ms)), LockRecord)


@pytest.mark.parametrize(
    "note", ["", "null", "[]", "[" * 100_000, '{"v": 1}', '{"v": 2}', "7" * 5_000, '"x"']
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(ValueError):
        from_note(note)
