"""Goal: the archive of ./scripts/bundle is the same for the same input, and says truly what is in it.

Method: small wheels made here stand for the real ones. Not covered: building the real ones, and installing
from the archive (tests/system/test_installed.py).
"""

import configparser
import io
import json
import os
import re
import subprocess
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from bundling.__main__ import PROGRAMS, SUMS, collect, pack
from packaging.requirements import Requirement

from sidecar import __version__
from tests.harness.tools import ROOT

FOLDER = ROOT / "scripts" / "bundling"
EPOCH = 1_700_000_000


def wheel(folder: Path, name: str, *lines: str) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    text = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines, "", "what it is"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", text)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    own = wheel(tmp_path, "aggregate_sidecar", "License: Apache-2.0")
    needs = [
        wheel(tmp_path, "modern", "License-Expression: MIT OR Apache-2.0", "License: ignored"),
        wheel(
            tmp_path, "usual", "Classifier: License :: OSI Approved :: BSD License", "License: a long\n text"
        ),
        wheel(tmp_path, "silent_one"),
    ]
    return collect(own, needs, "1.0")


def test_the_same_files_give_the_same_bytes_whatever_their_order(files: dict[str, bytes]) -> None:
    backwards = dict(reversed(files.items()))

    assert pack(files, "top", EPOCH) == pack(backwards, "top", EPOCH)


def test_nothing_of_this_machine_is_in_the_archive(files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(files, "top", EPOCH))) as tar:
        members = tar.getmembers()

    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", EPOCH)}
    examples = [path for path in (ROOT / "docs" / "hooks").iterdir() if path.is_file()]
    hooks = {f"top/docs/hooks/{path.name}" for path in examples if os.access(path, os.X_OK)}
    assert hooks >= {f"top/docs/hooks/{name}" for name in ("virtual-ip", "vrrp-active", "postgresql-fence")}
    assert {m.name for m in members} >= {f"top/docs/hooks/{path.name}" for path in examples}
    assert {m.name for m in members if m.mode == 0o755} == {f"top/{name}" for name in PROGRAMS} | hooks
    assert {m.mode for m in members} == {0o755, 0o644}


def test_every_file_has_its_sum(files: dict[str, bytes]) -> None:
    lines = [line.split("  ") for line in files[SUMS].decode().splitlines()]

    assert {name: sum_ for sum_, name in lines} == {
        name: sha256(data).hexdigest() for name, data in files.items() if name != SUMS
    }
    assert {"sbom.cdx.json", "aggregate-sidecar.service", "docs/install.md", "sidecar.yml.example"} <= set(
        files
    )


def test_the_bill_of_materials_has_version_hash_and_licence_of_every_wheel(files: dict[str, bytes]) -> None:
    bill = json.loads(files["sbom.cdx.json"])
    parts = {part["name"]: part for part in bill["components"]}

    assert bill["metadata"]["component"]["name"] == "aggregate_sidecar"
    assert bill["metadata"]["component"]["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    assert parts["modern"]["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert parts["usual"]["licenses"] == [{"license": {"name": "BSD License"}}]
    assert parts["silent_one"]["licenses"] == [{"license": {"name": "not stated"}}]
    assert parts["silent_one"]["purl"] == "pkg:pypi/silent-one@1.0"
    for part in (*parts.values(), bill["metadata"]["component"]):
        (digest,) = part["hashes"]
        data = files[part["properties"][0]["value"]]
        assert digest == {"alg": "SHA-256", "content": sha256(data).hexdigest()}


def test_what_is_locked_is_what_setup_cfg_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = [Requirement(line) for line in setup["options"]["install_requires"].split("\n") if line.strip()]
    text = (FOLDER / "locked.txt").read_text()
    locked = {name.lower(): version for name, version in re.findall(r"^(\S+)==(\S+) \\$", text, re.MULTILINE)}

    assert "pip" in locked, "the archive installs itself with it"
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)) == len(locked)
    for requirement in asked:
        assert requirement.name.lower() in locked, f"{requirement}: run scripts/wheelhouse --lock"
        version = locked[requirement.name.lower()]
        assert requirement.specifier.contains(version), f"{requirement}: {version} is locked"


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_are_posix_shell(name: str) -> None:
    subprocess.run(["sh", "-n", FOLDER / name], check=True)

    assert (FOLDER / name).read_text().startswith("#!/bin/sh\n")


def test_the_unit_starts_what_is_installed() -> None:
    unit = (ROOT / "sidecar" / "systemd" / "aggregate-sidecar.service").read_text()

    assert "link=/usr/local/bin/sidecar\n" in (FOLDER / "install").read_text()
    assert "ExecStart=/usr/local/bin/sidecar run\n" in unit
    assert __version__ not in unit
