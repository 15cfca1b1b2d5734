"""What the deciding thread tells those who answer from memory."""

from typing import NamedTuple

from sidecar.core import state as s
from sidecar.core.units import Instant


class Turn(NamedTuple):
    """What a node knew after the turn at *at*; all of it immutable.

    It is told when the turn's orders are given: nobody sees a later end of a lease than the guard is told.
    """

    node: s.Node
    policy: s.Policy
    at: Instant
