"""What the value of a key may look like: one class per kind of value.

``parse`` takes what YAML (or, for a scalar, an environment variable) holds and returns what the program
uses, or raises `ValueError` with one line that does not name the key: what is wrong, what would help.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol

from sidecar.config import address, durations
from sidecar.config.secret import Secret

TEXT_MAX = 4096  # characters; the longest path Linux takes
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
RESERVED_ENVIRONMENT = ("SIDECAR_CLUSTER", "SIDECAR_NODE", "SIDECAR_ROLE", "SIDECAR_EPOCH")

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
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


class _List:
    shape: ClassVar[Literal["scalar", "list", "map"]] = "list"
    most: ClassVar[int] = 64

    def items(self, value: object, expected: str, parse_item: Callable[[object], Any]) -> tuple[Any, ...]:
        """Parse each item; an error says which one it was."""
        if not isinstance(value, list):
            raise ValueError(f"expected {expected}, got {show(value)}")
        if len(value) > self.most:
            raise ValueError(f"must have at most {self.most} items, got {len(value)}")
        parsed = []
        for number, item in enumerate(value, 1):
            try:
                parsed.append(parse_item(item))
            except ValueError as error:
                raise ValueError(f"item {number}: {error}") from None
        return tuple(parsed)

    def render(self, value: Any) -> object:
        """Return a list."""
        return None if value is None else list(value)


class Urls(_List):
    """The members of a store."""

    says = "list of URLs, `http://` or `https://`"
    most = 32

    def __init__(self, usual_port: int) -> None:
        self.usual_port = usual_port

    def parse(self, value: object) -> tuple[str, ...]:
        """Return the addresses, all of one scheme, none twice."""
        example = f'a list such as ["https://10.0.0.1:{self.usual_port}"]'
        urls = self.items(value, example, Url(self.usual_port).parse)
        if not urls:
            raise ValueError(f"is empty; give {example}")
        if len({url.partition(":")[0] for url in urls}) > 1:
            raise ValueError("http:// and https:// are mixed; use one of them for all")
        if len(set(urls)) < len(urls):
            raise ValueError("holds the same address twice")
        return urls


class Ports(_List):
    """TCP ports on this host; none is allowed."""

    says = "list of TCP ports"

    def parse(self, value: object) -> tuple[int, ...]:
        """Return the ports."""
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError(f"expected a list of ports, got {show(value)}: write [{value}]")
        ports = self.items(value, "a list of ports such as [6460]", self._port)
        if len(set(ports)) < len(ports):
            raise ValueError("holds the same port twice")
        return ports

    @staticmethod
    def _port(item: object) -> int:
        if isinstance(item, bool) or not isinstance(item, int):
            raise ValueError(f"expected a port number, got {show(item)}")
        if not 1 <= item <= 65_535:
            raise ValueError(f"a port must be 1 to 65535, got {item}")
        return item


class Argv(_List):
    """A program and its arguments, started without a shell."""

    says = "list: a program and its arguments"
    most: ClassVar[int] = 1024

    def parse(self, value: object) -> tuple[str, ...]:
        """Return the arguments; numbers in the list are taken as they are written."""
        if isinstance(value, str):
            raise ValueError(
                f"expected a list of a program and its arguments, got {show(value)}: no shell is used"
            )
        argv = self.items(value, "a list of a program and its arguments", self._argument)
        if not argv or not argv[0]:
            raise ValueError("is empty; the first item is the program to start")
        return argv

    @staticmethod
    def _argument(item: object) -> str:
        if isinstance(item, int) and not isinstance(item, bool):
            return str(item)
        if not isinstance(item, str):
            raise ValueError(f"expected text, got {show(item)}: put it in quotes")
        if "\0" in item or len(item) > 131_071:  # MAX_ARG_STRLEN of Linux
            raise ValueError("no program can be given this argument: it holds a NUL or is over 128 KB")
        return item


class Environment:
    """Variables for the server. Their values may be secrets and are never shown."""

    shape: ClassVar[Literal["scalar", "list", "map"]] = "map"
    says = "mapping of variables to values"

    def parse(self, value: object) -> Mapping[str, str]:
        """Return the variables; whole numbers are taken as they are written."""
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping such as {{LANG: C.UTF-8}}, got {show(value)}")
        return {self._name(name): self._value(name, item) for name, item in value.items()}

    @staticmethod
    def _name(name: str) -> str:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{show(name)} cannot be the name of a variable")
        if name in RESERVED_ENVIRONMENT:
            raise ValueError(f"{name} is set by the sidecar itself; remove it")
        return name

    @staticmethod
    def _value(name: str, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise ValueError(f"{name}: expected text, got {type(value).__name__}: put it in quotes")
        if "\0" in value or len(value) > 131_071 - len(name):
            raise ValueError(f"{name}: no program can be given this value: it holds a NUL or is over 128 KB")
        return value

    def render(self, value: Any) -> object:
        """Return the names alone."""
        return dict.fromkeys(value, "***")


class Options:
    """The section of a plug-in: what is in it is the plug-in's business."""

    shape: ClassVar[Literal["scalar", "list", "map"]] = "map"
    says = "mapping"

    def parse(self, value: object) -> Mapping[str, object]:
        """Return it as it is."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping, got {show(value)}")
        return value

    def render(self, value: Any) -> object:
        """Return it without what looks like a secret."""
        return {name: "***" if is_secret(name) else item for name, item in value.items()}


def is_secret(name: str) -> bool:
    """Tell whether a plug-in's option of this name is taken for a secret."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return bool(words & {"password", "passwd", "passphrase", "secret", "token"}) and not words & {"file"}
