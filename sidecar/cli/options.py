"""Options that several commands have, and what they become."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sidecar.config import Config
    from sidecar.operate.desk import Desk

F = TypeVar("F", bound=Callable[..., Any])

Exits = dict[int, str]
UNREACHABLE: Exits = {2: "bad usage or configuration", 3: "the backend cannot be reached"}


class Command(click.Command):
    """A command that knows its exit statuses and shows them in its help.

    An empty value is wrong everywhere: it is a variable of a script that was not set. As none at all,
    ``--at "$WHEN"`` would be carried out now, and ``restart "$NODE"`` here.
    """

    def __init__(self, *args: Any, exits: Exits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exits = dict(sorted(exits.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the command line apart, without empty values."""
        if not ctx.resilient_parsing:
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for param in order:
                if given[param.name] == "":
                    raise click.BadParameter("it is empty", ctx, param)
        left = super().parse_args(ctx, args)
        reads = any(param.name == "config" for param in self.params)
        if not reads and ctx.find_root().params.get("config") is not None:
            raise click.UsageError(f"{self.name} takes no configuration file", ctx)
        return left

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of exit statuses."""
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), meaning) for status, meaning in self.exits.items()])


def command(name: str, exits: Exits, **kwargs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command with its exit statuses."""
    settings = {"help_option_names": ["-h", "--help"]} | kwargs.pop("context_settings", {})

    def wrap(function: Callable[..., Any]) -> Command:
        made = click.command(name, cls=Command, exits=exits, context_settings=settings, **kwargs)(function)
        assert isinstance(made, Command)
        return made

    return wrap


def config_option(function: F) -> F:
    """Add ``-c/--config``, which may also stand before the command's name."""
    return click.option(
        "-c",
        "--config",
        "config",
        metavar="FILE",
        callback=_config_path,
        help="Configuration [default: $SIDECAR_CONFIG, else /etc/aggregate-sidecar/sidecar.yml].",
    )(function)


def output_option(function: F) -> F:
    """Add ``-o``."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="For people, or for programs.",
    )(function)


def yes_option(function: F) -> F:
    """Add ``--yes``."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")(function)


def timeout_option(function: F) -> F:
    """Add ``--timeout``."""
    return click.option(
        "--timeout",
        type=_Duration(1),
        metavar="D",
        help="How long to wait for the outcome, such as 90s [default: what the configuration allows it].",
    )(function)


class _Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.3
    name = "duration"

    def __init__(self, at_least_ms: int) -> None:
        self._at_least_ms = at_least_ms

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from sidecar.config.kinds import Duration

        try:
            return Duration(self._at_least_ms).parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Duration(0)
"""``10s`` → 10000."""


def _config_path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    path = value if value is not None else ctx.find_root().params.get("config")
    if path == "":
        raise click.BadParameter("it is empty", ctx, param)
    return None if path is None else Path(path)


def load_config(path: Path | None, *, patient: bool = True) -> "Config":
    """Read the configuration; *patient*: as `sidecar.config.load` has it. Most need nothing of ``api``.

    Raises:
        ConfigError: It is missing or wrong.
    """
    import os

    from sidecar.config import load

    return load(path, os.environ, patient=patient)


def open_desk(config: "Config") -> "Desk":
    """Return where operations find the cluster; to be used in a ``with``.

    Raises:
        ConfigError: The backend is not installed, or an option of it is wrong.
    """
    from sidecar.operate import desk

    return desk.open_desk(config)
