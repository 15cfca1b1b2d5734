"""``set`` and ``unset``: what an operator wants of a node now, over its configuration."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from sidecar.cli import options
from sidecar.cli.maintenance import EXITS, tell

if TYPE_CHECKING:
    from sidecar.operate.overrides import Setting

SETTING = click.Choice(["priority", "eligible"])


@options.command(
    "set",
    EXITS | {0: "set, or it was already; says when the node has not heard", 4: "refused: no such node"},
    context_settings={"ignore_unknown_options": True},  # -5 is a value
)
@options.config_option
@click.argument("node")
@click.argument("setting", type=SETTING, metavar="priority|eligible")
@click.argument("value")
def set_(config: Path | None, node: str, setting: "Setting", value: str) -> None:
    """Set priority or eligibility of a node, from any machine, at once.

    It counts before node_options of that node's configuration until it is unset. A node that is active stays
    so: eligible false keeps it from becoming active again.
    """
    from sidecar.cli.consent import interruptible_desk
    from sidecar.operate.overrides import set_override

    wanted = _parsed(setting, value)
    configuration = options.load_config(config)
    with interruptible_desk(configuration) as desk:
        found = set_override(desk, node, setting, wanted)
    tell(found, f"{setting} of {node}", f"set to {str(wanted).lower()}")


@options.command(
    "unset",
    EXITS | {0: "unset; says when the node has not heard", 4: "refused: it is not set"},
)
@options.config_option
@click.argument("node")
@click.argument("setting", type=SETTING, metavar="priority|eligible")
def unset(config: Path | None, node: str, setting: "Setting") -> None:
    """Give priority or eligibility of a node back to its configuration.

    The opposite of set.
    """
    from sidecar.cli.consent import interruptible_desk
    from sidecar.operate.overrides import unset_override

    configuration = options.load_config(config)
    with interruptible_desk(configuration) as desk:
        found = unset_override(desk, node, setting)
    tell(found, f"{setting} of {node}", "as its configuration says")


def _parsed(setting: str, value: str) -> bool | int:
    """Return *value* as the configuration would take it."""
    from sidecar.config import reader
    from sidecar.config.schema import KEYS

    kind: Any = KEYS[f"node_options.{setting}"].kind
    try:
        return cast(bool | int, kind.parse(reader.scalar(value)))
    except ValueError as error:
        raise click.BadParameter(str(error), click.get_current_context(), param_hint=setting) from None
