"""What somebody wrote, key by key, with the place to name when it is wrong.

Three places, the stronger last: the file, the environment, the command line of ``exec``.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from sidecar.config import compound, kinds, reader
from sidecar.config.schema import BUILT_IN, KEYS, SECTIONS
from sidecar.errors import ConfigError, SidecarError

PREFIX = "SIDECAR_"
IGNORED = frozenset(("SIDECAR_CONFIG", "SIDECAR_ROLE", "SIDECAR_EPOCH"))
"""CONFIG names the file; ROLE and EPOCH are what a server is told, and sidecars may be started from one."""

SECRET_VARIABLES = tuple(found.variable for found in KEYS.values() if not found.from_file)
_PRINTABLE = re.compile(r"[A-Za-z0-9_.-]{1,80}", re.ASCII)


class Origin(NamedTuple):
    """Where a value was written. *label* starts the message; it names the key if *names_key*."""

    label: str
    error: type[SidecarError] = ConfigError
    names_key: bool = False


class Given(NamedTuple):
    """A value as it was written."""

    value: object
    origin: Origin


class Sources:
    """Everything that was written. *label* names the file, *document* its lines; *patient*: see `load`."""

    def __init__(self, label: str, document: reader.Document | None = None, *, patient: bool = False) -> None:
        self.label = label
        self.document = document or reader.Document({}, {})
        self.found: dict[str, Given] = {}
        self.plugin: str | None = None  # name of the section that belongs to a plug-in
        self._patient = patient
        self.trouble: list[str] = []  # where patient

    def problem(self, path: str, message: str) -> SidecarError:
        """Return the error about *path*, naming where it was written."""
        given = self.found.get(path)
        origin = given.origin if given else self.at(path)
        named = origin.label if origin.names_key else f"{origin.label}: {printable(path)}"
        return origin.error(f"{named}: {message}" if path else f"{origin.label}: {message}")

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Where patient, note what would be raised instead of raising it."""
        try:
            yield
        except SidecarError as error:
            if not self._patient:
                raise
            self.trouble.append(str(error))

    def at(self, path: str) -> Origin:
        """Return the place of *path* in the file."""
        line = self.document.line(path) if path in self.document.lines else None
        return Origin(self.label if line is None else f"{self.label}:{line}")


def printable(path: str) -> str:
    """Return *path* fit for one line of a message."""
    return ".".join(part if _PRINTABLE.fullmatch(part) else repr(part[:60]) for part in path.split("."))


def from_document(sources: Sources) -> None:
    """Sort what the file holds by key.

    Raises:
        ConfigError: A key that does not exist, or a section that is no mapping.
    """
    top = sources.document.value
    if top is None:
        raise sources.problem("", "is empty; write at least cluster and backend")
    if not isinstance(top, dict):
        raise sources.problem(
            "", f"expected keys such as cluster and backend at the top, got {kinds.show(top)}"
        )
    _section(sources, "", top)


def _section(sources: Sources, prefix: str, mapping: Mapping[str, object]) -> None:
    for name, value in mapping.items():
        path = reader.join(prefix, name)
        if "." in name:
            raise sources.problem(path, "a key cannot hold a dot; nest the keys instead")
        if path == sources.plugin:
            _plugin(sources, path, value)
        elif path in SECTIONS:
            if isinstance(value, dict):
                _section(sources, path, value)
            elif value is not None:  # a section with everything in it commented out is nothing
                raise sources.problem(path, f"expected a mapping of keys, got {kinds.show(value)}")
        elif path in KEYS:
            _leaf(sources, path, value)
        else:
            raise sources.problem(path, f"unknown key{_meant(path, [*KEYS, *SECTIONS])}")


def _plugin(sources: Sources, path: str, value: object) -> None:
    for name in value if isinstance(value, dict) else ():
        if compound.is_secret(name):
            instead = f"give {printable(f'{path}.{name}')}_file or {_variable(path)}{name.upper()} instead"
            raise sources.problem(
                reader.join(path, name), f"a secret cannot stand in the configuration; {instead}"
            )
    sources.found[path] = Given(value, sources.at(path))


def _leaf(sources: Sources, path: str, value: object) -> None:
    if not KEYS[path].from_file:
        instead = f"give {path}_file or {KEYS[path].variable} instead"
        raise sources.problem(path, f"a secret cannot stand in the configuration; {instead}")
    if value is None:
        raise sources.problem(path, "is empty; give a value or remove the key")
    sources.found[path] = Given(value, sources.at(path))


def from_environ(sources: Sources, environ: Mapping[str, str]) -> None:
    """Lay the variables over what the file holds.

    Raises:
        ConfigError: A variable that can only be meant for a key that does not exist.
    """
    known = {found.variable: path for path, found in KEYS.items()}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in IGNORED:
            continue
        origin = Origin(variable, names_key=True)
        if variable in known:
            path = known[variable]
            origin = Origin(f"{variable} ({path})", names_key=True)
            sources.found[path] = Given(_from_text(path, environ[variable], origin), origin)
        elif not _into_mapping(sources, variable, environ[variable], origin):
            _refuse(sources, variable)


