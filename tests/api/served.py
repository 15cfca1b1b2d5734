"""The real API on a real socket, in the test's process; its node is told what to know by the test.

    with served(tmp_path, stage) as api:
        api.tell(serving()); assert api.get("/active").status == 200

The store is the real local one of `tests.cli.stage`, so commands go all the way.
"""

import http.client
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.api.limits import USUAL, Limits
from sidecar.api.server import Api
from sidecar.clock import BootClock
from sidecar.config import from_text
from sidecar.core import state as s
from sidecar.core.model import View
from sidecar.core.units import Epoch, Instant
from sidecar.runtime.turn import Turn
from tests.core.made import POLICY
from tests.harness.process import free_port, wait_until

WITHIN_S = 20.0
LOADED_WITHIN_S = 60.0  # the first one in a process imports the library
TOKEN = "correct-horse"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """One API and what its node knows."""

    api: Api
    port: int
    tls: ssl.SSLContext | None = None
    gone: set[s.Run] = field(default_factory=set)  # runs whose death is known

    def tell(self, phase: s.Phase, view: View | None = None, policy: s.Policy = POLICY, **more: Any) -> None:
        """End a turn of the deciding thread."""
        now = BootClock().now()
        memory = s.Memory(view=view, view_at=now, mark=Epoch(7), **more)
        self.api.turned(Turn(s.Node(phase, memory), policy, now))

    def connect(self, host: str = "127.0.0.1") -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection(host, self.port, timeout=WITHIN_S, context=self.tls)
        return http.client.HTTPConnection(host, self.port, timeout=WITHIN_S)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> Answer:
        text = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with closing(self.connect(host)) as connection:
            connection.request(method, path, text, dict(headers or {}))
            found = connection.getresponse()
            return Answer(found.status, {k.title(): v for k, v in found.getheaders()}, found.read())

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None, token: str = TOKEN) -> Answer:
        return self.ask("POST", path, body, {"Authorization": f"Bearer {token}"})


def lease(left_ms: int, epoch: int = 7) -> s.Lease:
    """Return a lease whose guard kills in *left_ms* from now."""
    return s.Lease(Epoch(epoch), Instant(BootClock().now() + left_ms + POLICY.kill_margin_ms))


@contextmanager
def served(
    folder: Path,
    environ: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    limits: Limits = USUAL,
    metrics: Callable[[], bytes] | None = None,
    gone: set[s.Run] | None = None,
    **api: Any,
) -> Iterator[Served]:
    """Run an API whose section of the configuration has *api*, on the store ``local.db`` in *folder*."""
    section = api if "listen" in api else {"listen": f"127.0.0.1:{free_port()}"} | api
    port = int(section["listen"].rpartition(":")[2])
    text = (
        f"cluster: plant-7\nnode: node-a\nbackend: local\nlocal: {{path: {folder}/local.db}}\n"
        f"paths: {{state: {folder}/state, run: {folder}/run}}\napi: {json.dumps(section)}\n"
    )
    config = from_text(text, environ if environ is not None else {"SIDECAR_API__TOKEN": TOKEN}, source="test")
    gone = set() if gone is None else gone
    made = Served(Api(config, BootClock(), lambda run: run not in gone, metrics, limits), port, tls, gone)
    try:
        made.api.open()
        made.api.start("kernel")
        wait_until(lambda: _answers(made), "the API to answer", LOADED_WITHIN_S)
        yield made
    finally:
        made.api.close()


def _answers(made: Served) -> bool:
    try:
        return made.get("/openapi.json").status == 200
    except OSError:
        return False
