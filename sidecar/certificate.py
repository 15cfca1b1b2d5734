"""From when until when a certificate is valid: as much of one as is needed here, and no library for it.

Not covered: whether anybody should trust it.
"""

import base64
import re
from typing import NamedTuple

_PEM = re.compile("-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _GENERALIZED_TIME = 0xA0, 0x18  # ASN.1 tags


class Validity(NamedTuple):
    """Unix times, in seconds."""

    since: int
    until: int


def validity(pem: str) -> Validity:
    """Return that of the first certificate in *pem*.

    Raises:
        ValueError, IndexError: It is none.

    Source: RFC 5280, 4.1: the fields are version?, serial, algorithm, issuer, validity.
    """
    block = _PEM.search(pem)
    if block is None:
        raise ValueError("no certificate")
    certificate = _elements(base64.b64decode(block[1]))[0][1]
    fields = _elements(_elements(certificate)[0][1])
    times = _elements(fields[4 if fields[0][0] == _VERSION else 3][1])
    return Validity(_unix(*times[0]), _unix(*times[1]))


def _unix(tag: int, content: bytes) -> int:
    from datetime import datetime

    text = content.decode("ascii")
    year = text if tag == _GENERALIZED_TIME else ("20" if text < "5" else "19") + text  # UTCTime: two digits
    return int(datetime.strptime(year, "%Y%m%d%H%M%S%z").timestamp())


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each element that *der* is made of."""
    found = []
    while der:
        length, start = der[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        found.append((der[0], der[start : start + length]))
        der = der[start + length :]
    return found
