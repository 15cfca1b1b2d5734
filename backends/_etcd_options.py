"""The section ``etcd`` of the configuration: endpoints, TLS, user. Files named in it are read here."""

import os
from collections.abc import Mapping
from pathlib import Path

from backends import _tls
from backends._etcd_client import Login
from backends._grpc import grpc
from backends.shared import known_options, text_option
from sidecar.errors import ConfigError

FILES = ("ca_file", "cert_file", "key_file")
OPTIONS = ("endpoints", *FILES, "username", "password_file", "password")
DEFAULT_ENDPOINT = "http://127.0.0.1:2379"
DEFAULT_PORT = 2379
SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")


def login(options: Mapping[str, object]) -> Login:
    """Return how to reach the cluster.

    Raises:
        ConfigError: An option is unknown or unusable, or a file cannot be read; names the key.
    """
    known_options("etcd", options, OPTIONS)
    endpoints = options.get("endpoints", [DEFAULT_ENDPOINT])
    if not isinstance(endpoints, list | tuple) or not endpoints:
        raise ConfigError(f"etcd.endpoints: expected a list of URLs, got {endpoints!r}")
    parsed = [_endpoint(endpoint) for endpoint in endpoints]
    if len({tls for tls, _ in parsed}) != 1:
        raise ConfigError("etcd.endpoints: either all https or all http")
    tls = parsed[0][0]
    ca, cert, key = (_file(options, name) for name in FILES)
    if not tls and (ca or cert or key):
        raise ConfigError("etcd.endpoints: certificates are given, but the endpoints are not https")
    username, secret = text_option("etcd", options, "username"), _password(options)
    if (username is None) != (secret is None):
        missing = "username" if username is None else "password_file"
        raise ConfigError(f"etcd.{missing}: missing; user name and password go together")
    credentials = None
    if tls:
        names = {name: text_option("etcd", options, name) for name in FILES}
        _tls.context("etcd", **names)  # gRPC would say nothing of what is wrong, and only when it connects
        if ca is None and SYSTEM_CA.exists():
            ca = SYSTEM_CA.read_bytes()
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
    return Login(tuple(address for _, address in parsed), credentials, username, secret)


def _password(options: Mapping[str, object]) -> str | None:
    """Return the password: read already by the configuration, or from the file by us."""
    given = text_option("etcd", options, "password")
    if given is not None:
        return given
    raw = _file(options, "password_file")
    return None if raw is None else raw.decode(errors="replace").rstrip("\r\n")


def _endpoint(endpoint: object) -> tuple[bool, str]:
    """Return whether it wants TLS, and HOST:PORT."""
    if not isinstance(endpoint, str):
        raise ConfigError(f"etcd.endpoints: {endpoint!r} is not a URL")
    scheme, slashes, rest = endpoint.partition("://")
    if not slashes:
        scheme, rest = "http", endpoint
    address = rest.rstrip("/")
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(DEFAULT_PORT)
    if scheme not in ("http", "https") or not host or "/" in address or "@" in host or not port.isdigit():
        raise ConfigError(f"etcd.endpoints: {endpoint!r} is not http://HOST:PORT or https://HOST:PORT")
    return scheme == "https", f"{host}:{port}"


def _file(options: Mapping[str, object], name: str) -> bytes | None:
    path = text_option("etcd", options, name)
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"etcd.{name}: {path}: {os.strerror(error.errno or 0)}") from error
