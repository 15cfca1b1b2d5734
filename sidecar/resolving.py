"""Addresses of a host by a deadline: getaddrinfo knows no timeout, so a name is looked up on another thread.

Not guaranteed: a name server that hangs costs one daemon thread until the resolver gives up.
"""

import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
Place = tuple[int, Any]
"""Family and address, as a socket takes them."""


class Resolver:
    """Looks one host up, anew each time, but once for all who ask meanwhile."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._lock = threading.Lock()
        self._flight: _Flight | None = None

    def places(self, left: Callable[[], float]) -> Sequence[Place]:
        """Return where it is, within the seconds that are *left*.

        Raises:
            OSError: There is no such host; TimeoutError: no name server has answered.
        """
        with suppress(ValueError):
            version = ipaddress.ip_address(self._host).version
            return [(socket.AF_INET6 if version == 6 else socket.AF_INET, (self._host, self._port))]
        with self._lock:
            if self._flight is None or self._flight.done.is_set():
                self._flight = _Flight(self._host, self._port)
            flight = self._flight
        flight.done.wait(left())
        return flight.result()

    def give_up(self) -> None:
        """End the waiting of everybody."""
        if self._flight is not None:
            self._flight.done.set()


def first(places: Sequence[Place], left: Callable[[], float], connect: Callable[[Place, float], T]) -> T:
    """Return what *connect* makes of the first place where it can, each in its share of the seconds *left*.

    Raises:
        OSError: What the last one has raised; TimeoutError of *left*: nothing is.
    """
    failed = OSError("no address")
    for position, place in enumerate(places):
        share_s = left() / (len(places) - position)
        try:
            return connect(place, share_s)
        except OSError as error:
            failed = error
    raise failed


class _Flight:
    """One look-up."""

    def __init__(self, host: str, port: int) -> None:
        self.done = threading.Event()
        self._host, self._port = host, port
        self._found: Sequence[Place] = ()
        self._error: OSError | None = None
        threading.Thread(target=self._run, name="resolve", daemon=True).start()

    def result(self) -> Sequence[Place]:
        if self._error is not None:
            raise self._error
        if not self._found:
            raise TimeoutError(f"name server: no answer in time for {self._host}")
        return self._found

    def _run(self) -> None:
        try:
            answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._found = [(family, address) for family, _, _, _, address in answers]
        except OSError as error:
            self._error = error
        except UnicodeError as error:
            self._error = OSError(f"not a host name ({error})")
        finally:
            self.done.set()
