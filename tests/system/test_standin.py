"""The stand-in behaves as docs/aggregate.md says of the real server, and fails as it is told to.

Method: real processes on loopback, judged by what they print, the ports they open, the files they leave
and what they write to the witness. Not covered: everything that nobody has documented of the real one.
"""

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import standin
from sidecar.servers.document import BadXml, Document
from sidecar.standin import witness
from tests.harness.process import wait_until
from tests.harness.standin import Makes, accepts, standins
from tests.harness.witness import await_close, await_open, await_tick, lines, one_active_at_a_time

REAL = Path(__file__).parents[3] / "shared/data/aggregate-server-5.70.16.xml"
OWN = Path(__file__).parents[1] / "data/server.xml"
EXIT_TERM = 143


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Makes]:
    with standins(tmp_path) as makes:
        yield makes


# -- as documented ------------------------------------------------------------------------------


def test_a_master_opens_its_ports_after_it_told_the_witness(make: Makes) -> None:
    server = make("a")
    server.start_serving(epoch=4)
    opened = await_open(make.witness)
    assert (opened.node, opened.epoch, opened.line) == ("a", 4, 0)
    greeting = server.greeting()
    assert (greeting["node"], greeting["epoch"], greeting["run"]) == ("a", 4, opened.run)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.web_port}/", timeout=2) as answer:
        assert answer.status == 200
    assert server.said("Server started")
    assert "ag.core" in (server.home / "logs/server.log").read_text()


def test_it_is_a_tree_whose_launcher_passes_no_signal_on(make: Makes) -> None:
    server = make("a")
    server.start_serving()
    below = server.server()
    os.kill(server.process.pid, signal.SIGTERM)
    server.wait_exit()
    assert below.is_running()
    await_tick(make.witness, after=lines(make.witness))


@pytest.mark.parametrize("how", ["TERM", "E"])
def test_it_stops_gracefully_and_saves(make: Makes, how: str) -> None:
    server = make("a")
    server.start_serving()
    server.xml.write_text(server.xml.read_text().replace(">1</clusterRole>", ">2</clusterRole>"))
    if how == "TERM":
        server.server().terminate()
    else:
        assert server.admin(b"E") == b"A\n"
    assert server.wait_exit() == (EXIT_TERM if how == "TERM" else 0)
    assert not accepts(server.client_port)
    (interval,) = one_active_at_a_time(make.witness)
    assert interval.closed
    saved = Document(server.xml.read_bytes())
    assert saved.values("firstLaunch") == ["false"]
    assert saved.values("clusterRole") == ["1"]  # an edit while it runs is lost


def test_net_admin_restarts_and_refuses(make: Makes) -> None:
    server = make("a")
    server.start_serving(epoch=2)
    assert server.admin(b"X") == b"E\n"
    assert server.admin(b"R\n") == b"A\n"
    again = await_open(make.witness, after=1)
    first, second = one_active_at_a_time(make.witness)
    assert first.closed
    assert (second.run, second.epoch) == (again.run, 2)


def test_a_standby_shows_it_and_opens_nothing(make: Makes) -> None:
    server = make("b", role=2, detection_ms=86_400_000)
    server.start_monitoring()
    assert not accepts(server.client_port)
    assert not accepts(server.web_port)
    assert server.admin(b"E") == b"A\n"
    assert server.wait_exit() == 0
    assert witness.read(make.witness) == []


def test_a_standby_stays_while_the_master_works_and_takes_over_when_it_is_silent(make: Makes) -> None:
    master, standby = make("a"), make("b", role=2, detection_ms=3_000)
    master.start_serving(epoch=4)
    standby.start_monitoring()
    time.sleep(4.5)
    assert not standby.serving()
    master.process.kill()
    opened = await_open(make.witness, node="b")
    assert opened.epoch == 0  # nobody gave it one, and the witness complains about that
    assert standby.said("Failover Master")
    records = witness.read(make.witness)
    assert witness.overlaps(records) == []
    assert len(witness.epoch_faults(records)) == 1
    (gap,) = witness.gaps(records)
    assert 2_000 < gap.length_ms < 20_000


