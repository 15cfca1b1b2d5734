"""All that touches python-etcd3: its generated messages, and the way to import them.

Of etcd3 0.12.0 only the description of etcd's interface is used, as its generated modules carry it. Its
client has no default deadline, one endpoint, a token fetched once and a lock that is unsafe.

Workaround: those modules predate protobuf 3.20; importing them needs protobuf's pure-Python implementation,
for the whole process, and costs 150 ms of the 300 that ``status`` may take. So they are not imported: the
serialized description is read out of their text, and today's protobuf makes the messages from it in 10 ms.
setup.cfg pins the version; a test compares the messages with what etcd answers.
"""

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool

MODULES = ("kv_pb2", "auth_pb2", "rpc_pb2")  # each after those it imports
DESCRIPTION = re.compile(r"serialized_pb=_b\(('(?:[^'\\]|\\.)*')\)")


class _Messages:
    """The message classes of etcd's package, made when first asked for."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        descriptor = self._pool.FindMessageTypeByName(f"etcdserverpb.{name}")
        message = message_factory.GetMessageClass(descriptor)
        setattr(self, name, message)
        return message


def _load() -> DescriptorPool:
    spec = find_spec("etcd3")
    if spec is None or spec.origin is None:
        raise ImportError("the package etcd3 is not installed")
    pool = DescriptorPool()  # our own: others may know files of the same names
    for module in MODULES:
        text = Path(spec.origin).with_name("etcdrpc").joinpath(f"{module}.py").read_text(encoding="utf-8")
        found = DESCRIPTION.search(text)
        if found is None:
            raise ImportError(f"etcd3/etcdrpc/{module}.py is not that of etcd3 0.12.0")
        pool.AddSerializedFile(ast.literal_eval(found[1]).encode("latin1"))
    return pool


pb: Any = _Messages(_load())  # made at import time: no type checker knows its names

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
