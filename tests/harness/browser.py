"""A real Chromium without a window, and axe-core's opinion of what it shows.

    with chromium() as browser, opened(browser, url) as page: …

Chromium is Debian's, so that no browser is downloaded past the package manager. A page that logs an error,
breaks its Content-Security-Policy or raises fails the test that opened it; HTTP's error answers do not.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # ships no types
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.harness.process import unavailable

WITHIN_MS = 40_000
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser; without one the test is skipped, in CI failed."""
    program = shutil.which("chromium")
    if program is None:
        unavailable("chromium is not here; scripts/test installs it")
    with sync_playwright() as playwright:
        # root has no sandbox; what is shown is our own page
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"], timeout=WITHIN_MS
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, *, goto: bool = True, **options: Any) -> Iterator[Page]:
    """Open *url* in a profile of its own. *options* are Playwright's: viewport, color_scheme, …"""
    context = browser.new_context(**options)
    context.set_default_timeout(WITHIN_MS)
    page = context.new_page()
    faults: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            faults.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: faults.append(str(error)))
    try:
        if goto:
            page.goto(url)
        yield page
    finally:
        context.close()
    assert faults == []


def accessibility_faults(page: Page) -> list[str]:
    """Return what axe-core has against the page as it is shown now."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [
        f"{rule['id']}: {rule['help']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found
        for node in rule["nodes"]
    ]
