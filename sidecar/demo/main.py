"""``sidecar demo``: three nodes on this machine, live, or a script of faults with measured times.

Everything runs in a PID namespace of its own where the host allows it, whose first process dies with the
command: whatever ends the demo, ``kill -9`` included, ends every process of it. Where namespaces are
refused, the nodes end with the demo by the usual signals, and after ``kill -9`` the guards end the
active server at its deadline and everything else within two minutes.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil

from sidecar.demo.cluster import Cluster
from sidecar.demo.live import show
from sidecar.demo.script import play
from sidecar.errors import Failed
from sidecar.guard import kernel

INSIDE = "SIDECAR_DEMO_INSIDE"
LIFE_MS = 120_000
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(script: bool | None, *, keep: bool = False) -> int:
    """Run the demo; return 0 only if the witness saw no two servers active at once.

    Args:
        script: Play the script; None: only where there is no terminal.
        keep: Leave the folder with logs and witness, and say where it is.
    """
    if INSIDE not in os.environ and (enclosure := _enclosure()):
        return _enclosed(enclosure)
    scripted = script if script is not None else not (sys.stdin.isatty() and sys.stdout.isatty())
    with _ended_in_order(), _folder(keep) as folder:
        backend = {"backend": "local", "local": {"path": str(folder / "store.db")}}
        standin = {"start_ms": 150, "activate_ms": 150, "max_life_ms": LIFE_MS}
        cluster = Cluster(folder, backend, standin=standin)
        try:
            return play(cluster) if scripted else show(cluster)
        except TimeoutError as error:
            raise Failed(f"demo: {error}; logs are kept with --keep") from error
        finally:
            cluster.stop()


def _enclosure() -> list[str]:
    """Return what starts a program in a PID namespace that ends with it; nothing where that is refused."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    options = [unshare, "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    if os.geteuid() != 0:
        options += ["--user", "--map-root-user"]
    tried = subprocess.run([*options, "true"], capture_output=True, check=False)
    return options if tried.returncode == 0 else []


def _enclosed(enclosure: list[str]) -> int:
    """Run this same command inside *enclosure* and pass on the signals that unshare itself does not hear."""
    words = sys.orig_argv
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    outer = subprocess.Popen(
        [*enclosure, shutil.which(words[0]) or sys.executable, *words[1:]],
        env={**os.environ, INSIDE: "1"},
        preexec_fn=_ends_with_us,
    )
    while outer.poll() is None:
        received = signal.sigwaitinfo({*PASSED_ON, signal.SIGCHLD})
        # one from the terminal (a code above 0) has reached the whole process group already
        if received.si_signo != signal.SIGCHLD and received.si_code <= 0:
            with contextlib.suppress(psutil.Error):  # it has just ended
                for inner in psutil.Process(outer.pid).children():
                    inner.send_signal(received.si_signo)
    return outer.returncode if outer.returncode >= 0 else 128 - outer.returncode


def _ends_with_us() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # unshare would end by it, and the demo at once with it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*PASSED_ON, signal.SIGCHLD})
    kernel.set_parent_death_signal(signal.SIGKILL)


@contextlib.contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sidecar-demo-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"logs and witness: {folder}")  # noqa: T201 - the command's own output
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let each of these signals end the demo: every node stopped, the folder removed; further ones wait."""

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in PASSED_ON:  # a group's signal comes twice: by itself, and passed on
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
