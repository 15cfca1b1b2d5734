"""The judge of overlap: it finds what is there, excuses nothing, and refuses damaged evidence.

Method: lines written by hand in known order, then by real processes that overlap on purpose, that are frozen
and thawed, that live in different time namespaces, and that are killed while they write. Not
covered: a file system shared by several hosts.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.standin import record, witness, worker_command
from sidecar.standin.record import LINE_BYTES, Pen
from sidecar.standin.witness import Record, WitnessError
from tests.harness.process import unavailable, wait_until
from tests.harness.witness import await_open, await_tick, lines, one_active_at_a_time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "witness"


class Workers:
    """Workers that end with the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, node: str, epoch: int, *arguments: str, prefix: tuple[str, ...] = ()) -> int:
        env = {**os.environ, "SIDECAR_NODE": node, "SIDECAR_EPOCH": str(epoch)}
        after = lines(self.path)
        command = [*prefix, *worker_command(self.path, *arguments)]
        self._started.append(subprocess.Popen(command, env=env, start_new_session=True))
        await_open(self.path, node=node, after=after)
        return self._started[-1].pid

    def kill(self, pid: int) -> None:
        (process,) = (process for process in self._started if process.pid == pid)
        os.killpg(pid, signal.SIGKILL)
        process.wait(5)

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                self.kill(process.pid)


@pytest.fixture
def workers(path: Path) -> Iterator[Workers]:
    workers = Workers(path)
    yield workers
    workers.end()


def story(text: str) -> list[Record]:
    """``a0open a5tick b7open``: run a opened at 0 ms, ...; the run's letter gives the epoch, a is 1."""
    records = []
    for line, word in enumerate(text.split()):
        run, rest = word[0], word[1:]
        digits = "".join(filter(str.isdigit, rest))
        at_ns = int(digits) * 1_000_000
        epoch = ord(run.lower()) - ord("a") + 1
        records.append(Record(line, at_ns, rest[len(digits) :], epoch, run, 1, run.lower()))
    return records


# -- the judgement ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("a0open a9tick", []),
        ("a0open a5tick b6open b9tick", []),
        ("a0open a5close b6open b9close c9open", ["bc"]),  # the same instant is one too many
        ("a0open b5open a6tick b9tick", ["ab"]),
        ("a0open b5open b6tick a9tick", ["ab"]),
        ("a0open b5open b6tick", []),  # a was dead, or frozen for ever, before b
        ("a0open a5tick b6open a7tick b8close", ["ab"]),  # a thawed: one late tick is enough
        ("a0open b5open a4tick", ["ab"]),  # by the order of the lines alone
        ("a0open b9open c10open a11tick", ["ab", "ac"]),
        ("a0open a5tick A6open A7tick", []),  # the same node again
        ("a0open A5open a7tick", ["aA"]),  # the same node, but two servers
    ],
)
def test_overlaps(text: str, pairs: list[str]) -> None:
    assert [found.first.run + found.second.run for found in witness.overlaps(story(text))] == pairs


def test_the_length_of_an_overlap() -> None:
    (found,) = witness.overlaps(story("a0open b5open a7tick b9tick"))
    assert found.length_ms == 2
    assert "a (epoch 1, run a) and b (epoch 2, run b) were active at once for 2.0 ms" in str(found)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("", []),
        ("a0open a5tick", []),
        ("a0open a5tick b8open b9tick c19open", [3, 10]),
        ("a0open b2open b4tick a9tick c10open", [1]),  # b inside a makes no gap
    ],
)
def test_gaps(text: str, lengths: list[float]) -> None:
    assert [gap.length_ms for gap in witness.gaps(story(text))] == lengths


def test_epochs_must_grow() -> None:
    assert witness.epoch_faults(story("a0open b1open c2open C3open")) == []
    assert len(witness.epoch_faults(story("b0open a1open c2open"))) == 1
    same = [Record(0, 0, "open", 3, "r", 1, "a"), Record(1, 1, "open", 3, "s", 1, "b")]
    assert witness.epoch_faults(same) == ["b opened at epoch 3 (line 1) after a at epoch 3"]


def test_an_interval_says_how_long_the_server_was_silent() -> None:
    (interval,) = witness.active_intervals(story("a0open a2tick a9tick a10close"))
    assert (interval.longest_silence_ns, interval.length_ms, interval.closed) == (7_000_000, 10, True)


# -- damaged evidence ---------------------------------------------------------------------------


def written(path: Path) -> bytes:
    pen = Pen(str(path), "node a/1", 7)
    for kind in (record.OPEN, record.TICK, record.CLOSE):
        pen.write(kind)
    return path.read_bytes()


def test_what_is_written_is_read(path: Path) -> None:
    written(path)
    records = witness.read(path)
    assert [(r.kind, r.node, r.epoch, r.pid) for r in records] == [
        (kind, "node a/1", 7, os.getpid()) for kind in ("open", "tick", "close")
    ]
    assert 0 <= witness.now_ns() - records[-1].at_ns < 5_000_000_000


def test_no_file_yet_is_no_record(path: Path) -> None:
    assert witness.read(path) == []


def test_any_lost_byte_is_noticed(path: Path) -> None:
    data = written(path)
    for at in range(len(data)):
        path.write_bytes(data[:at] + data[at + 1 :])
        with pytest.raises(WitnessError, match="damaged"):
            witness.read(path)


