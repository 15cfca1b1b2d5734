"""Reads a ``server.xml``, and gives a server its role through it while it is down.

    active   clusterRole 1, clusterFailureDetectionTime 86400000
    standby  clusterRole 2, clusterFailureDetectionTime 86400000

- The server reads the file at start and overwrites it on stop: **who calls `set_role` must know that the
  server is down**, else the edit is lost.
- The detection time is the longest there is (24 h), so that the native engine, which has no arbiter, does
  not activate by itself. It is set in both roles: a master does not use it, and a server that is started
  by hand one day as a failover node is harmless. The value of before is in
  ``server.xml.sidecar-original``.
- Every other byte stays. A write is whole or not at all (new file, fsync, rename, fsync of the folder)
  and keeps mode, owner and extended attributes.
- ``server.xml.sidecar-backup`` is the last sound file found here, from which a torn one is repaired; the
  torn one is kept as ``server.xml.sidecar-torn``. All three follow the file's mode and owner.

Not guaranteed: hard links (the name gets a new file), and what an editor does at the same time.
"""

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.model import Role
from sidecar.errors import ConfigError, ServerError
from sidecar.servers.document import SIZE_MAX, BadXml, Document, Foreign
from sidecar.servers.settings import ServerSettings, parse

BACKUP, ORIGINAL, TORN, NEW = (f".sidecar-{word}" for word in ("backup", "original", "torn", "new"))
DETECTION_MS = 86_400_000
"""24 h, the vendor's maximum of clusterFailureDetectionTime."""
_CLUSTER_ROLE: dict[Role, str] = {"active": "1", "standby": "2"}


@dataclass(frozen=True, slots=True)
class RoleEdit:
    """What `set_role` did. *repaired*: why the file could not be read and was taken from the backup."""

    changed: bool
    repaired: str | None = None


def read(path: Path) -> ServerSettings:
    """Return the settings; those of the backup, with the reason in ``torn``, where the file is damaged.

    Raises:
        ServerError: The file is missing, or damaged without a sound backup.
        ConfigError: A value in it cannot be, or not even the file, as for `set_role`; names file and key.
    """
    document, torn = _sound(path)
    return parse(path, document, torn)


def read_started(path: Path) -> ServerSettings:
    """Return the settings that the server was last given its role with; those of now where none are kept.

    Who edits the file of a running server changes nothing for it.

    Raises:
        ServerError, ConfigError: As `read`.
    """
    try:
        return parse(path, Document(_read(_beside(Path(os.path.realpath(path)), BACKUP))))
    except (OSError, BadXml, ConfigError):  # of a version that took values which are refused now
        return read(path)


def set_role(path: Path, role: Role) -> RoleEdit:
    """Make the server that is started next an active or a standby one. Doing it twice changes nothing.

    Raises:
        ServerError: The file is missing, damaged without a sound backup, or cannot be written.
            It is as it was before.
        ConfigError: It is too large, has a DOCTYPE or an encoding not known: left alone, not repaired.
    """
    document, torn = _sound(path)
    wanted = {
        "clusterRole": _CLUSTER_ROLE[role],
        "clusterFailureDetectionTime": str(DETECTION_MS),
    }
    data = document.with_values(wanted)
    check = Document(data)
    assert all(set(check.values(key)) == {value} for key, value in wanted.items())
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        if torn:
            _replace(target, target, _read(target), suffix=TORN)
            _replace(target, target, data)
        else:
            _back_up(target, document, wanted)
            if data != document.data:
                _replace(target, target, data)
    except OSError as error:
        raise ServerError(f"{path}: cannot be written: {error.strerror or error}") from error
    for suffix in (BACKUP, ORIGINAL, TORN):
        _follow(target, _beside(target, suffix))
    return RoleEdit(bool(torn) or data != document.data, torn)


def _back_up(target: Path, document: Document, wanted: dict[str, str]) -> None:
    """Keep *document* unless the backup says the same but for the role: a takeover waits for this."""
    if not _beside(target, ORIGINAL).exists():
        _replace(target, target, document.data, suffix=ORIGINAL)
    try:
        backup = Document(_read(_beside(target, BACKUP)))
    except (OSError, BadXml):
        pass
    else:
        if backup.with_values(wanted) == document.with_values(wanted):
            return
    _replace(target, target, document.data, suffix=BACKUP)


def _sound(path: Path) -> tuple[Document, str | None]:
    """Return what *path* holds, or its backup and why."""
    target = Path(os.path.realpath(path))
    try:
        return Document(_read(target)), None
    except Foreign as error:
        raise ConfigError(f"{path}: {error}") from error
    except BadXml as error:
        torn = str(error)
    except FileNotFoundError as error:
        raise ServerError(f"{path}: missing: {_advice(target)}") from error
    except OSError as error:
        raise ServerError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return Document(_read(_beside(target, BACKUP))), f"damaged ({torn})"
    except (OSError, BadXml) as error:
        raise ServerError(
            f"{path}: damaged ({torn}), and no sound backup {target.name}{BACKUP} beside it: "
            "restore it by hand"
        ) from error


def _advice(target: Path) -> str:
    if _beside(target, BACKUP).exists():
        return f"restore it, perhaps from {target.name}{BACKUP} beside it"
    return "give server.home and server.config_file, and start the server once without the sidecar"


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _read(path: Path) -> bytes:
    """Return the content of a regular file, at most a byte more than is allowed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "not a regular file")
        return file.read(SIZE_MAX + 1)


def _replace(model: Path, target: Path, data: bytes, *, suffix: str = "") -> None:
    """Write *data* to *target* + *suffix*, whole or not at all, with mode and owner of *model*."""
    target = _beside(target, suffix) if suffix else target
    new = _beside(target, NEW)
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            _copy_attributes(model, fd)
            file.write(data)
            file.flush()
            os.fsync(fd)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _follow(model: Path, copy: Path) -> None:
    """Give *copy* mode and owner of *model*: passwords stand in both. Never a reason for not serving."""
    with contextlib.suppress(OSError):
        fd = os.open(copy, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            was, found = model.stat(), os.fstat(fd)
            # The home may be the server's own user's: not a file of somebody else's under our name.
            ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
            if ours and _access(found) != _access(was):
                _copy_attributes(model, fd)
        finally:
            os.close(fd)


def _access(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mode, found.st_uid, found.st_gid


def _copy_attributes(model: Path, fd: int) -> None:
    was = model.stat()
    mine = os.fstat(fd)
    if (was.st_uid, was.st_gid) != (mine.st_uid, mine.st_gid):
        os.fchown(fd, was.st_uid, was.st_gid)  # refused: better no edit than a file the server cannot read
    os.fchmod(fd, stat.S_IMODE(was.st_mode))
    with contextlib.suppress(OSError):  # labels and ACLs: not every file system has them
        for name in os.listxattr(model):
            with contextlib.suppress(OSError):
                os.setxattr(fd, name, os.getxattr(model, name))
