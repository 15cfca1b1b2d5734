"""gRPC, without its log: it writes to stderr, between our lines, what every failed call tells us anyway.

It reads GRPC_VERBOSITY when it is imported and never again; whoever has set it gets what he asked for.
Taken out of the environment afterwards: the servers that inherit it are no business of ours.
"""

import os

_wanted = "GRPC_VERBOSITY" in os.environ
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc  # noqa: E402

if not _wanted:
    del os.environ["GRPC_VERBOSITY"]

__all__ = ["grpc"]
