"""Write down what pip would install today: ``lock.py REPORT``, made by ``pip install --dry-run --report``.

``locked.txt`` has what the program needs and pip, which installs it; ``build.txt`` has what builds wheels.
The hashes are those of the files for this kind of machine.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEAD = "# Written by scripts/wheelhouse --lock, for CPython 3.11 on {machine}.\n"
OURS, BUILDS = "aggregate-sidecar", "setuptools"


def lock(report: dict[str, Any]) -> None:
    """Write both files."""
    head = HEAD.format(machine=report["environment"]["platform_machine"])
    lines = {}
    for found in report["install"]:
        meta, digest = found["metadata"], found["download_info"].get("archive_info", {}).get("hash", "")
        lines[meta["name"].lower()] = (f"{meta['name']}=={meta['version']}", digest.replace("=", ":"))
    del lines[OURS]
    (HERE / "build.txt").write_text(f"{head}{lines.pop(BUILDS)[0]}\n")
    text = "".join(f"{pin} \\\n    --hash={digest}\n" for _, (pin, digest) in sorted(lines.items()))
    (HERE / "locked.txt").write_text(head + text)


if __name__ == "__main__":
    lock(json.loads(Path(sys.argv[1]).read_text()))
