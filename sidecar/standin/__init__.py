"""A stand-in for AggreGate Server, and the witness that proves or excludes two actives at once.

The real server is commercial. Demo, tests, benchmarks and the Compose cluster all run this one.
`install` makes a home folder with a launcher; `set_faults` breaks a running server on demand;
`sidecar.standin.witness` reads what the active servers wrote; `worker_command` is a smaller server for
``sidecar exec``. What the stand-in does, and what it cannot show, is in its ``server.py``.
"""

from sidecar.standin.install import clear_faults, install, set_faults, worker_command

__all__ = ["clear_faults", "install", "set_faults", "worker_command"]
