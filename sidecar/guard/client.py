"""The sidecar's side of the guard's socket.

Orders return at once: they queue a message, and what came of it is told to ``on_event``, which is
called from the client's own thread and must not block. A guard that is stopped blocks nobody.

`Exited` and `StartFailed` are proofs: the keeper's pidfd has become readable, or the guard has
reaped the keeper, or nothing was ever sent. The client watches the keeper itself, so the proof also
comes when the guard is dead or stopped.

What happens when
  * this process dies: nothing, until the deadline; the next sidecar attaches and finds the run;
  * the guard dies: the server dies with it; `GuardLost`, and `Exited` once that is proven;
  * another client of this uid attaches: it takes over, here comes `GuardLost`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from sidecar.clock import BootClock, Clock
from sidecar.core.units import Instant
from sidecar.errors import GuardError
from sidecar.guard import connect, wire
from sidecar.guard.events import AdoptedRun, Enforcement, GuardEvent, StartOrder
from sidecar.guard.follower import Follower


class GuardClient:
    """The guard as the sidecar sees it: orders in, events out."""

    def __init__(
        self,
        spawn: connect.Spawn,
        connection: connect.Connection,
        on_event: Callable[[GuardEvent], None],
        clock: Clock,
    ) -> None:
        """Use `attach_or_spawn`."""
        self._spawn = spawn
        self._clock = clock
        self._follower = Follower(spawn, connection, on_event, clock)

    @classmethod
    def attach_or_spawn(
        cls,
        run_dir: Path,
        enforcement: connect.Wanted,
        on_event: Callable[[GuardEvent], None],
        python: str = sys.executable,
        *,
        timeout_ms: int = 10_000,
        idle_exit_ms: int = 60_000,
        clock: Clock | None = None,
    ) -> Self:
        """Attach to the guard in *run_dir*, or start one there. Blocks, at most *timeout_ms*.

        A guard that does not answer within 2 s is killed, and with it its server.

        Args:
            run_dir: Made when missing (mode 0700).
            enforcement: Matters for a new or idle guard; one with a run is taken as it is.
            on_event: Called from the client's thread; events of before come first.
            python: The interpreter for the guard.
            idle_exit_ms: A guard with neither server nor client leaves after this.

        Raises:
            GuardError: No guard to be had, or `kernel` is refused by this host, or an earlier
                server is not proven dead.
        """
        clock = clock or BootClock()
        spawn = connect.Spawn(run_dir, enforcement, python, idle_exit_ms)
        deadline = Instant(clock.now() + timeout_ms)
        return cls(spawn, connect.attach_or_spawn(spawn, deadline, clock), on_event, clock)

    @property
    def enforcement(self) -> Enforcement:
        """Who enforces the deadline: the kernel, or the guard and its walk of the tree."""
        return self._follower.enforcement

    @property
    def adopted(self) -> AdoptedRun | None:
        """The server that was found running when this client attached."""
        return self._follower.adopted

    # Orders, from any thread.

    def start(self, order: StartOrder) -> None:
        """Start a server; `Started` or `StartFailed` follows.

        Raises:
            GuardError: The order is too large, or the run before is not over. Nothing was sent.
        """
        frame: wire.Frame = {
            "order": "start",
            "run": order.run,
            "argv": list(order.argv),
            "cwd": order.cwd,
            "env": dict(order.env),
            "user": order.user,
            "role": order.role,
            "epoch": order.epoch,
            "deadline_ms": order.deadline_at,
            "kill_margin_ms": order.kill_margin_ms,
            "note": order.note,
            "stop_signal": order.stop_signal,
            "stop_command": None if order.stop_command is None else list(order.stop_command),
            "own_output": order.out is not None,
        }
        try:
            wire.encode(frame)
            wire.note(frame)
        except wire.BadFrame as error:
            raise GuardError(f"start order of run {order.run!r}: {error}") from error
        self._follower.begin(order.run, order.out or ())
        self._follower.post(frame)

    def extend(self, run: str, deadline_at: Instant, note: object = None) -> None:
        """Move the deadline back, never forward; a *note* other than None replaces the old one."""
        frame: wire.Frame = {"order": "extend", "run": run, "deadline_ms": deadline_at}
        self._follower.post(frame if note is None else {**frame, "note": note})

    def stop(self, run: str, kill_at: Instant) -> None:
        """Stop gracefully; kill at *kill_at*, or earlier when the deadline demands it."""
        self._follower.post({"order": "stop", "run": run, "kill_at_ms": kill_at})

    def kill(self, run: str) -> None:
        """Kill the whole tree now."""
        self._follower.post({"order": "kill", "run": run})

    def note(self, run: str, note: object) -> None:
        """Leave a note for the next client."""
        self._follower.post({"order": "note", "run": run, "note": note})

    def shutdown(self) -> None:
        """Let the guard leave when no server runs."""
        self._follower.post({"order": "shutdown", "run": ""})

    def close(self) -> None:
        """Leave the guard and its server alone; no event comes after this returns."""
        self._follower.close()

    def respawn(self, timeout_ms: int = 10_000) -> None:
        """After `GuardLost`: attach again, or start a new guard. Blocks, at most *timeout_ms*.

        Raises:
            GuardError: No guard to be had, or the server is not proven dead.
        """
        deadline = Instant(self._clock.now() + timeout_ms)
        connection = connect.attach_or_spawn(self._spawn, deadline, self._clock)
        self._follower.follow(connection)
