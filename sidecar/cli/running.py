"""``run``, ``exec`` and ``demo``: what stays in the foreground."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
from click.exceptions import Exit

from sidecar.cli import options

if TYPE_CHECKING:
    from contextlib import ExitStack

    from sidecar.config import Config


@options.command(
    "run",
    {
        0: "told to stop (SIGTERM, SIGINT, SIGUSR1), and did",
        1: "the server or the guard is not as it must be, or an unexpected end",
        2: "bad usage or configuration",
        4: "refused: another sidecar runs in the same directory",
    },
)
@options.config_option
@click.option(
    "--keep-server",
    is_flag=True,
    help="On stop, leave a running server to the guard for the next run (within the deadline).",
)
def run(config: Path | None, keep_server: bool) -> int:
    """Supervise the server of this node: the daemon.

    Competes for the lock, runs the server as active or standby, and ends it before its lease does. SIGTERM:
    stop the server, release the lock, exit. SIGUSR1: exit as with --keep-server. SIGHUP: read the
    configuration again.
    """
    import faulthandler
    import signal

    if sys.__stderr__ is not None:  # systemd's watchdog sends SIGABRT: the log shows where each thread stood
        faulthandler.enable(sys.__stderr__)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nothing to reload yet, and no reason to end
    configuration = options.load_config(config)
    from sidecar.operate.checking import check
    from sidecar.runtime.main import Mode
    from sidecar.runtime.main import run as supervise

    def read_again() -> "Config":
        found = options.load_config(config, patient=False)
        check(found)
        return found

    return supervise(configuration, Mode(keep_server=keep_server, hands_over=True), read_again)


@options.command(
    "exec",
    {
        0: "told to stop, and did; with --once: the command ended with 0",
        1: "the guard is not to be had; with --once: the lock was lost, or stopped before the command ran",
        2: "bad usage",
        4: "refused: another one runs in the same --state-dir",
    },
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--backend",
    required=True,
    metavar="URL",
    help="etcd://HOST:PORT[,HOST:PORT...], etcds:// (TLS), consul://HOST:PORT, consuls://, or local:///PATH.",
)
@click.option("--cluster", required=True, metavar="NAME", help="Name of the lock.")
@click.option("--node", metavar="NAME", help="Name of this competitor [default: the host name].")
@click.option(
    "--ttl",
    type=options.DURATION,
    metavar="D",
    help="Lease to ask for [default: $SIDECAR_LOCK__TTL, else 10s].",
)
@click.option(
    "--restarts",
    type=click.IntRange(0, 1000),
    help="How often a command that fails is started again before another node gets the lock "
    "[default: $SIDECAR_SERVER__RESTARTS__ATTEMPTS, else 3].",
)
@click.option("--once", is_flag=True, help="End with the first exit of the command, or loss of the lock (1).")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Remember the epoch here, across runs [default: not at all].",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def exec_(
    backend: str,
    cluster: str,
    node: str | None,
    ttl: int | None,
    restarts: int | None,
    once: bool,
    state_dir: Path | None,
    command: tuple[str, ...],
) -> int:
    """Run a command under the lock, without a configuration file.

    Waits for the lock, starts the command, stops it when the lock is lost, and competes again. Credentials
    come by SIDECAR_ETCD__* and SIDECAR_CONSUL__* from the environment. With --once the command's exit status
    is that of exec, 128 + N where signal N ended it, also when exec is told to stop: by SIGTERM, Ctrl-C, or
    SIGHUP (its terminal is gone), which nohup keeps away.
    """
    import signal
    from contextlib import ExitStack

    from sidecar.config import for_exec

    def leave(_number: int, _frame: object) -> None:
        raise Exit(int(once))  # before the command ran

    with ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGHUP):  # until the supervisor takes them
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, leave)
        folder = _temporary(stack) if state_dir is None else state_dir.absolute()
        configuration = for_exec(backend, cluster, node, ttl, restarts, command, once, folder)
        _make(Path(configuration.paths.run))
        from sidecar.runtime.main import Mode
        from sidecar.runtime.main import run as supervise

        out = _descriptor(sys.__stdout__), _descriptor(sys.__stderr__)
        return supervise(configuration, Mode(out=out, remembers=state_dir is not None))


def _descriptor(stream: TextIO | None) -> int:
    """Return the number of a stream of ours; of one that the caller has closed, that of nowhere."""
    return os.open(os.devnull, os.O_WRONLY) if stream is None else stream.fileno()


def _temporary(stack: "ExitStack") -> Path:
    from tempfile import TemporaryDirectory

    from sidecar.errors import Failed

    try:
        made = TemporaryDirectory(prefix="sidecar-exec-", ignore_cleanup_errors=True)
    except OSError as error:
        raise Failed(f"no temporary folder is to be had: {error.strerror}; give --state-dir") from error
    return Path(stack.enter_context(made))


def _make(run_dir: Path) -> None:
    """Make the folder that ``run`` would make, and name the option where it cannot be."""
    from sidecar.errors import UsageError

    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--state-dir: {error.filename}: {error.strerror}") from error


@options.command(
    "demo",
    {
        0: "ended; with --script: at no time two servers were active",
        1: "with --script: something went wrong, or two servers were active",
        2: "bad usage",
        130: "interrupted",
    },
)
@click.option(
    "--script/--live",
    "script",
    default=None,
    help="Play the faults and measure them, or show the cluster [default: live on a terminal].",
)
@click.option("--keep", is_flag=True, help="Keep the folder with logs and witness, and say where it is.")
def demo(script: bool | None, keep: bool) -> int:
    """Run three nodes of stand-in AggreGate Servers on this machine.

    --script plays a crash, a frozen sidecar, a frozen node, a switchover and a forced failover,
    prints each measured time and what proves it. Needs nothing but this machine and leaves no process behind.
    """
    from sidecar.demo.main import main

    return main(script, keep=keep)
