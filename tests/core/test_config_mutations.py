"""Goal: no configuration gives a traceback or hangs ``validate``, and every error names its place.

Method: a slice of `config_fuzz`, run as the command it is; what machines found before, by name; and the judge
itself, given answers that it must not accept. Not covered here: values key by key (test_config_fuzz.py).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.config import from_text
from sidecar.errors import ConfigError
from sidecar.servers import serverxml
from tests.core import config_fuzz
from tests.core.config_fuzz_data import Files
from tests.harness.tools import ROOT

COUNT = 200
PLAIN = "cluster: c\nbackend: local\n"


def test_a_slice_of_the_fuzz() -> None:
    command = [sys.executable, "-m", "tests.core.config_fuzz", "--count", str(COUNT), "--seed", "42"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout)
    assert (found["count"], found["failures"]) == (COUNT, 0)
    assert sum(found["ends"].values()) == COUNT
    assert found["ends"]["good"] > COUNT // 50, "all broken beyond recognition: nothing deep was reached"


def test_a_seed_gives_the_same_case(tmp_path: Path) -> None:
    files = Files(tmp_path)

    assert config_fuzz.make(7, files) == config_fuzz.make(7, files)
    assert config_fuzz.make(7, files) != config_fuzz.make(8, files)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("sidecar: error: FILE:2: lock.ttl: expected a duration\n", True),
        ("sidecar: error: FILE: lock: too short\n", True),
        ("sidecar: error: FILE:2: server.user: is empty\n", False),  # another key
        ("sidecar: error: FILE:2: expected a duration\n", False),  # no key
        ("sidecar: error: FILE:9: lock.ttl: expected a duration\n", False),  # no such line
        ("sidecar: error: lock.ttl: expected a duration\n", False),  # no file
        ("sidecar: error: FILE:2: lock.ttl: one\ntwo\n", False),
        ("sidecar: error: FILE:2: lock.ttl: \x1b[31m\n", False),
        ("sidecar: error: internal error: KeyError: 'ttl'; SIDECAR_DEBUG=1 shows where\n", False),
        ("Traceback (most recent call last):\n", False),
        ("", False),
    ],
)
def test_the_judge_sees_what_names_nothing(said: str, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = config_fuzz.Case(1, b"cluster: c\nlock: {ttl: 1}\n", touched={"lock.ttl"})
    result = CliRunner().invoke(main, ["validate", "-c", "/nowhere"])
    result.stderr_bytes = said.replace("FILE", "/x/sidecar.yml").encode()

    assert (config_fuzz.wrong(case, result, Path("/x/sidecar.yml")) is None) is right


# What the fuzz found.


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PLAIN + "log: {level: \x07}\n", r"x.yml:3: not valid YAML: .* not allowed in text, U\+0007"),
        (PLAIN + "---\n" + PLAIN, "x.yml:3: more than one YAML document"),
        (PLAIN + '"": 1\n', "x.yml:3: a key cannot be empty"),
        (PLAIN + 'lock: {"": 1}\n', "x.yml:3: lock: a key cannot be empty"),
    ],
)
def test_an_error_of_the_text_names_its_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_text(text, {}, source="x.yml")


LONG = "x" * 300  # no file system takes such a name


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (f"server: {{kind: command, command: [/{LONG}]}}", "server.command: '/xxx"),
        (f"server: {{home: /{LONG}}}", f"server.home: /{LONG}: no such directory"),
        (f"local: {{path: /{LONG}/s.db}}", f"local.path: the folder /{LONG} does not exist"),
        ('server: {kind: command, command: ["a\\e[31mb"]}', "server.command: 'a\\x1b[31mb': not found"),
    ],
)
def test_a_path_that_cannot_be_is_no_internal_error(more: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    local = "" if "local" in more else f"local: {{path: {tmp_path}/s.db}}\n"
    path.write_text(f"{PLAIN}{local}{more}\n")

    result = CliRunner().invoke(main, ["validate", "-c", str(path)])

    assert result.exit_code == 2
    assert f"sidecar: error: {path}: {says}" in result.stderr


def test_a_missing_server_xml_names_the_key_that_leads_to_it(tmp_path: Path) -> None:
    files = Files(tmp_path)
    path = tmp_path / "x.yml"
    path.write_text(
        f"{PLAIN}local: {{path: {tmp_path}/s.db}}\n"
        f"server: {{home: {files.home}, config_file: other.xml, command: [{files.program}, -f, other.xml]}}\n"
    )

    result = CliRunner().invoke(main, ["validate", "-c", str(path)])

    assert result.exit_code == 1
    assert f"sidecar: error: {path}: server.config_file: {files.home}/other.xml: missing" in result.stderr


@pytest.mark.parametrize("port", ["00000646000", "0" * 5_000 + "1"])
def test_a_port_with_many_zeros_is_none(port: str, tmp_path: Path) -> None:
    """The first was taken for 646000, and the second was more digits than Python reads."""
    path = tmp_path / "server.xml"
    path.write_text(f"<config><clientPort>{port}</clientPort></config>")

    with pytest.raises(ConfigError, match=r"clientPort: 0+.* is not a port"):
        serverxml.read(path)