def test_the_native_split_brain_that_this_project_closes(make: Makes) -> None:
    """Two servers of the vendor's own cluster, without a sidecar: a frozen master is not fenced."""
    master, standby = make("a"), make("b", role=2, detection_ms=3_000)
    master.start_serving(epoch=1)
    standby.start_monitoring()
    master.process.freeze()
    await_open(make.witness, node="b")
    assert witness.overlaps(witness.read(make.witness)) == []
    after = lines(make.witness)
    master.process.thaw()
    await_tick(make.witness, node="a", after=after)
    (found,) = witness.overlaps(witness.read(make.witness))
    assert {found.first.node, found.second.node} == {"a", "b"}


@pytest.mark.parametrize("file", [OWN, REAL], ids=["own", "real"])
def test_it_runs_on_a_whole_server_xml(make: Makes, file: Path) -> None:
    if not file.exists():
        pytest.skip("the real file is not at hand")
    server = make("a")
    ports = {"clientPort": str(server.client_port), "webAppsSslPort": str(server.web_port)}
    ports |= {"webAppsNonSslPort": "0", "clusterRole": "0"}
    server.xml.write_bytes(Document(file.read_bytes()).with_values(ports))
    before = [(e.name, e.text) for e in Document(server.xml.read_bytes()).elements]
    server.start_serving()
    server.admin(b"E")
    assert server.wait_exit() == 0
    assert [(e.name, e.text) for e in Document(server.xml.read_bytes()).elements] == before


@pytest.mark.parametrize("text", ["", "<config>", "<config><clientPort>x</clientPort></config>"])
def test_a_torn_server_xml_ends_it(make: Makes, text: str) -> None:
    server = make("a")
    server.xml.write_text(text)
    server.start()
    assert server.wait_exit() == 1
    assert server.said("Cannot load server settings")


def test_a_port_in_use_ends_it_after_it_told_the_witness(make: Makes) -> None:
    first, second = make("a"), make("b")
    second.xml.write_bytes(first.xml.read_bytes())
    first.start_serving(epoch=1)
    second.start(epoch=2)
    assert second.wait_exit() == 1
    await_tick(make.witness, node="a", after=lines(make.witness))
    assert len(witness.overlaps(witness.read(make.witness))) == 1


# -- faults -------------------------------------------------------------------------------------


def test_start_fails(make: Makes) -> None:
    server = make("a")
    server.start(start_fails=True)
    assert server.wait_exit() == 1
    assert witness.read(make.witness) == []


def test_slow_start(make: Makes) -> None:
    server = make("a", start_ms=100, activate_ms=100)
    began = time.monotonic()
    server.start_serving(slow_start_ms=500)
    assert time.monotonic() - began > 0.65


def test_a_start_can_be_broken_off(make: Makes) -> None:
    server = make("a")
    server.start(slow_start_ms=60_000)
    wait_until(lambda: server.said("Initializing plugins"), "the stage")
    server.server().terminate()
    assert server.wait_exit() == EXIT_TERM
    assert Document(server.xml.read_bytes()).values("firstLaunch") == ["true"]  # not saved


def test_crash(make: Makes) -> None:
    server = make("a")
    server.start(crash_after_ms=100, exit_code=7)
    assert server.wait_exit() == 7
    (interval,) = one_active_at_a_time(make.witness)
    assert not interval.closed
    assert Document(server.xml.read_bytes()).values("firstLaunch") == ["true"]


def test_freeze_keeps_the_ports_and_ends_the_ticks(make: Makes) -> None:
    server = make("a")
    server.start_serving()
    standin.set_faults(server.home, freeze=True)
    wait_until(lambda: stands_still(make.witness), "no more ticks")
    assert accepts(server.client_port)
    server.server().terminate()
    time.sleep(0.2)
    assert server.process.running()
    standin.clear_faults(server.home)
    assert server.wait_exit() == EXIT_TERM
    await_close(make.witness)


def stands_still(path: Path) -> bool:
    before = lines(path)
    time.sleep(0.3)
    return lines(path) == before


