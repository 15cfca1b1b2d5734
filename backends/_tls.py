"""TLS of a backend: the files named in its section of the configuration, and what to say when it fails."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sidecar.certificate import validity
from sidecar.clock import wall_ms
from sidecar.errors import ConfigError

if TYPE_CHECKING:
    import ssl

# How OpenSSL (Consul) and BoringSSL (etcd, over gRPC) say it, in lower case. No decision hangs on it.
EXPIRED = ("certificate has expired", "certificate is not yet valid")
UNTRUSTED = (
    "unable to get local issuer",
    "self signed certificate",
    "self-signed certificate",
    "unable to verify the first certificate",
    "certificate signature failure",
)
MISNAMED = ("hostname mismatch", "ip address mismatch", "hostname verification check failed")
CLIENT_REFUSED = (
    "certificate required",
    "alert bad certificate",
    "alert_bad_certificate",
    "alert certificate",
    "alert_certificate",
    "alert unknown ca",
    "alert_unknown_ca",
    "tsi_data_corrupted",  # gRPC over TLS 1.3, where the server judges our certificate after the handshake
)


@dataclass(frozen=True, slots=True)
class Files:
    """What a client trusts and what it presents; each None where it is not configured."""

    section: str
    ca_file: str | None
    cert_file: str | None
    key_file: str | None

    @classmethod
    def of(cls, section: str, files: "dict[str, str | None]") -> Self:
        """Make it of the options ``ca_file``, ``cert_file`` and ``key_file``."""
        return cls(section, files["ca_file"], files["cert_file"], files["key_file"])

    @property
    def paths(self) -> tuple[str, ...]:
        """Return those that there are."""
        return tuple(path for path in (self.ca_file, self.cert_file, self.key_file) if path is not None)

    def context(self) -> "ssl.SSLContext":
        """Return what a client needs to trust the CA and to present the certificate.

        Raises:
            ConfigError: One cannot be read, or half of a pair is missing; names the key.
        """
        import ssl  # costs 15 ms, which a command without TLS has no reason to pay

        section = self.section
        if (self.cert_file is None) != (self.key_file is None):
            missing = "key_file" if self.key_file is None else "cert_file"
            raise ConfigError(f"{section}.{missing}: needed, since the other half of the pair is given")
        try:
            found = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{section}.ca_file: {self.ca_file}: {_reason(error)}") from error
        if self.cert_file is not None:
            try:
                found.load_cert_chain(
                    self.cert_file, self.key_file, password=lambda: b""
                )  # never ask a terminal
            except (OSError, ValueError) as error:
                pair = f"{self.cert_file}, {self.key_file}"
                raise ConfigError(f"{section}.cert_file: {pair}: {_reason(error)}") from error
        return found

    def explain(self, text: str) -> str | None:
        """Return what a library's *text* about a failed handshake means here; None: nothing to do with it."""
        lower = text.lower()
        if any(part in lower for part in EXPIRED):
            return "TLS: the server's certificate has expired (or the clock here is wrong): renew it there"
        if any(part in lower for part in UNTRUSTED):
            where = f"the server's certificate is signed by none of {self.section}.ca_file {self.ca_file}"
            if self.ca_file is None:
                where = f"the system does not trust the server's certificate: set {self.section}.ca_file"
            return f"TLS: {where}"
        if any(part in lower for part in MISNAMED):
            where = "endpoints" if self.section == "etcd" else "address"
            return (
                "TLS: the server's certificate is for another name or address: "
                f"give one that it is for in {self.section}.{where}, or renew it there with this one"
            )
        if any(part in lower for part in CLIENT_REFUSED):
            return f"TLS: {self.refused()}"
        return None

    def refused(self) -> str:
        """Return what may be wrong with our certificate, where the server does not accept it."""
        section = self.section
        if self.cert_file is None:
            return f"the server wants a client certificate: set {section}.cert_file and {section}.key_file"
        if has_expired(self.cert_file):
            return f"the client certificate {section}.cert_file {self.cert_file} has expired: renew it"
        return (
            f"the server refuses the client certificate {section}.cert_file {self.cert_file}: is it for "
            "client authentication, and signed by the authority that the server trusts?"
        )


def has_expired(path: str) -> bool:
    """Tell whether the first certificate in the PEM file *path* has, as far as that can be read."""
    try:
        end = validity(Path(path).read_text(encoding="ascii")).until
    except (OSError, ValueError, IndexError):
        return False
    return end < wall_ms() // 1000


def _reason(error: Exception) -> str:
    told = getattr(error, "reason", None)  # of an ssl.SSLError, as OpenSSL names it
    if told == "KEY_VALUES_MISMATCH":
        return "certificate and key do not match"
    if told is not None or hasattr(error, "library"):  # OpenSSL does not always name it
        return "not PEM, or not what it should be" + (f" ({told})" if told else "")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
