"""Names of signals and their numbers."""

import signal


def number_of(name: str) -> int:
    """Return 15 for TERM: a name as the configuration holds it, which has looked it up."""
    return signal.Signals[f"SIG{name}"]


def name_of(number: int) -> str:
    """Return SIGTERM for 15, and "signal 40" for one that has no name, as most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
