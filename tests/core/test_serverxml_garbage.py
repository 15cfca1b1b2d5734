"""Goal: whatever stands in ``server.xml``, it is edited soundly, or refused in one line and left alone.

Method: a real file is broken at random places, by random bytes and by pieces of XML that mean something; a
seed draws each. Not covered: files that are sound (test_serverxml.py).
"""

import random
from pathlib import Path

import pytest

from sidecar.errors import ConfigError, ServerError
from sidecar.servers import serverxml
from tests.harness.tools import ROOT

WHOLE = (ROOT / "tests/data/server.xml").read_bytes()
PIECES = (
    *(b"<clusterRole/>", b"<clusterRole>", b"</clusterRole>", b"<clusterRole><x>1</x></clusterRole>"),
    *(b"<clusterRole><![CDATA[1]]></clusterRole>", b"<clusterRole>1<!-- c --></clusterRole>"),
    *(b"<clusterRole a='1' />", b"<?pi x?>", b"<!--x-->", b"&#x31;", b"&amp;", b"&x;", b"&#0;", b"]]>"),
    *(b"<x:clusterRole>1</x:clusterRole>", b"<config>", b"</config>", b"<clientPort> 9 </clientPort>"),
    *(b"<clusterRole\n>2</clusterRole\n>", b"<?xml version='1.0' encoding='utf-16'?>", b"<!DOCTYPE a>"),
    *(b"\xff", b"\0", b"\xef\xbb\xbf"),
)


def broken(draw: random.Random) -> bytes:
    content = bytearray(WHOLE)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(content) + 1)
        if draw.random() < 0.6:
            behind_a_tag = content.find(b">", at) + 1 or at
            content[behind_a_tag:behind_a_tag] = draw.choice(PIECES)
        else:
            content[at : at + draw.choice((0, 1, 30))] = draw.randbytes(draw.choice((0, 1, 3)))
    if draw.random() < 0.1:
        text = content.decode("latin-1")
        return text.encode(draw.choice(("utf-16", "utf-8-sig", "utf-16-be")))
    return bytes(content)


def _role(path: Path) -> str | None:
    """Return the role in the file, None where some other value in it is refused."""
    try:
        return serverxml.read(path).cluster_role
    except ConfigError as error:
        line = str(error)
    assert line.startswith(f"{path}: ")
    return None


@pytest.mark.parametrize("part", range(4))
def test_a_broken_file_is_edited_soundly_or_refused_and_left_as_it_was(tmp_path: Path, part: int) -> None:
    edited = 0
    for seed in range(part, 200, 4):
        path = tmp_path / str(seed) / "server.xml"
        path.parent.mkdir()
        content = broken(random.Random(seed))
        path.write_bytes(content)
        try:
            serverxml.set_role(path, "standby")
        except (ConfigError, ServerError) as error:
            line = str(error)
        else:
            edited += 1
            assert _role(path) in ("2", None), f"seed {seed}"
            continue
        assert line.startswith(f"{path}: "), f"seed {seed}"
        assert "\n" not in line
        assert path.read_bytes() == content
    assert edited > 5, "all broken beyond recognition: no edit was tried"
