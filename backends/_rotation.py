"""Files with credentials, looked at while the program runs, so that new ones count without a restart.

Rules
- A thread of its own looks and reads: a file system that hangs delays no request.
- What is in force stays so until the new is whole and the store accepts it: ``take`` raises otherwise, and is
  called again at each look. So files may be replaced one by one, in any order, and nothing is lost meanwhile.
- A request that is refused for its credentials makes it look at once.

Not guaranteed: a change that keeps a file's inode, size and times is not seen.
"""

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sidecar.clock import Clock, left_s
from sidecar.config.files import read_file, reason
from sidecar.core.units import Instant
from sidecar.errors import BackendError, ConfigError

LOOK_EVERY_S = 1.0  # how long a new file may go unseen; a look is one system call for each file
REFUSED_WAIT_MS = 500  # at most, of a refused request for a look at its file; more would use up its deadline
TRY_MS = 2_000  # for the store to accept new files, before that is tried again at the next look
SIZE_MAX = 1 << 20

Mark = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file whose one line is a password or token; *key* is the key of the configuration that names it."""

    key: str
    path: str

    def read(self) -> str:
        """Return the line.

        Raises:
            ConfigError: There is none to be had; names key and path, and nothing of the content.
        """
        try:
            text = read_file(Path(self.path), SIZE_MAX).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ConfigError(f"{self.key}: {self.path}: not a text") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.key}: {self.path}: {reason(error)}") from error
        if not text or not text.isprintable():
            raise ConfigError(f"{self.key}: {self.path}: {'not one line' if text else 'is empty'}")
        return text


@dataclass(slots=True)
class _Watched:
    paths: tuple[str, ...]
    take: Callable[[], None]
    taken: Mark
    trouble: str = ""


class Rotation:
    """Looks at files, and has their new content taken; the thread starts with the first `start`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watched: list[_Watched] = []
        self._state = threading.Condition()
        self._asked = self._looked = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, paths: Iterable[str], take: Callable[[], None]) -> None:
        """Call *take* whenever one of *paths* is another than now: to be called before they are read.

        *take* raises ConfigError or BackendError where what it finds cannot be used yet.
        """
        named = tuple(paths)
        if named:
            self._watched.append(_Watched(named, take, _mark(named)))

    def start(self) -> None:
        """Begin to look, if there is anything to look at; safe to repeat."""
        if self._thread is not None or not self._watched:
            return
        with self._state:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="credentials", daemon=True)
                self._thread.start()

    def look(self, deadline: Instant) -> None:
        """Look now, and wait for that a moment."""
        self.start()
        until = Instant(min(deadline, self._clock.now() + REFUSED_WAIT_MS))
        with self._state:
            self._asked += 1
            mine = self._asked
            self._state.notify_all()
            if self._thread is not None:
                self._state.wait_for(lambda: self._looked >= mine or self._closed, left_s(until, self._clock))

    def close(self) -> None:
        """Look no more."""
        with self._state:
            self._closed = True
            self._state.notify_all()

    def _run(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._closed or self._asked > self._looked, LOOK_EVERY_S)
                if self._closed:
                    return
                asked = self._asked
            for watched in self._watched:
                self._look_at(watched)
            with self._state:
                self._looked = asked
                self._state.notify_all()

    def _look_at(self, watched: _Watched) -> None:
        mark = _mark(watched.paths)  # before they are read: what changes meanwhile is seen at the next look
        if mark == watched.taken:
            return
        try:
            watched.take()
        except Exception as error:  # outermost frame of the thread: what is in force stays
            expected = isinstance(error, ConfigError | BackendError)
            trouble = str(error) if expected else f"internal error: {type(error).__name__}"
            if trouble != watched.trouble and not self._closed:
                _tell(watched, trouble)
            watched.trouble = trouble
            return
        watched.taken, watched.trouble = mark, ""
        _tell(watched, None)


def _mark(paths: Iterable[str]) -> Mark:
    """Return what differs when one of *paths* was replaced or written; links are followed."""
    found: list[tuple[int, ...] | None] = []
    for path in paths:
        try:
            at = os.stat(path)  # noqa: PTH116 - a Path is no use here
            found.append((at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


def _tell(watched: _Watched, trouble: str | None) -> None:
    from sidecar.events import LOG, CredentialsRefused, CredentialsTaken, emit  # a command has no log

    if LOG.handlers:
        files = ", ".join(watched.paths)
        emit(
            CredentialsTaken(files=files)
            if trouble is None
            else CredentialsRefused(files=files, reason=trouble)
        )
