"""What the kernel of this machine offers: clock, enforcement, watchdog."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from sidecar import __version__
from sidecar.clock import BootClock
from sidecar.config import Config
from sidecar.core.units import Instant
from sidecar.doctor.finding import Finding, error, ok, warning
from sidecar.errors import GuardError

SLOW_CLOCKS = ("jiffies", "refined-jiffies")
GREETED_WITHIN_MS = 2_000
CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


def clock(_config: Config) -> Iterator[Finding]:
    """Look at the clock by which everything is decided."""
    hours = BootClock().now() / 3_600_000
    says = f"CLOCK_BOOTTIME runs ({hours:.1f} h since boot); all is decided by it, so NTP and the wall clock"
    try:
        source = CLOCK_SOURCE.read_text(encoding="ascii").strip()
    except OSError:
        source = "unknown"
    if source in SLOW_CLOCKS:
        yield warning(
            "clock", f"its source is {source}, which may run unevenly", "enable tsc, kvm-clock or hpet"
        )
    else:
        yield ok("clock", f"{says} matter only to people who read logs (source {source})")


def enforcement(config: Config) -> Iterator[Finding]:
    """Start a guard, as ``run`` would, in a folder of its own, and see what it can do; it leaves at once."""
    from sidecar.guard.client import GuardClient
    from sidecar.guard.connect import Wanted

    wanted = cast(Wanted, config.guard.enforcement)
    with tempfile.TemporaryDirectory(prefix="sidecar-doctor-", ignore_cleanup_errors=True) as folder:
        try:
            client = GuardClient.attach_or_spawn(
                Path(folder), wanted, lambda _event: None, idle_exit_ms=1_000
            )
        except GuardError as failure:
            do = "allow it (SYS_ADMIN, or user namespaces), or set guard.enforcement: auto"
            yield error("enforcement", str(failure), do)
            return
        found = client.enforcement
        client.shutdown()
        client.close()
    who = f"for a sidecar started as this one was (user id {os.geteuid()})"
    if found == "kernel":
        yield ok("enforcement", f"kernel: PID namespaces are granted, {who}")
        return
    cgroup = _cgroup()
    if wanted == "process":
        yield ok("enforcement", f"process, as guard.enforcement asks; {cgroup}")
    else:
        do = "allow PID namespaces (SYS_ADMIN, or user namespaces); docs/guarantees.md compares the two"
        yield warning("enforcement", f"process: PID namespaces are refused {who}; {cgroup}", do)


def _cgroup() -> str:
    from sidecar.guard.tree import Cgroup

    found = Cgroup.make(f"sidecar-doctor-{os.getpid()}")
    if found is None:
        return (
            "no cgroup with cgroup.kill (needs cgroup v2, Linux 5.14, Delegate=yes): descendants are walked"
        )
    found.remove()
    return "a cgroup of its own with cgroup.kill is granted"


def guard(config: Config) -> Iterator[Finding]:
    """Ask the guard that works here of which version it is: an active's outlives an upgrade."""
    from sidecar.guard import connect

    run_dir, now = Path(config.paths.run), BootClock()
    try:
        found = connect.greeting(run_dir, Instant(now.now() + GREETED_WITHIN_MS), now)
    except (TimeoutError, BlockingIOError):
        do = (
            "see whether it is stopped: its server ends at its deadline; a restart of the sidecar replaces it"
        )
        yield error("guard", f"{run_dir}: the guard there does not answer", do)
        return
    except (PermissionError, ConnectionError):
        yield warning("guard", f"{run_dir}: it hears its own user alone", "run doctor as root")
        return
    if found is None:
        yield ok("guard", f"none is at work in {run_dir}")
    elif found.version == __version__:
        yield ok("guard", f"of this version, {__version__}")
    else:
        version = f"version {found.version}" if found.version else "a version that does not say which"
        says = f"of {version}, not {__version__}: what that mends of it is not in force here"
        restart = "restart the sidecar, which replaces a standby's guard: systemctl restart aggregate-sidecar"
        active = found.role == "active"
        yield warning("guard", says, f"sidecar switchover first; then {restart}" if active else restart)


def watchdog(_config: Config) -> Iterator[Finding]:
    """Look for a device that resets a machine which has stopped as a whole."""
    devices = sorted(path.name for path in Path("/dev").glob("watchdog[0-9]*"))
    if devices:
        yield ok("watchdog", f"/dev/{devices[0]} is there; systemd feeds it where RuntimeWatchdogSec is set")
        return
    yield ok(
        "watchdog", "no device; needed by nothing here, but it would end a machine that hangs as a whole"
    )
