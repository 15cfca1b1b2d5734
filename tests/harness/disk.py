"""What the program asks of the disk, in order."""

import os
from os import PathLike
from pathlib import Path

import pytest


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the growing list of steps: the name of what is synced, and ``to NAME`` for a new name."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        steps.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        sync(fd)

    def renames(source: str | PathLike[str], target: str | PathLike[str]) -> None:
        steps.append(f"to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renames)
    return steps
