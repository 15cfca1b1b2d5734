"""aggregate-sidecar: keeps exactly one AggreGate Server of a cluster active."""

__version__ = "0.1.0"