def _into_mapping(sources: Sources, variable: str, text: str, origin: Origin) -> bool:
    """Set one entry of a mapping whose names are free: a server's variable, a plug-in's option."""
    for path in ("server.environment", sources.plugin):
        if not path:
            continue
        start = _variable(path)
        if variable.startswith(start) and len(variable) > len(start):
            name = variable.removeprefix(start)
            name, value = (
                (name, text) if path == "server.environment" else (name.lower(), _yaml(text, origin))
            )
            before = sources.found.get(path)
            base = before.value if before and isinstance(before.value, dict) else {}
            if before and before.value is not None and not isinstance(before.value, dict):
                return True  # the file's own mistake is reported instead
            place = before.origin if before else Origin(f"{variable} ({path})", names_key=True)
            sources.found[path] = Given({**base, name: value}, place)
            return True
    return False


def _variable(mapping: str) -> str:
    """Return what the variables for the entries of *mapping* start with."""
    return PREFIX + re.sub(r"[^A-Za-z0-9]", "_", mapping.replace(".", "__")).upper() + "__"


def _from_text(path: str, text: str, origin: Origin) -> object:
    kind = KEYS[path].kind
    if not text:
        raise ConfigError(f"{origin.label}: is empty; give a value or unset it")
    if kind.shape == "scalar":
        scalar = reader.scalar(text)
        # Text that looks like a number is still text here: quotes mean nothing in an environment.
        return scalar if isinstance(kind, kinds.Integer | kinds.Flag) and scalar is not None else text
    if kind.shape == "map" or text.lstrip().startswith(("[", "{")):
        return _yaml(text, origin)
    items = [part.strip() for part in text.split(",")]
    return [reader.scalar(part) for part in items] if isinstance(kind, compound.Ports) else items


def _yaml(text: str, origin: Origin) -> object:
    try:
        return reader.read(text).value
    except reader.Unreadable as error:
        raise ConfigError(f"{origin.label}: {error}") from error


def _refuse(sources: Sources, variable: str) -> None:
    """Raise for a variable that was meant for a key; leave alone what others may have set.

    A Kubernetes service named "sidecar" puts SIDECAR_SERVICE_HOST and SIDECAR_PORT into every container.
    """
    rest = variable.removeprefix(PREFIX)
    top = rest.partition("__")[0].lower()
    if top in SECTIONS and "__" not in rest:
        example = next(found.variable for path, found in KEYS.items() if path.startswith(f"{top}."))
        raise ConfigError(f"{variable}: {top} is a group of keys; set one of them, such as {example}")
    variables = {found.variable: path for path, found in KEYS.items()}
    squeezed = {re.sub("_+", "_", name): name for name in variables if "__" in name}
    meant = squeezed.get(re.sub("_+", "_", variable))
    if meant:
        raise ConfigError(f"{printable(variable)}: unknown variable; did you mean {meant}?")
    if "__" in rest:
        raise ConfigError(f"{printable(variable)}: unknown variable{_meant(variable, variables)}")
    near = _nearest(rest, [name.removeprefix(PREFIX) for name in variables if "__" not in name])
    if near:
        raise ConfigError(f"{printable(variable)}: unknown variable; did you mean {PREFIX}{near}?")


def _meant(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` for a near miss, else where to look."""
    candidates = list(known)
    near = _nearest(name, candidates) or _nearest_leaf(name, candidates)
    return f"; did you mean {near}?" if near else "; docs/configuration.md lists all keys"


def _nearest(name: str, known: list[str]) -> str | None:
    import difflib  # 5 ms, needed only for the message

    return next(iter(difflib.get_close_matches(name[:200], known, n=1, cutoff=0.75)), None)


def _nearest_leaf(name: str, known: list[str]) -> str | None:
    """Find the key that was put into the wrong section: ``ttl`` for ``lock.ttl``."""
    leaf = name.rpartition(".")[2]
    same = [path for path in known if path.rpartition(".")[2] == leaf]
    return same[0] if len(same) == 1 else None


def backend_name(sources: Sources, environ: Mapping[str, str]) -> str | None:
    """Return which backend is meant, before anything is checked, to know a plug-in's section."""
    top = sources.document.value
    written = top.get("backend") if isinstance(top, dict) else None
    name = environ.get("SIDECAR_BACKEND") or written
    return name if isinstance(name, str) else None


def plugin_section(name: str | None) -> str | None:
    """Return the section that belongs to backend *name* if that is a plug-in."""
    free = (
        name is not None
        and name not in BUILT_IN
        and name not in {path.split(".")[0] for path in (*KEYS, *SECTIONS)}
    )
    return name if free else None


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* for a child process: without the variables that hold our own secrets."""

    def is_ours(name: str) -> bool:  # a plug-in's have names of their own
        return name in SECRET_VARIABLES or (name.startswith("SIDECAR_") and compound.is_secret(name.lower()))

    return {name: value for name, value in environ.items() if not is_ours(name)}


def label_of(path: "os.PathLike[str] | str") -> str:
    """Return a file's path fit for one line of a message."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)
