"""``validate``: everything about a configuration that can be said without a network."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.clock import BootClock
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
