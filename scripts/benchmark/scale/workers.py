"""Several processes with a `Fleet` each, told what to do through a pipe."""

import multiprocessing
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from benchmark.scale.fleet import NODES, Fleet, Tally

NICE = 2  # the load gives way to the probe, as if it ran on machines of its own; not by much, or it stalls
STORE_NICE = -10
ANSWER_WITHIN_S = 120.0
END_WITHIN_S = 5.0
STARTS_PER_S = 18  # nodes; each is some 30 ms of Python, and all at once would be a load of their own


def file_limit() -> int:
    """Allow this process, and the store that it starts, as many sockets as it may have; return how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def prefer(pid: int) -> None:
    """Give the store the CPU first, as if it had a machine to itself, and who asks it next. Only root may.

    The store leads a session of its own. Where the kernel shares the CPU evenly between sessions (autogroup),
    nice values count only inside one: the session is what has to be preferred. Elsewhere all its threads are.
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(STORE_NICE))
    with suppress(OSError):
        os.setpriority(os.PRIO_PGRP, pid, STORE_NICE)
        os.setpriority(os.PRIO_PROCESS, 0, STORE_NICE)


def _serve(pipe: Connection, url: str, nice: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    fleet = Fleet(url)
    order: str | None = None
    while order != "end":
        try:
            order, *rest = pipe.recv()
        except EOFError:  # who started us is gone
            break
        match order:
            case "grow":
                fleet.grow(*rest)
                pipe.send(None)
            case "active":
                pipe.send(fleet.active())
            case "tally":
                pipe.send(fleet.tally())
    os._exit(0)  # thousands of threads; nothing here has to be put in order


class Worker:
    """One process."""

    def __init__(self, url: str, nice: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, url, nice), daemon=True)
        self._process.start()
        theirs.close()
        self._ps = psutil.Process(self._process.pid)

    def send(self, *order: Any) -> None:
        self._pipe.send(order)

    def answer(self, busy_s: float = 0) -> Any:
        """Return what the process says to the last order, which takes it *busy_s*.

        Raises:
            TimeoutError: It says nothing.
        """
        if not self._pipe.poll(busy_s + ANSWER_WITHIN_S):
            raise TimeoutError("a worker does not answer")
        return self._pipe.recv()

    def cpu_s(self) -> float:
        """Return the CPU time it has used."""
        return sum(self._ps.cpu_times()[:2])

    def threads(self) -> int:
        return int(self._ps.num_threads())

    def close(self) -> None:
        with suppress(OSError):  # it has ended already
            self._pipe.send(("end",))
        self._process.join(END_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class Crowd:
    """All clusters on one store: a probe, which is one cluster in a process of its own, and the load."""

    def __init__(self, url: str, ttl_ms: int, processes: int) -> None:
        self._ttl_ms = ttl_ms
        self._probe = Worker(url, 0)
        self._load = [Worker(url, NICE) for _ in range(processes)]
        self.clusters = 0

    @property
    def all(self) -> list[Worker]:
        return [self._probe, *self._load]

    def grow(self, clusters: int) -> None:
        """Have that many clusters; the new ones start one after the other."""
        new = [f"c{number:05}" for number in range(self.clusters, clusters)]
        probe, load = (new[:1], new[1:]) if self.clusters == 0 else ([], new)
        shares = [probe, *(load[number :: len(self._load)] for number in range(len(self._load)))]
        over_s = len(new) * len(NODES) / STARTS_PER_S
        for worker, share in zip(self.all, shares, strict=True):
            worker.send("grow", share, self._ttl_ms, over_s)
        for worker in self.all:
            worker.answer(over_s)
        self.clusters = clusters

    def active(self) -> int:
        """Return how many clusters have an active server."""
        return sum(self._ask("active"))

    def tally(self) -> tuple[Tally, Tally]:
        """Return what was seen since the last time: of all, and of the probe alone."""
        probe, *load = self._ask("tally")
        return reduce(Tally.plus, load, probe), probe

    def cpu_s(self) -> float:
        return sum(worker.cpu_s() for worker in self.all)

    def threads(self) -> int:
        return sum(worker.threads() for worker in self.all)

    def _ask(self, order: str) -> list[Any]:
        for worker in self.all:
            worker.send(order)
        return [worker.answer() for worker in self.all]


@contextmanager
def crowd(url: str, ttl_ms: int, processes: int) -> Iterator[Crowd]:
    """Run processes without clusters, until the end of the ``with`` block."""
    made = Crowd(url, ttl_ms, processes)
    try:
        yield made
    finally:
        for worker in made.all:
            worker.close()
