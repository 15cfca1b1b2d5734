"""Frozen groups of values, declared like dataclasses.

Not `dataclasses` because every command loads the configuration: thirty of those classes cost 40 ms of
start-up on a small machine, for code that is generated and never called. These cost 1 ms.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, NoReturn, dataclass_transform

from sidecar.config import kinds as k

Values = Mapping[str, Any]


class Required(NamedTuple):
    """No default; *example* is shown when the key is missing."""

    example: str


class Derived(NamedTuple):
    """A default computed from other keys, after them. *given* are the keys somebody wrote."""

    says: str
    compute: Callable[[Values, frozenset[str]], Any]


class Declared(NamedTuple):
    """What stands behind the ``=`` of a field. Exactly one of *kind*, *group* and *extra* is set."""

    kind: k.Kind | None = None
    group: "type[Group] | None" = None
    extra: Callable[[], Any] | None = None  # no key: makes the value where none is given
    default: object = None  # of a key, as YAML would hold it; None for none
    live: bool = False  # a reload may change it
    from_file: bool = True  # False: secrets, by environment only
    quiet: bool = False  # left out of repr


def key(kind: k.Kind, default: object = None, *, live: bool = False, from_file: bool = True) -> Any:
    """Declare a key of the configuration."""
    quiet = kind.shape == "map"  # its values may be secrets
    return Declared(kind=kind, default=default, live=live, from_file=from_file, quiet=quiet)


def section(group: "type[Group]") -> Any:
    """Declare a group of keys."""
    return Declared(group=group)


def extra(factory: Callable[[], Any], *, quiet: bool = False) -> Any:
    """Declare a value that is no key."""
    return Declared(extra=factory, quiet=quiet)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(key, section, extra))
class Group:
    """Base of every group: made once with a value for every field, compared by value, never changed."""

    DECLARED: ClassVar[Mapping[str, Declared]] = {}

    def __init_subclass__(cls) -> None:
        own = {name: found for name, found in vars(cls).items() if isinstance(found, Declared)}
        cls.DECLARED = {**cls.DECLARED, **own}

    def __init__(self, **values: Any) -> None:
        for name, found in self.DECLARED.items():
            if name not in values and found.extra:
                values[name] = found.extra()
        if values.keys() != self.DECLARED.keys():
            raise TypeError(f"{type(self).__name__}: {sorted(values.keys() ^ self.DECLARED.keys())}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # some values are mappings

    def __repr__(self) -> str:
        shown = (f"{name}={vars(self)[name]!r}" for name, found in self.DECLARED.items() if not found.quiet)
        return f"{type(self).__name__}({', '.join(shown)})"
