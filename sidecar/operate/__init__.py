"""What the commands do, without a command line: also for the HTTP API and for tests.

Each operation takes a `Desk` (where the cluster is) and returns what it has observed, or raises an error of
`sidecar.errors` whose exit code says what the caller may conclude. Nothing here decides who is active:
the nodes do, and operations write requests that they judge.
"""
