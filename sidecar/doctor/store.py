"""The backend as this node sees it, and the other nodes in it.

Rights are tried, not guessed: a write that cannot come about, since it asks for a version that no key has, is
refused by its condition where it is allowed, and by the store's authentication where it is not.
"""

import os
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from statistics import median

from sidecar import __version__
from sidecar.clock import BootClock
from sidecar.config import Config, timing
from sidecar.config.address import parse
from sidecar.config.durations import render
from sidecar.core.model import Settings, View
from sidecar.core.units import Instant
from sidecar.doctor.finding import Finding, error, ok, warning
from sidecar.errors import BackendError, Conflict, Denied
from sidecar.operate import words
from sidecar.operate.status import behind
from sidecar.plugins import load_backend
from sidecar.ports import Backend, BackendInfo

ASKED_WITHIN_MS = 5_000
READS = 5
NO_VERSION = (1 << 53) - 1  # of a key: no store ever counts so far


def look(config: Config) -> Iterator[Finding]:
    """Ask the backend for everything that a node needs of it."""
    clock = BootClock()
    backend = load_backend(config.backend)(config.backend_settings(), clock)
    try:
        try:
            info = backend.info(deadline=Instant(clock.now() + ASKED_WITHIN_MS))
        except Denied as failure:
            yield error("backend", str(failure), "correct user, password, token or certificate")
            return
        except BackendError as failure:
            yield error(
                "backend", str(failure), "start it, or correct its address, or open the network to it"
            )
            return
        yield from _what_it_is(config, info)
        view = yield from _latency(config, backend, clock)
        yield from _rights(config, backend, clock)
        if view is not None:
            yield from _nodes(config, view)
    finally:
        backend.close()


def _what_it_is(config: Config, info: BackendInfo) -> Iterator[Finding]:
    versions = "; ".join(f"{where}: {version}" for where, version in info.versions.items())
    leader = f"; leader: {info.leader}" if info.leader else ""
    yield ok("backend", f"{info.name} at {info.address} answers ({versions or 'version not told'}{leader})")
    named = [url.partition("://")[2] for url in config.etcd.endpoints] if config.backend == "etcd" else []
    silent = [place for place in named if not any(place in known for known in info.versions)]
    if silent:
        yield warning("backend", f"no answer from {', '.join(silent)}", "start it, or correct etcd.endpoints")
    if len(named) == 1:
        says = "one of its members is named: its loss is the loss of the lock"
        yield warning("backend", says, "name all in etcd.endpoints")
    for place in filter(_is_several, named):
        says = f"{place} has several addresses: a member that hangs at one of them is not left"
        yield warning("backend", says, "name the members one by one in etcd.endpoints")
    if config.backend == "local":
        says = "the local backend covers one machine and does not outlive it"
        yield warning("backend", says, "take etcd or Consul for a cluster of several machines")
    for says, do in info.advice:
        yield warning("backend", says, do)
    if info.ttl_min_ms > config.lock.ttl_ms:
        says = f"grants {render(info.ttl_min_ms)} where lock.ttl asks for {render(config.lock.ttl_ms)}"
        yield warning("backend", says, "raise lock.ttl, so that what is written is what counts")


def _is_several(place: str) -> bool:
    """Tell whether HOST:PORT is the name of several hosts: more than one address of a family."""
    where = parse(f"http://{place}", schemes=("http",))
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # what asks for it says so
    places = {(family, address[0]) for family, _, _, _, address in found}
    return len({family for family, _ in places}) < len(places)


def _latency(config: Config, backend: Backend, clock: BootClock) -> Generator[Finding, None, View | None]:
    took_ms, view = [], None
    for _ in range(READS):
        began = clock.now()
        try:
            view = backend.read(deadline=Instant(began + ASKED_WITHIN_MS))
        except Denied as failure:
            yield error("rights", f"reading is refused: {failure}", _grant(config))
            return None
        except BackendError as failure:
            yield error(
                "latency", str(failure), "see that a majority of the store runs and reaches each other"
            )
            return None
        took_ms.append(clock.now() - began)
    limit_ms = config.lock.request_timeout_ms
    says = f"{median(took_ms):g} ms for a linearizable read, the slowest of {READS} took {max(took_ms)} ms"
    if max(took_ms) * 2 > limit_ms:
        do = f"find out why, or raise lock.ttl: lock.request_timeout is {render(limit_ms)}"
        yield (error if min(took_ms) > limit_ms else warning)("latency", says, do)
    else:
        yield ok("latency", says)
    return view


def _rights(config: Config, backend: Backend, clock: BootClock) -> Iterator[Finding]:
    try:
        deadline = Instant(clock.now() + ASKED_WITHIN_MS)
        backend.write(Settings(), expected=NO_VERSION, deadline=deadline)
    except Conflict:
        yield ok("rights", f"may read and write the keys of {config.cluster} (tried; nothing was written)")
    except Denied as failure:
        yield error("rights", f"writing is refused: {failure}", _grant(config))
    except BackendError as failure:
        yield error("rights", f"cannot be tried: {failure}", "look at the store, and try again")
    else:
        yield error(
            "rights", "a conditional write was carried out against its condition", "do not use this store"
        )


def _grant(config: Config) -> str:
    return f"grant this user reading and writing below {words.stored_key(config.backend, config.cluster, '')}"


def _nodes(config: Config, view: View) -> Iterator[Finding]:
    for key in view.unreadable:
        named = words.stored_key(config.backend, config.cluster, key)
        says = f"the key {named} cannot be read by this version, {__version__}"
        yield warning("nodes", says, "upgrade the older one; where none is, restore the key")
    if (older := behind(view)) is not None:
        yield error("nodes", older, "see that all nodes use the same store; docs/operations.md says more")
    others = [record for record in view.nodes if record.node != config.node]
    if not others and not words.unread(view):
        yield warning(
            "nodes", "no other node is there: nobody would take over", "start the sidecar on another"
        )
    for record in others:
        if record.version != __version__:
            says = f"{record.node} has version {record.version}, this one {__version__}"
            yield warning("nodes", says, "upgrade the older one")
        if record.heard != view.versions.get("settings", 0):
            says = f"{record.node} does not go by the newest settings"
            yield warning("nodes", says, "look at it again in a moment; an older version never does")
    yield from _ttl(config, view)
    mine, running = view.node(config.node), sidecar_pid(Path(config.paths.run)) is not None
    if mine is not None and not running:
        says = f"{config.node} is there already, and no sidecar runs here in {config.paths.run}"
        yield warning("nodes", says, "make sure that no other machine has this name: give each its own node")
    elif others:
        names = ", ".join(sorted(record.node for record in others))
        here = "this node runs" if running else "no sidecar runs here, and no other node has this name"
        yield ok("nodes", f"{config.node}: {here}; others: {names}")


def _ttl(config: Config, view: View) -> Iterator[Finding]:
    lock = view.holder
    if lock is not None and lock.ttl_ms not in (config.lock.ttl_ms, timing.granted_ms(config)):
        here = render(config.lock.ttl_ms)
        says = f"{lock.node} holds the lock for {render(lock.ttl_ms)}, lock.ttl here is {here}"
        yield warning(
            "nodes", says, "give all nodes the same lock.ttl, or failover takes as long as it says there"
        )


def sidecar_pid(run_dir: Path) -> int | None:
    """Return the sidecar that holds the lock of *run_dir*, without touching that lock."""
    try:
        found = (run_dir / "sidecar.lock").stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF
    return next((int(words[4]) for words in map(str.split, locks.splitlines()) if device in words[5:6]), None)
