"""The live demo: the cluster in a terminal, with keys for faults."""

import contextlib
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from sidecar.demo.cluster import Cluster
from sidecar.standin import witness

REFRESH_S = 0.25
KEYS = (
    "k kill -9 the active node · f freeze its sidecar · F freeze all of it\n"
    "t thaw and restart · s switchover · q quit"
)
STYLES = {"running": "bold green", "monitoring": "cyan", "failed": "bold red", "paused": "yellow"}


def show(cluster: Cluster) -> int:
    """Show the cluster until ``q``; return 0 only if the witness saw no overlap."""
    cluster.start()
    said = "starting"
    with _keys() as key, Live(auto_refresh=False, screen=True) as live:
        while (pressed := key()) != "q":
            if pressed:
                said = _press(cluster, pressed) or said
            live.update(_picture(cluster, said), refresh=True)
    found = cluster.verdict()
    for fault in found:
        print(fault)  # noqa: T201 - the command's own output
    return 1 if found else 0


def _press(cluster: Cluster, key: str) -> str:
    active = cluster.serving()
    if key == "t":
        for node in cluster:
            node.thaw()
            if node.process is not None and node.process.poll() is not None:
                node.start()
        return "thawed and restarted whatever was down"
    if active is None:
        return "no active server: wait for one, or press t"
    node = cluster[active]
    faults: dict[str, Callable[[], Any]] = {
        "k": node.crash,
        "f": node.freeze_sidecar,
        "F": node.freeze,
        "s": lambda: cluster.sidecar("switchover", "--yes"),
    }
    if key not in faults:
        return ""
    faults[key]()
    return {"k": f"killed {active}", "f": f"froze {active}'s sidecar", "F": f"froze {active}"}.get(
        key, f"asked {active} to hand over"
    )


def _picture(cluster: Cluster, said: str) -> Table:
    status = cluster.status()
    title = f"aggregate-sidecar demo · epoch {status.get('epoch', '–')} · {said}"
    gaps = witness.gaps(cluster.records())
    last = f"last gap {gaps[-1].length_ms / 1000:.2f} s" if gaps else "no failover yet"
    faults = cluster.verdict()
    judged = Text(f"witness: {'OVERLAP' if faults else 'no overlap'} · {last}\n{KEYS}")
    table = Table(title=title, caption=judged, expand=True)
    for column in ("node", "role", "state", "lease", "message"):
        table.add_column(column)
    for node in status.get("nodes", []):
        lease = node.get("lease_remaining_s")
        state = Text(node["state"], style=STYLES.get(node["state"], ""))
        shown = "" if lease is None else f"{lease:.1f} s"
        table.add_row(node["node"], node["role"], state, shown, node["message"])
    return table


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Yield a function that returns the key pressed within a moment, or ''."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)

    def read() -> str:
        ready, _, _ = select.select([sys.stdin], [], [], REFRESH_S)
        return sys.stdin.read(1) if ready else ""

    try:
        yield read
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
