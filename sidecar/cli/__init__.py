"""The command line: parse, call, print. What the commands do is in `sidecar.operate` and `sidecar.runtime`.

`sidecar --help` must not take longer than Python and click themselves: nothing else is imported before a
command is chosen, and each command imports what it needs when it runs.
"""

from sidecar.cli.program import entry, main

__all__ = ["entry", "main"]
