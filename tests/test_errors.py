"""No leaf of the error tree leaves its caller guessing.

Not covered: which library error becomes which of ours; each backend's own test does that.
"""

import inspect
import re
from collections.abc import Iterator

import pytest

from sidecar import errors

EXIT_CODES = {1, 2, 3, 4, 5}  # docs/cli.md; 0 is success


def below(root: type[errors.SidecarError]) -> Iterator[type[errors.SidecarError]]:
    for child in root.__subclasses__():
        yield child
        yield from below(child)


def leaves(root: type[errors.SidecarError]) -> list[type[errors.SidecarError]]:
    ours = (error for error in below(root) if error.__module__ == errors.__name__)
    return [error for error in ours if not error.__subclasses__()]


def drawn() -> dict[str, int | None]:
    """Return the tree as the module's docstring draws it: exit code by name."""
    rows = re.findall(r"^    [| `-]*(\w+)(?: +(\d))?(?:  |$)", errors.__doc__ or "", re.MULTILINE)
    return {name: int(code) if code else None for name, code in rows}


@pytest.mark.parametrize("error", leaves(errors.SidecarError))
def test_every_leaf_has_a_documented_exit_code(error: type[errors.SidecarError]) -> None:
    assert error.exit_code in EXIT_CODES
    assert drawn()[error.__name__] == error.exit_code


@pytest.mark.parametrize("error", leaves(errors.BackendError))
def test_every_backend_error_says_what_may_have_happened(error: type[errors.BackendError]) -> None:
    assert isinstance(error.effect, errors.Effect)
    assert isinstance(error.retry, bool)


def test_the_drawing_at_the_top_is_complete() -> None:
    defined = {
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.SidecarError)
    }

    assert set(drawn()) - {"SidecarError"} == defined - {"SidecarError"}


def test_only_one_error_leaves_the_outcome_open() -> None:
    open_ = [e for e in leaves(errors.BackendError) if e.effect is errors.Effect.MAYBE]  # type: ignore[attr-defined]

    assert open_ == [errors.OutcomeUnknown]
