"""What etcd alone has: several endpoints, members that freeze, lag or are foreign, users, TLS, spare leases.

Method: a cluster of three real members and single ones; faults are verbs. Leases are inspected through
etcd's own interface. Not covered: partitions between members (system tests, in containers).
"""

import gc
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backends._etcd_client import PAUSE_MS, Answer, Client, Login, _Attempt, _TokenRefused
from backends._etcd_leases import Lease, Leases
from backends._etcd_rpc import pb
from backends._grpc import grpc
from backends.etcd import EtcdBackend
from sidecar.clock import BootClock
from sidecar.core.model import LockRecord
from sidecar.core.units import NO_EPOCH, Epoch, Instant
from sidecar.documents import encode
from sidecar.errors import BackendError, ConfigError, Denied, NotHolder, NotSent, OutcomeUnknown
from sidecar.plugins import load_backend
from sidecar.ports import Backend, BackendSettings
from tests.contract.steps import Doing, crack, entry, give, node, now, order, refused, take, take_when_free
from tests.contract.stores import PREFIX, soon
from tests.harness.process import free_port, wait_until
from tests.harness.proxy import Proxy
from tests.harness.stores import ETCD34, ETCD35, Etcd, EtcdCluster, Tls, b64

TTL_MS = 2_000


def backend_on(cluster: str, *urls: str, **options: object) -> Backend:
    return load_backend("etcd")(
        BackendSettings(cluster, {"endpoints": list(urls), **options}, PREFIX), BootClock()
    )


@contextmanager
def connected(cluster: str, *urls: str, **options: object) -> Iterator[Backend]:
    backend = backend_on(cluster, *urls, **options)
    try:
        yield backend
    finally:
        backend.close()


# ---- several endpoints


def test_a_black_holed_endpoint_does_not_use_up_the_deadline(
    etcd34: Etcd, etcd35: Etcd, namespace: str
) -> None:
    with Proxy(etcd34.host_port) as hole:
        hole.blackhole()
        with connected(namespace, hole.url, etcd34.url) as backend:
            asked_at = now()
            grant = take(backend, "a", TTL_MS * 5)
            assert now() - asked_at < 950
            asked_at = now()
            backend.renew(grant.hold, deadline=soon(500))  # and now sticks to the one that works
            assert now() - asked_at < 250


def test_refused_endpoints_are_passed_over_at_once(etcd34: Etcd, namespace: str) -> None:
    with Proxy(etcd34.host_port) as down:
        down.refuse()
        with connected(namespace, down.url, down.url, etcd34.url) as backend:
            asked_at = now()
            take(backend, "a", TTL_MS)
            assert now() - asked_at < 500


