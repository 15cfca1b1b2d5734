"""The system calls of the guard that CPython 3.11 does not wrap.

Rules: one thread (``clone`` relies on it); every call raises OSError or succeeds.

Not covered: machines other than those in ``_CLONE``; there namespaces count as refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
# <linux/mount.h>
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 0x2, 0x4, 0x8, 0x4000, 0x80000

_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220}
_CLOCK_BOOTTIME = 7
_TIMER_ABSTIME = 1
_TFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

# PyDLL, not CDLL, keeps the interpreter lock over the call: the child of a clone must hold it.
_libc = ctypes.PyDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class _Sigevent(ctypes.Structure):
    _fields_ = (
        ("sigev_value", ctypes.c_void_p),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def now_ms() -> int:
    """Return the current instant on CLOCK_BOOTTIME, in ms, rounded down."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _at(at_ms: int | None) -> _Itimerspec:
    """Return a one-shot setting for *at_ms*; None disarms (which an all-zero value means)."""
    if at_ms is None:
        return _Itimerspec()
    at_ms = max(1, at_ms)
    return _Itimerspec(_Timespec(0, 0), _Timespec(at_ms // 1000, at_ms % 1000 * 1_000_000))


class DeathTimer:
    """A kernel timer on CLOCK_BOOTTIME that sends SIGKILL to this very process.

    It needs no wake-up of ours, so it works on a process that is stopped, starved or in an endless loop.
    Not on one that waits for a disk ("D"): that dies when the disk answers. It does nothing to pid 1 of a
    PID namespace, and it is not inherited over fork.
    """

    def __init__(self) -> None:
        rt = _libc if hasattr(_libc, "timer_create") else ctypes.PyDLL("librt.so.1", use_errno=True)
        self._settime = rt.timer_settime
        self._timer = ctypes.c_void_p()
        event = _Sigevent(None, signal.SIGKILL, 0, b"")  # 0: SIGEV_SIGNAL
        _check(
            rt.timer_create(_CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer)),
            "timer_create",
        )

    def arm(self, at_ms: int | None) -> None:
        """Die at *at_ms* instead of the instant set before; None: never."""
        spec = _at(at_ms)
        result = self._settime(self._timer, _TIMER_ABSTIME, ctypes.byref(spec), None)
        _check(result, "timer_settime")


class WakeTimer:
    """A file descriptor that becomes readable at an instant on CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self.fd = _check(_libc.timerfd_create(_CLOCK_BOOTTIME, _TFD_FLAGS), "timerfd_create")

    def arm(self, at_ms: int | None) -> None:
        """Wake at *at_ms*; None: never. Setting it clears an unread wake-up."""
        spec = _at(at_ms)
        result = _libc.timerfd_settime(self.fd, _TIMER_ABSTIME, ctypes.byref(spec), None)
        _check(result, "timerfd_settime")


def clone(flags: int) -> int:
    """Fork into new namespaces; return 0 in the child, the child's pid in the parent.

    The raw system call, because unshare() affects *later* children, cannot be repeated by an
    unprivileged process, and would leave the guard itself in a user namespace.
    """
    number = _CLONE.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, "clone: number not known on this machine")
    api = ctypes.pythonapi
    api.PyOS_BeforeFork()
    zero = ctypes.c_long(0)
    flags_arg = ctypes.c_long(flags | signal.SIGCHLD)
    pid = int(_libc.syscall(ctypes.c_long(number), flags_arg, zero, zero, zero, zero))
    if pid == 0:
        api.PyOS_AfterFork_Child()
        return 0
    code = ctypes.get_errno()
    api.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def _prctl(option: int, value: int, what: str) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), what)


def set_parent_death_signal(number: int) -> None:
    """Ask for *number* when the parent dies. Cleared by any later change of credentials."""
    _prctl(_PR_SET_PDEATHSIG, number, "PR_SET_PDEATHSIG")


def set_child_subreaper() -> None:
    """Become the parent of every descendant that loses its own."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER")


def set_name(name: str) -> None:
    """Set the name that ``ps`` and ``top`` show, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer), "PR_SET_NAME")


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    """mount(2) without data."""
    kind_bytes = kind.encode() if kind else None
    flags_arg = ctypes.c_ulong(flags)
    result = _libc.mount(source.encode(), target.encode(), kind_bytes, flags_arg, None)
    _check(result, f"mount {target}")


def start_time(pid: int) -> int:
    """Return when *pid* started, in clock ticks since boot: with the pid, the process's identity.

    Raises:
        OSError: No such process.
    """
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The name, field 2, may hold anything; after its ")" come fields 3 and on.
        return int(os.read(fd, 4096).rpartition(b")")[2].split()[19])
    finally:
        os.close(fd)
