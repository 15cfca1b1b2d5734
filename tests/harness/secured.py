"""etcd and Consul as docs/security.md sets them up: mutual TLS, and the user or token of least privilege.

The documented commands make the users and tokens, word for word; ``PASSWORD`` and ``TOKEN`` files are theirs.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.harness.certificates import Authority
from tests.harness.process import wait_until
from tests.harness.stores import ETCD34, Consul, Etcd, acl
from tests.harness.tools import ROOT, Tls, need

PAGE = ROOT / "docs" / "security.md"
CLUSTER = "plant-7"  # of the page
TOKEN_LIVES_S = 2
MANAGEMENT = "00000000-0000-0000-0000-00000000cafe"
WITHIN_S = 20


def blocks(heading: str) -> list[str]:
    """Return the code blocks of a section of the page."""
    section = re.split(r"^#+ ", PAGE.read_text(), flags=re.MULTILINE)
    (found,) = (text for text in section if text.startswith(f"{heading}\n"))
    return re.findall(r"^```\w*\n(.*?)^```", found, re.DOTALL | re.MULTILINE)


def run(script: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run *script* of the page in *folder*; return what it says."""
    path = f"{need('consul').parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Secured:
    """A store that lets nobody in but whom the page lets in."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder, self.authority = folder, authority
        self.server = authority.issue(folder / "server")
        self.client = authority.issue(folder / "client")

    @property
    def files(self) -> dict[str, object]:
        """Return the options of TLS."""
        return {
            "ca_file": str(self.client.ca),
            "cert_file": str(self.client.cert),
            "key_file": str(self.client.key),
        }


class SecuredEtcd(Secured):
    """etcd 3.4 with JWT, or 3.5 with simple tokens: both of `TOKEN_LIVES_S`."""

    store: Etcd

    @classmethod
    @contextmanager
    def run(cls, folder: Path, version: str) -> Iterator["SecuredEtcd"]:
        made = cls(folder, Authority())
        extra = ["--bcrypt-cost", "4"]
        if version == ETCD34:
            public, private = _rsa(folder)
            extra += ["--auth-token", f"jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=2s"]
        else:
            extra += ["--auth-token-ttl", str(TOKEN_LIVES_S)]
        with Etcd.run(folder / "etcd", version, tls=made.server, extra=extra) as made.store:
            made.set_up()
            yield made

    @property
    def password_file(self) -> Path:
        return self.folder / "etcd-password"

    def environment(self, tls: Tls) -> dict[str, str]:
        """Return what tells etcdctl where etcd is."""
        return {
            "ETCDCTL_API": "3",
            "ETCDCTL_ENDPOINTS": self.store.url,
            "ETCDCTL_CACERT": str(tls.ca),
            "ETCDCTL_CERT": str(tls.cert),
            "ETCDCTL_KEY": str(tls.key),
        }

    def set_up(self) -> None:
        """Do what the page says."""
        run(blocks("etcd: users")[0], self.folder, self.environment(self.client))
        self.store.log_in("root", (self.folder / "root-password").read_text().strip())

    @property
    def options(self) -> dict[str, object]:
        """Return the options of the backend."""
        user = {"username": "aggregate-sidecar", "password_file": str(self.password_file)}
        return {"endpoints": [self.store.url], **self.files, **user}


class SecuredConsul(Secured):
    """One Consul server with ACLs, default deny."""

    store: Consul

    @classmethod
    @contextmanager
    def run(cls, folder: Path) -> Iterator["SecuredConsul"]:
        made = cls(folder, Authority())
        with Consul.run(folder / "consul", tls=made.server, extra=acl(MANAGEMENT)) as made.store:
            wait_until(lambda: made.store.call("GET", "/v1/acl/policies"), "the ACL system is up")
            made.set_up()
            yield made

    @property
    def token_file(self) -> Path:
        return self.folder / "consul-token"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CONSUL_HTTP_ADDR": self.store.url,
            "CONSUL_CACERT": str(self.client.ca),
            "CONSUL_CLIENT_CERT": str(self.client.cert),
            "CONSUL_CLIENT_KEY": str(self.client.key),
            "CONSUL_HTTP_TOKEN": MANAGEMENT,
        }

    def set_up(self) -> None:
        """Do what the page says."""
        policy, commands = blocks("Consul: policy and token")[:2]
        (self.folder / "aggregate-sidecar.hcl").write_text(policy)
        run(commands, self.folder, self.environment)

    @property
    def options(self) -> dict[str, object]:
        """Return the options of the backend."""
        return {"address": self.store.url, **self.files, "token_file": str(self.token_file)}


def _rsa(folder: Path) -> tuple[Path, Path]:
    key = rsa.generate_private_key(65537, 2048)
    pem = serialization.Encoding.PEM
    private, public = folder / "jwt.key", folder / "jwt.pub"
    private.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, form))
    return public, private
