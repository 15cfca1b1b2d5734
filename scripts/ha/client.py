"""What a client in the plant sees: its answers, one after the other, and the longest time without one."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Thread
from typing import Self


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and when it was there: CLOCK_BOOTTIME, the same in all containers of one host."""

    at_ms: int
    node: str
    epoch: int
    run: str  # of the server; another one after each start

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """Return what a line of compose/ha/client.py says; None: there was no answer."""
        at_ms, node, epoch, run = line.split()
        return None if node == "-" else cls(int(at_ms), node, int(epoch), run)


def longest_ms(answers: Sequence[Answer], since_ms: int, until_ms: int) -> int:
    """Return the longest time without an answer between two instants, as the client has lived it.

    It may have begun before *since_ms*: it is counted from the answer before it. One that is not over at
    *until_ms* counts until then.
    """
    before = [answer.at_ms for answer in answers if answer.at_ms <= since_ms][-1:] or [since_ms]
    within = [answer.at_ms for answer in answers if since_ms < answer.at_ms <= until_ms]
    return max(b - a for a, b in pairwise([*before, *within, until_ms]))


def backwards(answers: Sequence[Answer]) -> list[str]:
    """Return where a client was answered by an older epoch after a newer one: never, it is hoped."""
    return [f"{after} after {before}" for before, after in pairwise(answers) if after.epoch < before.epoch]


class Client:
    """Runs compose/ha/client.py in *container* until closed."""

    def __init__(self, container: str) -> None:
        self.answers: list[Answer] = []
        command = ["docker", "exec", container, "python3", "/opt/ha/client.py"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """End it. What runs inside the container ends with that."""
        self._process.kill()
        self._process.wait()
        self._reader.join(5)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if (answer := Answer.parse(line)) is not None:
                self.answers.append(answer)
