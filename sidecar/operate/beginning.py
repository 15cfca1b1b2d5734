"""``init``: a starting configuration, from a few options and perhaps from the server that is there."""

import os
import pwd
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sidecar.config import launcher
from sidecar.config.command_line import backend_values
from sidecar.config.given import Given, Origin, Sources
from sidecar.config.load import finish
from sidecar.config.schema import KEYS, Required
from sidecar.config.template import template
from sidecar.errors import ConfigError, Failed, Refused, UsageError
from sidecar.servers import serverxml, settings

ROLES = {"0": "None", "1": "Master", "2": "Failover"}
CONSOLES = launcher.LAUNCHERS[:2]
"""Those that stay in the foreground, the one that is the default first."""
FAILOVER_PRIORITY = 50
"""Of a node that was a native failover node: below the default, so that the master of before goes first."""


class Begun(NamedTuple):
    """A configuration, and what somebody should know before it is used."""

    text: str
    warnings: tuple[str, ...]


def begin(backend: str | None, cluster: str | None, node: str | None, server_xml: Path | None) -> Begun:
    """Make a configuration.

    Args:
        backend: A name, or an address as ``exec`` takes it; None: the schema's example.
        cluster: Its name; None: the schema's example.
        node: Its name; None: the host name, found when the sidecar starts.
        server_xml: The file of an AggreGate Server on this machine.

    Raises:
        UsageError, ConfigError: An option makes no sense, or *server_xml* does not.
        Failed: *server_xml* is no file.
        ServerError: It cannot be read.
    """
    given: dict[str, object] = {"cluster": cluster or _example("cluster")}
    if node is not None:
        given["node"] = node
    given |= _backend(backend or _example("backend"))
    _check(given)
    if server_xml is None:
        return Begun(template(given, {}, ()), ())
    _there(server_xml)
    found = serverxml.read(server_xml)
    given |= _server(found)
    ports = [*found.serving_ports.values()]
    shown = {f"server.probes.{probe}.tcp": ports for probe in ("ready", "alive")}
    return Begun(template(given, shown, _notes(found)), _warnings(found))


def _check(given: Mapping[str, object]) -> None:
    """Raise UsageError for a value that no configuration can have, and name its option."""
    sources = Sources("init")
    for path, value in given.items():
        option = f"--{path}" if path in ("cluster", "node") else "--backend"
        sources.found[path] = Given(value, Origin(option, UsageError, names_key=True))
    finish(sources, {})


def _there(server_xml: Path) -> None:
    """Raise Failed where *server_xml* cannot be one; whatever else is wrong is found when it is read."""
    with suppress(OSError):
        if stat.S_ISDIR(server_xml.stat().st_mode):
            raise Failed(f"--from: {server_xml}: is a folder; name the server.xml in it")
        return
    if not os.path.lexists(server_xml):
        raise Failed(
            f"--from: {server_xml}: no such file; name the server.xml of the server that is installed here"
        )


def _example(path: str) -> str:
    default = KEYS[path].default
    assert isinstance(default, Required)
    return default.example


def _backend(backend: str) -> dict[str, object]:
    if "://" in backend:
        return backend_values(backend)
    address = "http://127.0.0.1:2379"
    return {"backend": backend, **({"etcd.endpoints": [address]} if backend == "etcd" else {})}


def _server(found: settings.ServerSettings) -> Mapping[str, object]:
    path = found.path.absolute()
    home = path.parent
    program, *told = launcher.default(str(home), path.name)
    there = next((str(home / name) for name in CONSOLES if (home / name).exists()), program)
    given: dict[str, object] = {"server.home": str(home), "server.command": [there, *told]}
    if told:
        given["server.config_file"] = path.name
    if owner := _owner(path):
        given["server.user"] = owner
    if found.cluster_role == "2":
        given["node_options.priority"] = FAILOVER_PRIORITY
    return given


def _owner(path: Path) -> str | None:
    """Return as whom the server goes on; None: as root, or whoever runs the sidecar.

    Its own unit may have said `User=`. As root it would leave files that it could not write as before.
    """
    try:
        number = path.stat().st_uid
        return None if number in (0, os.geteuid()) else pwd.getpwuid(number).pw_name
    except (OSError, KeyError):  # KeyError: of another machine, or of an archive
        return None


def _notes(found: settings.ServerSettings) -> tuple[str, ...]:
    ports = ", ".join(f"{key} {port}" for key, port in found.ports.items())
    role = ROLES.get(found.cluster_role, found.cluster_role)
    return (
        f"From {found.path.absolute()}: {ports}; clusterRole {found.cluster_role} ({role}), "
        f"clusterFailureDetectionTime {found.detection_time} ms. The sidecar sets the last two, and reads "
        "the ports there itself whenever it starts the server.",
    )


def _warnings(found: settings.ServerSettings) -> tuple[str, ...]:
    try:
        settings.refuse_embedded(found)
    except ConfigError as error:
        return str(error), *settings.warnings(found)
    return tuple(settings.warnings(found))


def write(text: str, path: Path) -> None:
    """Write a new file that only its owner can read: whole, or not at all.

    Raises:
        Refused: There is one of that name.
        Failed: It cannot be written; nothing is left.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise Refused(f"{path}: exists already; remove it, or give another name") from None
    except OSError as error:
        raise Failed(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise Failed(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
