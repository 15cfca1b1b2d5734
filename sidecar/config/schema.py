"""Every key of the configuration: its place, kind of value, default, and whether it may change at run time.

The dataclasses are both the schema and what the program gets, so neither can know a key that the other
does not. A field ``ttl_ms`` of kind `Duration` is the key ``ttl``. docs/configuration.md says the same in
prose, kept true by tests/core/test_config_docs.py.
"""

# ruff: noqa: RUF009  # `key` and `section` only call dataclasses.field, which the rule knows

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sidecar.config import kinds as k
from sidecar.config.secret import Secret
from sidecar.ports import BackendSettings

BUILT_IN = ("etcd", "consul", "local")
NOT_AVAILABLE = ("hooks", "api")
"""Sections of SPEC.md that this version cannot honour: refused, never ignored."""

Values = Mapping[str, Any]


class Required(NamedTuple):
    """No default; *example* is shown when the key is missing."""

    example: str


class Derived(NamedTuple):
    """A default computed from other keys, after them. *given* are the keys somebody wrote."""

    says: str
    compute: Callable[[Values, frozenset[str]], Any]


class Key(NamedTuple):
    """One key: ``lock.ttl``."""

    path: str
    kind: k.Kind
    default: object  # as YAML would hold it, None for none, or Required, or Derived
    live: bool  # a reload may change it
    from_file: bool  # False: secrets, by environment only

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return "SIDECAR_" + self.path.replace(".", "__").upper()

    @property
    def default_says(self) -> str:
        """Describe the default for people."""
        match self.default:
            case Required():
                return "none: must be given"
            case Derived(says):
                return says
            case None:
                return "none"
            case bool():
                return "true" if self.default else "false"
            case _:
                return str(self.default)


def key(kind: k.Kind, default: object = None, *, live: bool = False, from_file: bool = True) -> Any:
    """Declare a key."""
    quiet = isinstance(kind, k.Environment | k.Options)
    return dataclasses.field(
        metadata={"kind": kind, "default": default, "live": live, "from_file": from_file}, repr=not quiet
    )


def section(cls: type) -> Any:
    """Declare a group of keys."""
    return dataclasses.field(metadata={"section": cls})


def _share(permille: int) -> Derived:
    def compute(values: Values, given: frozenset[str]) -> int:
        return int(values["lock.ttl"]) * permille // 1000  # rounded down, so that the timing rule holds

    return Derived(f"{permille / 1000:g} × lock.ttl", compute)


def _first_port_of_server(values: Values, given: frozenset[str]) -> tuple[int, ...] | None:
    own = {"server.probes.ready.http.url", "server.probes.ready.command"} & given
    return () if own or values["server.kind"] == "command" else None


def _as_ready(name: str, otherwise: object = None) -> Callable[[Values, frozenset[str]], Any]:
    checks = frozenset(f"server.probes.alive.{check}" for check in ("tcp", "http.url", "command"))

    def compute(values: Values, given: frozenset[str]) -> Any:
        return otherwise if checks & given else values[f"server.probes.ready.{name}"]

    return compute


