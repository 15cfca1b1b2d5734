"""Reading the configuration and the files it names, without ever waiting for a pipe or a device."""

import os
import stat
from pathlib import Path


def read_file(path: Path, size_max: int) -> bytes:
    """Return what is in a regular file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, or too long.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("is a directory, not a file" if stat.S_ISDIR(mode) else "is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(size_max + 1)
    finally:
        os.close(descriptor)
    if len(content) > size_max:
        raise ValueError(f"is larger than {size_max} bytes")
    return content


def is_folder(path: Path) -> bool:
    """Tell whether *path* is a folder; `Path.is_dir` raises for a long name or a folder that is shut."""
    return os.path.isdir(path)  # noqa: PTH112


def reason(error: Exception) -> str:
    """Return why a file could not be read, on one line and without its path."""
    if isinstance(error, PermissionError):
        do = "run this as its owner or root, or change its owner or mode"
        return f"not readable by user id {os.geteuid()}; {do}"
    return (error.strerror or "cannot be read").lower() if isinstance(error, OSError) else str(error)
