"""``pause`` and ``resume``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli import options
from sidecar.cli.printing import conclude, say

if TYPE_CHECKING:
    from sidecar.operate.settings import Changed

EXITS = options.UNREACHABLE | {
    1: "SIGTERM before it was written; nothing is changed",
    5: "it is unknown whether it is written; status shows it",
    130: "Ctrl-C before it was written; nothing is changed",
}


def _node_option(function: options.F) -> options.F:
    return click.option("--node", metavar="NODE", help="This node alone [default: the whole cluster].")(
        function
    )


@options.command(
    "pause",
    EXITS | {0: "paused, or it was already; says which nodes have not heard", 4: "refused: no such node"},
)
@options.config_option
@_node_option
def pause(config: Path | None, node: str | None) -> None:
    """Start maintenance: no automatic starts, stops and takeovers.

    The lock stays where it is, and so does a running server; but it ends when its lease cannot be renewed.
    """
    from sidecar.cli.consent import interruptible_desk
    from sidecar.operate.maintenance import pause_cluster

    configuration = options.load_config(config)
    with interruptible_desk(configuration) as desk:
        found = pause_cluster(desk, node)
    tell(found, node or f"cluster {configuration.cluster}", "paused")


@options.command(
    "resume",
    EXITS | {0: "resumed; says which nodes have not heard", 4: "refused: no such node, or not paused"},
)
@options.config_option
@_node_option
def resume(config: Path | None, node: str | None) -> None:
    """End maintenance.

    The nodes start, stop and take over by themselves again.
    """
    from sidecar.cli.consent import interruptible_desk
    from sidecar.operate.maintenance import resume_cluster

    configuration = options.load_config(config)
    with interruptible_desk(configuration) as desk:
        found = resume_cluster(desk, node)
    tell(found, node or f"cluster {configuration.cluster}", "resumed")


def tell(found: "Changed", what: str, how: str) -> None:
    """Say what became of a change of the settings."""
    from sidecar.operate import outcome

    for line in outcome.maintained(found, what, how):
        conclude(line)
    if (warning := outcome.unheard(found)) is not None:
        say(f"sidecar: warning: {warning}")
