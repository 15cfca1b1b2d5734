#!/usr/bin/python3
"""A client of the plant: asks through HAProxy every 50 ms, and prints each answer.

    client.py [HOST [PORT]]      AT_MS NODE EPOCH      AT_MS: CLOCK_BOOTTIME, when the answer was there; `-` for none

A request is a connection that must bring one line within a second. The next one waits for the end of the last.
"""

import json
import socket
import sys
import time

EVERY_S = 0.05
WITHIN_S = 1.0


def answer(address: tuple[str, int]) -> tuple[str, int] | None:
    """Return who has answered, and in which epoch."""
    try:
        with socket.create_connection(address, WITHIN_S) as connection:
            found = json.loads(connection.makefile().readline())
            return found["node"], found["epoch"]
    except (OSError, ValueError):
        return None


def main() -> None:
    """Ask until interrupted."""
    host, port = [*sys.argv[1:], *("haproxy", "6460")[len(sys.argv) - 1 :]]
    next_at = time.monotonic()
    while True:
        node, epoch = answer((host, int(port))) or ("-", 0)
        print(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000, node, epoch, flush=True)
        next_at = max(next_at + EVERY_S, time.monotonic())
        time.sleep(max(0.0, next_at - time.monotonic()))


if __name__ == "__main__":
    main()
