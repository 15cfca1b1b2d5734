"""Finds the settings in the bytes of a ``server.xml`` and changes some, leaving every other byte alone.

A flat ``<config>``, one element per key. Parsed by expat, never serialised again: an edit replaces the
bytes between two tags. A DOCTYPE is refused, and with it every entity that could expand or reach outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from xml.parsers import expat
from xml.parsers.expat import errors

SIZE_MAX = 4 * 1024 * 1024
"""Bytes. A real server.xml has five thousand."""
UNKNOWN = "its encoding is not known here: save it as UTF-8"
_UNKNOWN_ENCODING = errors.codes[errors.XML_ERROR_UNKNOWN_ENCODING]


class BadXml(ValueError):
    """The bytes are not a whole configuration; the message says why and quotes no values."""


class Foreign(BadXml):
    """No tearing makes bytes like these: somebody wrote them so, and the server may well read them."""


@dataclass(slots=True)
class Element:
    """One key. Offsets count bytes; content is what stands between its tags, comments included."""

    name: str
    start: int
    content_start: int = -1
    content_end: int = -1
    end: int = -1  # behind its closing tag
    empty_tag: bool = False  # <key/>
    text: str = ""


class Document:
    """The settings of one file.

    Raises:
        BadXml: The bytes are torn, empty, or something else than ``<config>`` with settings.
        Foreign: They are too many, have a DOCTYPE, or an encoding that is not known here.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > SIZE_MAX:
            raise Foreign(f"larger than {SIZE_MAX} bytes: is it the server's?")
        if not data.strip(b"\0 \t\r\n"):
            raise BadXml("empty")
        self.data = data
        self._codec = _codec(data)
        self.elements = _Scan(data, self._codec).elements
        if not self.elements:
            raise BadXml("no settings in it")

    def values(self, name: str) -> list[str]:
        """Return every value of the key *name*: none when it is missing."""
        return [element.text for element in self.elements if element.name == name]

    def with_values(self, values: Mapping[str, str]) -> bytes:
        """Return the bytes with *values* (plain ASCII) set; a key that is there twice is set twice."""
        edits: list[tuple[int, int, str]] = []
        for name, value in values.items():
            found = [element for element in self.elements if element.name == name]
            edits += [self._edit(element, value) for element in found if element.text != value]
            if not found:
                end = self.elements[-1].end
                edits.append((end, end, f"{self._separator()}<{name}>{value}</{name}>"))
        return self._apply(edits)

    def _edit(self, element: Element, value: str) -> tuple[int, int, str]:
        if element.empty_tag:  # <key/> becomes <key>value</key>
            slash = element.end - len("/>".encode(self._codec))
            return slash, element.end, f">{value}</{element.name}>"
        return element.content_start, element.content_end, value

    def _apply(self, edits: list[tuple[int, int, str]]) -> bytes:
        pieces, at = [], 0
        for start, end, text in sorted(edits, key=lambda edit: edit[0]):  # stable: additions keep their order
            pieces += [self.data[at:start], text.encode(self._codec)]
            at = end
        return b"".join(pieces) + self.data[at:]

    def _separator(self) -> str:
        """Return the white space before the last setting: the file's own line end and indentation."""
        start = self.elements[-1].start
        width = len(" ".encode(self._codec))
        blanks = {blank.encode(self._codec) for blank in " \t\r\n"}
        at = start
        while self.data[at - width : at] in blanks:
            at -= width
        return self.data[at:start].decode(self._codec)


def _codec(data: bytes) -> str:
    """Return how to write ASCII in this file; all that expat reads but UTF-16 contain ASCII as it is."""
    if data.startswith((b"\xff\xfe", b"<\0")):
        return "utf-16-le"
    if data.startswith((b"\xfe\xff", b"\0<")):
        return "utf-16-be"
    return "ascii"


class _Scan:
    """One pass of expat, which tells where each event begins but not where it ends: the next one tells."""

    def __init__(self, data: bytes, codec: str) -> None:
        self.elements: list[Element] = []
        self._data = data
        self._tag_end = "/>".encode(codec)
        self._depth = 0
        self._pending: tuple[Element, str] | None = None
        self._parser = parser = expat.ParserCreate()
        parser.StartElementHandler = self._on_start
        parser.EndElementHandler = self._on_end
        parser.CharacterDataHandler = self._on_text
        parser.CommentHandler = self._on_other
        parser.ProcessingInstructionHandler = self._on_other
        parser.StartCdataSectionHandler = self._on_other
        parser.EndCdataSectionHandler = self._on_other
        parser.StartDoctypeDeclHandler = self._on_doctype
        parser.DefaultHandlerExpand = self._on_other
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            if error.code == _UNKNOWN_ENCODING:
                raise Foreign(UNKNOWN) from error
            reason = expat.ErrorString(error.code)
            raise BadXml(f"line {error.lineno}: {reason}") from error
        except (LookupError, ValueError) as error:  # an encoding nobody knows; our own BadXml
            raise error if isinstance(error, BadXml) else Foreign(UNKNOWN) from error

    def _mark(self) -> bool:
        """Complete what waited for this event; tell whether that was the start of a setting."""
        if self._pending is None:
            return False
        (element, what), self._pending = self._pending, None
        at = self._parser.CurrentByteIndex
        if what == "end":
            element.end = at
            return False
        element.content_start = at
        return True

    def _on_start(self, name: str, _attributes: object) -> None:
        self._mark()
        self._depth += 1
        if self._depth == 1 and name != "config":
            raise BadXml(f"the root is <{name[:40]}>, not <config>")
        if self._depth == 2:
            element = Element(name, self._parser.CurrentByteIndex)
            self.elements.append(element)
            self._pending = element, "content"

    def _on_end(self, _name: str) -> None:
        at_once = self._mark()
        self._depth -= 1
        if self._depth == 1:
            element = self.elements[-1]
            at = self._parser.CurrentByteIndex
            element.content_end = at
            if at_once and self._data[:at].endswith(self._tag_end):
                element.empty_tag, element.end = True, at  # expat: the end of <key/> lies behind it
            else:
                self._pending = element, "end"

    def _on_text(self, text: str) -> None:
        self._mark()
        if self._depth == 2:
            self.elements[-1].text += text

    def _on_other(self, *_event: object) -> None:
        self._mark()

    def _on_doctype(self, *_declaration: object) -> None:
        raise Foreign("a DOCTYPE is not allowed: take it out")
