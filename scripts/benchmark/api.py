"""``scripts/bench api``: what the HTTP API costs, and what a flood of requests does to renewals.

An active sidecar on a real etcd, TTL 10 s, renewing every 2 s. Whether a renewal is late shows in the lease:
its rest, told by each answer of ``/active``, does not fall below TTL × 0.99 less one period and one request.
Open loop: each request has its instant, and a late answer makes the next ones late, as it does for people.
"""

import argparse
import asyncio
import json
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmark import results
from benchmark.footprint import pss_mb
from benchmark.nodes import Node, sidecar_exec
from benchmark.results import Row
from sidecar.demo.cluster import free_ports
from tests.harness.process import wait_until
from tests.harness.stores import Etcd

SUBJECT = "sidecar exec"
TTL_S = 10
LINES = 20  # connections that ask
IDLE = 10_000
BODY_BYTES = 1_000_000_000
ASK = b"GET /active HTTP/1.1\r\nHost: x\r\n\r\n"
TOKEN = "bench"  # of a sidecar that lives as long as this measurement


@dataclass
class Seen:
    """What the answers told."""

    took_ms: list[float] = field(default_factory=list)
    lease_s: list[float] = field(default_factory=list)
    not_ok: int = 0


def main() -> int:
    """Measure everything; return 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(prog="bench api", description="Measure the HTTP API under load.")
    parser.add_argument("--quick", action="store_true", help="five seconds instead of thirty each")
    results.add_options(parser)
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--write keeps a whole run: leave out --quick")
    facts = results.machine()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        rows = measure(Path(folder), 5 if options.quick else 30)
    print(results.table(rows))
    if options.json:
        options.json.write_text(results.document(rows, facts))
    if options.write:
        results.write("api", rows, facts)
    for row in rows:
        for failure in row.failures:
            print(f"bench: {row.measure}: {failure}", file=sys.stderr)
    return int(any(row.failures for row in rows))


def measure(folder: Path, seconds: int) -> list[Row]:
    """Return the rows, in the order in which they were measured."""
    with active(folder) as (node, port):
        before = Row("memory (PSS) in all, API on", SUBJECT, "MB", 70, [pss_mb(node)])
        rows = [before]
        for rate in (1, 500, 2_000):
            seen = asyncio.run(ask(port, rate, seconds))
            rows += asked(f"at {rate} requests/s", seen, 5 if rate == 500 else None)
        rows += idle(node, port, seconds)
        rows.append(body(port))
        rows.append(Row("memory (PSS) in all, after that", SUBJECT, "MB", 70, [pss_mb(node)]))
        return rows


@contextmanager
def active(folder: Path) -> Iterator[tuple[Node, int]]:
    """Run one active node with an API."""
    with Etcd.run(folder / "etcd") as etcd:
        (port,) = free_ports(1)
        subject = sidecar_exec(
            f"etcd://{etcd.address}",
            TTL_S,
            SIDECAR_API__LISTEN=f"127.0.0.1:{port}",
            SIDECAR_API__TOKEN=TOKEN,
        )
        words, environment = subject.program("api", "node-a", ["/bin/sleep", "3600"])
        node = Node("node-a", folder / "node-a", words, environment)
        try:
            node.start()
            wait_until(lambda: ok(port), "an active node", 120)
            yield node, port
        finally:
            node.clean_up()


def ok(port: int) -> bool:
    """Tell whether ``/active`` says yes, asked on a new connection."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as one:
        one.sendall(ASK)
        return one.recv(100).startswith(b"HTTP/1.1 200")
    return False


async def ask(port: int, rate: int, seconds: int) -> Seen:
    """Ask *rate* times a second for so long, on a few connections that stay open."""
    seen, lines = Seen(), min(LINES, rate)
    begin = time.monotonic() + 0.2
    instants = [begin + number / rate for number in range(rate * seconds)]
    await asyncio.gather(*(_line(port, instants[number::lines], seen) for number in range(lines)))
    return seen


async def _line(port: int, instants: list[float], seen: Seen) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for at in instants:
        await asyncio.sleep(max(0, at - time.monotonic()))
        writer.write(ASK)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found = json.loads(await reader.readexactly(length))
        seen.took_ms.append((time.monotonic() - at) * 1_000)
        seen.not_ok += not found["ok"]
        seen.lease_s.append(found.get("lease_remaining_s") or 0.0)
    writer.close()


def asked(when: str, seen: Seen, p99_ms: float | None) -> list[Row]:
    """Return what was seen, as rows."""
    took = sorted(seen.took_ms)
    failures = [f"{seen.not_ok} answers were no"] if seen.not_ok else []
    p50, p99 = (took[int(len(took) * share)] for share in (0.5, 0.99))
    return [
        Row(f"/active, p50 {when}", SUBJECT, "ms", samples=[p50], failures=failures),
        Row(f"/active, p99 {when}", SUBJECT, "ms", p99_ms, [p99]),
        Row(f"shortest rest of the lease {when}", SUBJECT, "s", samples=[min(seen.lease_s)]),
    ]


def idle(node: Node, port: int, seconds: int) -> list[Row]:
    """Open thousands of connections that ask nothing, and ask beside them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, IDLE + 1_000), hard))
    with ExitStack() as stack:
        for _ in range(min(IDLE, hard - 500)):
            one = stack.enter_context(socket.socket())
            one.settimeout(5)
            with suppress(OSError):
                one.connect(("127.0.0.1", port))
        when = f"beside {IDLE} idle connections"
        rows = asked(when, asyncio.run(ask(port, 100, seconds)), None)
        rows.append(Row(f"memory (PSS) in all, {when}", SUBJECT, "MB", 70, [pss_mb(node)]))
        rows.append(Row(f"descriptors of the sidecar, {when}", SUBJECT, "", 300, [node.main().num_fds()]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return rows


def body(port: int) -> Row:
    """Send a GB as the body of a command; return how much was taken of it."""
    head = f"POST /pause HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), 10) as one, suppress(OSError):
        one.sendall(head.encode())
        while sent < BODY_BYTES:
            one.sendall(chunk)
            sent += len(chunk)
    failures = [] if ok(port) else ["/active does not say yes any more"]
    return Row("taken of a body of 1000 MB", SUBJECT, "MB", samples=[sent / 1_000_000], failures=failures)


if __name__ == "__main__":
    sys.exit(main())
