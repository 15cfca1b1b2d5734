"""What a node knows, what it can observe, and what it can order. Types only.

A phase carries exactly what is known in it, so that "serving without a lease" cannot be written:

    without the lock                       with the lock (each has a Lease)
    Idle      no server tree exists        Promoting  a standby tree is ending, to start as active
    Standing  a standby tree runs          Starting   an active tree was ordered, not ready yet
    Ending    some tree is being ended     Serving    the active server is ready
    Finished  this sidecar is done         Waiting    no tree; it starts again at an instant
                                           Stopping   the active tree is being ended

Only `Observation`s of kind `ServerGone` are proof of death, and only `Idle`, `Standing` and
`Waiting` may owe the lock back: a lock is released by who has no active tree.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from sidecar.core.model import EpochRecord, LockRecord, Request, View
from sidecar.core.units import NO_EPOCH, Epoch, Instant

Verb = Literal["acquire", "renew", "release"]
Run = int
"""Number of a server start, counted by this sidecar; 0 is a server that it found running."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The node's configuration, as far as decisions need it. Durations in ms."""

    node: str
    instance: str
    ttl_ms: int
    renew_every_ms: int
    request_timeout_ms: int
    stop_grace_ms: int
    kill_margin_ms: int
    start_timeout_ms: int
    stop_timeout_ms: int
    restart_attempts: int
    restart_within_ms: int
    backoff_ms: int
    backoff_max_ms: int
    priority: int = 100
    eligible: bool = True
    failback: bool = False
    standby: Literal["stopped", "monitoring"] = "stopped"
    standby_lifetime_ms: int = 365 * 24 * 3_600_000  # the guard ends a standby of that age
    once: bool = False  # the first end of the active server ends the sidecar (``exec --once``)
    serving_message: str = "Serving"

    @property
    def hold_back_ms(self) -> int:
        """How long each rank waits for the one before: long enough for an acquisition."""
        return min(500, max(100, self.ttl_ms // 20))

    @property
    def retry_ms(self) -> int:
        """Pause between a failed call and the next."""
        return max(50, self.renew_every_ms // 4)

    @property
    def confirm_within_ms(self) -> int:
        """How long a command may take to confirm what was accepted, before it counts as killed."""
        return 5_000


@dataclass(frozen=True, slots=True)
class Lease:
    """The lock at an epoch, trusted until a deadline of this host's clock."""

    epoch: Epoch
    deadline: Instant

    def kill_at(self, policy: Policy) -> Instant:
        """Return when the guard kills."""
        return Instant(self.deadline - policy.kill_margin_ms)

    def stop_at(self, policy: Policy) -> Instant:
        """Return when a graceful stop has to begin."""
        return Instant(self.kill_at(policy) - policy.stop_grace_ms)


@dataclass(frozen=True, slots=True)
class Again:
    """After the stop: start in place."""

    at: Instant


@dataclass(frozen=True, slots=True)
class GiveUp:
    """After the stop: release the lock, for this cause."""

    cause: str


After = Again | GiveUp


@dataclass(frozen=True, slots=True)
class Idle:
    """No lock, and proven: no server tree."""


@dataclass(frozen=True, slots=True)
class Standing:
    """No lock; a standby tree runs."""

    run: Run
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """No lock (any more); a tree is being ended. *owes*: the lost epoch to give back on proof."""

    run: Run
    kill_at: Instant
    owes: Epoch = NO_EPOCH


@dataclass(frozen=True, slots=True)
class Promoting:
    """Lock held; the standby tree has to end first."""

    lease: Lease
    run: Run
    kill_at: Instant
    kills: int = 0  # ordered so far


@dataclass(frozen=True, slots=True)
class Starting:
    """Lock held; an active tree was ordered and has to be ready at *until*."""

    lease: Lease
    run: Run
    until: Instant


@dataclass(frozen=True, slots=True)
class Serving:
    """Lock held; the active server is ready."""

    lease: Lease
    run: Run


@dataclass(frozen=True, slots=True)
class Waiting:
    """Lock held, no tree; starts at *until*."""

    lease: Lease
    until: Instant


@dataclass(frozen=True, slots=True)
class Stopping:
    """Lock held; the active tree is being ended, killed at *kill_at*."""

    lease: Lease
    run: Run
    kill_at: Instant
    after: After
    kills: int = 0  # ordered so far


@dataclass(frozen=True, slots=True)
class Finished:
    """This sidecar is done and exits with *status*; *kept* leaves the server to the guard."""

    status: int
    kept: bool = False


Holding = Promoting | Starting | Serving | Waiting | Stopping
Phase = Idle | Standing | Ending | Holding | Finished


@dataclass(frozen=True, slots=True)
class Owed:
    """A lock to give back; no tree of it lives. Tried until the lease is over by itself."""

    epoch: Epoch
    cause: str
    until: Instant


@dataclass(frozen=True, slots=True)
class Quit:
    """Somebody asked this sidecar to stop."""

    status: int = 0
    keep_server: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """How this node came to hold the lock, for the history."""

    previous: str | None
    cause: str
    detect_ms: int | None
    lock_ms: int | None
    granted_at: Instant


@dataclass(frozen=True, slots=True)
class Vacancy:
    """The vacancy that an acquisition was ordered for, as it was seen then."""

    record: EpochRecord  # the epoch before, and how it ended
    since: Instant | None  # when the lock was first seen free
    sign_at: Instant | None  # last sign of life of the holder before


class Mark(NamedTuple):
    """The epoch high-water mark: the highest epoch ever seen, and the node that was seen to get it."""

    epoch: Epoch = NO_EPOCH
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a node knows in every phase."""

    born_at: Instant = Instant(0)
    view: View | None = None
    view_at: Instant = Instant(0)  # when it came
    vacant_since: Instant | None = None  # when the view first showed the lock free
    sign_at: Instant | None = None  # last sign of life of the holder, as seen from here
    broken: LockRecord | None = None  # the last lock that was seen broken
    sought: Vacancy | None = None  # what the last acquisition was ordered for
    mark: Epoch = NO_EPOCH  # epoch high-water mark: nothing older is ever accepted
    marked: str | None = None  # the node that was seen to get the mark's epoch
    mark_at: Instant = Instant(0)  # when a grant last raised it; views may be older for a moment
    spent: Epoch = NO_EPOCH  # no grant up to this epoch may be believed again
    owed: Owed | None = None
    unsettled: Owed | None = None  # the last that was not given back in time: why, should it be later
    call: Verb | None = None  # the one lock call under way
    call_at: Instant = Instant(0)  # not before this instant the next one
    runs: Run = 0
    failures: tuple[Instant, ...] = ()
    cool_until: Instant = Instant(0)
    gave_up: bool = False  # its server failed as active and was handed over; until it is ready as active
    standby_at: Instant = Instant(0)  # not before this instant a standby tree is started
    standby_failures: int = 0
    quit: Quit | None = None
    change: Change | None = None  # set from the grant until the history has it
    answered: tuple[str, str] | None = None  # (request id, state) this node has written
    answered_until: Instant = Instant(0)  # so long it may be on its way; then it is written again
    answer_at: Instant = Instant(0)  # not before this instant the next answer
    request_since: Instant = Instant(0)  # when the request was first seen in its present state
    restart_request: str | None = None  # id of the restart this node is carrying out
    better: tuple[str, Instant] | None = None  # a preferred node that is ready, and since when
    declined: str | None = None  # a preferred node that was handed the lock, and did not take it
    clearing: Run | None = None  # the active server of that run is dead, and its ``after_stop`` hook runs
    trouble: str | None = None  # last refusal of the store or failure of the server, for status


class Node(NamedTuple):
    """A node's whole state."""

    phase: Phase
    memory: Memory


# Observations: facts, already certain when they get here.
@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The backend showed the cluster."""

    view: View


@dataclass(frozen=True, slots=True)
class Granted:
    """An acquisition or renewal that was sent at *sent_at* is good until *deadline*."""

    epoch: Epoch
    sent_at: Instant
    deadline: Instant


@dataclass(frozen=True, slots=True)
class Taken:
    """The acquisition came too late: *node* holds the lock, at *epoch*."""

    epoch: Epoch
    node: str | None  # None: the store does not say


@dataclass(frozen=True, slots=True)
class Lost:
    """A definite answer: this node does not hold the lock at that epoch."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Released:
    """The lock was given back."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The lock call under way ended without a definite answer, or was refused by the store."""

    reason: str
    lasting: bool = False  # retrying soon is useless (credentials, unreadable key, epoch behind)


@dataclass(frozen=True, slots=True)
class ServerReady:
    """The server of that run is ready in its role."""

    run: Run


@dataclass(frozen=True, slots=True)
class ServerSick:
    """The active server of that run does not answer its probe any more."""

    run: Run
    reason: str


@dataclass(frozen=True, slots=True)
class ServerActivated:
    """A standby server serves although nobody told it to."""

    run: Run


@dataclass(frozen=True, slots=True)
class ServerGone:
    """Proof: the whole tree of that run is dead, or was never started."""

    run: Run
    status: int | None  # exit status, -signal, None when never started
    reason: str = ""
    vetoed: bool = False  # never started, as ``before_active`` refused
    clearing: bool = False  # ``after_stop`` runs now; `Cleared` follows


@dataclass(frozen=True, slots=True)
class Cleared:
    """The ``after_stop`` hook of that run is over."""

    run: Run


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants this sidecar to end."""

    keep_server: bool = False


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """The answer to a request could not be written: it has to be given again."""


Observation = (
    Tick
    | Seen
    | Granted
    | Taken
    | Lost
    | Released
    | CallFailed
    | ServerReady
    | ServerSick
    | ServerActivated
    | ServerGone
    | Cleared
    | StopAsked
    | AnswerFailed
)


# Actions: orders for the shell, carried out in the given order.
@dataclass(frozen=True, slots=True)
class Acquire:
    """Ask for the lock; the store's epoch must be at least *floor*."""

    floor: Epoch


@dataclass(frozen=True, slots=True)
class Renew:
    """Prove and extend the hold at that epoch."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Release:
    """Give the hold at that epoch back."""

    epoch: Epoch
    cause: str


@dataclass(frozen=True, slots=True)
class StartServer:
    """Start a tree; it may run until *deadline* less the kill margin."""

    run: Run
    role: Literal["active", "standby"]
    epoch: Epoch
    deadline: Instant


@dataclass(frozen=True, slots=True)
class ExtendServer:
    """Move the guard's deadline of a run."""

    run: Run
    deadline: Instant


@dataclass(frozen=True, slots=True)
class StopServer:
    """End a tree gracefully, killed at *kill_at*."""

    run: Run
    kill_at: Instant


@dataclass(frozen=True, slots=True)
class KillServer:
    """End a tree now."""

    run: Run


@dataclass(frozen=True, slots=True)
class SaveMark:
    """Keep the epoch high-water mark across restarts."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class Answer:
    """Write *request*, whose state has changed, if the key is still as it was seen."""

    request: Request
    expected: int


@dataclass(frozen=True, slots=True)
class RecordChange:
    """Add this node's becoming active to the history."""

    epoch: Epoch
    change: Change
    start_ms: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something an operator has to know at once."""

    text: str


@dataclass(frozen=True, slots=True)
class Exit:
    """End the sidecar with *status*; *kept*: without touching the server."""

    status: int
    kept: bool


Action = (
    Acquire
    | Renew
    | Release
    | StartServer
    | ExtendServer
    | StopServer
    | KillServer
    | SaveMark
    | Answer
    | RecordChange
    | Alarm
    | Exit
)


class Step(NamedTuple):
    """What `decide` returns."""

    node: Node
    actions: tuple[Action, ...] = ()
