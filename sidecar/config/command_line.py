"""The configuration of ``sidecar exec``: a few options instead of a file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sidecar.config import address
from sidecar.config.durations import render
from sidecar.config.given import Given, Origin, Sources
from sidecar.config.load import finish
from sidecar.config.schema import Config
from sidecar.errors import UsageError

_SCHEMES = {
    "etcd": ("etcd", "http"),
    "etcds": ("etcd", "https"),
    "consul": ("consul", "http"),
    "consuls": ("consul", "https"),
}
_PORTS = {"etcd": 2379, "consul": 8500}
_FORMS = "etcd://HOST:PORT[,HOST:PORT…], etcds://…, consul://HOST:PORT, consuls://… or local:///PATH"


def for_exec(
    backend_url: str,
    cluster: str,
    node: str | None,
    ttl_ms: int | None,
    restarts: int | None,
    command: Sequence[str],
    once: bool,
    state_dir: Path,
    *,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Make the configuration of ``exec``.

    What the options say counts before the environment, which gives the rest: credentials and CA by
    ``SIDECAR_ETCD__*`` and ``SIDECAR_CONSUL__*``, and every other key but ``hooks``.

    Args:
        backend_url: ``etcd://HOST:PORT[,HOST:PORT…]``, ``etcds://``, ``consul://``, ``consuls://``, ``local:///PATH``.
        cluster: Name of the lock.
        node: Name of this competitor; None: ``SIDECAR_NODE``, else the host name.
        ttl_ms: Lease to ask for; None: ``SIDECAR_LOCK__TTL``, else the key's default.
        restarts: How often a command that fails is started again; None: as *ttl_ms*; 0 with *once*.
        command: Program and arguments.
        once: End with the first exit of the command or the first loss of the lock.
        state_dir: Absolute; holds the epoch's high-water mark and, in ``run``, the guard's socket.
        environ: The environment; None: this process's.

    Raises:
        UsageError: An option makes no sense; names it.
        ConfigError: A variable of the environment makes no sense; names it.
    """
    sources = Sources("the command line")

    def option(name: str, path: str, value: object) -> None:
        if value is not None:
            sources.found[path] = Given(value, Origin(name, UsageError, names_key=True))

    for path, value in backend_values(backend_url).items():
        option("--backend", path, value)
    option("--cluster", "cluster", cluster)
    option("--ttl", "lock.ttl", _duration(ttl_ms))
    option("--node", "node", node)
    option("CMD", "server.command", list(command))
    option("CMD", "server.kind", "command")
    option("--restarts", "server.restarts.attempts", 0 if once else restarts)
    option("--state-dir", "paths.state", str(state_dir))
    option("--state-dir", "paths.run", str(state_dir / "run"))
    return _without_hooks(finish(sources, os.environ if environ is None else environ, once=once), sources)


def _duration(ms: int | None) -> str | None:
    if ms is None:
        return None
    return render(ms) if ms >= 0 else f"{ms}ms"


def _without_hooks(config: Config, sources: Sources) -> Config:
    for path in sources.found:
        if path.startswith("hooks."):
            raise sources.problem(path, "exec has no hooks; they belong to run")
    return config


def backend_values(url: str) -> dict[str, object]:
    """Return the keys of the configuration that *url*, as `for_exec` takes it, stands for.

    Raises:
        UsageError: It is none of the known forms.
    """
    if "@" in url:
        raise UsageError(
            "--backend: user and password do not belong on a command line; give them by SIDECAR_ETCD__*"
        )
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in (*_SCHEMES, "local"):
        raise UsageError(f"--backend: {url[:80]!r} is not known; write {_FORMS}")
    if scheme.lower() == "local":
        if not rest.startswith("/") or rest.endswith("/"):
            raise UsageError(
                f"--backend: {url[:80]!r} must name a file by its absolute path, as local:///PATH"
            )
        return {"backend": "local", "local.path": rest}
    name, http = _SCHEMES[scheme.lower()]
    urls = [_address(part, scheme.lower(), http, _PORTS[name]) for part in rest.rstrip("/").split(",")]
    if name == "consul" and len(urls) > 1:
        raise UsageError("--backend: consul takes one address, that of the nearest agent")
    return {"backend": name, **({"etcd.endpoints": urls} if name == "etcd" else {"consul.address": urls[0]})}


def _address(part: str, scheme: str, http: str, port: int) -> str:
    try:
        found = address.parse(f"{scheme}://{part}", schemes=(scheme,), port=port)
    except ValueError as error:
        raise UsageError(f"--backend: {error}") from None
    return str(found._replace(scheme=http))
