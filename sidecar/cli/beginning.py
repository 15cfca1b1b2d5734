"""``init`` and ``completion``: what somebody needs once, at the beginning."""

from pathlib import Path

import click

from sidecar.cli import options
from sidecar.cli.printing import conclude, say


@options.command(
    "init",
    {
        0: "written",
        1: "the file cannot be written, or server.xml cannot be read",
        2: "bad usage, or a value that no configuration can have",
        4: "refused: the file exists already",
    },
)
@click.option(
    "--backend",
    metavar="NAME|URL",
    help="etcd, consul, local, a plug-in, or an address as exec takes it [default: etcd].",
)
@click.option("--cluster", metavar="NAME", help="The name the nodes share [default: plant-7].")
@click.option("--node", metavar="NAME", help="The name of this node [default: the host name].")
@click.option(
    "--from",
    "server_xml",
    metavar="SERVER.XML",
    type=click.Path(path_type=Path),
    help="Take home, launcher, ports and role from this file of an AggreGate Server.",
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
def init(
    backend: str | None, cluster: str | None, node: str | None, server_xml: Path | None, file: Path | None
) -> None:
    """Write a starting configuration with a comment for every key.

    To FILE, which must not exist yet, or to stdout. Nothing is asked over the network, and server.xml is only
    read.
    """
    from sidecar.operate import beginning

    found = beginning.begin(backend, cluster, node, server_xml)
    for warning in found.warnings:
        say(f"sidecar: warning: {warning}")
    if file is None:
        click.echo(found.text, nl=False)
        return
    beginning.write(found.text, file)
    conclude(f"{file}: written; next: sidecar validate -c {file}")


@options.command("completion", {0: "printed", 2: "bad usage"})
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
def completion(shell: str) -> None:
    """Print what makes a shell complete commands and options.

    For bash: source <(sidecar completion bash), in ~/.bashrc or as a file of /etc/bash_completion.d. Names of
    nodes are not completed: that would ask the backend at every press of a key.
    """
    from click.shell_completion import get_completion_class

    from sidecar.cli.program import main

    found = get_completion_class(shell)
    assert found is not None
    complete = found(main, {}, "sidecar", "_SIDECAR_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())  # `source` would ask bash for its version
