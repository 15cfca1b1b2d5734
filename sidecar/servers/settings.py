"""What a ``server.xml`` says, as far as a cluster needs to know, and what is wrong with it.

Source: docs/aggregate.md; the defaults are the vendor's. A key that stands there twice with two values is
refused where it matters: nobody knows which one the server takes.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.errors import ConfigError
from sidecar.servers.document import Document

CLIENT_PORT = 6460
OPTIONAL_PORTS = {"webAppsSslPort": 8443, "clusterHeartbeatPort": 7800, "webAppsNonSslPort": 0}
"""What counts where the key is missing."""
OFF = ("", "0")
PORT_MAX = 65535

# A database that lives inside one server process, or in a file of one host: the others never see it.
# Each name is followed by the ways in which the same product is reached over a network.
_EMBEDDED = {
    "hsqldb": ("hsql:", "hsqls:", "http:", "https:"),
    "derby": ("//",),
    "h2": ("tcp:", "ssl:"),
    "sqlite": (),
}
_LOCALHOST = re.compile(r"(//|@)(localhost|127\.\d+\.\d+\.\d+|\[::1\])([:/;?,]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The keys that matter here. *torn* is why the file itself cannot be read: this is its backup then."""

    path: Path
    cluster_role: str
    failover_readonly: bool
    detection_time: str
    client_port: int
    heartbeat_address: str
    server_ip: str  # an address, or empty
    ports: dict[str, int]  # every port the server opens, by key
    database_url: str = field(repr=False)  # may hold a password
    torn: str | None = None

    @property
    def embedded_database(self) -> str | None:
        """Return the beginning of ``databaseUrl`` when nobody else can use that database."""
        parts = self.database_url.strip().split(":", 2)
        product = parts[1].lower() if len(parts) > 1 and parts[0].lower() == "jdbc" else ""
        if product not in _EMBEDDED:
            return None
        rest = parts[2] if len(parts) > 2 else ""
        if rest.lower().startswith(_EMBEDDED[product]):
            return None
        kind = re.match(r"[a-z]{2,8}:", rest)
        return f"jdbc:{product}:{kind.group() if kind else ''}"

    @property
    def serving_ports(self) -> dict[str, int]:
        """Return those that show by being open that it serves; that of the web may be off."""
        return {key: self.ports[key] for key in ("clientPort", "webAppsSslPort") if key in self.ports}


def parse(path: Path, document: Document, torn: str | None = None) -> ServerSettings:
    """Return the settings in *document*, which is what *path* holds.

    Raises:
        ConfigError: A port or the address is not one, or two ports are the same; names file and key.
    """
    reader = _Reader(path, document)
    ports = {"clientPort": reader.port("clientPort", CLIENT_PORT)}
    if reader.text("nonSecureClientCommunicationEnabled", "false") == "true":
        ports["nonSecureClientPort"] = reader.port("nonSecureClientPort", 6461)
    for key, default in OPTIONAL_PORTS.items():
        if reader.text(key, str(default)) not in OFF:
            ports[key] = reader.port(key, default)
    reader.refuse_same(ports)
    return ServerSettings(
        path=path,
        cluster_role=reader.any_text("clusterRole"),
        failover_readonly=reader.text("clusterFailoverReadonly", "false") == "true",
        detection_time=reader.any_text("clusterFailureDetectionTime"),
        client_port=ports["clientPort"],
        heartbeat_address=reader.text("clusterHeartbeatInterfaceAddress", ""),
        server_ip=reader.address("serverIp"),
        ports=ports,
        database_url=reader.text("databaseUrl", ""),
        torn=torn,
    )


class _Reader:
    def __init__(self, path: Path, document: Document) -> None:
        self._path, self._document = path, document

    def any_text(self, key: str) -> str:
        """Return the last value of a key that will be overwritten anyway."""
        return (self._document.values(key) or [""])[-1]

    def text(self, key: str, default: str) -> str:
        values = self._document.values(key)
        if len(set(values)) > 1:
            raise ConfigError(
                f"{self._path}: {key}: there {len(values)} times with different values: keep one"
            )
        return values[0].strip() if values else default

    def port(self, key: str, default: int) -> int:
        text = self.text(key, str(default))
        if not (text.isascii() and text.isdigit()):
            raise ConfigError(f"{self._path}: {key}: not a port: {text[:20]!r}: give a number")
        number = int(text) if len(text) <= 9 else 0
        if not 1 <= number <= PORT_MAX:
            raise ConfigError(f"{self._path}: {key}: {text[:20]} is not a port: give 1..{PORT_MAX}")
        return number

    def address(self, key: str) -> str:
        """Return an address; empty: every one. A name is refused: looking it up has no deadline."""
        text = self.text(key, "")
        try:
            return str(ipaddress.ip_address(text)) if text else ""
        except ValueError:
            raise ConfigError(
                f"{self._path}: {key}: {text[:60]!r} is no address, and nobody would see there whether the "
                "server serves: give the address, or leave it empty for all"
            ) from None

    def refuse_same(self, ports: dict[str, int]) -> None:
        seen: dict[int, str] = {}
        for key, port in ports.items():
            if port in seen:
                raise ConfigError(f"{self._path}: {key}: port {port} is {seen[port]} already: give another")
            seen[port] = key


def refuse_embedded(settings: ServerSettings) -> None:
    """Raise ConfigError when the database is one that a second node cannot use."""
    if embedded := settings.embedded_database:
        raise ConfigError(
            f"{settings.path}: databaseUrl: {embedded}… is an embedded database, which the other nodes "
            "cannot share: move to a database server (PostgreSQL, MySQL, Oracle, SQL Server)"
        )


def warnings(settings: ServerSettings) -> list[str]:
    """Return what is worth a look, one sentence each."""
    found = []
    path = settings.path
    if settings.torn:
        found.append(f"{path}: {settings.torn}: its backup will be used and put in its place")
    if settings.heartbeat_address.startswith("127.") or settings.heartbeat_address == "::1":
        found.append(
            f"{path}: clusterHeartbeatInterfaceAddress: {settings.heartbeat_address} is not heard by "
            "other hosts: give this host's own address"
        )
    if settings.failover_readonly:
        found.append(
            f"{path}: clusterFailoverReadonly: true is for native failover; under the sidecar every "
            "active is a Master and writes"
        )
    if not settings.database_url:
        found.append(f"{path}: databaseUrl: missing: cannot tell whether the nodes share a database")
    elif _LOCALHOST.search(settings.database_url):
        found.append(
            f"{path}: databaseUrl: the database is on this host: it fails with it, and another host "
            "must not have one of its own there"
        )
    return found
