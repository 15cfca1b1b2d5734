"""A whole cluster of stand-in servers on this machine: for ``sidecar demo``, and for tests."""
