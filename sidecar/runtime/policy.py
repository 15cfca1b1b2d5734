"""From the configuration to what the parts of the shell take."""

import random
from pathlib import Path

from sidecar.clock import Clock
from sidecar.config import Config
from sidecar.config.schema import Alive, Ready
from sidecar.core.state import Policy
from sidecar.probes import CommandProbe, HttpProbe, Probe, TcpProbe
from sidecar.runtime.probing import All, Watching
from sidecar.servers import AggregateKind, CommandKind, ServerKind, Standby

RENEW_SOONER_MAX = 0.1  # of lock.renew_every: 5 % more renewals on average, and no two nodes in step for long
FOR_EVER_MS = 10 * 365 * 24 * 3_600_000


def kind_of(config: Config) -> ServerKind:
    """Return the configured kind of server. Nothing is looked at yet."""
    server = config.server
    if server.kind == "aggregate":
        return AggregateKind(
            command=server.command,
            home=Path(server.home),
            config_file=server.config_file,
            standby=_standby(config),
            environment=server.environment,
        )
    return CommandKind(
        command=server.command,
        standby=_standby(config),
        environment=server.environment,
    )


def _standby(config: Config) -> Standby:
    return "monitoring" if config.server.standby == "monitoring" else "stopped"


def watching_of(config: Config, kind: ServerKind, clock: Clock) -> Watching:
    """Return how the active server is probed.

    Raises:
        ConfigError: A probe makes no sense.
    """
    ready, alive = config.server.probes.ready, config.server.probes.alive
    return Watching(
        ready=_probe(ready, config, kind, clock),
        alive=_probe(alive, config, kind, clock),
        ready_every_ms=ready.every_ms,
        ready_timeout_ms=ready.timeout_ms,
        every_ms=alive.every_ms,
        timeout_ms=alive.timeout_ms,
        failures=alive.failures,
    )


def _probe(checks: Ready | Alive, config: Config, kind: ServerKind, clock: Clock) -> Probe | None:
    probes: list[Probe] = []
    if checks.tcp:
        probes.append(TcpProbe(checks.tcp, clock=clock))
    elif checks.tcp is None and (default := kind.default_probe()) is not None:
        probes.append(default)
    if checks.http.url:
        probes.append(HttpProbe(checks.http.url, checks.http.status, clock))
    if checks.command:
        probes.append(
            CommandProbe(checks.command, Path(config.server.home), config.server.environment, clock)
        )
    return All(tuple(probes)) if probes else None


def policy_of(config: Config, kind: ServerKind, instance: str, once: bool = False) -> Policy:
    """Return what the core decides by."""
    lock, restarts, options = config.lock, config.server.restarts, config.node_options
    lifetime_ms = kind.standby_lifetime_ms
    return Policy(
        node=config.node,
        instance=instance,
        ttl_ms=lock.ttl_ms,
        renew_every_ms=own_period_ms(lock.renew_every_ms, instance),
        request_timeout_ms=lock.request_timeout_ms,
        stop_grace_ms=lock.stop_grace_ms,
        kill_margin_ms=lock.kill_margin_ms,
        start_timeout_ms=config.server.start_timeout_ms,
        stop_timeout_ms=config.server.stop_timeout_ms,
        restart_attempts=restarts.attempts,
        restart_within_ms=restarts.within_ms,
        backoff_ms=restarts.backoff_ms,
        backoff_max_ms=restarts.backoff_max_ms,
        priority=options.priority,
        eligible=options.eligible,
        failback=options.failback,
        standby=kind.standby,
        once=once,
        serving_message=kind.message("active", True),
        standby_lifetime_ms=FOR_EVER_MS if lifetime_ms is None else lifetime_ms,
    )


def own_period_ms(renew_every_ms: int, instance: str) -> int:
    """Return how often *instance* renews: as configured, or sooner by up to a tenth, always by the same.

    After a loss of the store all holders renew as soon as it is back, within a fraction of their period. With
    the same period they would go on like that for ever; with their own they spread over it again in some
    twenty renewals.
    """
    return round(renew_every_ms * (1 - RENEW_SOONER_MAX * random.Random(instance).random()))
