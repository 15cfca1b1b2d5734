"""Every fault that a node can have. Each is a context: in force inside, healed after, and proven.

A fault that cannot show that it was really there raises `NotInjected`, and is not counted.
"""

import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import psutil

from sidecar.clock import wall_ms
from sidecar.standin import clear_faults, set_faults
from tests.harness.process import wait_until
from tests.system.soak.nodes import PARTS, Place, SidecarNode, pause

DAY_S = 86_400
STOPPED_WITHIN_S = 2.0
HOG_SHARE_MIN = 0.2
"""Of one core: real-time throttling leaves the hogs 0.95 of it, and they take turns."""
DELAY_MS, LOSS = 300, 0.3
HEARD_S, DEAF_S = 0.1, 0.5
"""A server looks for its faults at every tick of 20 ms; one that hears is gone 0.1 s after SIGTERM."""
WALL_CLOCK = "wall clock a day off"
TOLD_TO_FAIL = "Cannot start: told to fail"
GC_LOG, GC_ORDER, GC_SAID = "gc.log", "collect", "Pause Full"


class NotInjected(Exception):
    """The fault was not there; says why."""


@dataclass(frozen=True)
class Site:
    """Where a fault strikes."""

    place: Place
    random: random.Random

    def find(self, parts: tuple[str, ...]) -> list[psutil.Process]:
        """Return the processes of *parts*; each must have one."""
        found = []
        for part in parts:
            processes = self.place.node.part(part)
            if not processes:
                raise NotInjected(f"no {part} there")
            found += processes
        return found


Fault = Callable[[Site], AbstractContextManager[None]]


def need(condition: object, why: str) -> None:
    """Raise NotInjected unless the proof is there."""
    if not condition:
        raise NotInjected(why)


def killing(parts: tuple[str, ...]) -> Fault:
    """SIGKILL of all processes of *parts*, as close to one instant as a loop gets."""

    @contextmanager
    def killed(site: Site) -> Iterator[None]:
        found = site.find(parts)
        _signal(found, signal.SIGKILL)
        node = site.place.node
        if "sidecar" in parts and node.process is not None:
            node.process.wait()  # ours to reap
        try:  # a zombie is dead; pid 1 may take seconds to reap it
            wait_until(lambda: not any(map(_lives, found)), "dead", STOPPED_WITHIN_S)
        except TimeoutError as error:
            raise NotInjected("a process lives on") from error
        yield

    return killed


