"""What every backend needs and none should decide for itself: key names, views, options.

Keys are named relative to the cluster's prefix, as docs/backends.md lists them. A plug-in may use
this module.
"""

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sidecar.core.model import EpochRecord, HistoryEntry, LockRecord, NodeRecord, Request, Settings, View
from sidecar.core.units import NO_EPOCH, Epoch
from sidecar.documents import EPOCH_MAX, decode, mark_of
from sidecar.errors import BadDocument, ConfigError, EpochBehind
from sidecar.ports import BackendSettings

LOCK, EPOCH, REQUEST, SETTINGS = "lock", "epoch", "request", "settings"
NODES, HISTORY = "nodes/", "history/"
HISTORY_KEEP = 1000  # entries; 200 bytes each. More makes `history` slower and nothing else

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value and its version for compare-and-set."""

    value: bytes
    version: int


def root(settings: BackendSettings) -> str:
    """Return the prefix of all keys of the cluster, ending in a slash so that no name is a prefix of another.

    Raises:
        ConfigError: The name could reach into another cluster's keys.
    """
    if not re.fullmatch(r"[^/\x00-\x20]+", settings.cluster):
        raise ConfigError(
            f"cluster: {settings.cluster!r} is empty or has a slash, space or control character"
        )
    return f"{settings.prefix.strip('/')}/{settings.cluster}/"


def history_key(epoch: Epoch) -> str:
    """Return the key of an entry; padded, so that keys sort like epochs (to 10^12)."""
    return f"{HISTORY}{epoch:012d}"


def key_of(value: Request | Settings) -> str:
    """Return the key that *value* is kept under."""
    return REQUEST if isinstance(value, Request) else SETTINGS


def known_options(section: str, options: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse an option nobody knows.

    Raises:
        ConfigError: There is one; names it, and for a near miss the one that was meant.
    """
    names = sorted(known)
    for name in options:
        if name not in names:
            import difflib  # needed only for the message

            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
            raise ConfigError(f"{section}.{name}: unknown key; {hint}")


def text_option(section: str, options: Mapping[str, object], name: str) -> str | None:
    """Return the text of an option, None when it is not there.

    Raises:
        ConfigError: It is there, and not a text or empty.
    """
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{section}.{name}: expected a text, got {value!r}")
    return value


def required_epoch(raw: bytes | None, floor: Epoch) -> Epoch:
    """Return the epoch in the store's record, for an acquisition that must not go below *floor*.

    Raises:
        BadDocument: The record cannot be read.
        EpochBehind: It is below *floor*: the store is not the one this node knew.
    """
    epoch = decode(EPOCH, raw, EpochRecord).epoch if raw is not None else NO_EPOCH
    require_room(epoch)
    if epoch < floor:
        raise EpochBehind(
            f"{EPOCH}: the store is at {epoch} and this node has seen {floor}: wiped, restored or replaced"
        )
    return epoch


def require_room(epoch: Epoch) -> None:
    """Refuse an acquisition whose epoch nobody could read, its own holder included.

    Raises:
        BadDocument: *epoch* is the last there is. No cluster gets there; somebody wrote it.
    """
    if epoch >= EPOCH_MAX:
        raise BadDocument(f"{EPOCH}: at {epoch} there is no larger one; restore the key")


@dataclass(slots=True)
class Reader:
    """Makes views of keys, and remembers the last good value of each for when it turns unreadable (C13)."""

    _good: dict[str, object] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def view(self, revision: int, entries: Mapping[str, Entry]) -> View:
        """Return the view of *entries*, all keys of the cluster except its history."""
        with self._lock:
            bad: list[str] = []
            lock = self._read(LOCK, entries, LockRecord, bad) if LOCK in entries else None
            nodes = [
                self._read(key, entries, NodeRecord, bad) for key in sorted(entries) if key.startswith(NODES)
            ]
            return View(
                revision=revision,
                lock=None if LOCK in bad else lock,
                epoch=self._read(EPOCH, entries, EpochRecord, bad) or EpochRecord(),
                nodes=tuple(node for node in nodes if node is not None),
                request=self._read(REQUEST, entries, Request, bad),
                settings=self._read(SETTINGS, entries, Settings, bad) or Settings(),
                versions={k: entries[k].version if k in entries else 0 for k in (REQUEST, SETTINGS)},
                unreadable=tuple(bad),
                mark_unreadable=max(
                    (mark_of(entries[key].value) for key in bad if key.startswith(NODES)), default=NO_EPOCH
                ),
            )

    def _read(self, key: str, entries: Mapping[str, Entry], kind: type[T], bad: list[str]) -> T | None:
        if key not in entries:
            self._good.pop(key, None)
            return None
        try:
            value = decode(key, entries[key].value, kind)
            if isinstance(value, NodeRecord) and NODES + value.node != key:
                raise BadDocument(f"{key}: speaks of node {value.node!r}")
        except BadDocument:
            bad.append(key)
            good = self._good.get(key)
            return good if isinstance(good, kind) else None
        self._good[key] = value
        return value


def history(raw: Iterable[tuple[str, bytes]]) -> tuple[HistoryEntry, ...]:
    """Return the entries that can be read, in the order given."""
    entries = []
    for key, value in raw:
        try:
            entries.append(decode(key, value, HistoryEntry))
        except BadDocument:
            continue
    return tuple(entries)
