"""What the value of a key may look like: one class per kind of single value; `compound` has the rest.

``parse`` takes what YAML (or, for a scalar, an environment variable) holds and returns what the program
uses, or raises `ValueError` with one line that does not name the key: what is wrong, what would help.
"""

import re
from typing import Any, ClassVar, Literal, Protocol

from sidecar.config import address, durations
from sidecar.config.secret import Secret

TEXT_MAX = 4096  # characters; the longest path Linux takes
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_FLAGS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Kind(Protocol):
    """One kind of value."""

    shape: ClassVar[Literal["scalar", "list", "map"]]

    @property
    def says(self) -> str:
        """Describe what is expected, for the documentation: ``duration``, ``list of ports``."""
        ...

    def parse(self, value: object) -> Any:
        """Return the value as the program uses it, or raise ValueError with one line."""
        ...

    def render(self, value: Any) -> object:
        """Return the value as YAML would hold it."""
        ...


def show(value: object) -> str:
    """Describe a value that was not expected, on one line, however odd it is."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case list():
            return "a list"
        case _:
            return "a mapping"


def _text(value: object, expected: str = "text") -> str:
    if isinstance(value, bool | int | float):
        raise ValueError(f"expected {expected}, got {show(value)}: put it in quotes")
    if not isinstance(value, str):
        raise ValueError(f"expected {expected}, got {show(value)}")
    if not value:
        raise ValueError("is empty; give a value or remove the key")
    if not value.isprintable():
        raise ValueError(f"holds a character that cannot be printed: {show(value)}")
    if len(value) > TEXT_MAX:
        raise ValueError(f"must be at most {TEXT_MAX} characters, got {len(value)}")
    return value


class _Scalar:
    shape: ClassVar[Literal["scalar", "list", "map"]] = "scalar"

    def render(self, value: Any) -> object:
        return value


class Duration(_Scalar):
    """A span of time; whole ms inside."""

    def __init__(self, at_least_ms: int, at_most_ms: int = 86_400_000) -> None:
        self.at_least_ms, self.at_most_ms = at_least_ms, at_most_ms

    @property
    def says(self) -> str:
        """Describe what is expected."""
        return f"duration, {durations.render(self.at_least_ms)} to {durations.render(self.at_most_ms)}"

    def parse(self, value: object) -> int:
        """Return whole milliseconds."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"expected a duration such as 10s, got {show(value)}: add a unit (ms, s, m, h)")
        if not isinstance(value, str):
            raise ValueError(f"expected a duration such as 10s, got {show(value)}")
        ms = durations.parse(value)
        if ms < self.at_least_ms:
            raise ValueError(
                f"must be at least {durations.render(self.at_least_ms)}, got {durations.render(ms)}"
            )
        if ms > self.at_most_ms:
            raise ValueError(
                f"must be at most {durations.render(self.at_most_ms)}, got {durations.render(ms)}"
            )
        return ms

    def render(self, value: Any) -> object:
        """Return the spelling with a unit."""
        return durations.render(value)


class Integer(_Scalar):
    """A whole number in a range."""

    def __init__(self, at_least: int, at_most: int) -> None:
        self.at_least, self.at_most = at_least, at_most

    @property
    def says(self) -> str:
        """Describe what is expected."""
        return f"whole number, {self.at_least} to {self.at_most}"

    def parse(self, value: object) -> int:
        """Return the number."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"expected a whole number, got {show(value)}")
        if not self.at_least <= value <= self.at_most:
            raise ValueError(f"must be {self.at_least} to {self.at_most}, got {value}")
        return value


class Flag(_Scalar):
    """True or false."""

    says = "true or false"

    def parse(self, value: object) -> bool:
        """Return the truth; YAML's old spellings are understood too."""
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _FLAGS:
            return _FLAGS[value.lower()]
        raise ValueError(f"expected true or false, got {show(value)}")


class Choice(_Scalar):
    """One of a few words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    @property
    def says(self) -> str:
        """Describe what is expected."""
        return " or ".join(f"`{word}`" for word in self.words)

    def parse(self, value: object) -> str:
        """Return the word."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"must be {' or '.join(self.words)}, got {show(value)}")
        return value


class Name(_Scalar):
    """A name that is part of keys in the backend and of file names."""

    says = "name: at most 63 letters, digits, `.` `_` `-`, the first a letter or digit"

    def parse(self, value: object) -> str:
        """Return the name."""
        name = _text(value, "a name")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{show(name)} cannot be a name: at most 63 letters, digits, . _ -, first a letter or digit"
            )
        return name


class Text(_Scalar):
    """Any text on one line."""

    says = "text"

    def parse(self, value: object) -> str:
        """Return the text."""
        return _text(value)


class AbsolutePath(_Scalar):
    """The path of a file or folder; a daemon has no useful current folder to start from."""

    says = "absolute path"

    def parse(self, value: object) -> str:
        """Return the path."""
        path = _text(value, "an absolute path")
        if not path.startswith("/"):
            raise ValueError(f"must be an absolute path, got {show(path)}")
        return path


class SecretText(_Scalar):
    """A secret from the environment; in the file only the path of the file that holds it may stand."""

    says = "secret, from the environment only"

    def parse(self, value: object) -> Secret:
        """Return the secret, hidden."""
        if not isinstance(value, str) or not value:
            raise ValueError("is empty; give a value or unset it")
        if not value.isprintable() or len(value) > TEXT_MAX:
            raise ValueError(f"must be one line of at most {TEXT_MAX} printable characters")
        return Secret(value)

    def render(self, value: Any) -> object:
        """Return what may be shown: ``***``."""
        return str(value)


class SignalName(_Scalar):
    """The name of a signal, with or without SIG."""

    says = "signal name such as `TERM`"

    def parse(self, value: object) -> str:
        """Return the name without SIG."""
        import signal  # 2 ms

        name = _text(value, "a signal name such as TERM").upper().removeprefix("SIG")
        if f"SIG{name}" not in signal.Signals.__members__:
            raise ValueError(f"expected a signal name such as TERM, got {show(value)}")
        if name in ("STOP", "CONT", "CHLD", "CLD"):
            raise ValueError(f"SIG{name} does not end a program; use TERM, INT, QUIT or HUP")
        return name


class Url(_Scalar):
    """One address."""

    says = "URL, `http://` or `https://`"

    def __init__(self, usual_port: int | None = None) -> None:
        self.usual_port = usual_port  # None: the port and a path are free

    def parse(self, value: object) -> str:
        """Return the address in its plain spelling."""
        text = _text(value, "an address such as http://HOST:PORT")
        free = self.usual_port is None
        return str(address.parse(text, schemes=("http", "https"), port=self.usual_port, path=free))


class Listen(_Scalar):
    """Where to listen: an address of this machine, and a port."""

    says = "HOST:PORT"

    def __init__(self, usual_port: int) -> None:
        self.usual_port = usual_port

    def parse(self, value: object) -> str:
        """Return the address in its plain spelling."""
        expected = f"expected HOST:PORT such as 127.0.0.1:{self.usual_port}"
        if not isinstance(value, str):
            raise ValueError(f"{expected}, got {show(value)}")
        try:
            found = address.parse(f"http://{_text(value)}", schemes=("http",), port=self.usual_port)
        except ValueError:
            every = f"; every address is 0.0.0.0:{self.usual_port} or [::]:{self.usual_port}"
            raise ValueError(f"{expected}, got {show(value)}{every}") from None
        return str(found).removeprefix("http://")
