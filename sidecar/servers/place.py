"""The home of a server as others may write it: by its own path, by a link to it, or within a longer text."""

import os
import re
from collections import deque
from pathlib import Path

import psutil

_ABSOLUTE = re.compile(r"(?<![\w.}])/[^\s\0\"'`;:,=&|<>(){}$*?]+")
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "ceph",
    "fuse",
    "autofs",
    "afs",
    "lustre",
    "gpfs",
    "beegfs",
    "glusterfs",
)
"""How types of file systems begin that somebody else serves. One that is dead holds up who looks into it."""
_LINKS_MAX = 40


class Place:
    """Finds a home in paths and texts. Nothing is looked up on a remote file system but the home's own."""

    def __init__(self, home: Path) -> None:
        self.home = Path(os.path.realpath(home))
        spellings = sorted({str(self.home), os.path.normpath(os.path.abspath(home))})  # noqa: PTH100
        found = "|".join(map(re.escape, spellings))
        self._spelled = re.compile(rf"(?<![\w./-])(?:{found})(?=$|[/\s\"'`;:,=&|<>()])")
        self._remote = _remote_mounts() - set(map(str, (self.home, *self.home.parents)))

    def holds(self, path: str, cwd: str = "") -> bool:
        """Tell whether *path* is the home or in it."""
        real = self._real(Path(cwd or "/") / path)
        return real == self.home or self.home in real.parents

    def is_at(self, path: str, cwd: str) -> bool:
        """Tell whether *path* is the home itself."""
        return self._real(Path(cwd or "/") / path) == self.home

    def named_in(self, text: str) -> bool:
        """Tell whether *text* names the home or something in it, also by a link that nobody told us of."""
        if self._spelled.search(text) or (text.startswith("/") and self.holds(text)):
            return True
        return any(map(self.holds, {*_ABSOLUTE.findall(text)}))

    def _real(self, path: Path) -> Path:
        """Return where *path* leads, as `os.path.realpath`, up to the edge of a remote file system."""
        todo, at, links = deque(path.parts[1:]), "/", 0
        while todo:
            part = todo.popleft()
            if part == "..":
                at = os.path.dirname(at)  # noqa: PTH120 - as strings, which is ten times faster
                continue
            at = os.path.join(at, part)  # noqa: PTH118
            if at in self._remote:
                break
            try:
                target = Path(os.readlink(at))  # noqa: PTH115 - one call, where it is no link, too
            except OSError:
                continue
            links += 1
            if links > _LINKS_MAX:
                break
            at = "/" if target.is_absolute() else os.path.dirname(at)  # noqa: PTH120
            todo.extendleft(reversed(target.parts[target.is_absolute() :]))
        return Path(at, *todo)


def _remote_mounts() -> set[str]:
    return {one.mountpoint for one in psutil.disk_partitions(all=True) if one.fstype.startswith(_REMOTE)}
