"""Start the guard: ``python -I -S guard.py --run-dir DIR --enforcement auto|kernel|process …``.

Run as a script and never imported. ``-I -S`` leaves no path but the standard library's, so a broken
site-packages, an odd PYTHONPATH or an upgrade under way cannot keep a guard from starting. Its
siblings are found through a stand-in for the package ``sidecar``: not even ``sidecar/__init__.py``
is run.
"""

import os
import sys
import types

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs 1 MB
    package = types.ModuleType("sidecar")
    package.__path__ = [os.path.dirname(here)]  # noqa: PTH120
    sys.modules["sidecar"] = package

    from sidecar.guard.boot import main

    main(sys.argv[1:])
