"""What the keys mean together, the files they name, and secrets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.config import compound, kinds, launcher
from sidecar.config.durations import render
from sidecar.config.files import read_file, reason
from sidecar.config.given import Sources, plugin_section
from sidecar.config.schema import BUILT_IN, KEYS, Derived
from sidecar.config.secret import Secret
from sidecar.core.units import usable_ms

GROUP = "aggregate_sidecar.backends"
SECRET_FILE_MAX = 65_536
"""Bytes in a file with a secret; tokens of cloud providers have up to 16 KB."""

PARTS = ("renew_every", "request_timeout", "stop_grace", "kill_margin")
Values = Mapping[str, Any]


def check(sources: Sources, values: Values) -> None:
    """Check everything that concerns more than one key.

    Raises:
        ConfigError: The first rule that is broken.
    """
    _node(sources, values)
    _backend(sources, values)
    _timing(sources, values)
    _server(sources, values)
    _hooks(sources, values)
    _api(sources, values)


def _node(sources: Sources, values: Values) -> None:
    try:
        kinds.Name().parse(values["node"])
    except ValueError:
        host = kinds.show(values["node"])
        raise sources.problem("node", f"the host name {host} cannot be a name here; give node") from None


def _backend(sources: Sources, values: Values) -> None:
    match values["backend"]:
        case "etcd":
            if not values["etcd.endpoints"]:
                example = 'add it, for example endpoints: ["https://10.0.0.1:2379"]'
                raise sources.problem("etcd.endpoints", f"missing, and backend is etcd; {example}")
            _tls(sources, values, "etcd", values["etcd.endpoints"][0], "endpoints")
        case "consul":
            _tls(sources, values, "consul", values["consul.address"], "address")
        case "local":
            pass
        case name:
            _plugin_is_there(sources, name)


def _plugin_is_there(sources: Sources, name: str) -> None:
    from importlib.metadata import entry_points  # 20 ms, needed for plug-ins alone

    installed = {entry.name for entry in entry_points(group=GROUP)} | set(BUILT_IN)
    if name not in installed:
        import difflib

        near = difflib.get_close_matches(name, sorted(installed), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(installed))}"
        raise sources.problem("backend", f"no backend named {name} is installed; {hint}")
    if plugin_section(name) is None:
        raise sources.problem(
            "backend", f"a plug-in cannot be named {name}: that is a key of the configuration"
        )


def _tls(sources: Sources, values: Values, section: str, url: str, where: str) -> None:
    names = [f"{section}.{name}" for name in ("ca_file", "cert_file", "key_file")]
    for path in names:
        if values[path] is None:
            continue
        if not url.startswith("https:"):
            raise sources.problem(path, f"{section}.{where} is not https://, so it would have no effect")
        _readable(sources, path, values[path])
    _both(sources, values, *names[1:])


def _both(sources: Sources, values: Values, cert: str, key: str) -> None:
    if (values[cert] is None) != (values[key] is None):
        there, missing = (cert, key) if values[key] is None else (key, cert)
        raise sources.problem(there, f"needs {missing} as well")


def _readable(sources: Sources, path: str, file: str) -> bytes:
    try:
        return read_file(Path(file), SECRET_FILE_MAX * 16)
    except FileNotFoundError:
        raise sources.problem(path, f"{file}: no such file") from None
    except (OSError, ValueError) as error:
        raise sources.problem(path, f"{file}: {reason(error)}") from None


def _timing(sources: Sources, values: Values) -> None:
    ttl_ms = values["lock.ttl"]
    parts = {name: values[f"lock.{name}"] for name in PARTS}
    total_ms, limit_ms = sum(parts.values()), usable_ms(ttl_ms)
    if total_ms < limit_ms:
        return
    largest = max(parts, key=lambda name: parts[name])
    terms = " + ".join(f"{name} {render(ms)}" for name, ms in parts.items())
    room_ms = limit_ms - (total_ms - parts[largest]) - 1
    lower = f" or lower lock.{largest} to at most {render(room_ms)}" if room_ms > 0 else ""
    raise sources.problem(
        _outside(sources, largest),
        f"{terms} = {render(total_ms)} must be less than ttl {render(ttl_ms)} × 0.99 = {render(limit_ms)};"
        f" raise lock.ttl to at least {render(_enough_ms(sources, parts))}{lower}",
    )


def _outside(sources: Sources, largest: str) -> str:
    """Return the key to blame: one that a variable or option sets, the likeliest first, else the section."""
    paths = [f"lock.{name}" for name in (largest, "ttl", *PARTS)]
    given = (path for path in paths if path in sources.found and sources.found[path].origin.names_key)
    return next(given, "lock")


def _enough_ms(sources: Sources, parts: Mapping[str, int]) -> int:
    """Return the smallest whole-second TTL that keeps the rule; parts not written grow with it."""
    fixed_ms = sum(ms for name, ms in parts.items() if f"lock.{name}" in sources.found)
    grows = [key.default for name in PARTS if (key := KEYS[f"lock.{name}"]).path not in sources.found]

    def total_ms(ttl_ms: int) -> int:
        shares: list[int] = [
            d.compute({"lock.ttl": ttl_ms}, frozenset()) for d in grows if isinstance(d, Derived)
        ]
        return fixed_ms + sum(shares)

    low, high = 1, 10 + fixed_ms // 100  # the shares are at most 0.75 of the TTL, so this is always enough
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if total_ms(middle * 1_000) < usable_ms(middle * 1_000) else (middle + 1, high)
        )
    return low * 1_000


def _server(sources: Sources, values: Values) -> None:
    if values["server.restarts.backoff"] > values["server.restarts.backoff_max"]:
        longest = render(values["server.restarts.backoff_max"])
        raise sources.problem(
            "server.restarts.backoff", f"must be at most server.restarts.backoff_max, {longest}"
        )
    if values["server.kind"] == "command" and "server.command" not in sources.found:
        raise sources.problem(
            "server.command", "missing, and server.kind is command; give the program to run"
        )
    if values["server.kind"] == "aggregate":
        told = (values[f"server.{name}"] for name in ("home", "config_file", "command"))
        if found := launcher.contradiction(*told):
            raise sources.problem(*found)
    for probe in ("ready", "alive"):
        section = f"server.probes.{probe}.http"
        if f"{section}.status" in sources.found and f"{section}.url" not in sources.found:
            raise sources.problem(f"{section}.status", f"needs {section}.url as well")


def _hooks(sources: Sources, values: Values) -> None:
    limit_ms = values["server.start_timeout"]
    if values["hooks.before_active"] and values["hooks.before_active_timeout"] >= limit_ms:
        own = "hooks.before_active_timeout"
        raise sources.problem(
            own if own in sources.found else "hooks.timeout",
            f"before_active is part of the start: must be less than server.start_timeout, {render(limit_ms)}",
        )


def _api(sources: Sources, values: Values) -> None:
    if values["api.listen"] is None:
        return  # like the section of a backend that is not used
    cert, key = "api.tls_cert_file", "api.tls_key_file"
    for path in (cert, key):
        if values[path] is not None:
            with sources.tolerated():
                _readable(sources, path, values[path])
    _both(sources, values, cert, key)


def secrets(sources: Sources, values: Values) -> dict[str, Secret | None]:
    """Return the API's token, and what the environment gives of the secrets of the backend in use, by key.

    The environment counts before a file. What is in a file of the backend's is checked and not kept: the
    backend reads it, and reads it again when it changes.

    Raises:
        ConfigError: A file cannot be read or holds no secret; names key and path.
    """
    token, file = values["api.token"], values["api.token_file"]
    if token is None and file is not None and values["api.listen"] is not None:
        with sources.tolerated():
            token = secret_from(sources, "api.token_file", file)
    return {"api.token": token} | _backend_secrets(sources, values)


def _backend_secrets(sources: Sources, values: Values) -> dict[str, Secret | None]:
    match values["backend"]:
        case "etcd":
            found, there = _secret(sources, values, "etcd.password")
            if there and values["etcd.username"] is None:
                where = "etcd.password" if "etcd.password" in sources.found else "etcd.password_file"
                raise sources.problem(where, "needs etcd.username as well")
            if values["etcd.username"] is not None and not there:
                what = "needs a password: give etcd.password_file or SIDECAR_ETCD__PASSWORD"
                raise sources.problem("etcd.username", what)
            return {"etcd.password": found}
        case "consul":
            return {"consul.token": _secret(sources, values, "consul.token")[0]}
        case _:
            return {}


def _secret(sources: Sources, values: Values, path: str) -> tuple[Secret | None, bool]:
    """Return what the environment gives, and whether there is a secret at all."""
    given: object = values[path]
    if isinstance(given, Secret):
        return given, True
    file = values[f"{path}_file"]
    if file is not None:
        secret_from(sources, f"{path}_file", file)
    return None, file is not None


def secret_from(sources: Sources, path: str, file: str) -> Secret:
    """Return what stands in the file that key *path* names: one line, its end removed."""
    content = _readable(sources, path, file)
    try:
        secret: Secret = kinds.SecretText().parse(content.decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        raise sources.problem(path, f"{file}: not UTF-8 text") from None
    except ValueError as error:
        raise sources.problem(
            path, f"{file}: {str(error).removesuffix('; give a value or unset it')}"
        ) from None
    return secret


def plugin_options(sources: Sources, backend: str) -> Mapping[str, object]:
    """Return the section of plug-in *backend*, secret files replaced by what is in them."""
    if backend in BUILT_IN:
        return {}
    given = sources.found.get(backend)
    try:
        options = dict(compound.Options().parse(given.value if given else None))
    except ValueError as error:
        raise sources.problem(backend, str(error)) from None
    for name in [name for name in options if name.endswith("_file") and compound.is_secret(name[:-5])]:
        path = f"{backend}.{name}"
        try:
            file = kinds.AbsolutePath().parse(options.pop(name))
        except ValueError as error:
            raise sources.problem(path, str(error)) from None
        options.setdefault(name[:-5], secret_from(sources, path, file).reveal())
    return options
