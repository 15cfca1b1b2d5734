"""The HTTP API's address and certificate, and how long every certificate that the configuration names lasts.

Who may read token and key is for the check of all secrets; that the files can be read, for the configuration.
"""

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from sidecar.certificate import Validity, validity
from sidecar.clock import wall_ms
from sidecar.config import Config
from sidecar.config.address import parse
from sidecar.config.schema import flat
from sidecar.doctor.finding import Finding, error, ok, warning
from sidecar.doctor.server import listeners
from sidecar.doctor.store import sidecar_pid
from sidecar.errors import ConfigError

DAY_S = 86_400
SOON_S = 14 * DAY_S
"""Before its end somebody should look. Of a short-lived certificate: the last quarter of its life."""
RENEW = "renew it: a running sidecar takes the new files in by itself"


def listens(config: Config) -> Iterator[Finding]:
    """See whether `api.listen` can be had, or is held by the sidecar that runs here."""
    api = config.api
    if api.listen is None:
        yield ok("api", "off: api.listen is not set")
        return
    yield _address(config, api.listen)
    if api.tls_cert_file and api.tls_key_file:
        from sidecar.api.tls import Certificates  # with what it imports it costs 15 ms

        try:
            Certificates(Path(api.tls_cert_file), Path(api.tls_key_file))
        except ConfigError as failure:
            do = "replace certificate and key together; an encrypted key is of no use to a daemon"
            yield error("api", str(failure), do)


def _address(config: Config, listen: str) -> Finding:
    where = parse(f"http://{listen}", schemes=("http",))
    host = where.host
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        host = str(address[0])
        with socket.socket(family, kind) as tried:  # as the sidecar would, but it does not listen:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that starts just now can
            tried.bind(address)
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE and where.port is not None:
            return _taken(config, listen, listeners(host).get(where.port))
        says = f"api.listen: {listen}: {(failure.strerror or str(failure)).lower()}"
        return error("api", says, "give an address that this machine has, and a port that it may open")
    return ok("api", f"{listen} (api.listen) is free")


def _taken(config: Config, listen: str, pid: int | None) -> Finding:
    if pid is None:
        do = "run doctor as root"
        return warning("api", f"{listen} (api.listen) is open; whose it is can be seen by root alone", do)
    if pid == sidecar_pid(Path(config.paths.run)):
        return ok("api", f"{listen} (api.listen) is held by our sidecar (process {pid})")
    says = f"{listen} (api.listen) is held by process {pid}: the sidecar here would not start"
    return error("api", says, f"stop it, or give another port: ps -p {pid} -f")


def certificates(config: Config) -> Iterator[Finding]:
    """Tell of every certificate how long it is valid yet."""
    named = {key: Path(path) for key, path in flat(config).items() if key.endswith("cert_file") and path}
    for key, path in named.items():
        try:
            found = validity(path.read_text(encoding="ascii"))
        except (ValueError, IndexError):
            yield error("certificates", f"{key}: {path} holds no certificate in PEM", "replace it")
            continue
        now_s = wall_ms() // 1000
        where, left = f"{key}: {path}", _span(found.until - now_s)
        match judged(found, now_s):
            case "ok":
                yield ok("certificates", f"{where} is valid for {left}")
            case "warning":
                yield warning("certificates", f"{where} expires in {left}", RENEW)
            case "early":
                do = "look at this machine's clock, and at that of who issued it"
                yield error("certificates", f"{where} is not valid yet", do)
            case "over":
                yield error("certificates", f"{where} has expired", f"{RENEW}; or is the clock here wrong?")
    if not named:
        yield ok("certificates", "none is named")


def judged(found: Validity, now_s: int) -> Literal["ok", "warning", "early", "over"]:
    """Return what is to be said of a certificate at *now_s*, a Unix time."""
    if found.until <= now_s:
        return "over"
    if now_s < found.since:
        return "early"
    soon_s = min(SOON_S, (found.until - found.since) // 4)
    return "warning" if found.until - now_s < soon_s else "ok"


def _span(seconds: int) -> str:
    return f"{seconds // DAY_S} d" if seconds >= DAY_S else f"{seconds // 3600} h"
