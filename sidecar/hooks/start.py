"""Start a keeper: ``python -I -S start.py TIMEOUT_MS PROGRAM [ARGUMENT…]``, the sidecar's socket as stdin.

Run as a script and never imported; its siblings are found as `sidecar/guard/guard.py` explains.
"""

import os
import sys
import types

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs a start 5 ms
    package = types.ModuleType("sidecar")
    package.__path__ = [os.path.dirname(here)]  # noqa: PTH120
    sys.modules["sidecar"] = package

    from sidecar.hooks.keeper import main

    main(int(sys.argv[1]), sys.argv[2:])