class _Learner(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # it takes none when run
    """Says what a learner of etcd 3.6 says; those of 3.4 and 3.5 say UNAVAILABLE.

    Source: etcd-io/etcd api/v3rpc/rpctypes/error.go, ErrGRPCNotSupportedForLearner.
    """

    def service(self, details: Any) -> Any:
        if details.method.endswith("/Status"):
            return grpc.unary_unary_rpc_method_handler(
                lambda _request, _context: pb.StatusResponse(version="3.6.5"),
                request_deserializer=pb.StatusRequest.FromString,
                response_serializer=pb.StatusResponse.SerializeToString,
            )

        def refuse(_request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner")

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture
def learner() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Learner()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(0).wait()


def test_bug_a_member_that_may_not_answer_yet_answered_for_all(
    etcd35: Etcd, learner: str, namespace: str
) -> None:
    """With a member down ahead of it in the list no call got through: a lease ran out, a majority well."""
    down = f"http://127.0.0.1:{free_port()}"
    with connected(namespace, down, learner, etcd35.url) as backend:
        hold = take(backend, "a", TTL_MS * 5).hold
        assert backend.renew(hold, deadline=soon(1_000)).hold == hold
    with connected(namespace, learner) as backend, pytest.raises(NotSent, match="supported for learner"):
        backend.renew(hold, deadline=soon(1_000))  # by itself it is the answer


def test_c8_deadlines_hold_over_several_endpoints(etcd34: Etcd, namespace: str) -> None:
    with Proxy(etcd34.host_port) as one, Proxy(etcd34.host_port) as two, Proxy(etcd34.host_port) as three:
        proxies = (one, two, three)
        with connected(namespace, *(proxy.url for proxy in proxies)) as backend:
            hold = take(backend, "a", TTL_MS * 10).hold
            for proxy in proxies:
                proxy.blackhole()
            for _ in range(3):
                deadline = soon(300)
                with pytest.raises(BackendError):
                    backend.renew(hold, deadline=deadline)
                assert now() - deadline <= 1_000
            for proxy in proxies:
                proxy.heal()
            assert backend.renew(hold, deadline=soon()).hold == hold


def test_a_frozen_member_does_not_cost_a_renewal(etcd_cluster: EtcdCluster, namespace: str) -> None:
    """Whichever member it is, leader included (an election takes 0.5-1 s here)."""
    with connected(namespace, *etcd_cluster.urls) as backend:
        hold = take(backend, "a", TTL_MS * 10).hold
        for index in (etcd_cluster.followers()[0], etcd_cluster.leader()):
            etcd_cluster.freeze(index)
            for _ in range(3):
                backend.renew(hold, deadline=soon(3_000))
            etcd_cluster.thaw(index)
            etcd_cluster.leader()
        assert backend.renew(hold, deadline=soon()).hold == hold


def test_a_frozen_member_does_not_silence_the_watch(etcd_cluster: EtcdCluster, namespace: str) -> None:
    follower = etcd_cluster.followers()[0]
    others = [url for i, url in enumerate(etcd_cluster.urls) if i != follower]
    with (
        connected(namespace, etcd_cluster.urls[follower], *others) as watching,
        connected(namespace, *others) as writing,
    ):
        view = watching.read(deadline=soon())
        assert watching.await_change(view.revision, deadline=soon(200)) is None
        etcd_cluster.freeze(follower)
        changed_at = now()
        writing.write(order(), expected=0, deadline=soon())
        newer = watching.await_change(view.revision, deadline=soon(5_000))
        assert newer is not None
        assert newer.request == order()
        assert now() - changed_at < 2_500
        etcd_cluster.thaw(follower)


def test_a_new_leader_keeps_the_lock_and_its_length(etcd_cluster: EtcdCluster, namespace: str) -> None:
    with (
        connected(namespace, *etcd_cluster.urls) as a,
        connected(namespace, *reversed(etcd_cluster.urls)) as b,
    ):
        hold = take(a, "a", TTL_MS).hold
        for _ in range(2):
            etcd_cluster.move_leader(etcd_cluster.followers()[0])
            renewed = a.renew(hold, deadline=soon())
        second, _ = take_when_free(b, "b", TTL_MS, TTL_MS + 4_000)
        assert now() >= renewed.deadline
        assert second.hold.epoch > hold.epoch


def test_a_killed_leader_costs_nothing_within_the_lease(etcd_cluster: EtcdCluster, namespace: str) -> None:
    with connected(namespace, *etcd_cluster.urls) as backend:
        hold = take(backend, "a", TTL_MS * 5).hold
        leader = etcd_cluster.leader()
        etcd_cluster.kill(leader)
        assert backend.renew(hold, deadline=soon(TTL_MS * 2)).hold == hold
        etcd_cluster.restart(leader)


def test_bug_every_request_that_was_answered_was_kept_for_ever(etcd34: Etcd, namespace: str) -> None:
    """4 KB each: 1.6 MB a minute at TTL 3 s, 3 MB a second while the store had no majority."""
    with connected(namespace, "http://127.0.0.1:1", etcd34.url) as backend:
        backend.read(deadline=soon())
        before = _kept()
        for _ in range(30):
            backend.read(deadline=soon())
        assert _kept() - before < 10


def _kept() -> int:
    gc.collect()
    return sum(isinstance(found, _Attempt) for found in gc.get_objects())


def test_bug_a_watch_that_ended_was_kept_by_grpc_for_ever(etcd34: Etcd, namespace: str) -> None:
    """16 KB each: grpcio's iterator leaves the last events of a call that was cancelled where they are."""
    with connected(namespace, etcd34.url) as backend:
        assert isinstance(backend, EtcdBackend)
        watcher = backend._watcher
        view = backend.read(deadline=soon())
        backend.await_change(view.revision, deadline=soon(100))
        before, last = _calls_of_grpc(), None
        for _ in range(5):
            wait_until(lambda: watcher._following and watcher._stream is not last, "a new stream")  # noqa: B023
            last = watcher._stream
            backend._client.on_move()
        wait_until(lambda: watcher._following and watcher._stream is not last, "a new stream")

        assert _calls_of_grpc() - before <= 1, "that which the test keeps"


def test_bug_the_watch_kept_the_history_with_the_keys_it_follows(etcd34: Etcd, namespace: str) -> None:
    """Up to 1000 entries, in memory and copied with every change, until the watch began anew."""
    with connected(namespace, etcd34.url) as backend:
        assert isinstance(backend, EtcdBackend)
        hold = take(backend, "a", TTL_MS * 10).hold
        view = backend.read(deadline=soon())
        backend.await_change(view.revision, deadline=soon(100))
        wait_until(lambda: backend._watcher._following, "the stream")
        for epoch in range(1, 4):
            backend.append_history(hold, entry(epoch), deadline=soon())
        backend.publish(node("a"), ttl_ms=60_000, deadline=soon())
        while view.node("a") is None:
            newer = backend.await_change(view.revision, deadline=soon())
            assert newer is not None
            view = newer

        assert sorted(backend._watcher.latest.keys) == ["epoch", "lock", "nodes/a"]


def _calls_of_grpc() -> int:
    gc.collect()
    return sum(type(found).__name__ == "_CallState" for found in gc.get_objects())


def test_without_a_quorum_reads_are_not_sent_and_writes_unknown(
    etcd_cluster: EtcdCluster, namespace: str
) -> None:
    with connected(namespace, *etcd_cluster.urls) as backend:
        hold = take(backend, "a", TTL_MS * 10).hold
        for index in etcd_cluster.followers():
            etcd_cluster.freeze(index)
        deadline = soon(500)
        with pytest.raises(NotSent):
            backend.read(deadline=deadline)
        assert now() - deadline <= 1_000
        with pytest.raises(BackendError):
            backend.write(order(), expected=0, hold=hold, deadline=soon(500))
        etcd_cluster.heal()
        assert backend.renew(hold, deadline=soon(5_000)).hold == hold


def test_bug_a_dead_member_was_told_of_where_the_majority_was_lost(
    etcd_cluster: EtcdCluster, namespace: str
) -> None:
    """Which one was chance; what to do is another thing for each."""
    for index in etcd_cluster.followers():
        etcd_cluster.kill(index)
    alive = next(member for member in etcd_cluster.members if member.process.running())
    wait_until(lambda: alive.status().get("leader", "0") == "0", "the last one knows that it is alone")
    dead = [member.url for member in etcd_cluster.members if member is not alive]
    for urls in ([alive.url, *dead], [*dead, alive.url]):  # asked first, and last
        with (
            connected(namespace, *urls) as backend,
            pytest.raises(NotSent, match=f"{alive.address}: etcd has no leader"),
        ):
            backend.read(deadline=soon(3_000))


def test_bug_members_without_a_majority_were_asked_without_a_pause(
    etcd_cluster: EtcdCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """250 requests a second: what was still to come of one round ended the pause before the next."""
    with connected(namespace, *etcd_cluster.urls) as backend:
        assert isinstance(backend, EtcdBackend)
        backend.read(deadline=soon())
        for index in etcd_cluster.followers():
            etcd_cluster.kill(index)
        begun: list[int] = []
        start = backend._client._start

        def counted(*given: Any) -> _Attempt:
            begun.append(now())
            return start(*given)

        monkeypatch.setattr(backend._client, "_start", counted)
        with pytest.raises(NotSent):
            backend.read(deadline=soon(2_000))

        of_a_round = len(etcd_cluster.urls)
        assert len(begun) > of_a_round
        waited = [later - one for one, later in zip(begun, begun[of_a_round:], strict=False)]
        assert min(waited) >= PAUSE_MS // 2 - 1, "a pause between each two rounds"


def test_bug_a_no_of_one_member_was_taken_for_that_of_another_that_was_asked_too(
    etcd34: Etcd, namespace: str
) -> None:
    """The first one is silent, and may yet carry it out: the second one's no space is not the last word."""
    with Proxy(etcd34.host_port) as silent, connected(namespace, silent.url, etcd34.url) as backend:
        hold = take(backend, "a", TTL_MS * 20).hold
        silent.blackhole()
        etcd34.no_space(set_it=True)
        try:
            with pytest.raises(OutcomeUnknown):
                backend.write(order(), expected=0, hold=hold, deadline=soon(2_000))
            with connected(namespace, etcd34.url) as alone, pytest.raises(NotSent):
                alone.write(order(), expected=0, hold=hold, deadline=soon(2_000))
        finally:
            etcd34.no_space(set_it=False)


@pytest.mark.parametrize(
    "then", [Answer(None, False), NotSent("no space"), Denied("no rights"), _TokenRefused()]
)
def test_bug_a_copy_sent_before_a_new_login_was_forgotten(
    then: Answer | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(Login(("127.0.0.1:1",), username="u", password="p"), BootClock(), "/p/", b"/p/lock")
    first = _TokenRefused("old")
    first.maybe = True
    results: list[Answer | Exception] = [first, then]

    def hedged(method: str, *_: Any) -> Answer:
        found = Answer(SimpleNamespace(token="t"), False) if method == "Authenticate" else results.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(client, "_hedged", hedged)
    if isinstance(then, Answer):
        assert client.call("Txn", None, soon(), effect=True).maybe
    else:
        with pytest.raises(OutcomeUnknown):
            client.call("Txn", None, soon(), effect=True)


def test_c10_a_member_of_another_cluster_is_refused(etcd34: Etcd, etcd35: Etcd, namespace: str) -> None:
    """Two clusters behind one list of endpoints: the other one never answers for the one known first."""
    with connected(namespace, etcd34.url, etcd35.url) as backend, Proxy(etcd34.host_port) as proxy:
        hold = take(backend, "a", TTL_MS * 10).hold
        etcd34.freeze()
        for _ in range(2):
            with pytest.raises((NotSent, BackendError)) as caught:
                backend.renew(hold, deadline=soon(800))
            assert not isinstance(caught.value, NotHolder)
            with pytest.raises(NotSent):
                backend.read(deadline=soon(800))
        etcd34.thaw()
        assert backend.renew(hold, deadline=soon()).hold == hold
        assert proxy.connections == 0


# ---- leases


def test_c5_a_lease_counts_from_before_it_was_asked_for(etcd34: Etcd, namespace: str) -> None:
    with Proxy(etcd34.host_port) as proxy, connected(namespace, proxy.url) as backend:
        assert isinstance(backend, EtcdBackend)
        backend.read(deadline=soon())
        proxy.delay(100)
        asked_at = now()
        lease = backend._leases.grant(2, soon())
        assert asked_at <= lease.since <= now() - 100


def test_a_spare_lease_makes_acquiring_one_transaction(etcd34: Etcd, namespace: str) -> None:
    """And its grant counts from when the spare was extended, not from the transaction."""
    with connected(namespace, etcd34.url) as a, Proxy(etcd34.host_port) as proxy:
        hold = take(a, "a", TTL_MS * 5).hold
        with connected(namespace, proxy.url) as b:
            b.publish(node("b"), ttl_ms=TTL_MS * 5, deadline=soon())
            before = now()
            b.publish(node("b"), ttl_ms=TTL_MS * 5, deadline=soon())
            give(a, hold)
            b.read(deadline=soon())
            leases = etcd34.leases()
            proxy.delay(60)
            asked_at = now()
            grant = take(b, "b", TTL_MS * 5)
            assert int(grant.hold.cookie.partition(":")[2]) in leases
            assert before <= grant.sent_at <= asked_at + 20


@pytest.mark.parametrize("age_ms", [TTL_MS * 2 // 5, TTL_MS + 1_500], ids=["old", "dead"])
def test_a_stale_spare_is_not_used(etcd34: Etcd, namespace: str, age_ms: int) -> None:
    with connected(namespace, etcd34.url) as a:
        a.publish(node("a"), ttl_ms=TTL_MS, deadline=soon())
        published_at = now()
        leases = etcd34.leases()
        while (left_ms := age_ms - (now() - published_at)) > 0:
            a.await_change(a.read(deadline=soon()).revision, deadline=soon(left_ms))
        asked_at = now()
        grant = take(a, "a", TTL_MS)
        assert grant.sent_at >= asked_at
        assert int(grant.hold.cookie.partition(":")[2]) not in leases


def test_bug_a_lease_that_a_late_copy_of_an_acquisition_may_use_was_kept_alive(
    etcd34: Etcd, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another member, asked before, may yet carry it out: the lock would stand for as long as we publish."""
    with connected(namespace, etcd34.url) as holder, connected(namespace, etcd34.url) as backend:
        assert isinstance(backend, EtcdBackend)
        take(holder, "b", TTL_MS * 100)
        real = backend._client.call

        def asked_twice(method: str, request: Any, deadline: Instant, *, effect: bool) -> Any:
            answer = real(method, request, deadline, effect=effect)
            return replace(answer, maybe=True) if method == "Txn" and effect else answer

        monkeypatch.setattr(backend._client, "call", asked_twice)
        refused(backend, "a", TTL_MS)
        monkeypatch.setattr(backend._client, "call", real)
        assert backend._leases.take_spare(1) is None
        refused(backend, "a", TTL_MS)
        assert backend._leases.take_spare(1) is not None, "the usual way"


def test_bug_the_lease_of_the_lock_was_the_spare_for_a_moment(etcd34: Etcd, namespace: str) -> None:
    """The answer of one member was lost, the next one said "taken": by ourselves, on that very lease.

    Had the publisher come in that moment, it would have kept the lock alive for ever, given back or not.
    """
    kept: list[int] = []

    class Watched(Leases):
        def keep_spare(self, lease: Lease) -> None:
            kept.append(lease.id)
            super().keep_spare(lease)

    with Proxy(etcd34.host_port) as proxy, connected(namespace, proxy.url, etcd34.url) as backend:
        assert isinstance(backend, EtcdBackend)
        backend._leases = Watched(backend._client, BootClock())
        backend.publish(node("a"), ttl_ms=TTL_MS * 5, deadline=soon())
        backend.read(deadline=soon())
        (spare,) = kept
        kept.clear()
        proxy.drop_replies()
        hold = take(backend, "a", TTL_MS * 5).hold
        assert int(hold.cookie.partition(":")[2]) == spare
        assert kept == []


def test_an_acquisition_of_unknown_outcome_is_left_to_expire(etcd34: Etcd, namespace: str) -> None:
    """Nobody may keep a lock alive that he does not know of: publishing goes on, the lock ends."""
    with (
        connected(namespace, etcd34.url) as other,
        Proxy(etcd34.host_port) as proxy,
        connected(namespace, proxy.url) as lost,
    ):
        lost.publish(node("a"), ttl_ms=TTL_MS, deadline=soon())
        lost.read(deadline=soon())
        proxy.drop_replies()
        with pytest.raises(BackendError):
            lost.acquire("a", "a-1", TTL_MS, floor=NO_EPOCH, deadline=soon(300))
        proxy.heal()
        assert other.read(deadline=soon()).lock is not None
        until = soon(TTL_MS + 3_000)
        while (view := other.read(deadline=soon())).lock is not None:
            assert now() < until
            lost.publish(node("a"), ttl_ms=TTL_MS, deadline=soon())
            other.await_change(view.revision, deadline=soon(300))


def test_c6_a_broken_lock_without_a_lease_is_given_one(etcd34: Etcd, namespace: str) -> None:
    """As left behind by a command that was killed between the break and the lease."""
    broken = LockRecord("a", "a-1", Epoch(3), TTL_MS, "broken", by="o")
    etcd34.put(f"/{PREFIX}/{namespace}/lock", encode(broken).decode())
    with connected(namespace, etcd34.url) as backend:
        seen_at = now()
        assert backend.read(deadline=soon()).lock == broken
        take_when_free(backend, "b", TTL_MS, TTL_MS + 3_000)
        assert now() - seen_at >= TTL_MS


def test_c6_a_node_that_only_waits_gives_a_broken_lock_its_lease(etcd34: Etcd, namespace: str) -> None:
    """Else nobody would ever become active: a node reads once and then waits for changes."""
    with connected(namespace, etcd34.url) as backend:
        revision = backend.read(deadline=soon()).revision
        broken = LockRecord("a", "a-1", Epoch(3), TTL_MS, "broken", by="o")
        etcd34.put(f"/{PREFIX}/{namespace}/lock", encode(broken).decode())
        seen_at, until = now(), soon(TTL_MS + 3_000)
        vacant = False
        while not vacant:
            view = backend.await_change(revision, deadline=until)
            assert view is not None, "it never became free"
            revision, vacant = view.revision, view.vacant
        assert now() - seen_at >= TTL_MS


def test_c6_breaking_again_touches_nothing(etcd34: Etcd, namespace: str) -> None:
    """Written again it would get another lease, and the wait would begin anew."""
    with connected(namespace, etcd34.url) as backend:
        assert isinstance(backend, EtcdBackend)
        hold = take(backend, "a", TTL_MS * 5).hold
        crack(backend, hold.epoch, TTL_MS * 5)
        before = backend._load(soon()).keys["lock"]

        crack(backend, hold.epoch, TTL_MS * 5)

        assert backend._load(soon()).keys["lock"] == before


def test_a_release_whose_answer_is_lost_on_one_endpoint_is_told_by_the_next(
    etcd34: Etcd, namespace: str
) -> None:
    """The copy that is sent there finds the lock gone: that was the first copy, and nobody else."""
    with Proxy(etcd34.host_port) as proxy, connected(namespace, proxy.url, etcd34.url) as backend:
        hold = take(backend, "a", TTL_MS * 5).hold
        backend.read(deadline=soon())
        proxy.drop_replies()

        backend.release(hold, cause="test", deadline=soon())

        proxy.heal()
        view = backend.read(deadline=soon())
        assert (view.vacant, view.epoch.released) == (True, "test")


def test_c6_the_wait_counts_from_the_break(etcd34: Etcd, namespace: str) -> None:
    """One granted before the break could end while the holder's last renewal still counts."""
    with (
        connected(namespace, etcd34.url) as a,
        Proxy(etcd34.host_port) as proxy,
        connected(namespace, proxy.url) as b,
    ):
        hold = take(a, "a", TTL_MS).hold
        b.read(deadline=soon())
        proxy.delay(250)
        breaking = Doing(lambda: crack(b, hold.epoch, TTL_MS))
        last = now()
        while True:
            try:
                last = a.renew(hold, deadline=soon()).sent_at
            except NotHolder:
                break
        breaking.result()
        proxy.heal()
        take_when_free(a, "c", TTL_MS, TTL_MS + 3_000)
        assert now() - last >= TTL_MS


def test_the_granted_ttl_is_read_and_rounded_up(etcd34: Etcd, namespace: str) -> None:
    with connected(namespace, etcd34.url) as backend:
        assert take(backend, "a", 2_500).ttl_ms == 3_000
        floor_ms = backend.info(deadline=soon()).ttl_min_ms
        assert 1_000 <= floor_ms <= 2_000
    with connected(namespace + "-2", etcd34.url) as backend:
        assert take(backend, "a", 100).ttl_ms == floor_ms


def test_a_revoked_lease_is_not_held_any_more(etcd34: Etcd, namespace: str) -> None:
    with connected(namespace, etcd34.url) as backend:
        hold = take(backend, "a", TTL_MS * 5).hold
        etcd34.revoke(int(hold.cookie.partition(":")[2]))
        with pytest.raises(NotHolder):
            backend.renew(hold, deadline=soon())


def test_a_compacted_watch_begins_again(etcd34: Etcd, namespace: str) -> None:
    with (
        connected(namespace, etcd34.url) as a,
        Proxy(etcd34.host_port) as proxy,
        connected(namespace, proxy.url) as b,
    ):
        view = b.read(deadline=soon())
        b.await_change(view.revision, deadline=soon(200))
        proxy.refuse()
        for i in range(3):
            a.publish(node("a", message=str(i)), ttl_ms=60_000, deadline=soon())
        revision = int(etcd34.status()["header"]["revision"])
        etcd34.call("kv/compaction", revision=str(revision))
        proxy.heal()
        while view.node("a") != node("a", message="2"):
            newer = b.await_change(view.revision, deadline=soon(5_000))
            assert newer is not None
            view = newer


def test_an_etcd_that_keeps_every_revision_is_told(
    tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes at TTL 10 s fill its 2 GB in six weeks; then it refuses leases and locks."""
    monkeypatch.setattr("backends.etcd.REVISIONS_MAX", 10)
    with Etcd.run(tmp_path) as etcd, connected(namespace, etcd.url) as backend:
        assert backend.info(deadline=soon()).advice == ()
        for number in range(10):
            etcd.put("harness", str(number))
        ((says, do),) = backend.info(deadline=soon()).advice
        assert "revisions" in says
        assert "--auto-compaction-retention" in do
        etcd.compact()
        assert backend.info(deadline=soon()).advice == ()


def test_history_is_trimmed(etcd34: Etcd, namespace: str) -> None:
    with connected(namespace, etcd34.url) as backend:
        hold = take(backend, "a", TTL_MS * 50).hold
        assert isinstance(backend, EtcdBackend)
        for epoch in range(1, 1_003):
            etcd34.put(f"/{PREFIX}/{namespace}/history/{epoch:012d}", encode(entry(epoch)).decode())
        backend.append_history(hold, entry(5_000), deadline=soon(5_000))
        found = [item.epoch for item in backend.read_history(2_000, deadline=soon(5_000))]
        assert found == [5_000, *reversed(range(4, 1_003))]


# ---- users and TLS


@pytest.fixture(scope="module")
def etcd_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with Etcd.run(tmp_path_factory.mktemp("users"), ETCD35) as etcd:
        etcd.enable_auth("sidecar", "secret-1")
        yield etcd


def _password(folder: Path, text: str) -> str:
    path = folder / "password"
    path.write_text(text + "\n")
    return str(path)


def test_bug_a_member_that_may_not_answer_yet_told_that_there_are_no_users(
    etcd_users: Etcd, learner: str, namespace: str, tmp_path: Path
) -> None:
    options = {"username": "sidecar", "password_file": _password(tmp_path, "secret-1")}
    with connected(namespace, learner, etcd_users.url, **options) as backend:
        give(backend, take(backend, "a", TTL_MS).hold)


def test_users_and_what_is_said_to_the_wrong_ones(etcd_users: Etcd, namespace: str, tmp_path: Path) -> None:
    good = _password(tmp_path, "secret-1")
    with connected(namespace, etcd_users.url, username="sidecar", password_file=good) as backend:
        hold = take(backend, "a", TTL_MS * 10).hold
        view = backend.read(deadline=soon())
        waiting = Doing(lambda: backend.await_change(view.revision, deadline=soon()))
        backend.write(order(), expected=0, hold=hold, deadline=soon())
        assert waiting.result() is not None
        etcd_users.restart()  # forgets the tokens it gave
        assert backend.renew(hold, deadline=soon()).hold == hold
        assert backend.read(deadline=soon()).request == order()
        give(backend, hold)
    with connected(namespace, etcd_users.url) as nobody, pytest.raises(Denied, match=r"127\.0\.0\.1"):
        nobody.read(deadline=soon())
    bad = _password(tmp_path, "secret-2")
    with (
        connected(namespace, etcd_users.url, username="sidecar", password_file=bad) as backend,
        pytest.raises(Denied) as caught,
    ):
        backend.acquire("a", "a-1", TTL_MS, floor=NO_EPOCH, deadline=soon())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("how", ["restored", "wiped"])
def test_a_token_older_than_the_store_is_given_up(how: str, tmp_path: Path, namespace: str) -> None:
    """Found by the soak: etcd keeps a request waiting whose token names a raft index that it has lost."""
    snapshot = tmp_path / "snapshot"
    with Etcd.run(tmp_path / "etcd", ETCD34, extra=("--bcrypt-cost", "4")) as etcd:
        etcd.enable_auth("sidecar", "secret-1")
        options = {"username": "sidecar", "password_file": _password(tmp_path, "secret-1")}
        with connected(namespace, etcd.url, **options) as backend:
            for _ in range(5):  # the index that the token names, far above that of a store made anew
                etcd.put("harness", "x")
            backend.read(deadline=soon())
            etcd.save(snapshot)
            etcd.kill()
            if how == "restored":
                etcd.restore(snapshot)
                etcd.start()
            else:
                shutil.rmtree(etcd.data)
                etcd.log_out()
                etcd.start()
                etcd.enable_auth("sidecar", "secret-1")
            with suppress(NotSent):  # this one may be kept waiting
                backend.read(deadline=soon(500))
            assert backend.read(deadline=soon()).lock is None


def test_a_user_where_there_are_none_is_let_in(etcd34: Etcd, namespace: str, tmp_path: Path) -> None:
    options = {"username": "sidecar", "password_file": _password(tmp_path, "secret-1")}
    with connected(namespace, etcd34.url, **options) as backend:
        take(backend, "a", TTL_MS)


def test_a_user_without_the_right_is_denied(etcd_users: Etcd, namespace: str, tmp_path: Path) -> None:
    etcd_users.call("auth/user/add", name="guest", password="guest")
    options = {"username": "guest", "password_file": _password(tmp_path, "guest")}
    with connected(namespace, etcd_users.url, **options) as backend:
        for call in (
            lambda: backend.read(deadline=soon()),
            lambda: backend.acquire("a", "a-1", TTL_MS, floor=NO_EPOCH, deadline=soon()),
        ):
            with pytest.raises(Denied):
                call()


def test_bug_a_watch_that_was_denied_was_begun_again_at_once(
    etcd_users: Etcd, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 times a second, with as many reads: by a user with rights on the keys alone, not on the prefix.

    Such a watch goes by the revision of the whole store: no lease of a test before may end meanwhile.
    """
    root = f"/{PREFIX}/{namespace}/"
    etcd_users.call("auth/user/add", name="narrow", password="narrow")
    etcd_users.call("auth/role/add", name="narrow")
    for key in ("lock", "epoch", "request", "settings"):
        etcd_users.call(
            "auth/role/grant", name="narrow", perm={"permType": "READWRITE", "key": b64(root + key)}
        )
    nodes = {"permType": "READWRITE", "key": b64(root + "nodes/"), "range_end": b64(root + "nodes0")}
    etcd_users.call("auth/role/grant", name="narrow", perm=nodes)
    etcd_users.call("auth/user/grant", user="narrow", role="narrow")
    options = {"username": "narrow", "password_file": _password(tmp_path, "narrow")}
    with connected(namespace, etcd_users.url, **options) as backend:
        assert isinstance(backend, EtcdBackend)
        view = backend.read(deadline=soon())
        begun: list[int] = []
        watch = backend._client.current.watch

        def counted(*given: Any) -> Any:
            begun.append(now())
            return watch(*given)

        monkeypatch.setattr(backend._client.current, "watch", counted)
        assert backend.await_change(view.revision, deadline=soon(2_000)) is None

        assert 2 <= len(begun) <= 10
        backend.publish(node("a"), ttl_ms=60_000, deadline=soon())
        newer = backend.await_change(view.revision, deadline=soon(5_000))
        assert newer is not None, "it is seen all the same"
        assert newer.node("a") is not None


def test_tls_and_what_is_said_without_it(tmp_path: Path, namespace: str) -> None:
    tls = Tls.make(tmp_path / "tls")
    files = {"ca_file": str(tls.ca), "cert_file": str(tls.cert), "key_file": str(tls.key)}
    with Etcd.run(tmp_path, ETCD35, tls=tls) as etcd, Proxy(etcd.host_port) as proxy:
        with connected(namespace, etcd.url, **files) as backend:
            hold = take(backend, "a", TTL_MS * 5).hold
            backend.renew(hold, deadline=soon())
        without = [
            connected(namespace, f"http://{etcd.address}"),
            connected(namespace, etcd.url, ca_file=str(tls.ca)),
            connected(namespace, etcd.url),
        ]
        for manager in without:
            with manager as backend, pytest.raises(NotSent, match=re.escape(etcd.address)):
                backend.read(deadline=soon(1_500))
        assert proxy.connections == 0


def test_tls_to_a_store_without_it(etcd34: Etcd, namespace: str) -> None:
    with connected(namespace, f"https://{etcd34.address}") as backend, pytest.raises(NotSent, match="TLS"):
        backend.read(deadline=soon(1_500))


def test_a_name_that_cannot_be_resolved(namespace: str) -> None:
    with (
        connected(namespace, "http://no-such-host.invalid:2379") as backend,
        pytest.raises(NotSent, match=r"no-such-host\.invalid:2379: the name cannot be resolved"),
    ):
        backend.read(deadline=soon(2_000))


# ---- options and start-up


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"endpoint": ["http://a:1"]}, "etcd.endpoint: unknown key; did you mean endpoints"),
        ({"endpoints": []}, "etcd.endpoints"),
        ({"endpoints": "http://a:1"}, "etcd.endpoints"),
        ({"endpoints": ["ftp://a:1"]}, "etcd.endpoints"),
        ({"endpoints": ["http://user:pw@a:1"]}, "etcd.endpoints"),
        ({"endpoints": ["http://a:1", "https://b:1"]}, "etcd.endpoints"),
        ({"endpoints": ["http://a:1"], "ca_file": "/etc/hostname"}, "etcd.endpoints"),
        ({"endpoints": ["https://a:1"], "ca_file": "/no/such/file"}, "etcd.ca_file: /no/such/file"),
        ({"endpoints": ["https://a:1"], "cert_file": "/etc/hostname"}, "etcd.key_file"),
        ({"endpoints": ["https://a:1"], "ca_file": "/etc/hostname"}, "etcd.ca_file: /etc/hostname: not PEM"),
        ({"username": "x"}, "etcd.password_file"),
        ({"username": 7}, "etcd.username"),
    ],
)
def test_options_are_checked(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):  # a file that is none is not left to gRPC, which is silent
        load_backend("etcd")(BackendSettings("c", options, PREFIX), BootClock())


def test_loading_takes_only_what_is_needed() -> None:
    """etcd3's own modules would force protobuf's slow implementation on the whole process."""
    script = "import sys, backends.etcd; assert not {'etcd3', 'tenacity'} & set(sys.modules)"
    script += "; from google.protobuf.internal import api_implementation as used; assert used.Type() == 'upb'"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd="/")


def test_nothing_is_sent_by_connecting(etcd34: Etcd, namespace: str) -> None:
    with Proxy(etcd34.host_port) as proxy:
        with connected(namespace, proxy.url):
            pass
        assert proxy.connections == 0


def test_a_deadline_in_the_past_is_not_sent(etcd34: Etcd, namespace: str) -> None:
    with connected(namespace, etcd34.url) as backend:
        take(backend, "a", TTL_MS)
        with pytest.raises(NotSent):
            backend.await_change(0, deadline=Instant(now() - 1))
        refused(backend, "b", TTL_MS)


def test_c4_a_lock_written_again_on_the_same_lease_is_not_that_hold(etcd34: Etcd, namespace: str) -> None:
    """As an operator's etcdctl would: the lease lives, the lock is somebody else's."""
    with connected(namespace, etcd34.url) as backend:
        hold = take(backend, "a", TTL_MS * 5).hold
        key, lease = f"/{PREFIX}/{namespace}/lock", hold.cookie.partition(":")[2]
        other = encode(LockRecord("b", "b-1", hold.epoch, TTL_MS)).decode()
        etcd34.call("kv/put", key=b64(key), value=b64(other), lease=lease)
        with pytest.raises(NotHolder):
            backend.renew(hold, deadline=soon())
        with pytest.raises(NotHolder):
            give(backend, hold)


def test_bug_ctrl_c_while_the_watch_is_started_is_nothing_at_the_end(etcd34: Etcd, namespace: str) -> None:
    """`sidecar watch` ended with an internal error instead of 130: such a thread cannot be joined."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "etcd-watch":
            raise KeyboardInterrupt
        start(thread)

    backend = backend_on(namespace, etcd34.url)
    revision = backend.read(deadline=soon()).revision
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.await_change(revision, deadline=soon())

    backend.close()
