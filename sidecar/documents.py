"""Documents in the backend: JSON with ``"v": 1``, read strictly and written canonically.

A field that is not known here is ignored, so that a newer node may add one; a missing or mistyped
one, an epoch or a TTL that cannot be, or another ``v``, makes the document unreadable as a whole, but for
the ``mark`` of a node. Nothing is ever guessed. In ``settings``, which nodes of all versions read and write
again, such fields are kept, at every level.
"""

import threading
from dataclasses import fields
from typing import Any, TypeVar

import msgspec

from sidecar.core.model import Author, Override, Settings
from sidecar.core.units import NO_EPOCH, Epoch
from sidecar.errors import BadDocument

VERSION = 1
SIZE_MAX_BYTES = 64 * 1024  # far above any document of ours; Consul refuses values over 512 KB

EPOCH_MAX = (1 << 53) - 1  # exact in every JSON reader; a cluster never gets there, a typing mistake does
TTL_MAX_MS = 7 * 24 * 3600 * 1000  # beyond it is no TTL of ours but a mistake that would lock everybody out
LIMITS = {"epoch": (0, EPOCH_MAX), "mark": (0, EPOCH_MAX), "ttl_ms": (1, TTL_MAX_MS)}

PARTS: dict[str, type] = {"overrides": Override, "authors": Author}  # of settings

T = TypeVar("T")

_prepared: set[type] = set()
_preparing = threading.Lock()


class _Header(msgspec.Struct):
    v: int


class _Marked(msgspec.Struct):
    mark: int


def prepared(kind: type[T]) -> type[T]:
    """Return *kind* once msgspec has taken it apart.

    It shares what it finds of a class before that is complete: two threads that decode to the same class for
    the first time end the process by SIGSEGV (0.22.0).
    """
    if kind not in _prepared:
        with _preparing:
            msgspec.json.Decoder(kind)
            _prepared.add(kind)
    return kind


def encode(value: object) -> bytes:
    """Return *value*, a dataclass of `sidecar.core.model`, as a JSON document."""
    found = msgspec.to_builtins(value)
    if isinstance(value, Settings):
        found = _together(found) | {name: [_together(part) for part in found[name]] for name in PARTS}
    return msgspec.json.encode({"v": VERSION} | found)


def decode(key: str, raw: bytes, kind: type[T]) -> T:
    """Return the document *raw* found under *key* as a *kind*.

    Raises:
        BadDocument: It is none, or of another version; the message names *key*.
    """
    if len(raw) > SIZE_MAX_BYTES:
        raise BadDocument(f"{key}: {len(raw)} bytes is no document of ours")
    try:
        version = msgspec.json.decode(raw, type=prepared(_Header)).v
        if version != VERSION:
            raise BadDocument(
                f"{key}: document version {version} is not known to this sidecar; "
                "upgrade it, or restore the key"
            )
        value = _settings(raw, kind) if kind is Settings else msgspec.json.decode(raw, type=prepared(kind))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadDocument(f"{key}: not a readable document ({error})") from error
    for name, (least, most) in LIMITS.items():
        number = getattr(value, name, least)
        if not least <= number <= most:
            raise BadDocument(f"{key}: impossible {name} {number}")
    return value


def mark_of(raw: bytes) -> Epoch:
    """Return the ``mark`` of a node record that cannot be read, of whatever version; NO_EPOCH: it has none.

    That nobody gives out an epoch again rests on it, so one new word elsewhere must not hide it.
    """
    try:
        mark = msgspec.json.decode(raw, type=prepared(_Marked)).mark
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return NO_EPOCH
    least, most = LIMITS["mark"]
    return Epoch(mark) if least <= mark <= most else NO_EPOCH


def _settings(raw: bytes, kind: type[T]) -> T:
    """Return settings with what is not known here in ``unknown``, so that writing them again keeps it."""
    found = _apart(msgspec.json.decode(raw), Settings)
    del found["unknown"]["v"]
    for name, part in PARTS.items():
        if isinstance(found.get(name), list):
            found[name] = [_apart(item, part) if isinstance(item, dict) else item for item in found[name]]
    return msgspec.convert(found, prepared(kind))


def _apart(found: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    known = {declared.name for declared in fields(kind)} - {"unknown"}
    own = {name: value for name, value in found.items() if name in known}
    return own | {"unknown": {name: value for name, value in found.items() if name not in known}}


def _together(found: dict[str, Any]) -> dict[str, Any]:
    return {**found.pop("unknown"), **found}
