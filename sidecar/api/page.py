"""The status page: one file, and the policy under which a browser runs what is in it and nothing else."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple


class Page(NamedTuple):
    """What ``/`` answers."""

    body: bytes
    policy: str  # Content-Security-Policy


def load() -> Page:
    """Return the page and its policy. Trusted types: not even its own script can turn text into HTML."""
    body = Path(__file__).with_name("page.html").read_bytes()  # importlib.resources would stay with 0.5 MB
    policy = (
        f"default-src 'none'; script-src {_hash(body, b'script')}; style-src {_hash(body, b'style')}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return Page(body, policy)


def _hash(body: bytes, tag: bytes) -> str:
    """Return the source expression of the one element *tag*: browsers hash the text between its tags."""
    (text,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), body, re.DOTALL)
    return f"'sha256-{b64encode(sha256(text).digest()).decode()}'"
