"""``validate``: everything about a configuration that can be said without a network."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.clock import BootClock
from sidecar.config.files import is_folder
from sidecar.errors import ConfigError, ServerError
from sidecar.plugins import load_backend

if TYPE_CHECKING:
    from sidecar.config import Config


def check(config: "Config") -> dict[str, object]:
    """Return what follows from *config*, which is good so far, as a document.

    Raises:
        ConfigError: The backend is not installed or refuses its options, or a file of the server is wrong.
        ServerError: ``server.xml`` is there, but no server can run on it.
    """
    from sidecar.config import exposed, timing

    try:
        load_backend(config.backend)(config.backend_settings(), BootClock()).close()
        _folders(config)
        _certificate(config)
        warnings = _server(config)
    except (ConfigError, ServerError) as error:
        raise type(error)(f"{config.source}: {error}") from error
    return {
        "source": config.source,
        "cluster": config.cluster,
        "node": config.node,
        "backend": config.backend,
        **timing.document(config),
        "warnings": [*exposed.warnings(config), *warnings],
    }


def _folders(config: "Config") -> None:
    """Raise for a folder that ``run`` could not make."""
    for key, name in (("paths.state", config.paths.state), ("paths.run", config.paths.run)):
        there = next(path for path in (Path(name), *Path(name).parents) if os.path.lexists(path))
        if not is_folder(there):
            raise ConfigError(f"{key}: {there} is no folder")


def _certificate(config: "Config") -> None:
    api = config.api
    if api.listen and api.tls_cert_file and api.tls_key_file:
        from sidecar.api.tls import Certificates  # 15 ms

        Certificates(Path(api.tls_cert_file), Path(api.tls_key_file))


def _server(config: "Config") -> list[str]:
    """Look at the server's files; what runs on the machine is looked at by ``run``."""
    from sidecar.servers import serverxml, settings
    from sidecar.servers.command import check_program

    server = config.server
    if server.kind == "command":
        check_program("server.command", server.command, None, server.environment)
        return []
    home = Path(server.home)
    check_program("server.command", server.command, home, server.environment)
    try:
        found = serverxml.read(home / server.config_file)
    except ServerError as error:
        raise ServerError(f"server.config_file: {error}") from error
    settings.refuse_embedded(found)
    return settings.warnings(found)
