"""What the configured times promise: worst cases, each as the sum it is made of.

Pure: from a `Config` to figures. What no configuration bounds (how long the server itself starts) is named
beside a figure, never guessed into it. A figure assumes that the store answers within ``request_timeout``
and that a healthy node of rank 0 is there; each further rank waits `hold_back_ms` longer.
"""

from typing import NamedTuple

from sidecar.config.durations import render
from sidecar.config.schema import Config
from sidecar.core.units import silence_ms, usable_ms

ETCD_TTL_FLOOR_MS = 2_000
"""etcd raises a shorter lease to 1.5 election timeouts (1 s by default), and counts whole seconds.
Source: etcd ``server/lease/lessor.go`` (``Grant``), ``server/etcdserver/server.go`` (``minTTL``)."""

ETCD_EXPIRY_MS = 1_000
"""etcd looks for expired leases every 500 ms and revokes them through consensus.
Source: etcd ``server/lease/lessor.go`` (``runLoop``, ``defaultLeaseRevokeRate``)."""

NOTICE_MS = {"etcd": 100, "consul": 100, "local": 20}
"""From a change in the store until another node knows: a round trip, or the local poll. Plug-ins: as etcd."""


class Term(NamedTuple):
    """One part of a sum."""

    what: str
    ms: int


