"""What operators do meanwhile: commands of the CLI, killed ones among them."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.soak.nodes import pause

COMMAND_TIMEOUT = "20s"
ENDS_WITHIN_S = 40.0
RAISE = ("failover", "--raise-epoch", "--yes", "--timeout", COMMAND_TIMEOUT)


@dataclass
class Operator:
    """Somebody at a keyboard, with the configuration of any node."""

    configs: Sequence[Path]
    said: Path
    random: random.Random
    ended: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    _running: "list[tuple[str, subprocess.Popen[bytes]]]" = field(default_factory=list)

    def begin(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command; `await_all` waits for its end."""
        with self.said.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sidecar", *words, "-c", str(self.random.choice(self.configs))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )
        self._running.append((words[0], process))
        return process

    def await_all(self) -> None:
        """Wait for every command: each has to end by itself."""
        for name, process in self._running:
            try:
                process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # says where it is (PYTHONFAULTHANDLER)
                process.wait()
                self.stuck.append(f"{name} does not end; where it was is in {self.said}")
            self.ended[f"{name}: exit {process.returncode}"] += 1
        self._running = []

    def do(self, *words: str) -> int:
        """Do a command, and return its exit code."""
        process = self.begin(*words)
        self.await_all()
        return int(process.returncode)


@dataclass(frozen=True)
class Order:
    """One thing an operator does."""

    name: str
    give: Callable[[Operator], "subprocess.Popen[bytes] | None"]  # what has to end with 0, to count
    undo: tuple[str, ...] = ()


def _killed_switchover(operator: Operator) -> None:
    process = operator.begin("switchover", "--yes", "--timeout", COMMAND_TIMEOUT)
    pause(operator.random.uniform(0.3, 1.2))  # from before it has asked until after it has confirmed
    process.kill()


ORDERS = (
    Order("switchover", lambda o: o.begin("switchover", "--yes", "--timeout", COMMAND_TIMEOUT)),
    Order("switchover killed", _killed_switchover),
    Order("failover", lambda o: o.begin("failover", "--yes", "--timeout", COMMAND_TIMEOUT)),
    Order("pause", lambda o: o.begin("pause"), ("resume",)),
    Order("restart", lambda o: o.begin("restart")),
)
