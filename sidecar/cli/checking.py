"""``validate`` and ``version``: what can be said without a network."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli import options, printing

if TYPE_CHECKING:
    pass

LIBRARIES = {"etcd": "etcd3", "consul": "py-consul"}  # the distribution behind a built-in backend


@options.command(
    "validate",
    {
        0: "the configuration is good",
        1: "server.xml is missing or cannot be read",
        2: "bad usage or configuration, of launcher and server.xml, too; the line names file, key and reason",
    },
)
@options.config_option
@options.output_option
def validate(config: Path | None, form: str) -> None:
    """Check the configuration and show the failover times that follow from it.

    The times are the worst case, computed from the timeouts in the file. Nothing is asked over the network;
    the files of the server and the installed backend are looked at.
    """
    from sidecar.operate.checking import check

    _report(check(options.load_config(config, patient=False)), form)


def _report(found: dict[str, object], form: str) -> None:
    if form != "table":
        printing.document(found, form)
        return
    click.echo(f"{found['source']}: good")
    click.echo(f"cluster {found['cluster']}, node {found['node']}, backend {found['backend']}\n")
    figures = found["failover"]
    assert isinstance(figures, list)
    rows = [[_span(figure["worst_s"]), _explained(figure)] for figure in figures]
    click.echo(printing.table([">AT MOST", "CASE"], rows, width=printing.width()))
    for name in ("notes", "warnings"):
        lines = found[name]
        assert isinstance(lines, list)
        for line in lines:
            click.echo(f"{'warning: ' if name == 'warnings' else ''}{line}")


def _explained(figure: dict[str, object]) -> str:
    return f"{figure['title']}" + (f" ({figure['note']})" if figure["note"] else "")


def _span(value: object) -> str:
    return f"{value:.1f}s" if isinstance(value, int | float) else "-"


@options.command("version", {0: "always", 2: "bad usage"})
@options.config_option
@options.output_option
def version(config: Path | None, form: str) -> None:
    """Show the versions of the sidecar and of what it uses.

    Backends are those installed on this machine; a built-in one whose library is missing says so.
    """
    _versions(form)


def _versions(form: str) -> None:
    from sidecar import __version__
    from sidecar.plugins import installed_backends

    backends = {name: _library(name) for name in installed_backends()}
    found = {"version": __version__, "python": platform.python_version(), "backends": backends}
    if form != "table":
        printing.document(found, form)
        return
    click.echo(f"aggregate-sidecar {__version__}, Python {found['python']}")
    for name, library in backends.items():
        click.echo(f"backend {name}: {library}")


def _library(backend: str) -> str:
    if backend == "local":
        import sqlite3

        return f"sqlite {sqlite3.sqlite_version}"
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    distribution = LIBRARIES.get(backend)
    if distribution is None:
        return "plug-in"
    try:
        return f"{distribution} {version_of(distribution)}"
    except PackageNotFoundError:
        return f"{distribution} is not installed"
