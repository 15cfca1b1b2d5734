"""``doctor``: is this machine fit for a node, and if not, what to do."""

from pathlib import Path

import click

from sidecar.cli import options, printing

COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@options.command(
    "doctor",
    {
        0: "no error; there may be warnings",
        1: "an error: this node cannot do its work as it is",
        2: "bad usage or configuration; the line names file, key and reason",
    },
)
@options.config_option
@options.output_option
def doctor(config: Path | None, form: str) -> int:
    """Look at the machine and say what to do.

    At backend, rights in it, other nodes, clock, enforcement, guard, watchdog, folders, programs,
    secrets, server.xml, Java, ports, and for a second supervisor. Changes nothing. Run it as the sidecar's
    user.
    """
    from sidecar.doctor.examine import examine

    configuration = options.load_config(config, patient=False)
    findings = examine(configuration)
    levels = [finding.level for finding in findings]
    if form == "table":
        rows = [(f.level, f.check, f"{f.says}; {f.do}" if f.do else f.says) for f in findings]
        head = ["LEVEL", "CHECK", "FINDING"]
        click.echo(printing.table(head, rows, width=printing.width(), colours=COLOURS))
    else:
        found = {
            "source": configuration.source,
            "errors": levels.count("error"),
            "warnings": levels.count("warning"),
            "findings": [finding._asdict() for finding in findings],
        }
        printing.document(found, form)
    return 1 if "error" in levels else 0
