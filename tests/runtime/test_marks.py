"""The epoch mark on disk: never forgotten silently, whole whatever happens, and no reason to stop serving.

Method: real files; the order of what reaches the disk is read from the calls of ``os``.
"""

import threading
from pathlib import Path

import pytest

from sidecar.core.state import Mark
from sidecar.core.units import Epoch
from sidecar.errors import ConfigError
from sidecar.runtime.marks import MarkFile
from tests.harness import disk


def test_what_was_kept_is_known_again(tmp_path: Path) -> None:
    MarkFile(tmp_path, "plant-7").save(Mark(Epoch(41), "a"))
    MarkFile(tmp_path, "plant-7").save(Mark(Epoch(42), "b"))

    assert MarkFile(tmp_path, "plant-7").load() == (42, "b")
    assert MarkFile(tmp_path, "plant-8").load() == Mark(), "each cluster has its own"
    assert [path.name for path in tmp_path.iterdir()] == ["plant-7.epoch.json"]


def test_the_first_start_makes_the_folder(tmp_path: Path) -> None:
    marks = MarkFile(tmp_path / "a" / "b", "plant-7")

    assert marks.load() == Mark()
    marks.save(Mark(Epoch(1)))
    assert marks.load() == Mark(Epoch(1))


def test_without_a_folder_nothing_is_kept() -> None:
    marks = MarkFile(None, "plant-7")
    marks.save(Mark(Epoch(7)))

    assert marks.load() == Mark()


def test_a_mark_of_a_version_that_kept_no_node_is_known(tmp_path: Path) -> None:
    (tmp_path / "plant-7.epoch.json").write_text('{"epoch": 7}')

    assert MarkFile(tmp_path, "plant-7").load() == Mark(Epoch(7))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"epoch": null}', '{"epoch": "x"}', '{"epoch": 7, "node": 7}']
)
def test_a_mark_that_cannot_be_read_is_not_forgotten(tmp_path: Path, content: str) -> None:
    (tmp_path / "plant-7.epoch.json").write_text(content)

    with pytest.raises(ConfigError, match=r"plant-7\.epoch\.json: not a high-water mark"):
        MarkFile(tmp_path, "plant-7").load()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"paths\.state: .*Not a directory"):
        MarkFile(tmp_path / "file" / "state", "plant-7").load()


def test_a_mark_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    marks = MarkFile(tmp_path / "gone", "plant-7")

    assert not marks.save(Mark(Epoch(1)))

    assert not (tmp_path / "gone").exists()
    (tmp_path / "gone").mkdir()
    assert marks.save(Mark(Epoch(1)))


def test_bug_a_power_cut_could_take_the_newest_mark_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the content reaches the disk, then it gets its name, then the folder reaches the disk."""
    steps = disk.recorded(monkeypatch)
    MarkFile(tmp_path, "plant-7").save(Mark(Epoch(42), "b"))

    assert steps[0].endswith(".new")
    assert steps[1:] == ["to plant-7.epoch.json", tmp_path.name]


def test_bug_sidecars_of_one_machine_tore_each_others_mark(tmp_path: Path) -> None:
    """They wrote to one file and moved it into place: an alarm, or a mark with which nobody could start."""
    MarkFile(tmp_path, "plant-7").save(Mark(Epoch(1)))
    kept: list[bool] = []
    others = [threading.Thread(target=lambda: kept.extend(_save_many(tmp_path))) for _ in range(2)]
    for other in others:
        other.start()
    for _ in range(300):
        MarkFile(tmp_path, "plant-7").load()  # raises where it is torn
    for other in others:
        other.join()

    assert all(kept)
    assert MarkFile(tmp_path, "plant-7").load() == Mark(Epoch(100), "a")
    assert [path.name for path in tmp_path.iterdir()] == ["plant-7.epoch.json"]


def _save_many(folder: Path) -> list[bool]:
    marks = MarkFile(folder, "plant-7")
    return [marks.save(Mark(Epoch(epoch), "a")) for epoch in range(1, 101)]


def test_a_lower_mark_does_not_replace_a_higher_one(tmp_path: Path) -> None:
    """Another sidecar of this machine may have seen more."""
    MarkFile(tmp_path, "plant-7").save(Mark(Epoch(8), "b"))

    assert MarkFile(tmp_path, "plant-7").save(Mark(Epoch(7), "a"))

    assert MarkFile(tmp_path, "plant-7").load() == (8, "b")
