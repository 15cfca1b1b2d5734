"""``watch``: the status as it changes, through outages of the backend."""

import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

import click

from sidecar.cli import options, printing
from sidecar.cli.looking import page, who

if TYPE_CHECKING:
    from sidecar.core.model import View
    from sidecar.operate.desk import Desk
    from sidecar.operate.status import Document

REFRESH_MS = 1_000  # ages are shown in seconds


@options.command(
    "watch",
    {
        2: "bad usage or configuration",
        3: "the backend rejects the credentials; one that is only gone is waited for",
        130: "interrupted",
    },
)
@options.config_option
@options.output_option
def watch(config: Path | None, form: str) -> None:
    """Show the status, live, until interrupted.

    On a terminal the page is kept up to date. Else each change is a line, or with -o json an object to a
    line, or with -o yaml a document. An outage of the backend is shown and waited out.
    """
    configuration = options.load_config(config)
    with options.open_desk(configuration) as desk:
        if form == "table" and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "dumb"):
            _live(desk, configuration.node)
        lines = Lines()
        for view, trouble, age_ms in looks(desk, repeat=False):
            found = _found(desk, view, trouble) if view else {}
            if form == "table":
                lines.write(found, trouble)
            else:
                _document({"trouble": trouble, "age_s": age_ms / 1000} | found, form)


class Look(NamedTuple):
    """What is seen. *view* None: nothing yet."""

    view: "View | None"
    trouble: str | None  # why there is nothing newer
    age_ms: int  # since the view was last shown or confirmed by the store


def looks(desk: "Desk", *, repeat: bool) -> Iterator[Look]:
    """Yield the newest view, and why there is no newer one; for ever. *repeat*: also without a change.

    Raises:
        Denied: The backend rejects the credentials.
        BrokenPipeError: Nobody reads stdout any more.
    """
    from sidecar.errors import BackendError
    from sidecar.operate.desk import PAUSE_MS, Follower, pause

    follower: Follower | None = None
    told: str | None = None
    while follower is None:
        try:
            follower = Follower(desk, desk.backend.read(deadline=desk.after(5 * REFRESH_MS)))
        except BackendError as error:
            if not error.retry:
                raise
            if repeat or str(error) != told:
                told = str(error)
                yield Look(None, told, 0)
            _reader_there()
            pause(PAUSE_MS)
    yield Look(follower.view, None, 0)
    while True:
        before = follower.trouble
        changed = follower.newer(desk.after(REFRESH_MS))
        _reader_there()
        if repeat or changed or (before is None) != (follower.trouble is None):
            trouble = str(follower.trouble) if follower.trouble is not None else None
            yield Look(follower.view, trouble, follower.age_ms)


def _reader_there() -> None:
    """Raise BrokenPipeError when the reader of stdout has gone: the next line may be hours away."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # no file behind it
    poll = select.poll()
    poll.register(number, 0)
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        raise BrokenPipeError


def _document(found: "Document", form: str) -> None:
    from sidecar.clock import wall_ms
    from sidecar.operate.status import utc_time

    if form == "yaml":
        click.echo("---")
    printing.document({"at": utc_time(wall_ms())} | found, form, compact=True)


class Lines:
    """Writes a line for each change that a person would see, and one for each new notice."""

    def __init__(self) -> None:
        self._line = ""
        self._notices: list[str] = []

    def write(self, found: "Document", trouble: str | None) -> None:
        """Write what is new."""
        line = f"the backend does not answer: {trouble}" if trouble else _line(found)
        if line != self._line:
            self._echo(line)
        self._line = line
        if trouble is None:
            notices = [str(notice) for notice in cast(list[object], found["notices"])]
            for notice in notices:
                if notice not in self._notices and notice not in line:
                    self._echo(f"! {notice}")
            self._notices = notices

    def _echo(self, text: str) -> None:
        from sidecar.clock import wall_ms
        from sidecar.operate.status import local_time

        click.echo(printing.printable(f"{local_time(wall_ms())} {text}"))


def _line(found: "Document") -> str:
    nodes = cast("list[Document]", found["nodes"])
    pending = cast("Document | None", found["pending"])
    parts = [f"{who(found)}, epoch {printing.epoch(found['epoch'])}", *map(_node, nodes)]
    if pending is not None:
        parts.append(f"{pending['kind']} {pending['state']}")
    return "; ".join(parts)


def _node(node: "Document") -> str:
    usual = node["state"] in ("running", "monitoring", "paused")
    return f"{node['node']} {node['role']} {node['state']}" + ("" if usual else f" ({node['message']})")


def _found(desk: "Desk", view: "View", trouble: str | None) -> "Document":
    from sidecar.clock import wall_ms
    from sidecar.operate.status import status

    return status(
        view,
        cluster=desk.cluster,
        backend=desk.store,
        now_unix_ms=wall_ms(),
        just_read=trouble is None,
    )


def _lost(trouble: str, age_ms: int | None, width: int) -> list[str]:
    """Say that the store is away, and how old what is shown has become."""
    old = "" if age_ms is None else f"; what follows is {printing.seconds(age_ms / 1000)} old"
    text = f"the backend does not answer{old}: {trouble}"
    return [printing.paint(line, "red") for line in printing.wrap("! ", text, width)]


def _live(desk: "Desk", here: str) -> NoReturn:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
        for view, trouble, age_ms in looks(desk, repeat=True):
            width = max(printing.NARROW, console.width - 1)  # a full last column makes some terminals wrap
            lines = _lost(trouble, age_ms if view else None, width) if trouble is not None else []
            if view is not None:
                found = _found(desk, view, trouble)
                lines.append(page(found, here, width))
            live.update(Text.from_ansi("\n".join(lines)), refresh=True)
    raise AssertionError("looks never ends")
