"""Every error this project raises on purpose.

    SidecarError                 exit   what the caller may conclude
    |-- UsageError                  2   fix the command line
    |-- ConfigError                 2   fix the file and key it names, then start again
    |-- BackendError
    |   |-- NotSent                 3   nothing happened; safe to retry
    |   |-- OutcomeUnknown          3   it may have happened; look before assuming
    |   |-- Denied                  3   nothing happened; retrying is useless until credentials change
    |   |-- BadDocument             3   nothing happened; somebody wrote what we cannot read
    |   |-- NotHolder               1   nothing happened; this node does not hold the lock at that epoch
    |   |-- Conflict                1   nothing happened; the document changed meanwhile: read it again
    |   `-- EpochBehind             4   nothing happened; the store was wiped or restored
    |-- ServerError                 1   the supervised server or its files are not as they must be
    |-- GuardError                  1   the guard refused or does not answer
    |-- Failed                      1   tried, and it did not come about, or was rolled back
    |   `-- Interrupted             1   ended by the user before it began; after Ctrl-C it is 130
    |-- Refused                     4   unsafe or impossible; the message says what would allow it
    `-- TimedOut                    5   outcome unknown; the message says how to find out

The branches of BackendError answer one question, "may it have happened?", because that decides
whether a node may go on. Which library raised it is in ``__cause__``. Messages are one line, name
the key, file or address at fault, and hold no secret.
"""

from enum import Enum
from typing import ClassVar


class Effect(Enum):
    """What a failed call did to the store."""

    NONE = "none"
    MAYBE = "maybe"


class SidecarError(Exception):
    """The root: a command that ends with one prints its message and exits with ``exit_code``."""

    exit_code: ClassVar[int] = 1


class UsageError(SidecarError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class ConfigError(SidecarError):
    """The configuration is missing, unreadable or wrong; the message names file and key."""

    exit_code = 2


class BackendError(SidecarError):
    """A backend did not do what it was asked; only its leaves are raised."""

    exit_code = 3
    effect: ClassVar[Effect]
    retry: ClassVar[bool]


class NotSent(BackendError):
    """The store was certainly not reached, or certainly refused before doing anything."""

    effect, retry = Effect.NONE, True


class OutcomeUnknown(BackendError):
    """The request may have been carried out; its answer never came."""

    effect, retry = Effect.MAYBE, True


class Denied(BackendError):
    """The store rejects our credentials or rights."""

    effect, retry = Effect.NONE, False


class BadDocument(BackendError):
    """A key holds something that is not a document of a version known here."""

    effect, retry = Effect.NONE, False


class NotHolder(BackendError):
    """A definite answer: the lock is not ours at that epoch (any more)."""

    exit_code = 1
    effect, retry = Effect.NONE, False


class Conflict(BackendError):
    """A compare-and-set found another version."""

    exit_code = 1
    effect, retry = Effect.NONE, False


class EpochBehind(BackendError):
    """The store's epoch is below what this node has seen: it was wiped, restored or replaced."""

    exit_code = 4
    effect, retry = Effect.NONE, False


class ServerError(SidecarError):
    """The supervised server, its launcher or its ``server.xml`` is not as it must be."""


class GuardError(SidecarError):
    """The guard refused an order, speaks another protocol version or does not answer."""


class Failed(SidecarError):
    """An operation was tried and did not come about, or was rolled back."""


class Interrupted(Failed):
    """The user has ended an operation before it began. Nothing will happen."""


class Refused(SidecarError):
    """An operation was not tried, because it is unsafe or impossible now."""

    exit_code = 4


class TimedOut(SidecarError):
    """An operation's outcome is not known; the message says how to find out."""

    exit_code = 5
