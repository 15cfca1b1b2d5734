"""The supervised server: its own configuration, its Java, its ports, and who else might start it."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from sidecar.clock import BootClock
from sidecar.config import Config
from sidecar.doctor import home
from sidecar.doctor.files import memory_bytes
from sidecar.doctor.finding import Finding, error, ok, warning
from sidecar.errors import ConfigError
from sidecar.guard import record, tree
from sidecar.probes import TcpProbe, within
from sidecar.servers import boot, rivals, serverxml, settings
from sidecar.servers import java as options

HEAP_SHARE_MAX = 0.75
"""Of the memory: a JVM needs a quarter to a third more than its heap, and the system something too."""
PORT_WITHIN_MS = 300
EVERY = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound to
ROLES = {"0": "none", "1": "active", "2": "standby"}


def _aggregate(config: Config) -> bool:
    return config.server.kind == "aggregate"


def server_xml(config: Config) -> Iterator[Finding]:
    """Read the server's own configuration."""
    if not _aggregate(config):
        yield ok("server.xml", "none: server.kind is command")
        return
    yield from home.look(config)
    path = Path(config.server.home) / config.server.config_file
    found = serverxml.read(path)
    try:
        settings.refuse_embedded(found)
    except ConfigError as failure:
        yield error("server.xml", str(failure), "give all nodes one database")
    for text in settings.warnings(found):
        says, _, do = text.rpartition(": ")
        yield warning("server.xml", says or text, do)
    role = f"clusterRole {found.cluster_role} ({ROLES.get(found.cluster_role, 'unknown')})"
    if found.detection_time == str(serverxml.DETECTION_MS):
        yield ok("server.xml", f"{role}, clusterFailureDetectionTime 24 h: set by the sidecar")
    else:
        says = f"{role}, clusterFailureDetectionTime {found.detection_time} ms: not the sidecar's values"
        do = "leave them, its next start of the server sets both; until then do not start it by hand"
        yield warning("server.xml", says, do)


def java(config: Config) -> Iterator[Finding]:
    """Compare the heap with the memory."""
    if not _aggregate(config):
        return
    path = options.options_file(Path(config.server.home), config.server.command)
    for text in options.warnings(path):
        says, _, do = text.rpartition(": ")
        yield warning("java", says, do)
    try:
        heap = options.heap_bytes(path)
    except FileNotFoundError:
        yield ok("java", f"no {path.name}: Java takes a quarter of the memory at most")
        return
    memory = memory_bytes()
    says = f"-Xmx {(heap or 0) >> 20} MB of {memory >> 20} MB of memory"
    if heap is None:
        yield ok("java", f"{path.name} sets no -Xmx: Java takes a quarter of the memory at most")
    elif heap > memory:
        yield error("java", says, "lower -Xmx, or give the machine more memory")
    elif heap > memory * HEAP_SHARE_MAX:
        yield warning("java", says, f"leave a quarter of it free: -Xmx{int(memory * HEAP_SHARE_MAX) >> 20}m")
    else:
        yield ok("java", says)


def ports(config: Config) -> Iterator[Finding]:
    """See whether the ports that are probed are free, or held by the server that the guard here runs."""
    probed = _probed(config)
    found = listeners()
    for port, key in probed.items():
        if not within(TcpProbe((port,), accepting=False), PORT_WITHIN_MS, BootClock()).ok:
            yield ok("ports", f"{port} ({key}) is free")
            continue
        pid = found.get(port)
        if pid is None:
            says, do = f"{port} ({key}) is open; whose it is can be seen by root alone", "run doctor as root"
            yield warning("ports", says, do)
        elif pid in _ours(config):
            yield ok("ports", f"{port} ({key}) is held by our server (process {pid})")
        else:
            says = f"{port} ({key}) is held by process {pid}, which the sidecar here did not start"
            yield error("ports", says, f"stop it, or give another port: ps -p {pid} -f")
    if not probed:
        yield ok("ports", "none is probed")


def _probed(config: Config) -> dict[int, str]:
    probes = {"ready": config.server.probes.ready.tcp, "alive": config.server.probes.alive.tcp}
    found: dict[int, str] = {}
    for probe, some in probes.items():
        for port in some or ():
            found.setdefault(port, f"server.probes.{probe}.tcp")
    if _aggregate(config) and None in probes.values():
        read = serverxml.read(Path(config.server.home) / config.server.config_file)
        found |= {port: key for key, port in read.serving_ports.items()}
    return found


def listeners(address: str | None = None) -> dict[int, int | None]:
    """Return the process that listens on each TCP port; None: not to be seen by this user.

    *address*: only those that keep others from it, or from a part of it.
    """
    try:
        found = psutil.net_connections("tcp")
    except psutil.Error:
        return {}
    alike = None if address in (None, *EVERY) else (address, *EVERY)
    return {
        one.laddr[1]: one.pid
        for one in found
        if one.laddr and one.status == psutil.CONN_LISTEN and (alike is None or one.laddr[0] in alike)
    }


def _ours(config: Config) -> set[int]:
    """Return the processes of the server that the guard in this run directory has started."""
    try:
        keeper = (record.read(config.paths.run) or {}).get("keeper_pid")
    except (OSError, ValueError):
        return set()
    return {keeper, *tree.descendants(keeper)} if isinstance(keeper, int) else set()


def second_supervisor(config: Config) -> Iterator[Finding]:
    """Look for whoever else runs the server, or would at boot."""
    if not _aggregate(config):
        yield ok(
            "supervisor", "not looked for: a second copy of a plain command cannot be told from a stranger"
        )
        return
    folder = Path(config.server.home)
    services = boot.services(folder)
    for text in services:
        yield error("supervisor", f"{text} would start a server at boot, outside the lock", "disable it")
    processes = rivals.processes(folder, _ours(config))
    for text in processes:
        yield error("supervisor", f"{text} runs from {folder}, outside the lock", "stop it")
    if not services + processes:
        says = f"no process, systemd unit, init script or rc.local was found that starts a server in {folder}"
        yield ok("supervisor", says)
