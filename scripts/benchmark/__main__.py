"""The command line of ``scripts/bench``."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmark import results
from benchmark.footprint import footprint
from benchmark.planned import command_line, switchover
from benchmark.takeover import command_killed, crash, crash_consul, own_start, terminated

MEASURES = {
    "footprint": footprint,
    "cli": command_line,
    "switchover": switchover,
    "own-start": own_start,
    "command": command_killed,
    "sigterm": terminated,
    "crash": crash,
    "crash-consul": crash_consul,
}


def main() -> int:
    """Measure what was asked for; return 1 when something of the sidecar could not be measured."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the sidecar beside its peers.")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="only this; can be repeated")
    results.add_options(parser)
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write keeps a whole run: leave out --only")
    facts, rows = results.machine(), measured(options.only or list(MEASURES), options.quick)
    print(results.table(rows))
    if options.json:
        options.json.write_text(results.document(rows, facts))
    if options.write:
        results.write("peers", rows, facts)
    for row in rows:
        for failure in row.failures:
            print(f"bench: not measured: {row.measure}, {row.subject}: {failure}", file=sys.stderr)
    ours = [row for row in rows if row.subject.startswith("sidecar") or row.subject == "all"]
    return int(any(row.failures or not row.samples for row in ours))


def measured(names: list[str], quick: bool) -> list[results.Row]:
    """Return the rows of these measures; one that breaks down leaves a row that says so."""
    rows = []
    for name in names:
        begun = time.monotonic()
        print(f"bench: {name} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
            try:
                rows += MEASURES[name](Path(folder), quick)
            except Exception as error:  # the outermost frame of a measure: the others go on
                failure = f"{type(error).__name__}: {error}"
                rows.append(results.Row(name, "all", "ms", failures=[failure]))
        print(f"bench: {name} took {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return rows


if __name__ == "__main__":
    sys.exit(main())
