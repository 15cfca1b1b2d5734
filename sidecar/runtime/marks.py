"""The epoch high-water mark on this node's disk: what keeps an older store from being believed."""

import contextlib
import json
import os
import uuid
from pathlib import Path

import msgspec

from sidecar.config.files import read_file
from sidecar.core.state import Mark
from sidecar.core.units import Epoch
from sidecar.documents import EPOCH_MAX, prepared
from sidecar.errors import ConfigError
from sidecar.events import LOG, Raised, emit

SIZE_MAX_BYTES = 4096  # ours has up to 120; a person may have added spaces


class _Mark(msgspec.Struct):
    """Strict: 7.9 is not 7, and true is not 1. A number below 0 would be under every store."""

    epoch: int
    node: str | None = None  # who got the epoch


class MarkFile:
    """``<paths.state>/<cluster>.epoch.json``. None as folder: kept in this process alone (``exec``)."""

    def __init__(self, folder: Path | None, cluster: str) -> None:
        self._path = None if folder is None else folder / f"{cluster}.epoch.json"
        self._told: str | None = None  # the failure that was told last

    def load(self) -> Mark:
        """Return the mark, or that of epoch 0 where there is none yet.

        Raises:
            ConfigError: There is one, but it cannot be read. It must not be forgotten silently.
        """
        if self._path is None:
            return Mark()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return _read(self._path)
        except FileNotFoundError:
            return Mark()
        except OSError as error:
            raise ConfigError(f"paths.state: {self._path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise ConfigError(
                f"{self._path}: not a high-water mark of epochs; `sidecar status` shows the cluster's: "
                'write {"epoch": N} with the highest there, or remove the file'
            ) from error

    def save(self, mark: Mark) -> bool:
        """Store the mark durably, unless another sidecar of this machine has stored a higher one.

        Two that save at the same instant may leave the lower; its sidecar is about to see the higher, too.

        Returns:
            Whether it is kept. Where it is not, that is an alarm, not a reason to stop serving.
        """
        if self._path is None or self._is_below_kept(self._path, mark):
            return True
        new = self._path.with_name(f"{self._path.stem}.{uuid.uuid4().hex}.new")  # others may save now, too
        try:
            with new.open("x") as file:
                json.dump(mark._asdict(), file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)  # else a power cut could take the new name back, and with it the mark
            finally:
                os.close(folder)
        except OSError as error:
            LOG.debug("mark", exc_info=True)
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            text = f"paths.state: {self._path}: {error.strerror}: the epoch mark is not kept"
            if text != self._told:
                emit(Raised(text=text))
            self._told = text
            return False
        self._told = None
        return True

    @staticmethod
    def _is_below_kept(path: Path, mark: Mark) -> bool:
        try:
            return _read(path).epoch > mark.epoch
        except (OSError, ValueError, RecursionError):
            return False


def _read(path: Path) -> Mark:
    found = msgspec.json.decode(read_file(path, SIZE_MAX_BYTES), type=prepared(_Mark))
    if not 0 <= found.epoch <= EPOCH_MAX:
        raise ValueError(f"{found.epoch} is no epoch")
    return Mark(Epoch(found.epoch), found.node)
