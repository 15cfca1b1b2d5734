"""A sidecar reduced to its guard client: JSON lines in, JSON lines out. Driven by guards.Sidecar.

A process of its own, so that tests can stop it, kill it, and run it as another user.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from sidecar.clock import BootClock
from sidecar.core.units import Epoch, Instant
from sidecar.errors import GuardError
from sidecar.guard import follower
from sidecar.guard.client import GuardClient
from sidecar.guard.events import GuardEvent, Output, StartOrder

CLOCK = BootClock()
follower.LAST_WORD_MS = 5_000  # a busy machine's guard is not scheduled at once


def say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, "at": CLOCK.now(), **fields}), flush=True)


def on_event(event: GuardEvent) -> None:
    if isinstance(event, Output) and len(event.line) > 90:
        return  # a flood
    say(type(event).__name__, **dataclasses.asdict(event))


def obey(client: GuardClient, order: dict[str, Any]) -> None:
    match order.pop("do"):
        case "start":
            order["deadline_at"] = Instant(order["deadline_at"])
            order["epoch"] = Epoch(order["epoch"])
            order["argv"] = tuple(order["argv"])
            client.start(StartOrder(**order))
        case "extend_often":
            began = time.monotonic()
            for i in range(order["times"]):
                client.extend(order["run"], Instant(order["deadline_at"] + i))
            say("extended", took_s=time.monotonic() - began)
        case "respawn":
            client.respawn()
            say("respawned")
        case verb:
            getattr(client, verb)(**order)


def main() -> None:
    run_dir, enforcement, idle_exit_ms = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    try:
        client = GuardClient.attach_or_spawn(
            run_dir,
            enforcement,  # type: ignore[arg-type]
            on_event,
            idle_exit_ms=idle_exit_ms,
        )
    except GuardError as error:
        say("failed", reason=str(error))
        return
    adopted = client.adopted
    say(
        "attached",
        enforcement=client.enforcement,
        adopted=adopted and dataclasses.asdict(adopted),
    )
    for line in sys.stdin:
        try:
            obey(client, json.loads(line))
        except GuardError as error:
            say("GuardError", reason=str(error))
    client.close()


main()
