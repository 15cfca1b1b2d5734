"""Counts the requests that leave this process for a store, and those that come back answered.

It stands at the one place of each backend through which every request goes. A request counts as tried when
it is handed to gRPC or the socket: while the store is away these are attempts to connect.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from backends._consul_transport import Transport
from backends._etcd_channel import Endpoint
from sidecar.clock import BootClock

BIN_MS = 100


class Traffic:
    """Everything of this process; there is one."""

    def __init__(self) -> None:
        self._tried: list[tuple[int, str]] = []
        self._answered: list[int] = []
        self._clock = BootClock()
        self._of_etcd()
        self._of_consul()

    def take(self) -> tuple[dict[int, int], dict[int, int], dict[str, int]]:
        """Return requests tried and answered per 100 ms, and by kind, since the last time."""
        tried, self._tried = self._tried, []
        answered, self._answered = self._answered, []
        per_bin, per_kind = Counter(at for at, _ in tried), Counter(kind for _, kind in tried)
        return dict(per_bin), dict(Counter(answered)), dict(per_kind)

    def _now(self) -> int:
        return self._clock.now() // BIN_MS

    def _try(self, kind: str) -> None:
        self._tried.append((self._now(), kind))

    def _of_etcd(self) -> None:
        send, watch = Endpoint.send, Endpoint.watch

        def done(future: Any) -> None:
            if not future.cancelled() and future.exception() is None:
                self._answered.append(self._now())

        def counted_send(endpoint: Endpoint, method: str, *rest: Any) -> Any:
            self._try(method)
            future = send(endpoint, method, *rest)
            future.add_done_callback(done)
            return future

        def counted_watch(endpoint: Endpoint, *rest: Any) -> Any:
            self._try("Watch")
            return watch(endpoint, *rest)

        Endpoint.send = counted_send  # type: ignore[method-assign,assignment]
        Endpoint.watch = counted_watch  # type: ignore[method-assign,assignment]

    def _of_consul(self) -> None:
        def counted(method: Callable[..., Any]) -> Callable[..., Any]:
            def call(transport: Transport, callback: Any, path: str, *rest: Any, **named: Any) -> Any:
                kind = path.removeprefix("/v1/").partition("/")[0]
                self._try("wait" if kind == "kv" else kind)
                answer = method(transport, callback, path, *rest, **named)
                self._answered.append(self._now())
                return answer

            return call

        Transport.get = counted(Transport.get)  # type: ignore[method-assign]
        Transport.put = counted(Transport.put)  # type: ignore[method-assign]
