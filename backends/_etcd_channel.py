"""One member of an etcd cluster: its address and the gRPC channel to it, which new certificates replace."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends._etcd_rpc import UNARY, WATCH
from backends._grpc import grpc
from backends._tls import Files
from sidecar.errors import ConfigError

SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")
DRAIN_S = 30.0  # for calls under way on a connection that was replaced; no request of ours takes that long
CHANNEL_OPTIONS = (
    # The watch is read by its own thread: else two threads more wake up 5 and 10 times a second for it
    ("SingleThreadedUnaryStream", 1),  # grpc.experimental.ChannelOptions
    ("grpc.enable_retries", 0),  # a retry unknown to us would break "certainly not sent"
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # in truth the least time that a connect may take
    # etcd ends connections that ping more often than every 5 s (--grpc-keepalive-min-time)
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


@dataclass(frozen=True, slots=True)
class Material:
    """What is in the files of `Files`, as gRPC wants it."""

    ca: bytes | None
    key: bytes | None = field(repr=False)
    certificate: bytes | None

    @classmethod
    def read(cls, files: Files) -> "Material":
        """Read the files.

        Raises:
            ConfigError: One cannot be read or used; names the key. gRPC would say so only when it connects.
        """
        files.context()
        try:
            ca, key, certificate = (
                None if path is None else Path(path).read_bytes()
                for path in (files.ca_file, files.key_file, files.cert_file)
            )
        except OSError as error:
            raise ConfigError(f"{files.section}.ca_file: {error.filename}: {error.strerror}") from error
        if ca is None and SYSTEM_CA.exists():
            ca = SYSTEM_CA.read_bytes()
        return cls(ca, key, certificate)


class Channel:
    """A gRPC channel and its methods."""

    def __init__(self, address: str, material: Material | None) -> None:
        options = list(CHANNEL_OPTIONS)
        self.material = material
        if material is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            credentials = grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)
            self._channel = grpc.secure_channel(address, credentials, options)
        self._methods: dict[str, Any] = {}

    def method(self, name: str) -> Any:
        if name not in self._methods:
            path, asked, answered = WATCH if name == "Watch" else UNARY[name]
            make: Any = self._channel.unary_stream if name == "Watch" else self._channel.unary_unary
            self._methods[name] = make(
                path, request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
            )
        return self._methods[name]

    def close(self) -> None:
        self._channel.close()


class Endpoint:
    """One member's address with its channel, made when first needed."""

    def __init__(self, address: str, material: Material | None) -> None:
        self.address, self.material = address, material
        self.connected = False
        self.version: str | None = None
        self._lock = threading.Lock()
        self._channel: Channel | None = None
        self._closed = False

    def send(self, method: str, request: Any, timeout_s: float, metadata: Sequence[tuple[str, str]]) -> Any:
        """Send *request* and return its future.

        Raises:
            ValueError: the channel has been closed.
        """
        return self._method(method).future(request, timeout=timeout_s, metadata=metadata)

    def watch(self, request: Any, metadata: Sequence[tuple[str, str]]) -> Any:
        """Open a watch and return the iterator of its answers, without a deadline; ``cancel`` ends it."""
        return self._method("Watch")(request, metadata=metadata)

    def move(self, to: Channel) -> None:
        """Send everything from now on over *to*, which works; what is under way ends where it is."""
        with self._lock:
            before, self.material = self._channel, to.material
            if before is None or self._closed:  # nobody has needed it yet
                to.close()
                return
            self._channel = to
        drain = threading.Timer(DRAIN_S, before.close)
        drain.daemon = True
        drain.start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._channel is not None:
                self._channel.close()

    def _method(self, name: str) -> Any:
        with self._lock:
            if self._channel is None:
                self._channel = Channel(self.address, self.material)
            return self._channel.method(name)
