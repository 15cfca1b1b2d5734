"""Every key of the configuration: its place, kind of value, default, and whether it may change at run time.

The classes are both the schema and what the program gets, so neither can know a key that the other
does not. A field ``ttl_ms`` of kind `Duration` is the key ``ttl``. docs/configuration.md says the same in
prose, kept true by tests/core/test_config_docs.py.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sidecar.config import compound as c
from sidecar.config import kinds as k
from sidecar.config import launcher
from sidecar.config.group import Declared, Group, Values, extra, key, section
from sidecar.config.group import Derived as Derived
from sidecar.config.group import Required as Required
from sidecar.config.hooks import Hooks
from sidecar.config.secret import Secret

if TYPE_CHECKING:
    from sidecar.ports import BackendSettings  # 20 ms, not needed to check a configuration

BUILT_IN = ("etcd", "consul", "local")


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


def _share(permille: int) -> Derived:
    def compute(values: Values, given: frozenset[str]) -> int:
        return int(values["lock.ttl"]) * permille // 1000  # rounded down, so that the timing rule holds

    return Derived(f"{permille / 1000:g} × lock.ttl", compute)


def _ports_of_server(values: Values, given: frozenset[str]) -> tuple[int, ...] | None:
    own = {"server.probes.ready.http.url", "server.probes.ready.command"} & given
    return () if own or values["server.kind"] == "command" else None


def _as_ready(name: str, otherwise: object = None) -> Callable[[Values, frozenset[str]], Any]:
    checks = frozenset(f"server.probes.alive.{check}" for check in ("tcp", "http.url", "command"))

    def compute(values: Values, given: frozenset[str]) -> Any:
        return otherwise if checks & given else values[f"server.probes.ready.{name}"]

    return compute


_SPAN = k.Duration(0)
_POSITIVE = k.Duration(1)


class Etcd(Group):
    """How to reach etcd."""

    endpoints: tuple[str, ...] = key(
        c.Urls(2379), Derived("none: must be given for backend etcd", lambda v, g: ())
    )
    ca_file: str | None = key(k.AbsolutePath())
    cert_file: str | None = key(k.AbsolutePath())
    key_file: str | None = key(k.AbsolutePath())
    username: str | None = key(k.Text())
    password_file: str | None = key(k.AbsolutePath())
    password: Secret | None = key(k.SecretText(), from_file=False)


class Consul(Group):
    """How to reach a Consul agent or server."""

    address: str = key(k.Url(8500), "http://127.0.0.1:8500")
    token_file: str | None = key(k.AbsolutePath())
    token: Secret | None = key(k.SecretText(), from_file=False)
    datacenter: str | None = key(k.Name())
    ca_file: str | None = key(k.AbsolutePath())
    cert_file: str | None = key(k.AbsolutePath())
    key_file: str | None = key(k.AbsolutePath())


class Local(Group):
    """Where the embedded store is."""

    path: str = key(
        k.AbsolutePath(), Derived("local.db in paths.state", lambda v, g: f"{v['paths.state']}/local.db")
    )


class Lock(Group):
    """The lease and how it is divided; all durations."""

    ttl_ms: int = key(k.Duration(1_000), "10s")
    renew_every_ms: int = key(k.Duration(50), _share(200))
    request_timeout_ms: int = key(k.Duration(50), _share(150))
    stop_grace_ms: int = key(_SPAN, _share(300))
    kill_margin_ms: int = key(k.Duration(100), _share(100))


class NodeOptions(Group):
    """Whether and how gladly this node becomes active."""

    priority: int = key(k.Integer(0, 1_000_000), 100, live=True)
    eligible: bool = key(k.Flag(), True, live=True)
    failback: bool = key(k.Flag(), False, live=True)


class HttpProbe(Group):
    """A request that must be answered with one status. *url* None: there is no such probe."""

    url: str | None
    status: int


class ReadyHttp(HttpProbe):
    """The HTTP part of the ready probe."""

    url: str | None = key(k.Url(), live=True)
    status: int = key(k.Integer(100, 599), 200, live=True)


class AliveHttp(HttpProbe):
    """The HTTP part of the alive probe."""

    url: str | None = key(k.Url(), Derived("as ready", _as_ready("http.url")), live=True)
    status: int = key(k.Integer(100, 599), Derived("as ready", _as_ready("http.status", 200)), live=True)


class Ready(Group):
    """When a starting server counts as ready: all checks given must pass.

    ``tcp`` None means the client and web ports of server.xml (kind aggregate only).
    """

    tcp: tuple[int, ...] | None = key(
        c.Ports(), Derived("clientPort and webAppsSslPort of server.xml", _ports_of_server), live=True
    )
    http: ReadyHttp = section(ReadyHttp)
    command: tuple[str, ...] | None = key(c.Argv(), live=True)
    every_ms: int = key(k.Duration(50), "250ms", live=True)
    timeout_ms: int = key(k.Duration(50), "1s", live=True)


class Alive(Group):
    """When a running server counts as hung: ``failures`` rounds in a row in which a check fails.

    ``tcp`` None means the client and web ports of server.xml (kind aggregate only).
    """

    tcp: tuple[int, ...] | None = key(c.Ports(), Derived("as ready", _as_ready("tcp", ())), live=True)
    http: AliveHttp = section(AliveHttp)
    command: tuple[str, ...] | None = key(c.Argv(), Derived("as ready", _as_ready("command")), live=True)
    every_ms: int = key(k.Duration(50), "2s", live=True)
    timeout_ms: int = key(k.Duration(50), "1s", live=True)
    failures: int = key(k.Integer(1, 1000), 3, live=True)


class Probes(Group):
    """How the server's state is seen from outside."""

    ready: Ready = section(Ready)
    alive: Alive = section(Alive)


