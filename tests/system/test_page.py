"""Goal: who looks at the status page sees what is so, or sees that it is not known; and can act on it.

Method: a real Chromium on the page of real sidecars with stand-in servers (the tests share one cluster and
run in their order), and, where the page must meet what no healthy cluster says, on a real API in this
process. Judged by the text and roles that a person or a screen reader gets, by axe-core, and by the witness.
Not covered: other browsers, how it looks (scripts/screenshots, for eyes), the API itself (tests/api).
"""

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from sidecar.core import state as s
from sidecar.core.model import NodeRecord, Settings, View
from sidecar.demo.cluster import Cluster, until
from tests.api.served import Served, lease, served
from tests.cli.stage import Stage, request
from tests.core.made import POLICY
from tests.harness.browser import WITHIN_MS, accessibility_faults, chromium, opened
from tests.harness.stores import unique
from tests.system.clusters import ApiNode, running

TOKEN = "correct-horse"
expect.set_options(timeout=WITHIN_MS)

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("page")
    backend = {"backend": "local", "local": {"path": str(folder / "store.db")}}
    environment = {"SIDECAR_API__TOKEN": TOKEN}
    with running(
        folder, backend, unique("page"), environment=environment, ttl="6s", node_type=ApiNode
    ) as made:
        yield made


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Served]:
    """A real API whose node is told by the test what it knows; node-a is active, node-b stands by."""
    stage = Stage(tmp_path / "local.db")
    with served(tmp_path) as api:
        stage.appear("node-a", "node-b")
        stage.acquire("node-a")
        stage.record("lease expired", "node-b")
        show(api, stage.view())
        yield api
    stage.close()


def show(api: Served, view: View) -> None:
    """Let *api* be node-a, which serves for an hour, and which sees *view*."""
    api.tell(s.Serving(lease(3_600_000), run=3), view, replace(POLICY, node="node-a"))


def url(node: object) -> str:
    assert isinstance(node, ApiNode)
    return f"http://127.0.0.1:{node.port}/"


def status(node: object) -> dict[str, Any]:
    """Return what the node's API says; {} where nobody listens yet."""
    with suppress(OSError), urllib.request.urlopen(f"{url(node)}status", timeout=WITHIN_MS / 1000) as found:
        return dict(json.load(found))
    return {}


def settled(cluster: Cluster) -> tuple[ApiNode, ApiNode]:
    """Return the active node and the other one, both ready."""

    def ready() -> bool:
        nodes = [status(node) for node in cluster]
        seen = [sorted(str(node["state"]) for node in found.get("nodes", [])) for found in nodes]
        return seen == [["monitoring", "running"]] * 2

    until("both nodes to be ready", ready, WITHIN_MS)
    active = cluster.await_active()
    (other,) = (node for node in cluster if node.name != active)
    node = cluster[active]
    assert isinstance(node, ApiNode)
    assert isinstance(other, ApiNode)
    return node, other


def answer(page: Page) -> Locator:
    return page.get_by_role("heading", level=1)


def card(page: Page, node: str) -> Locator:
    return page.locator("#nodes > li").filter(has=page.get_by_role("heading", name=node, exact=True))


def saying(found: object) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json=found)


def unlock(page: Page, token: str = TOKEN) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Unlock commands").click()


def test_it_says_who_is_active_and_how_the_others_are(cluster: Cluster, browser: Browser) -> None:
    active, standby = settled(cluster)
    with opened(browser, url(standby)) as page:
        expect(answer(page)).to_have_text(f"{active.name} is active")
        expect(page).to_have_title(f"✓ {active.name} is active – {active.settings['cluster']}")
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("#facts")).to_contain_text("today")
        expect(page.locator("#facts")).to_contain_text(f"Ready to take over{standby.name}")
        expect(page.locator("#lease").get_by_role("meter")).to_have_attribute("aria-valuemax", "6.0")
        expect(card(page, active.name)).to_contain_text("Serving")
        expect(card(page, standby.name)).to_contain_text("Monitoring Master Server Status")
        expect(card(page, standby.name)).to_contain_text("this node")
        expect(page.locator("#past > li").first).to_contain_text("first start")
        expect(page.locator("#cases")).to_contain_text("Planned switchover", ignore_case=True)
        expect(page.locator("#cases")).to_contain_text("at most")
        expect(page.locator("#buttons")).to_be_hidden()


