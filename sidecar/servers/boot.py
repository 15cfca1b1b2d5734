"""Looks for what would start a server from a home when the machine starts: systemd units and init scripts.

Only what is certain counts, since the sidecar refuses to work beside it: a unit that runs one of the vendor's
launchers or Java and names the home; or one that is itself wanted at boot and whose command names something
there. One that saves the home, say, and is started by a timer is none.

Not found: units of a user's own systemd, generators, scripts that are called by others, cron.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from sidecar.config.launcher import LAUNCHERS
from sidecar.servers.place import Place

UNIT_FOLDERS = tuple(
    f"{folder}/systemd/system" for folder in ("etc", "run", "usr/local/lib", "usr/lib", "lib")
)
_SCRIPT_BYTES = 64 * 1024
_LINE = re.compile(r"\s*([A-Za-z]+)\s*=\s*(.*)")
_STARTERS = (".timer", ".socket", ".path")
_LAUNCHER = re.compile(rf"(?<![\w-])(?:{'|'.join(LAUNCHERS)})(?![\w.-])")
_AT_BOOT = ("default.target", "multi-user.target", "graphical.target", "basic.target", "sysinit.target")
_NOT_AT_BOOT = frozenset(
    [
        "shutdown",
        "reboot",
        "halt",
        "poweroff",
        "kexec",
        "final",
        "umount",
        "sleep",
        "suspend",
        "hibernate",
        "hybrid-sleep",
    ]
)
_PULLS = ("Wants", "Requires", "BindsTo", "Upholds")
_EXECS = ("ExecStart", "ExecStartPre", "ExecStartPost")

Unit = dict[str, list[str]]
"""What its file and its drop-ins say, by key; an empty value takes back those before it."""


def services(home: Path, root: Path = Path("/")) -> list[str]:
    """Return the systemd units and init scripts that start something in *home* at boot."""
    place = Place(home)
    return [*_units(place, root), *_scripts(place, root)]


def _units(place: Place, root: Path) -> Iterator[str]:
    units = _Units(root)
    for name, enabled in sorted(units.at_boot().items()):
        if name.endswith(".service") and _starts_server(place, units.read(name), direct=enabled == name):
            yield f"unit {name} (systemctl disable --now {enabled})"


class _Units:
    """The units of a machine. Each folder is listed once: the start of the sidecar waits for this."""

    def __init__(self, root: Path) -> None:
        self._files: dict[str, Path] = {}
        self._drop_ins: dict[str, dict[str, Path]] = {}
        self._links: list[str] = []
        for folder in UNIT_FOLDERS:
            for path in _listed(root / folder):
                if path.name.endswith((".wants", ".requires", ".upholds")):
                    if path.name.partition(".")[0] not in _NOT_AT_BOOT:
                        self._links += [link.name for link in _listed(path)]
                elif path.name.endswith(".d"):
                    there = self._drop_ins.setdefault(path.name[:-2], {})
                    for one in _listed(path):
                        there.setdefault(one.name, one)
                else:
                    self._files.setdefault(path.name, path)  # also a link to nowhere, which masks others

    def at_boot(self) -> dict[str, str]:
        """Return what is started, each with the unit that has to be disabled for it not to be."""
        found = {name: name for name in self._links}
        for target in _AT_BOOT:  # a drop-in of theirs may want more
            found.update({name: name for name in _names(self.read(target), *_PULLS)})
        todo = list(found)
        while todo:
            name = todo.pop()
            unit = self.read(name)
            pulled = _names(unit, *_PULLS)
            if name.endswith(_STARTERS):
                pulled += _names(unit, "Unit") or [f"{name.rpartition('.')[0]}.service"]
            for other in pulled:
                if other not in found:
                    found[other] = found[name]
                    todo.append(other)
        return found

    def read(self, name: str) -> Unit:
        """Read its file, or its template's, and the drop-ins of both."""
        stem, _, kind = name.rpartition(".")
        names = (f"{stem.partition('@')[0]}@.{kind}", name) if "@" in stem else (name,)
        files = [self._files[one] for one in reversed(names) if one in self._files][:1]
        if not files or files[0].resolve() == Path("/dev/null"):
            return {}  # not there, or masked: then its drop-ins are nothing
        drop_ins = {key: path for one in names for key, path in self._drop_ins.get(one, {}).items()}
        unit: Unit = {}
        for path in (*files, *(drop_ins[key] for key in sorted(drop_ins) if key.endswith(".conf"))):
            for line in _text(path).replace("\\\n", " ").splitlines():
                if match := _LINE.match(line):
                    key, value = match.groups()
                    unit[key] = [*unit.get(key, ()), value] if value else []
        return unit


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _names(unit: Unit, *keys: str) -> list[str]:
    return [name for key in keys for value in unit.get(key, ()) for name in value.split()]


def _starts_server(place: Place, unit: Unit, *, direct: bool) -> bool:
    """Tell whether *unit* starts a server in the home, other than by a sidecar; *direct*: wanted itself."""
    told = [value for key in ("WorkingDirectory", "Environment") for value in unit.get(key, ())]
    for value in (value for key in _EXECS for value in unit.get(key, ())):
        words = _words(value.lstrip("-@:+!| "))
        if any("sidecar" in Path(word).name for word in words[:4]):
            continue
        if any(map(_is_server, words)):
            found = [*words, *told]
        else:
            found = [word for word in words if direct and word.startswith("/")]
        if any(map(place.named_in, found)):
            return True
    return False


def _is_server(word: str) -> bool:
    name = Path(word).name
    return name in LAUNCHERS or name.startswith("java")


def _words(command: str) -> list[str]:
    """Return the words of a command, and those of the text that it gives a shell."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote without its end
        words = command.replace('"', " ").replace("'", " ").split()
    return [*words, *(part for word in words if " " in word for part in re.split(r"[\s;&|()]+", word))]


def _scripts(place: Place, root: Path) -> Iterator[str]:
    for script in sorted((root / "etc/init.d").glob("*")):
        enabled = any(True for _ in root.glob(f"etc/rc[2345].d/S[0-9][0-9]{script.name}"))
        if enabled and (place.holds(str(script)) or _runs_launcher(place, script)):
            yield f"init script {script.name} (update-rc.d {script.name} disable)"
    local = root / "etc/rc.local"
    if local.is_file() and local.stat().st_mode & 0o111 and _runs_launcher(place, local):
        yield "script /etc/rc.local (take the line out)"


def _runs_launcher(place: Place, script: Path) -> bool:
    lines = [line for line in _text(script).splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines)
    return bool(_LAUNCHER.search(text)) and place.named_in(text)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_SCRIPT_BYTES).decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""