class Restarts(Group):
    """How often a failing server is started again in place before another node gets the lock."""

    attempts: int = key(k.Integer(0, 1000), 3, live=True)
    within_ms: int = key(_POSITIVE, "10m", live=True)
    backoff_ms: int = key(_SPAN, "1s", live=True)
    backoff_max_ms: int = key(_SPAN, "30s", live=True)


class Server(Group):
    """What is supervised."""

    kind: str = key(k.Choice(("aggregate", "command")), "aggregate")
    home: str = key(
        k.AbsolutePath(),
        Derived(
            "/opt/aggregate; / for kind command",
            lambda v, g: "/" if v["server.kind"] == "command" else "/opt/aggregate",
        ),
    )
    command: tuple[str, ...] = key(
        c.Argv(),
        Derived(
            "ag_server_console in server.home, with -f for another server.config_file",
            lambda v, g: launcher.default(v["server.home"], v["server.config_file"]),
        ),
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
    environment: Mapping[str, str] = key(c.Environment(), {})
    start_timeout_ms: int = key(_POSITIVE, "5m", live=True)
    stop_timeout_ms: int = key(_SPAN, "60s", live=True)
    stop_signal: str = key(k.SignalName(), "TERM")
    stop_command: tuple[str, ...] | None = key(c.Argv())
    probes: Probes = section(Probes)
    restarts: Restarts = section(Restarts)


class Api(Group):
    """Where the HTTP API listens, and who may give commands by it."""

    listen: str | None = key(k.Listen(8009))
    tls_cert_file: str | None = key(k.AbsolutePath())
    tls_key_file: str | None = key(k.AbsolutePath())
    token_file: str | None = key(k.AbsolutePath(), live=True)
    token: Secret | None = key(k.SecretText(), live=True, from_file=False)
    plain_http_commands: bool = key(k.Flag(), False)


class Log(Group):
    """What the log looks like."""

    format: str = key(k.Choice(("text", "json")), "text")
    level: str = key(k.Choice(("debug", "info", "warning", "error")), "info", live=True)


class Paths(Group):
    """Folders of the sidecar itself."""

    state: str = key(k.AbsolutePath(), "/var/lib/aggregate-sidecar")
    run: str = key(k.AbsolutePath(), "/run/aggregate-sidecar")


class Guard(Group):
    """Who ends the server at the deadline."""

    enforcement: str = key(k.Choice(("auto", "kernel", "process")), "auto")


class Config(Group):
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
    hooks: Hooks = section(Hooks)
    api: Api = section(Api)
    log: Log = section(Log)
    paths: Paths = section(Paths)
    guard: Guard = section(Guard)
    plugin: Mapping[str, object] = extra(dict, quiet=True)
    """The section named like the backend where that is a plug-in; may hold secrets."""
    once: bool = extra(bool)
    """``exec --once``: the first exit of the command, or the first loss of the lock, is the end."""
    source: str = extra(str)
    """Where it came from, for messages."""
    trouble: tuple[str, ...] = extra(tuple)
    """What is wrong with the files of ``api``, where `load` was told to be patient."""

    def backend_settings(self) -> "BackendSettings":
        """Return what the backend gets. It holds secrets in plain text: never print it."""
        from pathlib import Path

        from sidecar.ports import BackendSettings

        return BackendSettings(self.cluster, self._options(), state_dir=Path(self.paths.state))

    def _options(self) -> Mapping[str, object]:
        if self.backend not in BUILT_IN:
            return self.plugin
        found = vars(getattr(self, self.backend))
        overruled = {f"{name}_file" for name, value in found.items() if isinstance(value, Secret)}
        return {
            name: _plain(value)
            for name, value in found.items()
            if value is not None and name not in overruled
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


def _walk(group: type[Group], prefix: str = "") -> Iterator[Key]:
    for name, found in group.DECLARED.items():
        if found.group:
            yield from _walk(found.group, f"{prefix}{name}.")
        elif found.kind:
            path = prefix + _key_name(name, found)
            yield Key(path, found.kind, found.default, found.live, found.from_file)


def _key_name(name: str, found: Declared) -> str:
    """Return the key's own name: without ``_ms`` for a duration."""
    return name.removesuffix("_ms") if isinstance(found.kind, k.Duration) else name


KEYS: Mapping[str, Key] = {found.path: found for found in _walk(Config)}
SECTIONS: frozenset[str] = frozenset(
    ".".join(path.split(".")[:depth]) for path in KEYS for depth in range(1, path.count(".") + 1)
)


def build(values: Values, **more: object) -> Config:
    """Make a `Config` of a value for every key."""
    return cast(Config, _build(Config, "", values, more))


def _build(group: type[Group], prefix: str, values: Values, more: Mapping[str, object]) -> Group:
    found: dict[str, Any] = dict(more)
    for name, declared in group.DECLARED.items():
        if declared.group:
            found[name] = _build(declared.group, f"{prefix}{name}.", values, {})
        elif declared.kind:
            found[name] = values[prefix + _key_name(name, declared)]
    return group(**found)


def flat(config: Config) -> dict[str, Any]:
    """Return the value of every key by its dotted path, as the program uses it."""
    return _flat(config, "")


def _flat(part: Group, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, declared in part.DECLARED.items():
        value = getattr(part, name)
        if declared.group:
            found |= _flat(value, f"{prefix}{name}.")
        elif declared.kind:
            found[prefix + _key_name(name, declared)] = value
    return found


def rendered(config: Config) -> dict[str, object]:
    """Return the value of every key by its dotted path, as a file would hold it, secrets hidden."""
    found = {
        path: None if value is None else KEYS[path].kind.render(value) for path, value in flat(config).items()
    }
    if config.backend not in BUILT_IN:
        options = cast(Mapping[str, object], c.Options().render(config.plugin))
        found |= {f"{config.backend}.{name}": value for name, value in options.items()}
    return found