def test_switchover_by_the_button_moves_the_active(cluster: Cluster, browser: Browser) -> None:
    active, standby = settled(cluster)
    with opened(browser, url(standby)) as page:
        page.evaluate(
            "window.heard = []; new MutationObserver(() => heard.push(said.textContent))"
            ".observe(said, {childList: true, characterData: true, subtree: true})"
        )
        unlock(page)
        page.get_by_role("button", name="Switch over…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(f"{active.name} stops its server")
        dialog.get_by_label(standby.name).check()
        dialog.get_by_role("button", name="Switch over").click()

        expect(page.locator("#outcome")).to_contain_text(f"Switchover to {standby.name}: Done")
        assert cluster.await_active() == standby.name
        expect(page.locator("#outcome")).to_contain_text(f"{standby.name} is active at epoch 2")
        expect(answer(page)).to_have_text(f"{standby.name} is active")
        expect(page.locator("#request")).to_contain_text("done")
        expect(page.locator("#past > li").first).to_contain_text(f"switchover to {standby.name}")
        expect(page.locator("#past > li").first).to_contain_text("start")
        expect(page.locator("#cases")).to_contain_text("Measured: longest")
        said = page.evaluate("heard")
        assert any(f"{standby.name} is active" in text for text in said), said
        assert TOKEN not in page.content()


def test_maintenance_by_the_buttons(cluster: Cluster, browser: Browser) -> None:
    active, _ = settled(cluster)
    with opened(browser, url(active)) as page:
        unlock(page)
        page.get_by_role("button", name="Pause…").click()
        expect(page.get_by_role("dialog")).to_contain_text("nobody takes over until you resume")
        page.get_by_role("dialog").get_by_role("button", name="Pause").click()

        expect(page.locator("#outcome")).to_contain_text("Pause of the cluster: Done")
        expect(answer(page)).to_have_text(f"{active.name} is active, paused")
        expect(page.locator("#notices")).to_contain_text("no automatic starts, stops, takeovers")
        assert status(active)["paused"] is True

        page.get_by_role("button", name="Resume…").click()
        page.get_by_role("dialog").get_by_role("button", name="Resume").click()
        expect(page.locator("#outcome")).to_contain_text("Resume of the cluster: Done")
        expect(answer(page)).to_have_text(f"{active.name} is active")


def test_a_forced_failover_shows_the_risks_and_has_to_be_typed(cluster: Cluster, browser: Browser) -> None:
    active, standby = settled(cluster)
    before = status(active)["epoch"]
    with opened(browser, url(standby)) as page:
        unlock(page)
        page.get_by_role("button", name="Force failover…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(f"the server of {active.name} is ended, killed if")
        go = dialog.get_by_role("button", name="Break its lock")
        expect(go).to_be_disabled()
        dialog.get_by_role("textbox").fill(standby.name)
        expect(go).to_be_disabled()
        dialog.get_by_role("textbox").fill(active.name)
        expect(go).to_be_enabled()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()

    assert status(active)["epoch"] == before


def test_silence_greys_the_page_and_ends_the_lease(cluster: Cluster, browser: Browser) -> None:
    active, standby = settled(cluster)
    with opened(browser, url(standby)) as page:
        expect(answer(page)).to_have_text(f"{active.name} is active")
        standby.freeze_sidecar()
        try:
            alert = page.get_by_role("alert")
            expect(alert).to_contain_text(f"No word from {standby.name}")
            expect(answer(page)).to_have_text("Who is active is not known")
            expect(page.locator("#why")).to_have_text(f"Last heard: {active.name} was active.")
            expect(page.locator("#lease b")).to_have_text("over")
            expect(page.locator("#facts")).not_to_contain_text("Ready to take over")
            expect(card(page, active.name)).to_contain_text("was active")
            expect(page.locator("#link")).to_have_text("no contact")
        finally:
            standby.thaw()
        expect(answer(page)).to_have_text(f"{active.name} is active")
        expect(page.get_by_role("alert")).to_be_hidden()


def test_without_events_it_asks(cluster: Cluster, browser: Browser) -> None:
    active, _ = settled(cluster)
    with opened(browser, url(active), goto=False) as page:
        page.route("**/events", lambda route: route.abort())
        page.goto(url(active))
        expect(page.locator("#link")).to_have_text("live, by asking")
        expect(answer(page)).to_have_text(f"{active.name} is active")


def test_an_answer_that_does_not_come_is_an_unknown_outcome(alone: Served, browser: Browser) -> None:
    with opened(browser, f"http://127.0.0.1:{alone.port}/") as page:
        page.route("**/switchover", lambda route: route.abort())
        unlock(page)
        page.get_by_role("button", name="Switch over…").click()
        page.get_by_role("dialog").get_by_role("button", name="Switch over").click()

        expect(page.locator("#outcome")).to_contain_text("Outcome unknown")
        expect(page.locator("#outcome")).to_contain_text("may have happened")


def test_a_wrong_token_is_forgotten_and_asked_for_again(alone: Served, browser: Browser) -> None:
    with opened(browser, f"http://127.0.0.1:{alone.port}/") as page:
        unlock(page, "wrong-horse")
        page.get_by_role("button", name="Pause…").click()
        page.get_by_role("dialog").get_by_role("button", name="Pause").click()

        expect(page.locator("#outcome")).to_contain_text("this is not the token")
        expect(page.get_by_label("Token")).to_be_focused()
        assert page.evaluate("sessionStorage.length") == 0


def test_hostile_text_stays_text(alone: Served, browser: Browser, tmp_path: Path) -> None:
    stage = Stage(tmp_path / "local.db")
    view = stage.view()
    stage.close()
    plain = view.node("node-b")
    assert plain is not None
    assert view.lock is not None
    evil = replace(plain, node=HOSTILE, message=f"\u202e{HOSTILE}\x1b[31m", version=HOSTILE)
    records: tuple[NodeRecord, ...] = (
        replace(evil, api="javascript:document.title='owned'", role="active", state="running"),
        replace(evil, node="node-long" * 40, message="x" * 100_000, api="http://user:secret@10.0.0.9/"),
    )
    hostile = replace(
        view,
        nodes=records,
        lock=replace(view.lock, node=HOSTILE),
        settings=Settings(paused=True, paused_nodes=(HOSTILE,), by=HOSTILE),
        request=request(source=HOSTILE, to=HOSTILE, by=HOSTILE),
    )
    show(alone, hostile)
    with opened(browser, f"http://127.0.0.1:{alone.port}/", viewport={"width": 320, "height": 700}) as page:
        expect(answer(page)).to_contain_text(f"{HOSTILE} is active")
        expect(card(page, HOSTILE)).to_contain_text(f"\ufffd{HOSTILE}\ufffd[31m")
        expect(page.locator("#request")).to_contain_text(HOSTILE)
        expect(page.locator("#notices")).to_contain_text(HOSTILE)
        unlock(page)
        page.get_by_role("button", name="Resume…").click()
        expect(page.get_by_role("dialog").get_by_label(HOSTILE)).to_be_visible()

        assert page.locator("main img, main script, dialog img, dialog script").count() == 0
        assert page.locator("#nodes a").count() == 0, "neither is a web address one should follow"
        assert page.title() != "owned"
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_garbage_breaks_nothing(alone: Served, browser: Browser) -> None:
    """What the page raised would fail the test: see `opened`."""
    answers: list[object] = [
        {"nodes": 5, "active": {"a": 1}, "notices": {"x": 1}, "paused": "maybe", "pending": 7},
        {
            "nodes": [
                None,
                5,
                {"node": 3},
                {"node": "x", "lease_remaining_s": "NaN", "server": 7, "state": []},
            ]
        },
        {"nodes": [{"node": "__proto__", "role": "active"}], "active": "__proto__", "epoch": "∞"},
        [],
    ]
    with opened(browser, f"http://127.0.0.1:{alone.port}/", goto=False) as page:
        page.clock.install()
        page.route("**/events", lambda route: route.abort())
        page.goto(f"http://127.0.0.1:{alone.port}/")
        expect(answer(page)).to_have_text("node-a is active")
        for found in answers:
            for path in ("status", "history*", "timing"):
                page.route(f"**/{path}", saying(found))
            with page.expect_response("**/status"):
                page.clock.run_for(2_500)
        expect(answer(page)).not_to_have_text("node-a is active")
        page.unroute_all()
        with page.expect_response("**/status"):
            page.clock.run_for(2_500)
        expect(answer(page)).to_have_text("node-a is active")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
def test_axe_finds_nothing(alone: Served, browser: Browser, scheme: str, width: int) -> None:
    size = {"width": width, "height": 800}
    with opened(
        browser, f"http://127.0.0.1:{alone.port}/", goto=False, viewport=size, color_scheme=scheme
    ) as page:
        page.clock.install()
        page.goto(f"http://127.0.0.1:{alone.port}/")
        expect(answer(page)).to_have_text("node-a is active")
        expect(page.locator("#past > li").first).to_contain_text("node-b")
        unlock(page)
        assert accessibility_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

        page.get_by_role("button", name="Switch over…").click()
        assert accessibility_faults(page) == []
        page.keyboard.press("Escape")

        page.context.set_offline(True)
        page.clock.fast_forward(6_000)
        expect(answer(page)).to_have_text("Who is active is not known")
        assert accessibility_faults(page) == []


def test_by_keyboard_alone(alone: Served, browser: Browser) -> None:
    with opened(browser, f"http://127.0.0.1:{alone.port}/") as page:
        page.get_by_label("Token").focus()
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Switch over…")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.get_by_role("button", name="Switch over…")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Pause…")).to_be_focused()
        assert page.evaluate("document.getAnimations().length") == 0, "nothing moves by itself"


def test_the_policy_lets_nothing_else_run(alone: Served) -> None:
    policy = alone.get("/").headers["Content-Security-Policy"]

    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "require-trusted-types-for 'script'" in policy


def test_the_worst_cases_are_those_of_validate(alone: Served) -> None:
    found = json.loads(alone.get("/timing").body)

    assert found["lease_s"] == 10
    assert [figure["name"] for figure in found["failover"]][:2] == ["node_crash", "server_crash"]
