"""The group ``sidecar``: finds a command's module when it is called, and ends every failure in one line.

what ends a command           stderr                                exit
SidecarError                  sidecar: error: <message>             its ``exit_code``
click's usage errors          sidecar: error: <message>             2
Ctrl-C                        nothing; at a question that it was    130
                              interrupted and nothing was done
the reader of stdout is gone  nothing                               0
stdout cannot be written      sidecar: error: the output cannot …   1, unless something was done (`conclude`)
anything else                 sidecar: error: internal error: …     1, traceback with SIDECAR_DEBUG=1
"""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

import click
from click.exceptions import Exit

DEBUG_VARIABLE = "SIDECAR_DEBUG"
INTERRUPTED = 130
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What write(2) says of a full disk, a terminal that is gone and a stream that is closed."""

COMMANDS = {  # name: (module, the first sentence of its help, which a test keeps the same)
    "run": ("running", "Supervise the server of this node: the daemon."),
    "exec": ("running", "Run a command under the lock, without a configuration file."),
    "status": ("looking", "Show this node and the cluster."),
    "watch": ("watching", "Show the status, live, until interrupted."),
    "switchover": ("changing", "Ask the active to hand over to another node."),
    "failover": ("changing", "Take the lock from an active that does not answer."),
    "pause": ("maintenance", "Start maintenance: no automatic starts, stops and takeovers."),
    "resume": ("maintenance", "End maintenance."),
    "set": ("overriding", "Set priority or eligibility of a node, from any machine, at once."),
    "unset": ("overriding", "Give priority or eligibility of a node back to its configuration."),
    "restart": ("changing", "Restart the server of a node in place, without failover."),
    "history": ("looking", "Show the changes of active, the newest first."),
    "validate": ("checking", "Check the configuration and show the failover times that follow from it."),
    "doctor": ("examining", "Look at the machine and say what to do."),
    "init": ("beginning", "Write a starting configuration with a comment for every key."),
    "demo": ("running", "Run three nodes of stand-in AggreGate Servers on this machine."),
    "version": ("checking", "Show the versions of the sidecar and of what it uses."),
    "completion": ("beginning", "Print what makes a shell complete commands and options."),
}


class Program(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands, the most used first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module = import_module(f"sidecar.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_" if cmd_name in ("exec", "set") else cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command in *args*; a near miss is named."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see sidecar --help"
            raise click.UsageError(f"no such command: {name}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run a command and end the process with its exit status."""
        name = prog_name or "sidecar"
        self._main_shell_completion({}, name)
        sys.exit(self._finish(list(sys.argv[1:] if args is None else args), name))

    def _finish(self, args: list[str], name: str) -> int:
        """Do what `click.Command.main` does, and end differently."""
        try:
            try:
                with self.make_context(name, args) as ctx:
                    status = self.invoke(ctx)
            finally:
                sys.stdout.flush()  # here, where a reader that has gone can still be dealt with
            return status if isinstance(status, int) else 0
        except Exit as end:
            return end.exit_code
        except BrokenPipeError:
            return 0
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except Exception as error:  # the outermost frame of the program
            return _explain(error)


def entry() -> None:
    """Run `main` as this process. With gRPC loaded the interpreter is not taken down.

    Its daemon threads die there with a lock held that the last garbage collection then waits for, for
    ever: seen by the soak once in about 150 commands on etcd, in ``grpc._channel.__del__``.
    """
    _open_streams()
    try:
        main()
    except SystemExit as end:
        settle(sys.stdout)
        settle(sys.stderr)
        if "grpc" not in sys.modules:
            raise
        os._exit(int(end.code or 0))


def _open_streams() -> None:
    """Put something where the caller has closed stdin, stdout or stderr, which are None then.

    What goes to stderr nobody wanted to hear. Writing to stdout stays an error, as a command that only shows
    something has failed when it could not.
    """
    reads, writes = os.O_RDONLY, os.O_WRONLY
    for name, mode, flags in (("stdin", "r", reads), ("stdout", "w", reads), ("stderr", "w", writes)):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, flags)  # the lowest one free is its own
            os.set_inheritable(number, True)
            stream = open(number, mode, encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115 - as Python's
            setattr(sys, name, stream)


def settle(stream: TextIO) -> None:
    """Write what is left for *stream*, or drop it: Python would try again at its end, and exit with 120."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # no file behind it
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _explain(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        with suppress(OSError):
            traceback.print_exception(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        with suppress(OSError):
            click.echo(error.format_message(), err=True)
        return 2
    if isinstance(error, click.ClickException):
        return fail(_usage(error), error.exit_code)
    from sidecar.errors import SidecarError

    if isinstance(error, SidecarError):
        return fail(str(error), error.exit_code)
    if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename is None:
        return fail(f"the output cannot be written: {error.strerror}", 1)
    detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return fail(f"internal error: {detail}; {DEBUG_VARIABLE}=1 shows where", 1)


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    ctx = getattr(error, "ctx", None)
    where = f" (see {ctx.command_path} --help)" if ctx is not None and "--help" not in message else ""
    return message[:1].lower() + message[1:] + where


def fail(message: str, status: int) -> int:
    """Write the one line an error gets, and return *status*."""
    line = " ".join(message.split())
    with suppress(OSError):  # nobody listens: the status still tells
        click.echo(f"sidecar: error: {line}", err=True)
    return status


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from sidecar import __version__

        click.echo(__version__)
        ctx.exit()


@click.command(cls=Program, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    "config",
    metavar="FILE",
    help="Configuration [default: $SIDECAR_CONFIG, else /etc/aggregate-sidecar/sidecar.yml].",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def main(config: str | None) -> None:
    """Keep exactly one AggreGate Server of a cluster active.

    \b
    Exit status of every command:
      0  done
      1  tried and failed, or rolled back
      2  bad usage or configuration
      3  backend not reachable
      4  refused: unsafe or impossible now
      5  timed out, the outcome is unknown
    """
