"""What tests put where a document should be: Hypothesis strategies and fixed examples.

``documents(kind)`` is the interesting one: a sound document with a few fields replaced, added or missing, so
that it passes some checks and not others. `KINDS` are all documents of the project with the key of each.
"""

import json
from dataclasses import asdict
from typing import Any

from hypothesis import strategies as st

from backends._consul_board import Lease
from sidecar.core.model import (
    Author,
    EpochRecord,
    HistoryEntry,
    LockRecord,
    NodeRecord,
    Override,
    Request,
    ServerStats,
    Settings,
)
from sidecar.core.units import Epoch
from sidecar.documents import EPOCH_MAX

SOUND: dict[str, Any] = {
    "lock": LockRecord("node-a", "node-a-1", Epoch(7), 10_000, to="node-b", by="op", request="r1"),
    "epoch": EpochRecord(Epoch(7), "node-a", "switchover"),
    "nodes/node-a": NodeRecord(
        *("node-a", "node-a-1", "active", "running", "Serving", Epoch(7), Epoch(7), "kernel", 100),
        *(True, False, False, "0.1.0", 1_700_000_000_000, 8_500),
        server=ServerStats(4711, 5230.2, 913_000_000, 3.1),
        api="http://10.0.0.1:8009",
    ),
    "request": Request("f00d", "switchover", "asked", Epoch(7), "node-a", "node-b", "op", 1_700_000_000_000),
    "settings": Settings(
        False,
        ("node-b",),
        "op",
        1_700_000_000_000,
        (Override("node-a", 50, False),),
        (Author("priority", "node-a", "op", 7, 1_700_000_000_000),),
    ),
    "history/000000000007": HistoryEntry(
        Epoch(7), "node-a", "node-b", "lease expired", 1_700_000_000_000, 9_100, 40, 61_000
    ),
}
CONSUL_LOCK = Lease("node-a", "node-a-1", Epoch(7), 10_000, "vacant", renewals=3)

NUMBERS = st.integers() | st.sampled_from(
    [-1, 0, 1, 2**31, 2**53, EPOCH_MAX, EPOCH_MAX + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400]
)
TEXTS = st.text(max_size=20) | st.sampled_from(["", "held", "\x1b[31m", "\u202e", "\0", "x" * 5_000, "../.."])
LEAVES = st.none() | st.booleans() | NUMBERS | st.floats() | TEXTS
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)
FIXED = (
    *(
        b"",
        b"garbage",
        b"\0",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"7"',
        b"NaN",
        b"{}",
        b'{"v": 1}',
        b'{"v": 99}',
    ),
    *(
        b'{"v": true}',
        b'{"v": 1.0}',
        b'{"v": "1"}',
        b'{"v": 1, "v": 2}',
        b'{"v": 1, "epoch": 1e3}',
        b"[" * 60_000,
    ),
    *(
        b'{"v":' * 10_000,
        b"9" * 6_000,
        b'{"v": 1, "epoch": ' + b"9" * 6_000 + b"}",
        b" " * 65_537,
        bytes(range(256)),
    ),
    *(
        b'{"v": 1, "epoch": -1}',
        b'{"v": 1, "epoch": 9007199254740992}',
        b'\xef\xbb\xbf{"v": 1}',
        b'{"v": 1}{"v": 1}',
    ),
)
"""The usual suspects, for tests that cannot afford many."""


def _text(fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode(errors="surrogatepass")


@st.composite
def documents(draw: st.DrawFn, sound: Any) -> bytes:
    """Draw what is nearly the document *sound*, or nothing like it."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=200) | st.sampled_from(FIXED))
    if kind == 1:
        return _text(draw(TREES))
    fields: dict[str, object] = {"v": 1, **asdict(sound)}
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(fields)) | TEXTS)
        if draw(st.integers(0, 4)) == 0:
            fields.pop(name, None)
        else:
            fields[name] = draw(TREES)
    raw = _text(fields)
    if kind == 2 and raw:
        at = draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + draw(st.binary(max_size=3)) + raw[at + draw(st.integers(0, 3)) :]
    return raw
