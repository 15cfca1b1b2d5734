"""Tell an upgrade, before it changes anything, whether this version can take over the server that runs.

``python -I -m sidecar.guard.compatible RUN_DIR`` ends with 4, and prints why, where an active one runs under
a guard that does not understand us: it would end at its deadline. A standby's is just started anew.
"""

import sys
from pathlib import Path

from sidecar import __version__
from sidecar.clock import BootClock
from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import connect, wire

ANSWERS_WITHIN_MS = 2_000


def why_not(run_dir: Path) -> str | None:
    """Return why the server in *run_dir* could not be taken over; None where it could, or none is there.

    Where the guard says nothing, nothing is known: it is hung, and whoever starts next replaces it.
    """
    clock = BootClock()
    try:
        found = connect.greeting(run_dir, Instant(clock.now() + ANSWERS_WITHIN_MS), clock)
    except (OSError, GuardError):
        return None
    if found is None or found.role != "active" or found.protocol == wire.PROTOCOL:
        return None
    return (
        f"the guard of the active server speaks protocol {found.protocol}, and {__version__} speaks "
        f"{wire.PROTOCOL}: it could not take that server over; sidecar switchover first, then upgrade the "
        "standby"
    )


if __name__ == "__main__":
    said = why_not(Path(sys.argv[1]))
    if said is not None:
        print(said)  # noqa: T201 - for the shell
        sys.exit(4)
