"""The section ``etcd`` of the configuration: endpoints, TLS, user. The client reads the files it names."""

from collections.abc import Mapping

from backends._etcd_client import Login
from backends._rotation import SecretFile
from backends._tls import Files
from backends.shared import known_options, text_option
from sidecar.errors import ConfigError

FILES = ("ca_file", "cert_file", "key_file")
OPTIONS = ("endpoints", *FILES, "username", "password_file", "password")
DEFAULT_ENDPOINT = "http://127.0.0.1:2379"
DEFAULT_PORT = 2379


def login(options: Mapping[str, object]) -> Login:
    """Return how to reach the cluster.

    Raises:
        ConfigError: An option is unknown or unusable; names the key.
    """
    known_options("etcd", options, OPTIONS)
    endpoints = options.get("endpoints", [DEFAULT_ENDPOINT])
    if not isinstance(endpoints, list | tuple) or not endpoints:
        raise ConfigError(f"etcd.endpoints: expected a list of URLs, got {endpoints!r}")
    parsed = [_endpoint(endpoint) for endpoint in endpoints]
    if len({tls for tls, _ in parsed}) != 1:
        raise ConfigError("etcd.endpoints: either all https or all http")
    tls = parsed[0][0]
    files = Files.of("etcd", {name: text_option("etcd", options, name) for name in FILES})
    if not tls and files.paths:
        raise ConfigError("etcd.endpoints: certificates are given, but the endpoints are not https")
    username, secret = text_option("etcd", options, "username"), text_option("etcd", options, "password")
    path = text_option("etcd", options, "password_file")
    secret_file = SecretFile("etcd.password_file", path) if path is not None and secret is None else None
    if (username is None) != (secret is None and secret_file is None):
        missing = "username" if username is None else "password_file"
        raise ConfigError(f"etcd.{missing}: missing; user name and password go together")
    return Login(
        tuple(address for _, address in parsed), files if tls else None, username, secret, secret_file
    )


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
