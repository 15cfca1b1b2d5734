"""The smallest server that a witness can watch, for ``exec``: it writes ticks and does nothing else.

    python -I -S boot.py worker WITNESS [--tick-ms 10] [--deaf] [--crash-after-ms N] [--exit-code N]

Active from its first instruction until it is dead; with SIDECAR_ROLE=standby it sleeps instead. SIGTERM
ends it at once, without ``close``; with ``--deaf`` it ends by SIGKILL alone. Starts in about 15 ms.
"""

import os
import sys
import time

from sidecar.standin import record

TICK_MS = 10


def _number(arguments: list[str], name: str, default: int) -> int:
    return int(arguments[arguments.index(name) + 1]) if name in arguments else default


def main(arguments: list[str]) -> int:
    """Run until killed, or until ``--crash-after-ms``; return the exit code."""
    if not arguments:
        print("usage: worker WITNESS [--tick-ms 10] [--deaf]", file=sys.stderr)  # noqa: T201
        return 2
    if "--deaf" in arguments:
        import signal  # costs 4 ms

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    life_ms = _number(arguments, "--crash-after-ms", 0)
    until = time.monotonic() + life_ms / 1000 if life_ms else float("inf")
    if os.environ.get("SIDECAR_ROLE") == "standby":
        time.sleep(life_ms / 1000 if life_ms else 1e8)
    else:
        _tick(arguments[0], _number(arguments, "--tick-ms", TICK_MS) / 1000, until)
    return _number(arguments, "--exit-code", 1 if life_ms else 0)


def _tick(witness: str, tick_s: float, until: float) -> None:
    node = os.environ.get("SIDECAR_NODE") or os.uname().nodename
    pen = record.Pen(witness, node, int(os.environ.get("SIDECAR_EPOCH") or 0))
    pen.write(record.OPEN)
    while time.monotonic() < until:
        time.sleep(tick_s)
        pen.write(record.TICK)
