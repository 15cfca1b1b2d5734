"""The lock lane: turns the core's lock orders into backend calls, and answers into observations."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

from sidecar.clock import Clock
from sidecar.core import state as s
from sidecar.core.units import Epoch, Instant
from sidecar.documents import decode, encode
from sidecar.errors import BackendError, BadDocument, NotHolder
from sidecar.events import LOG
from sidecar.ports import Backend, Grant, Hold
from sidecar.runtime.lanes import Health, Lane


class LockLane:
    """Carries out one lock call after the other. Every call is answered exactly once."""

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        post: Callable[[s.Observation], None],
        request_timeout_ms: Callable[[], int],
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._post = post
        self._timeout_ms = request_timeout_ms
        self._holds: dict[Epoch, Hold] = {}
        self._health = Health("lock")
        self._lane = Lane("lock")

    def adopt(self, hold: Hold) -> None:
        """Take over the hold of the sidecar before us."""
        self._holds[hold.epoch] = hold

    def hold(self, epoch: Epoch) -> Hold | None:
        """Return the hold at *epoch*, where this process has one."""
        return self._holds.get(epoch)

    def acquire(self, policy: s.Policy, floor: Epoch) -> None:
        """Order an acquisition."""

        def call(deadline: Instant) -> s.Observation:
            answer = self._backend.acquire(
                policy.node, policy.instance, policy.ttl_ms, floor=floor, deadline=deadline
            )
            return self._granted(answer) if isinstance(answer, Grant) else s.Taken(answer.epoch, answer.node)

        self._lane.put(lambda: self._do(call, Epoch(0)))

    def renew(self, epoch: Epoch) -> None:
        """Order a renewal."""

        def call(deadline: Instant) -> s.Observation:
            hold = self._holds.get(epoch)
            if hold is None:
                return s.Lost(epoch)
            return self._granted(self._backend.renew(hold, deadline=deadline))

        self._lane.put(lambda: self._do(call, epoch))

    def release(self, policy: s.Policy, epoch: Epoch, floor: Epoch, cause: str) -> None:
        """Order a release. One whose grant never came goes through a renewed acquisition first.

        It may have ended since: then what that gets is given back, and a store below *floor* gives nothing.
        """

        def call(deadline: Instant) -> s.Observation:
            hold = self._holds.get(epoch)
            if hold is None:  # the answer of the acquisition was lost: C2 gives it again
                again = self._backend.acquire(
                    policy.node, policy.instance, policy.ttl_ms, floor=floor, deadline=deadline
                )
                if not isinstance(again, Grant):
                    return s.Lost(epoch)
                hold = again.hold
            self._backend.release(hold, cause=cause, deadline=deadline)
            self._holds.pop(epoch, None)
            return s.Released(epoch)

        self._lane.put(lambda: self._do(call, epoch))

    def close(self) -> None:
        """End the lane."""
        self._lane.close()

    def _granted(self, grant: Grant) -> s.Observation:
        self._holds = {grant.hold.epoch: grant.hold}
        return s.Granted(grant.hold.epoch, grant.sent_at, grant.deadline)

    def _do(self, call: Callable[[Instant], s.Observation], epoch: Epoch) -> None:
        try:
            answer = call(Instant(self._clock.now() + self._timeout_ms()))
            self._health.well()
        except NotHolder:
            self._health.well()
            answer = s.Lost(epoch)
        except BackendError as error:
            self._health.ill(error)
            answer = s.CallFailed(str(error), lasting=not error.retry)
        except Exception as error:  # an unexpected exception anywhere counts as a failed call
            LOG.exception("internal_error")
            answer = s.CallFailed(f"internal error: {error}")
        self._post(answer)


@dataclass(frozen=True, slots=True)
class _Note:
    """A `Kept`, flat."""

    cluster: str
    node: str
    instance: str
    epoch: Epoch
    ttl_ms: int
    cookie: str
    ready: bool = False


class Kept(NamedTuple):
    """What the guard keeps for the sidecar after us."""

    cluster: str
    hold: Hold
    ready: bool  # a probe has said so of the server


def to_note(kept: Kept) -> str:
    """Return *kept* as text."""
    return encode(_Note(kept.cluster, **asdict(kept.hold), ready=kept.ready)).decode()


def from_note(note: str) -> Kept:
    """Return what a guard's note says.

    Raises:
        ValueError: It is no note of a version known here.
    """
    try:
        found = decode("note", note.encode(), _Note)
    except BadDocument as error:
        raise ValueError(str(error)) from error
    hold = Hold(found.node, found.instance, found.epoch, found.ttl_ms, found.cookie)
    return Kept(found.cluster, hold, found.ready)
