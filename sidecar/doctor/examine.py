"""All checks at once, each within its time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from sidecar.clock import BootClock, left_s
from sidecar.config import Config
from sidecar.core.units import Instant
from sidecar.doctor import api, files, machine, server, store
from sidecar.doctor.finding import Finding, error
from sidecar.errors import SidecarError
from sidecar.plugins import load_backend


class Check(NamedTuple):
    """*look* yields findings called *name*, or something more exact."""

    name: str
    within_ms: int
    look: Callable[[Config], Iterator[Finding]]


CHECKS = (
    Check("backend", 15_000, store.look),
    Check("clock", 2_000, machine.clock),
    Check("enforcement", 15_000, machine.enforcement),
    Check("guard", 5_000, machine.guard),
    Check("watchdog", 2_000, machine.watchdog),
    Check("paths", 5_000, files.paths),
    Check("programs", 5_000, files.programs),
    Check("secrets", 5_000, files.secrets),
    Check("certificates", 5_000, api.certificates),
    Check("api", 5_000, api.listens),
    Check("server.xml", 5_000, server.server_xml),
    Check("java", 5_000, server.java),
    Check("ports", 5_000, server.ports),
    Check("supervisor", 10_000, server.second_supervisor),
)


def examine(config: Config, checks: tuple[Check, ...] = CHECKS) -> list[Finding]:
    """Return what all checks found, in their order."""
    clock = BootClock()
    # first: while gRPC is imported our environment changes, which other checks read
    with suppress(Exception):  # a plug-in may fail in any way: the check of the store tells it
        load_backend(config.backend)
    running = [_Running(check, config, Instant(clock.now() + check.within_ms)) for check in checks]
    return [finding for one in running for finding in one.result(clock)]


class _Running:
    """A check at work. Its thread is a daemon: one that hangs for ever does not keep the program."""

    def __init__(self, check: Check, config: Config, until: Instant) -> None:
        self._check, self._config, self._until = check, config, until
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._work, name=check.name, daemon=True)
        self._thread.start()

    def result(self, clock: BootClock) -> list[Finding]:
        self._thread.join(left_s(self._until, clock))
        found = list(self._found)
        if self._thread.is_alive():
            limit = f"{self._check.within_ms / 1000:g} s"
            says, do = f"not finished within {limit}", "look for a disk, mount or network that hangs"
            found.append(error(self._check.name, says, do))
        return found

    def _work(self) -> None:
        try:
            for finding in self._check.look(self._config):
                self._found.append(finding)
        except SidecarError as failure:
            self._found.append(error(self._check.name, str(failure), "see what it names"))
        except OSError as failure:
            what = f"{failure.filename}: {failure.strerror}" if failure.filename else str(failure)
            self._found.append(error(self._check.name, what, "see what it names"))
        except Exception as failure:  # outermost frame of the thread
            says = f"internal error: {type(failure).__name__}: {failure}"
            self._found.append(error(self._check.name, says, "report it; the other checks are not affected"))
