"""The command line of ``scripts/bench scale``."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmark.results import machine
from benchmark.scale import report
from benchmark.scale.measure import FULL, QUICK, STORES, Results, measure
from benchmark.scale.workers import file_limit


def main() -> int:
    """Measure; return 1 when something could not be measured, or two nodes were active at once."""
    parser = argparse.ArgumentParser(prog="bench scale", description="Many clusters on one store.")
    parser.add_argument("--quick", action="store_true", help="three clusters, a quarter of a minute a store")
    parser.add_argument("--store", choices=list(STORES), help="only this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    parser.add_argument("--write", action="store_true", help="keep the results in docs/scale.md and .json")
    options = parser.parse_args()
    if options.write and (options.store or options.quick):
        parser.error("--write keeps a whole run: leave out --store and --quick")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by the finally clauses: no store is left behind
    file_limit()
    facts, results, failures = machine(), Results(), list[str]()
    for store in [options.store] if options.store else STORES:
        for plan in QUICK if options.quick else FULL:
            begun = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as folder:
                try:
                    measure(store, plan, Path(folder), results)
                except Exception as error:  # the outermost frame of a plan: the others go on
                    failures.append(f"{store}, TTL {plan.ttl_s} s: {type(error).__name__}: {error}")
            print(
                f"bench: {store}, TTL {plan.ttl_s} s took {time.monotonic() - begun:.0f} s", file=sys.stderr
            )
    print(report.text(results))
    if options.json:
        options.json.write_text(report.document(results, facts))
    if options.write and not failures:
        report.write(results, facts)
    for failure in [
        *failures,
        *results.limits,
        *(f"two active at once: {text}" for text in results.overlaps),
    ]:
        print(f"bench: {failure}", file=sys.stderr)
    return int(bool(failures or results.limits or results.overlaps))


if __name__ == "__main__":
    sys.exit(main())
