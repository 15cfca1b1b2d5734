"""One sidecar for each run directory."""

import fcntl
import os
from pathlib import Path
from typing import IO

from sidecar.errors import ConfigError, Refused


def only_one(run_dir: Path) -> IO[str]:
    """Take the run directory for this process; the lock goes with it.

    Raises:
        Refused: Another sidecar has it.
        ConfigError: It cannot be made.
    """
    path = run_dir / "sidecar.lock"
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise ConfigError(f"paths.run: {path}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        raise Refused(
            f"{run_dir}: another sidecar (pid {pid}) runs there; stop it, or give each its own paths.run"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