class Figure(NamedTuple):
    """One promise. *ms* is the sum of *terms*; None: it never happens, and *note* says why."""

    name: str  # for programs: "node_crash"
    title: str  # for people
    ms: int | None
    terms: tuple[Term, ...]
    note: str = ""  # what comes on top, or what the figure rests on

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON, in seconds, as everywhere on the outside."""
        return {
            "name": self.name,
            "title": self.title,
            "worst_s": None if self.ms is None else self.ms / 1000,
            "terms": [{"what": term.what, "s": term.ms / 1000} for term in self.terms],
            "note": self.note,
        }


def figures(config: Config) -> tuple[Figure, ...]:
    """Return everything that ``validate`` promises."""
    return (
        _node_crash(config),
        _server_crash(config),
        _server_hang(config),
        _switchover(config),
        _failover(config),
        _outage_ridden(config),
        _sidecar_away(config),
        _isolated(config),
    )


def document(config: Config) -> dict[str, object]:
    """Return all of it for JSON. *lease_s* is what the store is expected to grant."""
    return {
        "lease_s": granted_ms(config) / 1000,
        "failover": [figure.as_dict() for figure in figures(config)],
        "notes": list(notes(config)),
    }


def notes(config: Config) -> tuple[str, ...]:
    """Return what else the chosen backend means for these times, one sentence each."""
    match config.backend:
        case "etcd":
            granted = granted_ms(config)
            asked = config.lock.ttl_ms
            raised = (
                (f"etcd grants {render(granted)} where {render(asked)} is asked: whole seconds, 2s or more.",)
                if granted != asked
                else ()
            )
            return (
                *raised,
                "When etcd's own leader is lost together with the active node, etcd starts all leases anew: "
                f"add up to {render(granted)} and its election, about 1s to 2s.",
            )
        case "consul":
            silence = render(silence_ms(config.lock.ttl_ms))
            return (
                f"Consul keeps no lease here: another node takes over after it saw {silence} of silence.",
            )
        case "local":
            return ("The local backend covers one machine: it does not outlive it.",)
        case name:
            return (
                f"What the plug-in {name} adds to these times is not known here; its documentation says.",
            )


def granted_ms(config: Config) -> int:
    """Return the TTL the store is expected to grant."""
    ttl_ms = config.lock.ttl_ms
    return max(ETCD_TTL_FLOOR_MS, -(-ttl_ms // 1000) * 1000) if config.backend == "etcd" else ttl_ms


def hold_back_ms(config: Config) -> int:
    """Return how much longer each further rank waits at a vacancy; as `sidecar.core.state.Policy`."""
    return min(500, max(100, config.lock.ttl_ms // 20))


def _figure(name: str, title: str, terms: list[Term], note: str = "") -> Figure:
    return Figure(name, title, sum(term.ms for term in terms), tuple(terms), note)


def _expiry(config: Config) -> list[Term]:
    """How long a holder that is gone keeps the lock, at most."""
    granted = granted_ms(config)
    match config.backend:
        case "etcd":
            return [Term("lease, renewed just before", granted), Term("etcd ends it", ETCD_EXPIRY_MS)]
        case "consul":
            return [Term("silence watched, 1.01 × ttl", silence_ms(granted))]
        case _:
            return [Term("lease, renewed just before", granted)]


def _taking(config: Config) -> list[Term]:
    """From a free lock to a server that begins to start on the other node."""
    terms = [
        Term("the other node is told", NOTICE_MS.get(config.backend, 100)),
        Term("it acquires: request_timeout", config.lock.request_timeout_ms),
    ]
    if config.server.standby == "monitoring":
        terms.append(Term("its standby server stops: stop_grace", config.lock.stop_grace_ms))
    return [*terms, *_before_active(config)]


def _before_active(config: Config) -> list[Term]:
    hooks = config.hooks
    name = "before_active: its timeout"
    return [Term(name, hooks.before_active_timeout_ms)] if hooks.before_active else []


def _after_stop(config: Config, times: int = 1) -> list[Term]:
    """Return for how long a hook may keep the lock, or a restart, waiting."""
    hooks = config.hooks
    name = "after_stop: its timeout" if times == 1 else f"after_stop: {times} × its timeout"
    return [Term(name, times * hooks.after_stop_timeout_ms)] if hooks.after_stop else []


def _released(config: Config) -> list[Term]:
    """From a server that is dead to a free lock: not longer than the lease, which is renewed no more."""
    lease_ms = usable_ms(granted_ms(config))
    terms = [
        Term(term.what, min(term.ms, lease_ms - config.lock.request_timeout_ms))
        for term in _after_stop(config)
    ]
    return [*terms, Term("the lock is released: request_timeout", config.lock.request_timeout_ms)]


def _start_note(config: Config) -> str:
    return f"plus the start of the server, at most start_timeout {render(config.server.start_timeout_ms)}"


def _node_crash(config: Config) -> Figure:
    terms = [*_expiry(config), *_taking(config)]
    return _figure(
        "node_crash", "crash, power loss or isolation of the active node", terms, _start_note(config)
    )


def _server_crash(config: Config) -> Figure:
    restarts = config.server.restarts
    pauses_ms = sum(
        min(restarts.backoff_max_ms, restarts.backoff_ms << min(number, 20))
        for number in range(restarts.attempts)
    )
    terms = [
        Term(f"pauses before {restarts.attempts} restarts in place", pauses_ms),
        *_before_active(config) * restarts.attempts,
        *_after_stop(config) * restarts.attempts,
        *_released(config),
        *_taking(config),
    ]
    tries = f"plus {restarts.attempts} starts that fail, and then the start on the other node, each at most "
    note = f"{tries}start_timeout {render(config.server.start_timeout_ms)}"
    return _figure("server_crash", "server that keeps crashing, until another node has it", terms, note)


def _server_hang(config: Config) -> Figure:
    alive = config.server.probes.alive
    title = "server that hangs, until it starts again in place"
    if alive.tcp == () and alive.http.url is None and alive.command is None:
        return Figure("server_hang", title, None, (), "not detected: server.probes.alive has no check")
    terms = [
        Term(f"{alive.failures} probes fail: failures × (every + timeout)", _probing_ms(config)),
        Term("it is stopped: stop_grace", config.lock.stop_grace_ms),
        Term("pause: restarts.backoff", config.server.restarts.backoff_ms),
        *_after_stop(config),
        *_before_active(config),
    ]
    return _figure("server_hang", title, terms, _start_note(config))


def _probing_ms(config: Config) -> int:
    alive = config.server.probes.alive
    return alive.failures * (alive.every_ms + alive.timeout_ms)


def _switchover(config: Config) -> Figure:
    lock, notice_ms = config.lock, NOTICE_MS.get(config.backend, 100)
    terms = [
        Term(
            "asked, accepted, confirmed: 3 × (request_timeout + notice)",
            3 * (lock.request_timeout_ms + notice_ms),
        ),
        Term("the server stops: stop_timeout", config.server.stop_timeout_ms),
        *_released(config),
        *_taking(config),
    ]
    return _figure("switchover", "planned switchover", terms, _start_note(config))


def _failover(config: Config) -> Figure:
    terms = [
        Term("the lock is broken: request_timeout", config.lock.request_timeout_ms),
        *_expiry(config),
        *_taking(config),
    ]
    note = f"{_start_note(config)}; sooner where the old node proves that its server is dead"
    return _figure("failover", "forced failover of an active that does not answer", terms, note)


def _outage_ridden(config: Config) -> Figure:
    """The longest loss of the store that surely changes nothing, wherever in the cycle it begins."""
    lock = config.lock
    terms = [
        Term("lease trusted, 0.99 × ttl", usable_ms(granted_ms(config))),
        Term("kill_margin", -lock.kill_margin_ms),
        Term("stop_grace", -lock.stop_grace_ms),
        Term("begins just before a renewal: renew_every", -lock.renew_every_ms),
        Term("the try under way at its end is lost: request_timeout", -lock.request_timeout_ms),
        Term("pause before the next try", -max(50, lock.renew_every_ms // 4)),
    ]
    found = _figure("outage_ridden", "loss of the store that is surely ridden through", terms)
    begin_ms = sum(term.ms for term in terms[:3])
    note = (
        f"a luckier one up to {render(begin_ms)}; at that age of the last renewal the server begins to stop"
    )
    return found._replace(ms=max(0, found.ms or 0), note=note)


def _sidecar_away(config: Config) -> Figure:
    lock = config.lock
    terms = [
        Term("lease trusted, 0.99 × ttl", usable_ms(granted_ms(config))),
        Term("kill_margin", -lock.kill_margin_ms),
        Term("stop_grace", -lock.stop_grace_ms),
        Term("gone just before a renewal: renew_every", -lock.renew_every_ms),
        Term("first renewal after it: request_timeout", -lock.request_timeout_ms),
    ]
    return _figure(
        "sidecar_away", "restart of the sidecar under a running server, without interruption", terms
    )


def _isolated(config: Config) -> Figure:
    terms = [
        Term("lease trusted, 0.99 × ttl", usable_ms(granted_ms(config))),
        Term("kill_margin", -config.lock.kill_margin_ms),
    ]
    note = "the kernel ends it half a kill_margin later where the guard does not"
    return _figure("isolated", "active cut off from the store: its server is dead", terms, note)
