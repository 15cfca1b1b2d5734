"""A place of its own for each node: network, clock, disk, memory. What isolates, and what breaks it.

`isolated` runs a program in network, mount and PID namespaces of its own: nothing of a run is seen by the
machine's other processes, and the kernel ends all of it with the process that began it. Needs root.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.harness.fabric import Fabric, Port
from tests.harness.process import wait_until

_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
DISK_BYTES = 128 * 1024


class Unavailable(Exception):
    """This machine cannot do it; says why."""


def isolated(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run *command* in namespaces of its own, with a shell as pid 1 that reaps; return its exit status.

    Raises:
        Unavailable: Not allowed here.
    """
    tried = subprocess.run([*_NAMESPACES, "ip", "link"], check=False, capture_output=True, text=True)
    if tried.returncode != 0:
        raise Unavailable(f"needs root and namespaces for network, mounts and pids: {tried.stderr.strip()}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise Unavailable("needs /dev/net/tun")
    begin = 'mount --make-rprivate / && ip link set lo up && "$@"; exit $?'
    words = ["setpriv", "--pdeathsig", "KILL", *_NAMESPACES, "sh", "-c", begin, "sh", *command]
    return subprocess.run(words, check=False, env=dict(environment)).returncode


class Cell:
    """One node's network and time namespace, kept by a process that sleeps, and its small disk."""

    def __init__(self, fabric: Fabric, name: str, address: str, boottime_s: int, disk: Path) -> None:
        keep = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--time", "--fork", "--kill-child=KILL"]
        keep += [f"--boottime={boottime_s}", "sh", "-c", "echo $$; exec sleep infinity"]
        self._keeper = subprocess.Popen(keep, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._keeper.stdout is not None
        said = self._keeper.stdout.readline().strip()
        if not said:
            self.close()
            raise Unavailable("time namespaces are refused here")
        self.pid = int(said)
        self.port: Port = fabric.connect(name, address, self.pid)
        self.disk = disk
        disk.mkdir(parents=True)
        options = f"size={DISK_BYTES},mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "state", str(disk)], check=True)

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs in here, under the pid it was started with."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", f"--time=/proc/{self.pid}/ns/time", "--")

    def fill_disk(self) -> bool:
        """Leave no byte on the disk; tell whether a write is refused now."""
        fill(self.disk)
        return not takes_a_write(self.disk)

    def read_only(self) -> bool:
        """Make the disk read-only; tell whether a write is refused now."""
        command = ["mount", "-o", "remount,ro", str(self.disk)]

        def done() -> bool:  # busy while somebody has a file open for writing
            return subprocess.run(command, check=False, capture_output=True).returncode == 0

        wait_until(done, f"{self.disk} read-only")
        return not takes_a_write(self.disk)

    def delete(self) -> bool:
        """Delete everything on the disk; tell whether it is gone."""
        for path in self.disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return not any(self.disk.iterdir())

    def heal_disk(self) -> None:
        """Make the disk writable again, with room."""
        subprocess.run(["mount", "-o", "remount,rw", str(self.disk)], check=True)
        (self.disk / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Give everything back."""
        subprocess.run(["umount", "--lazy", str(self.disk)], check=False, capture_output=True)
        self._keeper.kill()
        self._keeper.wait()
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()


def fill(disk: Path) -> None:
    """Leave no byte on *disk*, by a file called ``filler``."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):  # the large steps leave less than one of themselves
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def takes_a_write(disk: Path) -> bool:
    """Tell whether a new file can be written on *disk*."""
    probe = disk / "probe"
    try:
        probe.write_bytes(bytes(4096))
    except OSError:
        return False
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return True


class MemoryGroup:
    """A cgroup whose memory can be limited to what it uses, version 1 or 2."""

    def __init__(self, name: str) -> None:
        """Make it.

        Raises:
            Unavailable: There is no memory controller, or we may not use it.
        """
        root, old = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
        self._old = old.is_dir()
        self.path = (old if self._old else root) / name
        self._limit = self.path / ("memory.limit_in_bytes" if self._old else "memory.max")
        self._usage = self.path / ("memory.usage_in_bytes" if self._old else "memory.current")
        try:
            self.path.mkdir()
        except OSError as error:
            raise Unavailable(f"memory cgroup: {error.strerror}") from error
        if not self._limit.exists():
            self.remove()
            raise Unavailable("memory cgroup: the controller is not enabled here")

    def add(self, pid: int) -> None:
        """Move *pid* in; what it starts from now on is inside too."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def squeeze(self) -> None:
        """Let it use no more than it does now."""
        with suppress(OSError):  # busy: it has grown meanwhile; what counts is `failures`
            self._limit.write_text(self._usage.read_text())

    def failures(self) -> int:
        """Return how often an allocation has met the limit."""
        if self._old:
            return int((self.path / "memory.failcnt").read_text())
        events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
        return int(events["max"])

    def release(self) -> None:
        """Take the limit away."""
        self._limit.write_text("-1" if self._old else "max")

    def kill(self) -> None:
        """Kill whatever runs inside."""
        for pid in (self.path / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def remove(self) -> None:
        """Remove it; nothing may run inside any more."""

        def gone() -> bool:
            with suppress(OSError):
                self.path.rmdir()
            return not self.path.exists()

        wait_until(gone, f"{self.path} empty")
