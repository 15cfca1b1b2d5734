"""The home of a server as others may write it: by its own path, by a link to it, or within a longer text."""

import os
import re
from pathlib import Path

_ABSOLUTE = re.compile(r"(?<![\w.}])/[^\s\0\"'`;:,=&|<>(){}$*?]+")


class Place:
    """Finds a home in paths and texts."""

    def __init__(self, home: Path) -> None:
        self.home = Path(os.path.realpath(home))
        spellings = sorted({str(self.home), os.path.normpath(os.path.abspath(home))})  # noqa: PTH100
        found = "|".join(map(re.escape, spellings))
        self._spelled = re.compile(rf"(?<![\w./-])(?:{found})(?=$|[/\s\"'`;:,=&|<>()])")

    def holds(self, path: str, cwd: str = "") -> bool:
        """Tell whether *path* is the home or in it."""
        real = Path(os.path.realpath(Path(cwd or "/") / path))
        return real == self.home or self.home in real.parents

    def is_at(self, path: str, cwd: str) -> bool:
        """Tell whether *path* is the home itself."""
        return Path(os.path.realpath(Path(cwd or "/") / path)) == self.home

    def named_in(self, text: str) -> bool:
        """Tell whether *text* names the home or something in it, also by a link that nobody told us of."""
        if self._spelled.search(text) or (text.startswith("/") and self.holds(text)):
            return True
        return any(map(self.holds, {*_ABSOLUTE.findall(text)}))