def test_full_collection_serves_nobody_at_full_speed(make: Makes) -> None:
    server = make("a")
    server.start_serving()
    before = server.server().cpu_times()
    after = lines(make.witness)
    standin.set_faults(server.home, full_gc_ms=700)
    wait_until(
        lambda: witness.active_intervals(witness.read(make.witness))[0].longest_silence_ns > 650_000_000,
        "a silence",
    )
    await_tick(make.witness, after=after)
    assert server.server().cpu_times().user - before.user > 0.1  # of 0.7 s, beside much else
    await_tick(make.witness, after=lines(make.witness))  # once, not for ever


def test_deaf_to_sigterm(make: Makes) -> None:
    server = make("a")
    server.start_serving(deaf_to_sigterm=True)
    server.server().terminate()
    await_tick(make.witness, after=lines(make.witness) + 5)
    assert server.process.running()


def test_slow_stop_serves_on(make: Makes) -> None:
    server = make("a")
    server.start_serving(slow_stop_ms=3_000)
    asked_ns = witness.now_ns()
    server.admin(b"E")
    assert server.serving()
    assert server.wait_exit() == 0
    assert await_close(make.witness).at_ns - asked_ns > 2_950_000_000


def test_torn_server_xml(make: Makes) -> None:
    server = make("a")
    whole = server.xml.read_bytes()
    server.start_serving(torn_server_xml=True)
    server.admin(b"E")
    assert server.wait_exit() == 128 + signal.SIGKILL
    torn = server.xml.read_bytes()
    assert 0 < len(torn) < len(whole)
    with pytest.raises(BadXml):
        Document(torn)


@pytest.mark.parametrize(
    ("fault", "detection_ms"), [("self_activate", 86_400_000), ("deaf_to_heartbeats", 3_000)]
)
def test_self_activation_beside_a_living_master_is_an_overlap(
    make: Makes, fault: str, detection_ms: int
) -> None:
    master, standby = make("a"), make("b", role=2, detection_ms=detection_ms)
    master.start_serving(epoch=1)
    standby.start_monitoring()
    assert not standby.serving()
    standin.set_faults(standby.home, **{fault: True})
    await_open(make.witness, node="b")
    await_tick(make.witness, node="a", after=lines(make.witness))
    assert len(witness.overlaps(witness.read(make.witness))) == 1


def test_an_escaped_daemon_is_as_active_as_its_server(make: Makes) -> None:
    server, successor = make("a"), make("b")
    server.start_serving(epoch=1, escape=True)
    run = await_open(make.witness).run
    wait_until(lambda: len({record.pid for record in witness.read(make.witness)}) == 2, "the daemon")
    server.process.kill()  # the whole process group, and yet:
    ticked = await_tick(make.witness, node="a", after=lines(make.witness) + 2)
    assert ticked.run == run
    assert os.getsid(ticked.pid) not in (os.getsid(0), server.process.pid)
    os.kill(ticked.pid, signal.SIGTERM)
    successor.start_serving(epoch=2)
    await_tick(make.witness, node="a", after=lines(make.witness))
    (found,) = witness.overlaps(witness.read(make.witness))
    assert (found.first.node, found.second.node) == ("a", "b")


def test_faults_can_come_from_the_environment(make: Makes) -> None:
    server = make("a")
    server.process.env["STANDIN_FAULTS"] = '{"start_fails": true}'
    server.start()
    assert server.wait_exit() == 1


@pytest.mark.parametrize(
    "faults", [{"freez": True}, {"freeze": 1}, {"crash_after_ms": -1}, {"escape": "yes"}]
)
def test_a_misspelt_fault_is_refused(make: Makes, faults: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no such fault"):
        standin.set_faults(make("a").home, **faults)


def test_it_ends_when_nobody_looks_after_it(make: Makes) -> None:
    server = make("a", max_life_ms=300)
    server.start()
    assert server.wait_exit() == 1
    assert server.said("max_life_ms")


def test_starting_is_cheap_and_running_small(make: Makes) -> None:
    """Demo and tests run many. CPU time, not time: the machine is shared."""
    server = make("a")
    server.start_serving()
    found = server.server()
    used = found.cpu_times()
    assert used.user + used.system < 0.15
    assert found.memory_info().rss < 20_000_000
