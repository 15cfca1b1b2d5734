"""One run of the server, as the guard knows it."""

from __future__ import annotations

from sidecar.guard import tree, wire
from sidecar.guard.terms import Terms

ID_MAX = 200
SIGNAL_MAX = 64


class Run:
    """From the start order to the proof of death."""

    def __init__(self, frame: wire.Frame, now_ms: int) -> None:
        """Check a start order.

        Raises:
            BadFrame: Something in it is missing or wrong.
        """
        self.id = wire.text(frame, "run")
        if not 0 < len(self.id) <= ID_MAX:
            raise wire.BadFrame(f"run: not 1..{ID_MAX} characters")
        self.role = wire.text(frame, "role")
        if len(self.role) > ID_MAX:  # whoever connects is told of it
            raise wire.BadFrame(f"role: more than {ID_MAX} characters")
        self.epoch = wire.whole(frame, "epoch")
        self.note = wire.note(frame)
        margin_ms = wire.whole(frame, "kill_margin_ms")
        self.terms = Terms(wire.whole(frame, "deadline_ms"), margin_ms)
        self.started_at_ms = now_ms
        self.server_pid: int | None = None
        self.started = False
        self.stopping = False
        self.killed_by: str | None = None
        self.own_output = frame.get("own_output") is True
        self.outlets: list[int] = []  # its stdout and stderr where they are its own, until it has them
        user, stop_command = frame.get("user"), frame.get("stop_command")
        self.order: wire.Frame = {
            "argv": wire.texts(frame, "argv"),
            "cwd": wire.text(frame, "cwd"),
            "env": wire.environment(frame, "env"),
            "user": None if user is None else wire.text(frame, "user"),
            "stop_signal": wire.whole(frame, "stop_signal", 1, SIGNAL_MAX),
            "stop_command": None if stop_command is None else wire.texts(frame, "stop_command"),
        }

    def for_keeper(self, token: str) -> wire.Frame:
        """Return the order with the mark by which strays are found."""
        env = {**wire.environment(self.order, "env"), tree.TOKEN_VARIABLE: token}
        return {**self.order, "env": env}

    def describe(self, keeper_pid: int | None) -> wire.Frame:
        """Return what a client that connects is told."""
        return {
            "run": self.id,
            "role": self.role,
            "epoch": self.epoch,
            "deadline_ms": self.terms.deadline_ms,
            "kill_margin_ms": self.terms.kill_margin_ms,
            "started_at_ms": self.started_at_ms,
            "keeper_pid": keeper_pid,
            "server_pid": self.server_pid,
            "note": self.note,
            "state": "stopping" if self.stopping else "running" if self.started else "starting",
        }
