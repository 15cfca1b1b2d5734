"""Names of signals and their numbers."""

import signal


def number_of(name: str) -> int:
    """Return the number of TERM, SIGTERM or 15.

    Raises:
        ValueError: There is no such signal.
    """
    if name.isdigit():
        return signal.Signals(int(name))
    try:
        return signal.Signals["SIG" + name.upper().removeprefix("SIG")]
    except KeyError:
        raise ValueError(f"no such signal: {name}") from None


def name_of(number: int) -> str:
    """Return SIGTERM for 15, and "signal 40" for one that has no name, as most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