_SPAN = k.Duration(0)
_POSITIVE = k.Duration(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Etcd:
    """How to reach etcd."""

    endpoints: tuple[str, ...] = key(
        k.Urls(2379), Derived("none: must be given for backend etcd", lambda v, g: ())
    )
    ca_file: str | None = key(k.AbsolutePath())
    cert_file: str | None = key(k.AbsolutePath())
    key_file: str | None = key(k.AbsolutePath())
    username: str | None = key(k.Text())
    password_file: str | None = key(k.AbsolutePath())
    password: Secret | None = key(k.SecretText(), from_file=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consul:
    """How to reach a Consul agent or server."""

    address: str = key(k.Url(8500), "http://127.0.0.1:8500")
    token_file: str | None = key(k.AbsolutePath())
    token: Secret | None = key(k.SecretText(), from_file=False)
    datacenter: str | None = key(k.Name())
    ca_file: str | None = key(k.AbsolutePath())
    cert_file: str | None = key(k.AbsolutePath())
    key_file: str | None = key(k.AbsolutePath())


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Where the embedded store is."""

    path: str = key(
        k.AbsolutePath(), Derived("local.db in paths.state", lambda v, g: f"{v['paths.state']}/local.db")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The lease and how it is divided; all durations."""

    ttl_ms: int = key(k.Duration(1_000), "10s")
    renew_every_ms: int = key(k.Duration(50), _share(200))
    request_timeout_ms: int = key(k.Duration(50), _share(150))
    stop_grace_ms: int = key(_SPAN, _share(300))
    kill_margin_ms: int = key(k.Duration(100), _share(100))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """Whether and how gladly this node becomes active."""

    priority: int = key(k.Integer(0, 1_000_000), 100, live=True)
    eligible: bool = key(k.Flag(), True, live=True)
    failback: bool = key(k.Flag(), False, live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """A request that must be answered with one status. *url* None: there is no such probe."""

    url: str | None
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyHttp(HttpProbe):
    """The HTTP part of the ready probe."""

    url: str | None = key(k.Url(), live=True)
    status: int = key(k.Integer(100, 599), 200, live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliveHttp(HttpProbe):
    """The HTTP part of the alive probe."""

    url: str | None = key(k.Url(), Derived("as ready", _as_ready("http.url")), live=True)
    status: int = key(k.Integer(100, 599), Derived("as ready", _as_ready("http.status", 200)), live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """When a starting server counts as ready: all checks given must pass.

    ``tcp`` None means the client and web ports of server.xml (kind aggregate only).
    """

    tcp: tuple[int, ...] | None = key(
        k.Ports(), Derived("clientPort and webAppsSslPort of server.xml", _first_port_of_server), live=True
    )
    http: ReadyHttp = section(ReadyHttp)
    command: tuple[str, ...] | None = key(k.Argv(), live=True)
    every_ms: int = key(k.Duration(50), "250ms", live=True)
    timeout_ms: int = key(k.Duration(50), "1s", live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """When a running server counts as hung: ``failures`` rounds in a row in which a check fails.

    ``tcp`` None means the client and web ports of server.xml (kind aggregate only).
    """

    tcp: tuple[int, ...] | None = key(k.Ports(), Derived("as ready", _as_ready("tcp", ())), live=True)
    http: AliveHttp = section(AliveHttp)
    command: tuple[str, ...] | None = key(k.Argv(), Derived("as ready", _as_ready("command")), live=True)
    every_ms: int = key(k.Duration(50), "2s", live=True)
    timeout_ms: int = key(k.Duration(50), "1s", live=True)
    failures: int = key(k.Integer(1, 1000), 3, live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """How the server's state is seen from outside."""

    ready: Ready = section(Ready)
    alive: Alive = section(Alive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """How often a failing server is started again in place before another node gets the lock."""

    attempts: int = key(k.Integer(0, 1000), 3, live=True)
    within_ms: int = key(_POSITIVE, "10m", live=True)
    backoff_ms: int = key(_SPAN, "1s", live=True)
    backoff_max_ms: int = key(_SPAN, "30s", live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is supervised."""

    kind: str = key(k.Choice(("aggregate", "command")), "aggregate")
    home: str = key(k.AbsolutePath(), "/opt/aggregate")
    command: tuple[str, ...] = key(
        k.Argv(),
        Derived("ag_server_console in server.home", lambda v, g: (f"{v['server.home']}/ag_server_console",)),
    )
    config_file: str = key(k.Text(), "server.xml")
    standby: str = key(
        k.Choice(("monitoring", "stopped")),
        Derived(
            "monitoring; stopped for kind command",
            lambda v, g: "stopped" if v["server.kind"] == "command" else "monitoring",
        ),
    )
    user: str | None = key(k.Text())
    environment: Mapping[str, str] = key(k.Environment(), {})
    start_timeout_ms: int = key(_POSITIVE, "5m", live=True)
    stop_timeout_ms: int = key(_SPAN, "60s", live=True)
    stop_signal: str = key(k.SignalName(), "TERM", live=True)
    stop_command: tuple[str, ...] | None = key(k.Argv(), live=True)
    probes: Probes = section(Probes)
    restarts: Restarts = section(Restarts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the log looks like."""

    format: str = key(k.Choice(("text", "json")), "text", live=True)
    level: str = key(k.Choice(("debug", "info", "warning", "error")), "info", live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Folders of the sidecar itself."""

    state: str = key(k.AbsolutePath(), "/var/lib/aggregate-sidecar")
    run: str = key(k.AbsolutePath(), "/run/aggregate-sidecar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Who ends the server at the deadline."""

    enforcement: str = key(k.Choice(("auto", "kernel", "process")), "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything an operator decides. Made by `sidecar.config.load`, never changed."""

    cluster: str = key(k.Name(), Required("plant-7"))
    node: str = key(k.Name(), Derived("the host name", lambda v, g: os.uname().nodename))
    backend: str = key(k.Name(), Required("etcd"))
    etcd: Etcd = section(Etcd)
    consul: Consul = section(Consul)
    local: Local = section(Local)
    lock: Lock = section(Lock)
    node_options: NodeOptions = section(NodeOptions)
    server: Server = section(Server)
    log: Log = section(Log)
    paths: Paths = section(Paths)
    guard: Guard = section(Guard)
    plugin: Mapping[str, object] = dataclasses.field(default_factory=dict, repr=False)
    """The section named like the backend where that is a plug-in; may hold secrets."""
    once: bool = False
    """``exec --once``: the first exit of the command, or the first loss of the lock, is the end."""
    source: str = ""
    """Where it came from, for messages."""

    def backend_settings(self) -> BackendSettings:
        """Return what the backend gets. It holds secrets in plain text: never print it."""
        from pathlib import Path

        return BackendSettings(self.cluster, self._options(), state_dir=Path(self.paths.state))

    def _options(self) -> Mapping[str, object]:
        if self.backend not in BUILT_IN:
            return self.plugin
        part = getattr(self, self.backend)
        found = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        unread = ("password_file", "token_file")  # their content is there as password and token
        return {
            name: _plain(value) for name, value in found.items() if value is not None and name not in unread
        }

    def redacted(self) -> dict[str, object]:
        """Return everything in force as a file would hold it, secrets shown as ``***``."""
        tree: dict[str, Any] = {}
        for path, value in rendered(self).items():
            *folders, name = path.split(".")
            place = tree
            for folder in folders:
                place = place.setdefault(folder, {})
            if value is not None:
                place[name] = value
        for probe in tree["server"]["probes"].values():
            if "url" not in probe["http"]:
                del probe["http"]  # only the status such a request should have
        for name in {*BUILT_IN} - {self.backend}:
            del tree[name]
        return tree


def _plain(value: Any) -> object:
    match value:
        case Secret():
            return value.reveal()
        case tuple():
            return list(value)
        case _:
            return value


def _walk(cls: type, prefix: str = "") -> Iterator[Key]:
    for field in dataclasses.fields(cls):
        if "section" in field.metadata:
            yield from _walk(field.metadata["section"], f"{prefix}{field.name}.")
        elif "kind" in field.metadata:
            yield Key(f"{prefix}{key_name(field)}", **field.metadata)


def key_name(field: "dataclasses.Field[Any]") -> str:
    """Return the key's own name: without ``_ms`` for a duration."""
    return field.name.removesuffix("_ms") if isinstance(field.metadata["kind"], k.Duration) else field.name


KEYS: Mapping[str, Key] = {found.path: found for found in _walk(Config)}
SECTIONS: frozenset[str] = frozenset(
    ".".join(path.split(".")[:depth]) for path in KEYS for depth in range(1, path.count(".") + 1)
)


def build(values: Values, **extra: object) -> Config:
    """Make a `Config` of a value for every key."""
    return cast(Config, _build(Config, "", values, extra))


def _build(cls: type, prefix: str, values: Values, extra: Mapping[str, object]) -> Any:
    found: dict[str, object] = dict(extra)
    for field in dataclasses.fields(cls):
        if "section" in field.metadata:
            found[field.name] = _build(field.metadata["section"], f"{prefix}{field.name}.", values, {})
        elif "kind" in field.metadata:
            found[field.name] = values[f"{prefix}{key_name(field)}"]
    return cls(**found)


def flat(config: Config) -> dict[str, Any]:
    """Return the value of every key by its dotted path, as the program uses it."""
    return _flat(config, "")


def _flat(part: Any, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if "section" in field.metadata:
            found |= _flat(value, f"{prefix}{field.name}.")
        elif "kind" in field.metadata:
            found[f"{prefix}{key_name(field)}"] = value
    return found


def rendered(config: Config) -> dict[str, object]:
    """Return the value of every key by its dotted path, as a file would hold it, secrets hidden."""
    found = {
        path: None if value is None else KEYS[path].kind.render(value) for path, value in flat(config).items()
    }
    if config.backend not in BUILT_IN:
        options = cast(Mapping[str, object], k.Options().render(config.plugin))
        found |= {f"{config.backend}.{name}": value for name, value in options.items()}
    return found
