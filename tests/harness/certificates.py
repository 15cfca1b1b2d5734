"""Throw-away authorities and certificates, made on the fly; each one is for client and server alike."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import trustme

from tests.harness.tools import Tls

DAY = datetime.timedelta(days=1)


class Authority:
    """One authority; ``issue`` writes files that a store or a sidecar is pointed at."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        """Return the authority's own certificate."""
        return self._ca.cert_pem.bytes()

    def issue(
        self,
        folder: Path,
        *,
        hosts: Sequence[str] = ("127.0.0.1", "localhost"),
        lives: datetime.timedelta = DAY,
    ) -> Tls:
        """Write ``ca.pem``, ``cert.pem`` and ``key.pem``, over what is there; a negative life has ended.

        Without a common name: etcd would take it for a user's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tls = Tls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        now = datetime.datetime.now(datetime.UTC)
        made = self._ca.issue_cert(*hosts, not_before=now - 2 * DAY, not_after=now + lives)
        replace(tls.ca, self.pem)
        replace(tls.cert, b"".join(blob.bytes() for blob in made.cert_chain_pems))
        replace(tls.key, made.private_key_pem.bytes())
        return tls


def replace(path: Path, content: bytes) -> None:
    """Put a new file with *content* in the place of *path*."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)
