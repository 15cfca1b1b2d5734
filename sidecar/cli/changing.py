"""``switchover``, ``failover`` and ``restart``: they report what was observed, or that they do not know."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli import options
from sidecar.cli.printing import conclude, say

if TYPE_CHECKING:
    from sidecar.config import Config
    from sidecar.core.units import Epoch
    from sidecar.operate.failover import Plan
    from sidecar.operate.raising import RaisePlan

EXITS = options.UNREACHABLE | {
    3: "the backend cannot be reached; nothing will happen",
    5: "timed out or interrupted; the outcome is unknown, the line says how to find out",
    130: "Ctrl-C before it began; nothing will happen",
}


@options.command(
    "switchover",
    EXITS
    | {
        0: "another node is active",
        1: "it did not come about, or was rolled back",
        4: "refused: no active, no candidate, paused, or another one under way; says what would allow it",
    },
)
@options.config_option
@click.option("--to", metavar="NODE", help="The node to hand over to [default: the best one].")
@click.option("--at", metavar="TIME", help="When: HH:MM, +10m, or ISO 8601 with zone [default: now].")
@options.timeout_option
@options.yes_option
def switchover(config: Path | None, to: str | None, at: str | None, timeout: int | None, yes: bool) -> None:
    """Ask the active to hand over to another node.

    Waits for the true outcome. The active stops its server, proves it dead and releases the lock; the other
    node starts its own. When that fails the old active starts again.

    With --at the command itself waits in the foreground until then, and only then asks: ending it before
    cancels the switchover.
    """
    from sidecar.cli.consent import interruptible, need_yes
    from sidecar.clock import wall_ms
    from sidecar.errors import Interrupted
    from sidecar.operate import handover, moment, outcome
    from sidecar.operate.status import local_time

    need_yes(yes)
    begin_unix_ms = moment.parse(at, wall_ms()) if at else None
    configuration = options.load_config(config)
    _ask_switchover(configuration, to, yes)
    with interruptible() as halt:
        if begin_unix_ms is not None:
            halt.began = False
            say(f"waiting until {local_time(begin_unix_ms)}; end this command to cancel")
            if not moment.wait_until(begin_unix_ms, halt.asked):
                raise Interrupted("interrupted; nothing was done")
            halt.began = True
        with options.open_desk(configuration) as desk:
            desk = replace(desk, halted=halt.asked)
            done = handover.switchover(desk, to, timeout or outcome.patience_ms(configuration), say)
    conclude(outcome.became(done))


def _ask_switchover(configuration: "Config", to: str | None, yes: bool) -> None:
    from sidecar.cli.consent import ask
    from sidecar.operate.handover import check_switchover

    with options.open_desk(configuration) as desk:
        source = check_switchover(desk, desk.read(), to)
    if not yes:
        ask(f"{source} will stop its server and hand over to {to or 'the best other node'}. Go on?")


@options.command(
    "failover",
    EXITS
    | {
        0: "another node is active",
        1: "the lock changed hands meanwhile, another node than the wanted one took it, or you said no",
        4: "refused: nobody holds the lock, no candidate, or paused; says what would allow it",
    },
)
@options.config_option
@click.option("--to", metavar="NODE", help="The node that should take over [default: the best one].")
@click.option(
    "--raise-epoch",
    is_flag=True,
    help="For a store that was wiped or restored: raise its epoch over what the nodes have seen.",
)
@options.timeout_option
@options.yes_option
def failover(config: Path | None, to: str | None, raise_epoch: bool, timeout: int | None, yes: bool) -> None:
    """Take the lock from an active that does not answer.

    For an active that is gone or hangs; a healthy one hands over by switchover. Breaks its lock. Nobody takes
    over before the old one's lease has run out, unless it has proved that its server is dead.
    """
    from sidecar.cli.consent import ask, interruptible, need_yes
    from sidecar.errors import UsageError
    from sidecar.operate import failover as operation
    from sidecar.operate import outcome, raising

    if raise_epoch and to is not None:
        raise UsageError("--raise-epoch does not choose a node: leave out --to")
    need_yes(yes)
    configuration = options.load_config(config)
    with options.open_desk(configuration) as desk:
        what: Plan | RaisePlan
        if raise_epoch:
            mark = _own_mark(configuration)
            what = raising.plan_raise(raising.await_free(desk, desk.read(), mark, say), mark)
            question = f"Raise the epoch to at least {what.floor}?"
        else:
            what = operation.plan(desk, desk.read(), to)
            question = f"Break the lock of {what.source or 'nobody known'}?"
        for risk in what.risks:
            say(f"- {risk}")
        if not yes:
            ask(question)
        with interruptible() as halt:
            desk = replace(desk, halted=halt.asked)
            patience_ms = timeout or outcome.patience_ms(configuration)
            if isinstance(what, operation.Plan):
                done = operation.failover(desk, what, patience_ms, say)
            else:
                done = raising.raise_epoch(desk, what, patience_ms, say)
    conclude(outcome.became(done))


def _own_mark(configuration: "Config") -> "Epoch":
    """Return the highest epoch this machine has seen, as far as its file can be read."""
    from sidecar.config.files import is_folder
    from sidecar.core.units import NO_EPOCH
    from sidecar.errors import ConfigError
    from sidecar.runtime.marks import MarkFile

    folder = Path(configuration.paths.state)
    if not is_folder(folder):
        return NO_EPOCH
    try:
        return MarkFile(folder, configuration.cluster).load().epoch
    except (ConfigError, OSError) as error:
        say(f"sidecar: warning: {error}")
        return NO_EPOCH


@options.command(
    "restart",
    EXITS
    | {
        0: "the server runs again",
        1: "it does not, or the node does not answer",
        4: "refused: no such node, no server there, or another request under way",
    },
)
@options.config_option
@options.timeout_option
@click.argument("node", required=False)
def restart(config: Path | None, timeout: int | None, node: str | None) -> None:
    """Restart the server of a node in place, without failover.

    NODE is this node unless it is given. Waits until the server runs again, or the node gave up.
    """
    from sidecar.cli.consent import interruptible_desk
    from sidecar.operate import outcome
    from sidecar.operate.handover import restart as operation

    configuration = options.load_config(config)
    with interruptible_desk(configuration) as desk:
        done = operation(desk, node or configuration.node, timeout or outcome.patience_ms(configuration), say)
    conclude(outcome.restarted(done))
