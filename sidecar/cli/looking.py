"""``status`` and ``history``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from sidecar.cli import options, printing
from sidecar.config.address import of_api
from sidecar.errors import NotSent, OutcomeUnknown

if TYPE_CHECKING:
    from sidecar.config import Config
    from sidecar.operate.status import Document

COLOURS = {"active": "green", "running": "green", "failed": "red", "paused": "yellow", "starting": "yellow"}


@options.command("status", options.UNREACHABLE | {0: "shown"})
@options.config_option
@options.output_option
def status(config: Path | None, form: str) -> None:
    """Show this node and the cluster.

    Works on any machine that has the configuration. SEEN compares the clocks of two machines: it is for
    people, and wrong where the clocks disagree.
    """
    from sidecar.clock import wall_ms
    from sidecar.operate.status import status as document

    configuration = options.load_config(config)
    with options.open_desk(configuration) as desk, _hinting(configuration, "/status"):
        view = desk.read()
    found = document(view, cluster=desk.cluster, backend=desk.store, now_unix_ms=wall_ms(), just_read=True)
    if form == "table":
        click.echo(page(found, configuration.node, printing.width()))
    else:
        printing.document(found, form)


@contextmanager
def _hinting(config: "Config", path: str) -> Iterator[None]:
    """Where the store does not answer, say who may: the sidecar here has it in memory."""
    try:
        yield
    except (NotSent, OutcomeUnknown) as error:
        if config.api.listen is None:
            raise
        url = of_api(config.api.listen, encrypted=config.api.tls_cert_file is not None)
        raise type(error)(f"{error} (what the sidecar here knows without it: {url}{path})") from error


def page(found: "Document", here: str, width: int) -> str:
    """Return a status as people read it; *here* is this machine's node."""
    nodes = found["nodes"]
    notices = found["notices"]
    assert isinstance(nodes, list)
    assert isinstance(notices, list)
    active = who(found)
    epoch = printing.epoch(found["epoch"])
    title = f"cluster {found['cluster']} on {found['backend']}: {active}, epoch {epoch}"
    lines = printing.wrap("", title, width)
    lines += [
        printing.paint(line, "yellow") for notice in notices for line in printing.wrap("! ", notice, width)
    ]
    lines += [line for text in _pending(found["pending"]) for line in printing.wrap("> ", text, width)]
    if nodes:
        rows = [_row(node, here) for node in nodes]
        head = ["NODE", "ROLE", "STATE", ">LEASE", ">SEEN", "MESSAGE"]
        lines += ["", printing.table(head, rows, width=width, colours=COLOURS)]
    lines += ["", *(line for mark, text in _here(nodes, here) for line in printing.wrap(mark, text, width))]
    return "\n".join(lines)


def who(found: "Document") -> str:
    """Return who is active. The lock alone makes nobody so: its holder may say that it is not, or not yet."""
    nodes = cast("Sequence[Document]", found["nodes"])
    active = found["active"]
    if not active:
        return "nobody is active"
    standby = any(node["node"] == active and node["role"] == "standby" for node in nodes)
    return f"{active} holds the lock" if standby else f"{active} is active"


def _row(node: "Document", here: str) -> Sequence[str]:
    return (
        f"{node['node']}{'*' if node['node'] == here else ''}",
        str(node["role"]),
        str(node["state"]),
        printing.seconds(node["lease_remaining_s"]),
        printing.seconds(node["last_seen_s"]),
        f"{node['message']}{'' if node['eligible'] else ' (not eligible)'}",
    )


def _pending(pending: object) -> list[str]:
    if not isinstance(pending, dict):
        return []
    to = f" to {pending['to']}" if pending["to"] else ""
    text = f"{pending['kind']} from {pending['from']}{to}: {pending['state']}, asked by {pending['by']}"
    return [f"{text} {printing.seconds(pending['age_s'])} ago"]


def _here(nodes: Sequence["Document"], here: str) -> list[tuple[str, str]]:
    mine = next((node for node in nodes if node["node"] == here), None)
    if mine is None:
        return [("* ", f"this node, {here}, is not there")]
    server = mine["server"]
    text = f"this node: priority {mine['priority']}, deadline enforced by {mine['enforcement']}"
    text += "" if mine["eligible"] else ", not eligible"
    lines = [("* ", text)]
    if isinstance(server, dict):
        measured = (
            f"server pid {server['pid']}, up {printing.seconds(server['uptime_s'])}, "
            f"{server['rss_bytes'] / 1_000_000:.0f} MB, {server['cpu_percent']:.0f} % of a core"
        )
        lines.append(("  ", measured))
    return lines


@options.command("history", options.UNREACHABLE | {0: "shown"})
@options.config_option
@click.option(
    "-n", "count", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many."
)
@options.output_option
def history(config: Path | None, count: int, form: str) -> None:
    """Show the changes of active, the newest first.

    DETECT is from the last sign of life of the old active until the lock was seen free, LOCK from there
    until it was granted, START from there until the server was ready.
    """
    from sidecar.operate.desk import READ_WITHIN_MS

    configuration = options.load_config(config)
    with options.open_desk(configuration) as desk, _hinting(configuration, "/history"):
        desk.read()  # tries again where a store elects its leader
        entries = desk.backend.read_history(count, deadline=desk.after(READ_WITHIN_MS))
    if form != "table":
        from sidecar.operate.status import history_entry

        printing.document([history_entry(entry) for entry in entries], form)
        return
    from sidecar.operate.status import local_time

    if not entries:
        click.echo("no change of active is recorded")
        return
    head = ["=WHEN", ">EPOCH", "FROM", "TO", ">DETECT", ">LOCK", ">START", "CAUSE"]
    rows = [
        (
            local_time(entry.at_unix_ms),
            str(entry.epoch),
            entry.previous or "-",
            entry.node,
            *(
                printing.seconds(None if ms is None else ms / 1000)
                for ms in (entry.detect_ms, entry.lock_ms, entry.start_ms)
            ),
            entry.cause,
        )
        for entry in entries
    ]
    click.echo(printing.table(head, rows, width=printing.width()))
