#!/usr/bin/python3
"""A client of the plant: asks through HAProxy every 50 ms, and prints each answer.

    client.py [HOST [PORT]]      AT_MS NODE EPOCH RUN

AT_MS: CLOCK_BOOTTIME, when the answer was there, or the request was given up: then the others are `-`.

A request is a connection that must bring one line within a second. The next one waits for its end.
"""

import json
import socket
import sys
import time

EVERY_S = 0.05
WITHIN_S = 1.0


def answer(address: tuple[str, int]) -> tuple[str, int, str] | None:
    """Return who has answered, and in which epoch."""
    try:
        with socket.create_connection(address, WITHIN_S) as connection:
            found = json.loads(connection.makefile().readline())
            return found["node"], found["epoch"], found["run"]
    except (OSError, ValueError):
        return None


def main() -> None:
    """Ask until interrupted."""
    host, port = [*sys.argv[1:], *("haproxy", "6460")[len(sys.argv) - 1 :]]
    next_at = time.monotonic()
    while True:
        found = answer((host, int(port))) or ("-", "-", "-")
        print(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000, *found, flush=True)
        next_at = max(next_at + EVERY_S, time.monotonic())
        time.sleep(max(0.0, next_at - time.monotonic()))


if __name__ == "__main__":
    main()
