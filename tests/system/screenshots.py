"""Pictures for the docs, of what is really there: the status page in Chromium, two commands in a terminal."""

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from sidecar.demo.cluster import Cluster, DemoNode, until
from tests.harness.browser import chromium, opened
from tests.system.clusters import ApiNode

TOKEN = "for-the-pictures"  # of a cluster that ends with this script
WITHIN_MS = 150_000  # patience: it may run on a busy machine
COLUMNS = 80
DESKTOP, PHONE = {"width": 1160, "height": 860}, {"width": 360, "height": 760}
EXTERNAL_FONTS = re.compile(r"@font-face \{\{.*?\}\}\s", re.DOTALL)
FRAME = re.compile(r"\x1b\[\??[0-9;]*[AKlh]|\r")  # what `rich` writes between two frames; colours are kept
SIZE_MAX = 150_000
HISTORY_PX = 560
LOOKS_USED_S = 20


def main(folder: Path) -> None:
    """Make them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sidecar-pictures-") as place, chromium() as browser:
        backend = {"backend": "local", "local": {"path": f"{place}/store.db"}}
        standin = {"start_ms": 600, "activate_ms": 1_400}
        cluster = Cluster(
            Path(place), backend, cluster="plant-7", ttl="10s", standin=standin, node_type=ApiNode
        )
        for node in cluster:
            node.environment = {"SIDECAR_API__TOKEN": TOKEN}
        try:
            cluster.start()
            _past(cluster)
            _pictures(cluster, browser, folder)
        finally:
            cluster.stop()
    for made in sorted(folder.iterdir()):
        print(f"{made.stat().st_size:>8} {made}")  # the script's own output
        assert made.stat().st_size < SIZE_MAX, f"{made} is too large for the README"


def _settle(cluster: Cluster, *, brief: bool = False) -> str:
    """Wait until one node serves and the others could, for a while unless *brief*; return the one."""

    def settled() -> bool:
        nodes = cluster.status().get("nodes", [])
        states = [str(node["state"]) for node in nodes]
        up = [dict(node["server"] or {}).get("uptime_s", 0) > LOOKS_USED_S for node in nodes]
        return sorted(states) == ["monitoring"] * (len(cluster.nodes) - 1) + ["running"] and (
            all(up) or brief
        )

    until("a settled cluster", settled, WITHIN_MS)
    return cluster.await_active(within_ms=WITHIN_MS)


def _past(cluster: Cluster) -> None:
    """Give the cluster a history: a crash and two switchovers."""
    active = _settle(cluster, brief=True)
    cluster[active].crash()
    cluster.await_active(active, WITHIN_MS)
    cluster[active].start()
    for _ in range(2):
        active = _settle(cluster, brief=True)
        cluster.sidecar("switchover", "--yes", within_s=WITHIN_MS / 1000)
        cluster.await_active(active, WITHIN_MS)


def _pictures(cluster: Cluster, browser: Browser, folder: Path) -> None:
    active = _settle(cluster)
    other = next(node for node in cluster if node.name != active)
    _terminal(folder / "status.svg", "status", _run(other, "status"))
    for name, size, scheme in (
        ("page-light", DESKTOP, "light"),
        ("page-dark", DESKTOP, "dark"),
        ("page-phone", PHONE, "dark"),
    ):
        with _page(browser, other, size, color_scheme=scheme) as page:
            page.screenshot(
                path=folder / f"{name}.png",
            )
    with _page(browser, other, DESKTOP) as page:
        box = page.locator(".two").bounding_box()
        assert box is not None
        page.screenshot(path=folder / "page-history.png", full_page=True, clip={**box, "height": HISTORY_PX})
        cluster[active].crash()
        expect(page.get_by_role("heading", level=1)).to_contain_text("taking over", timeout=WITHIN_MS)
        page.screenshot(path=folder / "page-failover.png")
    cluster[active].start()
    _settle(cluster)
    asked = threading.Thread(target=cluster.sidecar, args=("switchover", "--yes"), kwargs={"within_s": 150})
    asked.start()
    _terminal(folder / "watch.svg", "watch", _run(other, "watch", "> switchover"))
    asked.join()
    _settle(cluster)
    with _page(browser, other, DESKTOP) as page:
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Unlock commands").click()
        page.get_by_role("button", name="Switch over…").click()
        page.screenshot(path=folder / "page-switchover.png")
        page.keyboard.press("Escape")
        other.freeze_sidecar()
        expect(page.get_by_role("alert")).to_contain_text("No word", timeout=WITHIN_MS)
        page.screenshot(path=folder / "page-silent.png")
        other.thaw()


def _page(browser: Browser, node: DemoNode, size: Any, **options: Any) -> Any:
    assert isinstance(node, ApiNode)
    return _Opened(browser, f"http://127.0.0.1:{node.port}/", size, options)


class _Opened:
    """A page that shows everything it is going to show."""

    def __init__(self, browser: Browser, url: str, size: Any, options: dict[str, Any]) -> None:
        self._context = opened(browser, url, viewport=size, **options)

    def __enter__(self) -> Page:
        page = self._context.__enter__()
        expect(page.locator("#past > li").first).to_be_visible(timeout=WITHIN_MS)
        expect(page.locator("#cases > li").first).to_be_visible(timeout=WITHIN_MS)
        expect(page.locator("#link")).to_have_text("live", timeout=WITHIN_MS)
        return page

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


def _terminal(path: Path, command: str, text: str) -> None:
    """Draw *text*, which `sidecar` *command* has written to a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text), soft_wrap=True)
    form = EXTERNAL_FONTS.sub("", CONSOLE_SVG_FORMAT)
    path.write_text(console.export_svg(title=f"$ sidecar {command}", code_format=form))


def _run(node: DemoNode, command: str, until_it_shows: str = "this node:") -> str:
    """Return what `sidecar` *command* shows on a terminal, the frame that has *until_it_shows*."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "30", "TERM": "xterm-256color"}
    words = [sys.executable, "-P", "-m", "sidecar", command, "-c", str(node.config)]
    process = subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    written, frame = b"", ""
    with suppress(OSError):  # the other end is closed when the command ends
        while not frame and (chunk := os.read(leader, 65_536)):
            written += chunk
            frames = FRAME.split(written.decode(errors="replace").replace("\r\n", "\n"))
            frame = next((f for f in frames if until_it_shows in f and f.rstrip().endswith("of a core")), "")
    process.terminate()
    process.wait(30)
    os.close(leader)
    return frame.strip("\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
