"""Goal: compose/ha is well-formed and fits together; what its trial computes is right.

Method: docker-compose, haproxy and promtool check their files, the program loads the sidecar's. Nothing is
started. Not covered: that it works, which is what ``compose/ha/try`` is for.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ha.client import Answer, backwards, longest_ms
from ha.plant import HA, NODES, STORES, files

from sidecar.config import load
from tests.harness.containers import compose_command
from tests.harness.process import unavailable
from tests.harness.tools import libraries, need


def output(*command: str | Path, **more: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env={**os.environ, **more})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", STORES)
def test_the_compose_files_are_good_and_name_what_the_trial_kills(backend: str) -> None:
    if (compose := compose_command()) is None:
        unavailable("no docker-compose")
    words = [word for file in files(backend) for word in ("-f", str(file))]
    found = yaml.safe_load(output(*compose, *words, "config"))

    services = found["services"]
    assert {*NODES, *STORES[backend], "haproxy", "postgres", "prometheus", "client"} < set(services)
    assert {services[node]["environment"]["SIDECAR_BACKEND"] for node in NODES} == {backend}
    assert len({services[node]["environment"]["SIDECAR_NODE_OPTIONS__PRIORITY"] for node in NODES}) == 3


@pytest.mark.parametrize("backend", STORES)
def test_the_sidecars_configuration_is_good(backend: str, tmp_path: Path) -> None:
    for name in ("ca.pem", "sidecar.pem", "sidecar-key.pem"):
        (tmp_path / name).touch()
    file = tmp_path / "sidecar.yml"
    file.write_text((HA / "sidecar.yml").read_text().replace("/run/certificates", str(tmp_path)))

    assert load(file, {"SIDECAR_BACKEND": backend, "SIDECAR_NODE": "node-a"}).backend == backend


def test_haproxy_takes_its_configuration() -> None:
    output(need("haproxy"), "-c", "-f", HA / "haproxy" / "haproxy.cfg", **libraries())


def test_haproxy_rides_out_a_restart_of_the_sidecar_but_no_failover() -> None:
    text = (HA / "haproxy" / "haproxy.cfg").read_text()
    (fast_ms, fall), *others = re.findall(r"fastinter (\d+)ms .*fall (\d+)", text)
    ttl_ms = load(None, {"SIDECAR_CLUSTER": "x", "SIDECAR_BACKEND": "local", "SIDECAR_NODE": "a"}).lock.ttl_ms

    assert not others
    assert 2_500 <= int(fast_ms) * int(fall) < ttl_ms / 2
    assert re.findall(r"server (\S+) \1:6460 check", text) == list(NODES)


def test_prometheus_takes_its_configuration_and_scrapes_every_node() -> None:
    file = HA / "prometheus" / "prometheus.yml"
    output(need("promtool"), "check", "config", file)

    (job,) = yaml.safe_load(file.read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"{node}:8009" for node in NODES]}]


@pytest.mark.parametrize(
    ("at", "longest"),
    [
        ([900, 1000, 1050, 1900], 850),
        ([900, 950], 1050),  # not over yet
        ([400, 1600], 1200),  # counted from the answer before the fault
        ([], 1000),
        ([900, 2600], 1100),  # an answer after the window ends nothing within it
    ],
)
def test_the_longest_interruption(at: list[int], longest: int) -> None:
    answers = [Answer(at_ms, "node-a", 1, "r") for at_ms in at]

    assert longest_ms(answers, 1000, 2000) == longest


def test_an_older_epoch_after_a_newer_one_is_found() -> None:
    good = [Answer(1, "node-a", 1, "r"), Answer(2, "node-b", 2, "s")]

    assert backwards(good) == []
    assert len(backwards([*good, Answer(3, "node-a", 1, "r")])) == 1


def test_what_the_client_prints_is_read() -> None:
    assert Answer.parse("5 node-a 7 0f") == Answer(5, "node-a", 7, "0f")
    assert Answer.parse("5 - - -") is None
