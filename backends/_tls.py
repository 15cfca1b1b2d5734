"""Certificates named in a backend's section of the configuration, looked at before anybody connects."""

from typing import TYPE_CHECKING

from sidecar.errors import ConfigError

if TYPE_CHECKING:
    import ssl


def context(
    section: str, ca_file: str | None, cert_file: str | None, key_file: str | None
) -> "ssl.SSLContext":
    """Return what a client needs to trust *ca_file* and to present *cert_file*.

    Raises:
        ConfigError: One cannot be read, or half of a pair is missing; names the key.
    """
    import ssl  # costs 15 ms, which a command without TLS has no reason to pay

    if (cert_file is None) != (key_file is None):
        missing = "key_file" if key_file is None else "cert_file"
        raise ConfigError(f"{section}.{missing}: needed, since the other half of the pair is given")
    try:
        found = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{section}.ca_file: {ca_file}: {_reason(error)}") from error
    if cert_file is not None:
        try:
            found.load_cert_chain(cert_file, key_file, password=lambda: b"")  # never ask a terminal
        except (OSError, ValueError) as error:
            raise ConfigError(f"{section}.cert_file: {cert_file}, {key_file}: {_reason(error)}") from error
    return found


def _reason(error: Exception) -> str:
    told = getattr(error, "reason", None)  # of an ssl.SSLError, as OpenSSL names it
    if told == "KEY_VALUES_MISMATCH":
        return "certificate and key do not match"
    if told is not None or hasattr(error, "library"):  # OpenSSL does not always name it
        return "not PEM, or not what it should be" + (f" ({told})" if told else "")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
