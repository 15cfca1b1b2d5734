"""All that touches python-etcd3: its generated messages, and the way to import them.

Of etcd3 0.12.0 only the generated code is used. Its client has no default deadline, one endpoint,
a token fetched once and a lock that is unsafe; and importing it costs 30 ms (tenacity) for nothing.

Workarounds
- The generated code predates protobuf 3.20 and needs the pure-Python implementation, chosen by an
  environment variable before protobuf is first imported.
- ``import etcd3.etcdrpc`` runs ``etcd3/__init__``, which imports the client. It gets an empty parent
  for the moment of its import, and whoever wants the real etcd3 afterwards still finds it.
"""

import importlib
import importlib.util
import os
import sys
import warnings
from types import ModuleType
from typing import Any

LEASE_GONE = 0  # a lease id that means "none" in etcd's requests, too


def _load() -> ModuleType:
    os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    if "etcd3" in sys.modules:
        return importlib.import_module("etcd3.etcdrpc")
    spec = importlib.util.find_spec("etcd3")
    if spec is None:
        raise ImportError("the package etcd3 is not installed")
    sys.modules["etcd3"] = importlib.util.module_from_spec(spec)  # not executed
    try:
        with warnings.catch_warnings():  # a hundred deprecations of protobuf, none of them ours to mend
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module("etcd3.etcdrpc.rpc_pb2")
    finally:
        del sys.modules["etcd3"]


pb: Any = _load()  # generated at import time: no type checker knows its names

UNARY = {
    "Range": ("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse),
    "Txn": ("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse),
    "LeaseGrant": ("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse),
    "LeaseRevoke": ("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse),
    # A stream in etcd's description; one request and one answer are the same bytes, and no threads.
    "LeaseKeepAlive": (
        "/etcdserverpb.Lease/LeaseKeepAlive",
        pb.LeaseKeepAliveRequest,
        pb.LeaseKeepAliveResponse,
    ),
    "Status": ("/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse),
    "Authenticate": ("/etcdserverpb.Auth/Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse),
}
WATCH = (
    "/etcdserverpb.Watch/Watch",
    pb.WatchRequest,
    pb.WatchResponse,
)  # likewise: one request, then answers
LINEARIZABLE = frozenset(("Range", "Txn"))  # whose header tells a revision that must not go back
DELETE = 1  # mvccpb.Event.EventType


def after(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that start with *prefix*."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def get(key: bytes, end: bytes = b"", **options: Any) -> Any:
    """Return the request for a key, or for all from *key* to before *end*."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end, **options))


def put(key: bytes, value: bytes, lease: int = 0) -> Any:
    """Return the request to set a key."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes, end: bytes = b"") -> Any:
    """Return the request to delete a key or a range."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end))


def is_at(
    key: bytes, *, mod: int | None = None, create: int | None = None, lease: int | None = None
) -> list[Any]:
    """Return what is true while *key* has these revisions and this lease; 0: it does not exist."""
    compare, found = pb.Compare, []
    common = {"key": key, "result": pb.Compare.EQUAL}
    if mod is not None:
        found.append(compare(target=compare.MOD, mod_revision=mod, **common))
    if create is not None:
        found.append(compare(target=compare.CREATE, create_revision=create, **common))
    if lease is not None:
        found.append(compare(target=compare.LEASE, lease=lease, **common))
    return found


def txn(compare: list[Any], success: list[Any], failure: list[Any]) -> Any:
    """Return the request for one transaction."""
    return pb.TxnRequest(compare=compare, success=success, failure=failure)


def found(answer: Any, index: int = 0) -> list[Any]:
    """Return the keys that the range at *index* of a transaction's answer found."""
    return list(answer.responses[index].response_range.kvs)
