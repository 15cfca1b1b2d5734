"""Documents in the backend: JSON with ``"v": 1``, read strictly and written canonically.

A field that is not known here is ignored, so that a newer node may add one; a missing or mistyped
one, or another ``v``, makes the document unreadable as a whole. Nothing is ever guessed.
"""

from typing import TypeVar

import msgspec

from sidecar.errors import BadDocument

VERSION = 1
SIZE_MAX_BYTES = 64 * 1024  # far above any document of ours; Consul refuses values over 512 KB

T = TypeVar("T")


class _Header(msgspec.Struct):
    v: int


def encode(value: object) -> bytes:
    """Return *value*, a dataclass of `sidecar.core.model`, as a JSON document."""
    fields: dict[str, object] = msgspec.to_builtins(value)
    return msgspec.json.encode({"v": VERSION} | fields)


def decode(key: str, raw: bytes, kind: type[T]) -> T:
    """Return the document *raw* found under *key* as a *kind*.

    Raises:
        BadDocument: It is none, or of another version; the message names *key*.
    """
    if len(raw) > SIZE_MAX_BYTES:
        raise BadDocument(f"{key}: {len(raw)} bytes is no document of ours")
    try:
        version = msgspec.json.decode(raw, type=_Header).v
        if version != VERSION:
            raise BadDocument(
                f"{key}: document version {version} is not known to this sidecar; "
                "upgrade it, or restore the key"
            )
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadDocument(f"{key}: not a readable document ({error})") from error
