"""Makes the home folder of a stand-in server, and breaks the server in it.

Arguments of `install`:

    witness         the shared database: the same file for all nodes of a cluster, on one host
    client_port     clientPort, open while the server is active; sends one line of JSON
    web_port        webAppsSslPort, open while active; speaks plain HTTP, without the TLS
    plain_web_port  webAppsNonSslPort, the same; 0 for none
    admin_port      Net Admin on 127.0.0.1 (the real one: 6440); 0 for none
    heartbeat_port  clusterHeartbeatPort; only written down, the heartbeats are in the witness
    role            clusterRole: 0 none, 1 master, 2 failover
    detection_ms    clusterFailureDetectionTime: after so much silence a standby makes itself master
    node            name in the witness when SIDECAR_NODE is not set; default: the folder's name
    address         where to listen; 0.0.0.0 in a container
    start_ms        length of the start up to where a standby stays
    activate_ms     length of the start from there until the ports open
    tick_ms         how often an active server writes to the witness
    max_life_ms     the server ends by itself after so long, for tests that leak one; 0 for never
    server_xml      this instead of a small one of its own, with its ports, role and detection time
"""

import json
import shlex
import sys
from pathlib import Path

from sidecar.standin import faults

LAUNCHER = "ag_server_console"
_BOOT = Path(__file__).with_name("boot.py")

_SCRIPT = """\
#!/bin/sh
# Stand-in for an install4j launcher: a shell with the server as its child. It passes no signal on.
app_home=$(cd "$(dirname "$0")" && pwd)
cd "$app_home" || exit 1
{python} -I -S {boot} server -o "$app_home" "$@"
exit $?
"""

_SERVER_XML = """\
<config>
  <firstLaunch>true</firstLaunch>
  <serverDescription>stand-in</serverDescription>
  <clientPort>{client_port}</clientPort>
  <nonSecureClientCommunicationEnabled>false</nonSecureClientCommunicationEnabled>
  <nonSecureClientPort>6461</nonSecureClientPort>
  <databaseDriver>org.postgresql.Driver</databaseDriver>
  <databaseUrl>jdbc:postgresql://db.plant.example:5432/aggregate</databaseUrl>
  <databaseUsername>aggregate</databaseUsername>
  <databasePassword></databasePassword>
  <clusterRole>{role}</clusterRole>
  <clusterFailoverReadonly>false</clusterFailoverReadonly>
  <clusterHeartbeatPort>{heartbeat_port}</clusterHeartbeatPort>
  <clusterHeartbeatHelperUrls></clusterHeartbeatHelperUrls>
  <clusterFailureDetectionTime>{detection_ms}</clusterFailureDetectionTime>
  <clusterHeartbeatInterfaceAddress></clusterHeartbeatInterfaceAddress>
  <webAppsNonSslPort>{plain_web_port}</webAppsNonSslPort>
  <webAppsSslPort>{web_port}</webAppsSslPort>
</config>"""


def install(
    home: Path,
    *,
    witness: Path,
    client_port: int,
    web_port: int,
    plain_web_port: int = 0,
    admin_port: int = 0,
    heartbeat_port: int = 7800,
    role: int = 0,
    detection_ms: int = 10_000,
    node: str = "",
    address: str = "127.0.0.1",
    start_ms: int = 0,
    activate_ms: int = 0,
    tick_ms: int = 20,
    max_life_ms: int = 0,
    server_xml: bytes | None = None,
) -> Path:
    """Make *home* (what is in it is overwritten) and return its launcher; arguments as above."""
    home.mkdir(parents=True, exist_ok=True)
    options = {
        "witness": str(witness.absolute()),
        "node": node or home.name,
        "address": address,
        "admin_port": admin_port,
        "start_ms": start_ms,
        "activate_ms": activate_ms,
        "tick_ms": tick_ms,
        "max_life_ms": max_life_ms,
    }
    (home / "standin.json").write_text(json.dumps(options, indent=1))
    own = _SERVER_XML.format(
        client_port=client_port,
        web_port=web_port,
        plain_web_port=plain_web_port,
        heartbeat_port=heartbeat_port,
        role=role,
        detection_ms=detection_ms,
    )
    (home / "server.xml").write_bytes(own.encode() if server_xml is None else server_xml)
    (home / f"{LAUNCHER}.vmoptions").write_text("-Xmx64m\n-XX:+ExitOnOutOfMemoryError\n")
    clear_faults(home)
    launcher = home / LAUNCHER
    launcher.write_text(_SCRIPT.format(python=shlex.quote(sys.executable), boot=shlex.quote(str(_BOOT))))
    launcher.chmod(0o755)
    return launcher


def set_faults(home: Path, **values: object) -> None:
    """Put exactly these faults in force for the server in *home*, within one of its ticks.

    Raises:
        ValueError: One is unknown or of the wrong type; see `sidecar.standin.faults`.
    """
    for name, value in values.items():
        faults.check(name, value)
    new = home / f"{faults.FILE}.new"
    new.write_text(json.dumps(values))
    new.replace(home / faults.FILE)


def clear_faults(home: Path) -> None:
    """Let the server in *home* work again."""
    (home / faults.FILE).unlink(missing_ok=True)


def worker_command(witness: Path, *arguments: str) -> list[str]:
    """Return the command of a server that only writes to *witness*, for ``sidecar exec``.

    *arguments*: ``--tick-ms 10``, ``--deaf``, ``--crash-after-ms N``, ``--exit-code N``.
    """
    return [sys.executable, "-I", "-S", str(_BOOT), "worker", str(witness.absolute()), *arguments]
