"""Which file an AggreGate Server will read, as its command tells: ``-f FILE`` in the folder of ``-o DIR``.

The sidecar writes the role into `server.config_file`. A server that reads another file has the role that
stands there, perhaps as a second active: so the command has to say the same.

Looked at: the words behind the launcher, also those of a shell's ``-c``. Not guaranteed: what a script of
one's own hands on to the server.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile

from sidecar.config.kinds import show

LAUNCHERS = ("ag_server_console", "ag_server", "ag_server_service")
"""As the vendor names them; the first is the one for a supervisor."""
USUAL = "server.xml"
_SHELLS_OPTION = re.compile("-[A-Za-z]*c")  # also -lc and -ec
_ENDS = re.compile("[;&|()]+")


def default(home: str, config_file: str) -> tuple[str, ...]:
    """Return the command of an installation in *home*."""
    told = () if config_file == USUAL else ("-f", config_file)
    return f"{home}/{LAUNCHERS[0]}", *told


def contradiction(home: str, config_file: str, command: Sequence[str]) -> tuple[str, str] | None:
    """Return the key to mend and why, where *command* names another file or folder than the sidecar edits."""
    words = tuple(_arguments(command))
    for folder in _given(words, "-o"):
        if _path(home, folder) != _path(home, ""):
            return "server.command", (
                f"-o {show(folder)} is not server.home, in whose {show(config_file)} the role "
                "is written: give one folder in both"
            )
    files = _given(words, "-f")
    for file in files:
        if _path(home, file) != _path(home, config_file):
            return "server.command", (
                f"-f {show(file)}: the server would not read server.config_file, {show(config_file)}, into "
                f"which the role is written: write server.config_file: {show(file)}, or another -f"
            )
    if not files and _path(home, config_file) != _path(home, USUAL):
        return "server.config_file", (
            f"{show(config_file)}, but server.command has no -f: the server would read {USUAL}, and not what "
            f"the role is written into: add -f and {show(config_file)} to server.command"
        )
    return None


def _path(home: str, name: str) -> str:
    return os.path.normpath(os.path.join(home, name))  # noqa: PTH118 - Path keeps the ".."


def _given(words: Sequence[str], option: str) -> list[str]:
    return [value for word, value in pairwise((*words, "")) if word == option]


def _arguments(command: Sequence[str]) -> Iterator[str]:
    """Return the words behind each launcher, up to the end of its command; all, where none is known."""
    words = [part for last, word in pairwise(("", *command)) for part in _words(last, word)]
    known = [place for place, word in enumerate(words) if os.path.basename(word) in LAUNCHERS]  # noqa: PTH119
    if not known:
        yield from words[1:]
    for place in known:
        yield from takewhile(lambda word: not _ENDS.fullmatch(word), words[place + 1 :])


def _words(last: str, word: str) -> list[str]:
    """Return the words of a command for a shell, its ``;`` and the like as words of their own."""
    text = word.removeprefix("--command=")
    if text == word and not _SHELLS_OPTION.fullmatch(last):
        return [word]
    lines = text.replace("\n", " ; ")
    reader = shlex.shlex(lines, posix=True, punctuation_chars=";&|()<>")
    reader.whitespace_split, reader.commenters = True, ""
    try:
        return list(reader)
    except ValueError:  # a quote without its end
        return lines.split()
