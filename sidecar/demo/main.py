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

from sidecar.demo.cluster import Cluster
from sidecar.demo.live import show
from sidecar.demo.script import play
from sidecar.errors import Failed

INSIDE = "SIDECAR_DEMO_INSIDE"
LIFE_MS = 120_000


def main(script: bool | None, *, keep: bool = False) -> int:
    """Run the demo; return 0 only if the witness saw no two servers active at once.

    Args:
        script: Play the script; None: only where there is no terminal.
        keep: Leave the folder with logs and witness, and say where it is.
    """
    if INSIDE not in os.environ:
        _enclose()
    scripted = script if script is not None else not (sys.stdin.isatty() and sys.stdout.isatty())
    with _folder(keep) as folder, _ended_in_order():
        backend = {"backend": "local", "local": {"path": str(folder / "store.db")}}
        standin = {"start_ms": 150, "activate_ms": 150, "max_life_ms": LIFE_MS}
        cluster = Cluster(folder, backend, standin=standin)
        try:
            return play(cluster) if scripted else show(cluster)
        except TimeoutError as error:
            raise Failed(f"demo: {error}; logs are kept with --keep") from error
        finally:
            cluster.stop()


def _enclose() -> None:
    """Start over inside a PID namespace that ends with this process, where that is allowed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return
    options = [unshare, "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    if os.geteuid() != 0:
        options += ["--user", "--map-root-user"]
    if subprocess.run([*options, "true"], capture_output=True, check=False).returncode != 0:
        return
    words = sys.orig_argv
    os.environ[INSIDE] = "1"
    sys.stdout.flush()
    os.execv(unshare, [*options, shutil.which(words[0]) or sys.executable, *words[1:]])  # noqa: S606 - a fixed program


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
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does: every node stopped, the folder removed."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
