"""Values that hold others: lists, and mappings whose names are free. As in `kinds`."""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from sidecar.config.kinds import Url, show
from sidecar.config.secret import HIDDEN

RESERVED_ENVIRONMENT = ("SIDECAR_CLUSTER", "SIDECAR_NODE", "SIDECAR_ROLE", "SIDECAR_EPOCH")
ARGUMENT_MAX = 131_071  # bytes Linux passes in one argument or variable (MAX_ARG_STRLEN)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


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
        if "\0" in item or len(item.encode(errors="replace")) > ARGUMENT_MAX:
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
        if "\0" in value or len(value.encode(errors="replace")) + len(name) >= ARGUMENT_MAX:
            raise ValueError(f"{name}: no program can be given this value: it holds a NUL or is over 128 KB")
        return value

    def render(self, value: Any) -> object:
        """Return the names alone."""
        return dict.fromkeys(value, HIDDEN)


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
        return {name: HIDDEN if is_secret(name) else item for name, item in value.items()}


def is_secret(name: str) -> bool:
    """Tell whether a plug-in's option of this name is taken for a secret."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return bool(words & {"password", "passwd", "passphrase", "secret", "token"}) and not words & {"file"}
