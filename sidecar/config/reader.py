"""YAML text → plain values and the line each of them stands on.

Only the parser's events are used: nothing is ever constructed from a tag, duplicate keys are seen, and
size, depth and the work that aliases make are bounded. Of YAML's guesses only those are made that a
configuration needs (null, true/false, decimal numbers); everything else is text, so that
``node: no`` or ``user: 0123`` never turn into something nobody wrote.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

VALUES_MAX = 10_000
"""Values in one document, aliases counted as what they stand for. A large configuration has 300."""
DEPTH_MAX = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 20 times faster where libyaml is there
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})", re.ASCII)
_FLOAT = re.compile(r"[+-]?\d{1,18}\.\d{0,18}([eE][+-]?\d{1,3})?", re.ASCII)
_NOT_TEXT = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}


class Unreadable(ValueError):
    """The text is no YAML document that can be used. *line* and *column* count from 1."""

    def __init__(
        self, reason: str, line: int | None = None, column: int | None = None, key: str = ""
    ) -> None:
        super().__init__(reason)
        self.line, self.column, self.key = line, column, key


class Document:
    """What was written, and where: *lines* by dotted path."""

    def __init__(self, value: object, lines: dict[str, int]) -> None:
        self.value, self.lines = value, lines

    def line(self, path: str) -> int | None:
        """Return the line of *path*, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines.get(path)


def read(text: str) -> Document:
    """Read the one document in *text*; an empty text gives the value None.

    Raises:
        Unreadable: Not YAML, more than one document, duplicate keys, tags, or too much of it.
    """
    loader = None
    try:
        loader = _LOADER(text)
        return _Builder(iter(loader.get_event, None)).document()
    except yaml.MarkedYAMLError as error:
        raise _unreadable(error, text) from error
    except (yaml.YAMLError, UnicodeError) as error:  # a character that YAML does not allow
        raise _not_text(text) from error
    finally:
        if loader is not None:
            loader.dispose()


def scalar(text: str) -> object:
    """Return what *text* means as a plain YAML scalar."""
    if text.lower() in _WORDS and text in (text.lower(), text.capitalize(), text.upper()):
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def join(path: str, key: object) -> str:
    """Return the dotted path of *key* below *path*."""
    return f"{path}.{key}" if path else str(key)


class _Builder:
    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.lines: dict[str, int] = {}
        self.anchors: dict[str, tuple[object, int]] = {}
        self.count = 0

    def document(self) -> Document:
        value: object = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    mark: Any = event.start_mark
                    raise Unreadable("more than one YAML document", mark.line + 1)
                value = self.node(next(self.events), "", 0)
        return Document(value, self.lines)

    def node(self, event: Any, path: str, depth: int) -> object:
        line: int = event.start_mark.line + 1
        self.lines.setdefault(path, line)
        before = self.count
        self.charge(1, line)
        if depth > DEPTH_MAX:
            raise Unreadable(f"nested deeper than {DEPTH_MAX} levels", line)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path, line)
        if event.tag not in (None, "!"):
            raise Unreadable(f"YAML tags such as {str(event.tag)[:40]!r} are not understood", line, key=path)
        if isinstance(event, yaml.ScalarEvent):
            value = scalar(event.value) if event.implicit[0] else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(path, depth)
        else:
            value = self.mapping(path, depth)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.count - before)
        return value

    def alias(self, event: Any, path: str, line: int) -> object:
        if event.anchor not in self.anchors:
            raise Unreadable(f"alias *{event.anchor[:40]} stands for nothing above it", line, key=path)
        value, size = self.anchors[event.anchor]
        self.charge(size, line)
        return value

    def charge(self, values: int, line: int) -> None:
        self.count += values
        if self.count > VALUES_MAX:
            raise Unreadable(f"more than {VALUES_MAX} values", line)

    def sequence(self, path: str, depth: int) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, join(path, len(items)), depth + 1))
        return items

    def mapping(self, path: str, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise Unreadable("a key must be text", line, key=path)
            key, here = event.value, join(path, event.value)
            if key == "<<" and event.implicit[0]:
                raise Unreadable("merge keys (<<) are not supported; write the values out", line, key=path)
            if not key:
                raise Unreadable("a key cannot be empty", line, key=path)
            if key in found:
                raise Unreadable(f"given twice, first on line {self.lines.get(here, '?')}", line, key=here)
            self.lines[here] = line
            found[key] = self.node(next(self.events), here, depth + 1)
        return found


_HINTS = {  # what libyaml says, and what it mostly comes from
    "mapping values are not allowed in this context": "; indented too deep, or a text without quotes?",
    "did not find expected key": "; is the line indented like the ones above?",
    "did not find expected <document start>": "; is the line indented like the ones above?",
}


def _not_text(text: str) -> Unreadable:
    found = _NOT_TEXT.search(text)
    reason = "not valid YAML: it holds a character that is not allowed in text"
    if found is None:
        return Unreadable(reason)
    return Unreadable(f"{reason}, U+{ord(found[0]):04X}", text.count("\n", 0, found.start()) + 1)


def _unreadable(error: yaml.MarkedYAMLError, text: str) -> Unreadable:
    mark: Any = error.problem_mark or error.context_mark
    reason = " ".join(str(error.problem or error.context or "unknown reason").split())
    if mark is None:
        return Unreadable(f"not valid YAML: {reason}")
    at_tab = "\t" in "".join(text.split("\n")[mark.line : mark.line + 1])[mark.column : mark.column + 1]
    hint = "; indent with spaces, not tabs" if at_tab else _HINTS.get(reason, "")
    return Unreadable(f"not valid YAML: {reason}{hint}", mark.line + 1, mark.column + 1)