def stopping(parts: tuple[str, ...]) -> Fault:
    """SIGSTOP of all processes of *parts*, then SIGCONT of those that still live."""

    @contextmanager
    def stopped(site: Site) -> Iterator[None]:
        found = site.find(parts)
        _signal(found, signal.SIGSTOP)
        try:
            try:
                wait_until(lambda: all(map(_stopped_or_dead, found)), "stopped", STOPPED_WITHIN_S)
            except TimeoutError as error:
                raise NotInjected("a process did not stop") from error
            need(any(map(_lives, found)), "all were dead before they could stop")
            yield
        finally:
            _signal(found, signal.SIGCONT)

    return stopped


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _stopped_or_dead(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    return True


def _net(**changes: object) -> Fault:
    @contextmanager
    def broken(site: Site) -> Iterator[None]:
        port = site.place.cell.port
        before = port.dropped + port.delayed
        for name, value in changes.items():
            setattr(port, name, value)
        try:
            yield
            need(port.dropped + port.delayed > before, "no packet was touched")
        finally:
            port.heal()

    return broken


def _disk(verb: str) -> Fault:
    @contextmanager
    def broken(site: Site) -> Iterator[None]:
        cell = site.place.cell
        try:
            need(getattr(cell, verb)(), "the disk still takes a write")
            yield
        finally:
            cell.heal_disk()

    return broken


def set_clock(path: Path, ahead_s: int) -> None:
    """Move the wall clock that *path* stands for (wallclock.c maps it)."""
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        file.write(struct.pack("=q", ahead_s))


@contextmanager
def wall_clock(site: Site) -> Iterator[None]:
    """The node's wall clock jumps a day, and back at the healing."""
    place = site.place
    need(place.clock is not None, "this cluster has no wall clock of its own")
    assert place.clock is not None
    assert isinstance(place.node, SidecarNode)
    days = site.random.choice((-1, 1))
    place.node.events()
    set_clock(place.clock, days * DAY_S)
    try:
        yield
        ahead_s = _clock_ahead_s(place.node)
        need(ahead_s is not None and abs(ahead_s - days * DAY_S) < 600, f"its clock is {ahead_s} s ahead")
    finally:
        set_clock(place.clock, 0)


def _clock_ahead_s(node: SidecarNode) -> float | None:
    """Make the sidecar log something, and return how far ahead of ours the clock is that it logs by."""
    found: list[float] = []

    def logged() -> bool:
        if not found:
            for process in node.part("sidecar"):
                process.send_signal(signal.SIGHUP)
        now_s = wall_ms() / 1000
        for event in node.events():
            at = event.get("at_unix_ms")
            if isinstance(at, int):
                found.append(at / 1000 - now_s)
        return bool(found)

    with suppress(TimeoutError):
        wait_until(logged, "a line in the log", STOPPED_WITHIN_S)
    return found[-1] if found else None


@contextmanager
def memory_pressure(site: Site) -> Iterator[None]:
    """The node may allocate hardly anything more; the kernel kills some of it if it insists."""
    group = site.place.memory
    need(group is not None, "no memory cgroup here")
    assert group is not None
    before = group.failures()
    group.squeeze()
    try:
        yield
        need(group.failures() > before, "no allocation met the limit")
    finally:
        group.release()


@contextmanager
def cpu_hog(site: Site) -> Iterator[None]:
    """A real-time program takes the one core that the whole node is pinned to."""
    core = max(os.sched_getaffinity(0))
    pinned = [process for part in PARTS for process in site.place.node.part(part)]
    need(pinned, "nothing of the node runs")
    for process in pinned:
        with suppress(psutil.Error, OSError):
            process.cpu_affinity([core])
    # Not --fifo: the second of two would never run, so not end either, while the first one does.
    command = ["chrt", "--rr", "50", "taskset", "--cpu-list", str(core)]
    command += [sys.executable, "-I", "-S", "-c", "while True: pass"]
    hog = psutil.Popen(command, stdin=subprocess.DEVNULL)
    begun = os.times().elapsed
    try:
        yield
        used_s, real = sum(hog.cpu_times()[:2]), os.sched_getscheduler(hog.pid) == os.SCHED_RR
        share = used_s / max(0.001, os.times().elapsed - begun)
        need(real and share > HOG_SHARE_MIN, f"the hog had {share:.0%} of a core")
    finally:
        hog.kill()
        hog.wait()
        everywhere = sorted(os.sched_getaffinity(0))
        for part in PARTS:
            for process in site.place.node.part(part):
                with suppress(psutil.Error, OSError):
                    process.cpu_affinity(everywhere)


@contextmanager
def deaf_server(site: Site) -> Iterator[None]:
    """The server does not hear SIGTERM while its sidecar is told to stop."""
    (*_, server) = site.find(("server",))
    set_faults(site.place.node.home, deaf_to_sigterm=True)
    try:
        pause(HEARD_S)
        site.place.node.terminate_main()
        pause(DEAF_S)
        need(_lives(server), "the server has stopped all the same")
        yield
    finally:
        clear_faults(site.place.node.home)


@contextmanager
def failing_start(site: Site) -> Iterator[None]:
    """The server crashes, and each new start of it fails."""
    log = site.place.node.home / "logs" / "server.log"
    found = site.find(("server",))
    set_faults(site.place.node.home, start_fails=True)
    before = log.read_text(errors="replace").count(TOLD_TO_FAIL)
    try:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        yield
        need(log.read_text(errors="replace").count(TOLD_TO_FAIL) > before, "no start has failed")
    finally:
        clear_faults(site.place.node.home)


@contextmanager
def full_gc(site: Site) -> Iterator[None]:
    """The JVM collects everything, again and again."""
    log, order = site.place.node.home / GC_LOG, site.place.node.home / GC_ORDER
    site.find(("server",))
    need(log.exists(), "no JVM here")
    before = log.read_text().count(GC_SAID)
    order.touch()
    try:
        yield
        need(log.read_text().count(GC_SAID) > before, "no full collection")
    finally:
        order.unlink(missing_ok=True)


def _subsets() -> Iterator[tuple[str, ...]]:
    for size in (1, 2):
        yield from combinations(PARTS, size)
    yield PARTS


@dataclass(frozen=True)
class Kind:
    """One fault: its name, how it is made, and how long it lasts."""

    name: str
    fault: Fault
    lasting: bool  # longer than a lease; else shorter
    parts: tuple[str, ...] = ()  # the processes it needs
    sidecar_only: bool = False  # a peer has nothing that it could strike


def _processes() -> Iterator[Kind]:
    for parts in _subsets():
        what = "all" if parts == PARTS else "+".join(parts)
        own = bool({"guard", "keeper"} & set(parts))
        yield Kind(f"kill {what}", killing(parts), False, parts, sidecar_only=own)
        yield Kind(f"stop {what}", stopping(parts), True, parts, sidecar_only=own)


KINDS: tuple[Kind, ...] = (
    *_processes(),
    Kind("cut both ways", _net(cut_in=True, cut_out=True), True),
    Kind("cut inbound", _net(cut_in=True), True),
    Kind("cut outbound", _net(cut_out=True), True),
    Kind(f"delay {DELAY_MS} ms", _net(delay_ms=DELAY_MS), True),
    Kind(f"loss {LOSS:.0%}", _net(loss=LOSS), True),
    Kind(WALL_CLOCK, wall_clock, True, ("sidecar",), sidecar_only=True),
    Kind("memory pressure", memory_pressure, True),
    Kind("cpu hog", cpu_hog, True, ("sidecar",)),
    Kind("deaf server", deaf_server, True, ("server",)),
    Kind("failing start", failing_start, False, ("server",)),
    Kind("full GC", full_gc, True, ("server",)),
    Kind("state folder full", _disk("fill_disk"), True, sidecar_only=True),
    Kind("state folder read-only", _disk("read_only"), True, sidecar_only=True),
    Kind("state folder deleted", _disk("delete"), True, sidecar_only=True),
)
