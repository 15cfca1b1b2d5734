"""The certificate, loaded anew when its files change: rotation needs no restart and ends no connection."""

import ssl
from pathlib import Path

from sidecar.errors import ConfigError
from sidecar.events import Notice, Raised, emit

LOOK_EVERY_S = 2.0


class Certificates:
    """Holds the context for new connections."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Load both files.

        Raises:
            ConfigError: They cannot be used; names key and file.
        """
        self._cert, self._key = cert, key
        self._seen = self._stamp()
        try:
            self.context = self._load()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(f"api.tls_cert_file: {self._why(error)}") from error

    def refresh(self) -> None:
        """Load the files again if they have changed. Bad ones are an alarm, and the old certificate stays."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.context = self._load()
        except (OSError, ValueError) as error:
            emit(Raised(text=f"api: the new certificate is not used, the old one stays: {self._why(error)}"))
        else:
            emit(Notice(text=f"api: certificate loaded again from {self._cert}"))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key, password=_no_password)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _why(self, error: Exception) -> str:
        reason: object = getattr(error, "reason", None)
        if isinstance(error, ssl.SSLError) and reason is None:  # OpenSSL does not always name it
            return f"{self._cert} and {self._key}: no certificate and its key in PEM"
        what = str(reason or getattr(error, "strerror", None) or error).replace("_", " ").lower()
        return f"{self._cert} and {self._key}: {what}"

    def _stamp(self) -> tuple[object, ...]:
        return (_file_stamp(self._cert), _file_stamp(self._key))


def _file_stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _no_password() -> str:
    """Answer instead of the terminal, which OpenSSL would ask."""
    raise ValueError("the key is encrypted; a daemon cannot ask for its password")