def test_a_half_line_is_noticed(path: Path) -> None:
    data = written(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        if length % LINE_BYTES:
            with pytest.raises(WitnessError):
                witness.read(path)


@pytest.mark.parametrize("text", ["a0tick", "a0open a1open", "a0open b1tick"])
def test_a_line_out_of_place_is_noticed(text: str) -> None:
    with pytest.raises(WitnessError, match="out of place"):
        witness.active_intervals(story(text))


def test_a_server_that_changes_its_epoch_is_noticed() -> None:
    records = [Record(0, 0, "open", 3, "r", 1, "a"), Record(1, 1, "tick", 4, "r", 1, "a")]
    with pytest.raises(WitnessError, match="not what it was"):
        witness.active_intervals(records)


def test_a_name_too_long_for_a_line_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="too long"):
        Pen(str(path), "n" * 71, 1)


# -- real processes -----------------------------------------------------------------------------


def test_two_that_overlap_on_purpose_are_found(path: Path, workers: Workers) -> None:
    workers.start("a", 1)
    workers.start("b", 2)
    await_tick(path, node="a", after=lines(path))
    (found,) = witness.overlaps(witness.read(path))
    assert (found.first.node, found.second.node) == ("a", "b")
    with pytest.raises(AssertionError, match="active at once"):
        one_active_at_a_time(path)


def test_one_that_was_frozen_and_ran_again_is_found(path: Path, workers: Workers) -> None:
    frozen = workers.start("a", 1)
    os.killpg(frozen, signal.SIGSTOP)
    after = lines(path)
    second = workers.start("b", 2)
    await_tick(path, node="b", after=after)
    workers.kill(second)
    assert witness.overlaps(witness.read(path)) == []  # so far a has done nothing
    os.killpg(frozen, signal.SIGCONT)
    await_tick(path, node="a", after=after)
    (found,) = witness.overlaps(witness.read(path))
    assert found.length_ms > 0


def test_one_that_was_frozen_and_killed_is_not_blamed(path: Path, workers: Workers) -> None:
    frozen = workers.start("a", 1)
    os.killpg(frozen, signal.SIGSTOP)
    time.sleep(0.05)
    workers.start("b", 2)
    workers.kill(frozen)
    await_tick(path, node="b", after=lines(path))
    assert [interval.node for interval in one_active_at_a_time(path)] == ["a", "b"]


def test_one_after_the_other_leaves_a_gap_of_known_length(path: Path, workers: Workers) -> None:
    workers.kill(workers.start("a", 1))
    dead_ns = witness.now_ns()
    time.sleep(0.1)
    again_ns = witness.now_ns()
    workers.start("b", 2)
    one_active_at_a_time(path)
    (gap,) = witness.gaps(witness.read(path))
    assert gap.from_ns <= dead_ns < again_ns <= gap.until_ns
    assert gap.length_ms < 20_000


def in_time_namespace(boottime_s: int) -> tuple[str, ...]:
    prefix = ("unshare", "--time", "--fork", "--kill-child", "--boottime", str(boottime_s))
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        unavailable("time namespaces")
    return prefix


def test_time_namespaces_do_not_hide_an_overlap_or_make_one(path: Path, workers: Workers) -> None:
    workers.kill(workers.start("a", 1, prefix=in_time_namespace(1_000_000)))
    workers.kill(workers.start("b", 2, prefix=in_time_namespace(500)))
    workers.kill(workers.start("c", 3))
    one_active_at_a_time(path)
    assert all(0 < gap.length_ms < 20_000 for gap in witness.gaps(witness.read(path)))
    workers.start("d", 4, prefix=in_time_namespace(1_000_000))
    workers.start("e", 5)
    await_tick(path, node="d", after=lines(path))
    await_tick(path, node="e", after=lines(path))
    (found,) = witness.overlaps(witness.read(path))
    assert (found.first.node, found.second.node) == ("d", "e")
    assert 0 < found.length_ms < 20_000


def test_writers_that_are_killed_never_leave_half_a_line(path: Path) -> None:
    """Lines as fast as they go, from two at once, read meanwhile: whole, or the reader raises."""
    for _ in range(10):
        command = worker_command(path, "--tick-ms", "0")
        before = lines(path)
        pair = [subprocess.Popen(command) for _ in range(2)]
        wait_until(lambda: len({one.pid for one in witness.read(path)[before:]}) == 2, "both write")  # noqa: B023
        for process in pair:
            process.kill()
            process.wait(5)
    assert len(witness.active_intervals(witness.read(path))) == 20


# -- the worker ---------------------------------------------------------------------------------


def test_a_standby_worker_is_silent(path: Path) -> None:
    env = {**os.environ, "SIDECAR_ROLE": "standby"}
    command = worker_command(path, "--crash-after-ms", "100", "--exit-code", "3")
    assert subprocess.run(command, env=env, check=False).returncode == 3
    assert not path.exists()


def test_a_deaf_worker_ends_by_sigkill_alone(path: Path, workers: Workers) -> None:
    pid = workers.start("a", 1, "--deaf")
    os.kill(pid, signal.SIGTERM)
    await_tick(path, node="a", after=lines(path) + 2)


def test_a_worker_that_crashes_says_nothing_more(path: Path) -> None:
    assert subprocess.run(worker_command(path, "--crash-after-ms", "50"), check=False).returncode == 1
    (interval,) = one_active_at_a_time(path)
    assert not interval.closed
