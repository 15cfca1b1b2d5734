"""What the embedded backend alone has: a file with rights, damage and other owners; boots; and the registry.

Method: real files; another process is another connection, or a program that is stopped in a transaction.
Not covered: a real reboot (the boot id in the file is changed instead), a disk that hangs (its worker does).
"""

import errno
import gc
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from backends._sqlite import logs
from backends._worker import Expired, Worker, _Job
from backends.local import LocalBackend
from sidecar.clock import BootClock
from sidecar.core.units import NO_EPOCH
from sidecar.errors import BackendError, BadDocument, ConfigError, NotHolder, NotSent, OutcomeUnknown
from sidecar.plugins import installed_backends, load_backend
from sidecar.ports import Backend, BackendSettings, Grant
from tests.contract.steps import crack, give, node, now, refused, take, take_when_free
from tests.contract.stores import PREFIX, LocalStore, soon

TTL_MS = 1_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "local.db"


def backend_on(path: Path, cluster: str = "c") -> Backend:
    return LocalStore(path).connect(cluster)


def test_the_file_is_made_when_first_needed_and_for_its_owner_alone(path: Path) -> None:
    backend = backend_on(path)
    assert not path.exists()
    take(backend, "a", TTL_MS)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    backend.close()


def test_c6_breaking_again_does_not_extend_the_lease_in_the_store(path: Path) -> None:
    ttl_ms, late_ms = 3_000, 1_000
    backend, other = backend_on(path), backend_on(path)
    epoch = take(backend, "a", ttl_ms).hold.epoch
    crack(other, epoch, ttl_ms)
    broken_at = now()
    with suppress(BackendError):
        other.await_change(other.read(deadline=soon()).revision + 10**6, deadline=soon(ttl_ms * 2 // 3))
    crack(other, epoch, ttl_ms)
    _, asked_at = take_when_free(other, "b", ttl_ms, ttl_ms + late_ms)

    assert asked_at - broken_at <= ttl_ms + late_ms
    backend.close()
    other.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"paht": "/x"}, "local.paht: unknown key; did you mean path"),
        ({"path": "relative.db"}, "local.path: relative.db is not absolute"),
        ({"path": "/no/such/folder/local.db"}, "local.path: the folder /no/such/folder does not exist"),
        ({"path": "/tmp"}, "local.path: /tmp is a folder"),
        ({"path": 7}, "local.path: expected a text"),
    ],
)
def test_options_are_checked(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_backend("local")(BackendSettings("c", options, PREFIX), BootClock())


def test_bug_the_folder_that_run_makes_had_to_be_there_before(tmp_path: Path) -> None:
    """``init --backend local`` wrote what ``validate`` refused."""
    state = tmp_path / "var" / "state"
    settings = BackendSettings("c", {"path": str(state / "local.db")}, PREFIX, state)

    backend = load_backend("local")(settings, BootClock())
    with pytest.raises(NotSent, match=str(state)):
        backend.read(deadline=soon())
    state.mkdir(parents=True)
    assert backend.read(deadline=soon()).vacant
    backend.close()


@pytest.mark.parametrize(
    "content", [b"no database at all, but text. " * 200, b"SQLite format 3\0" + b"x" * 4096]
)
def test_a_damaged_file_is_named_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    backend = backend_on(path)
    with pytest.raises(BadDocument, match=str(path)) as caught:
        backend.read(deadline=soon())
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content
    backend.close()


def test_a_lease_of_another_boot_is_free(path: Path) -> None:
    a, b = backend_on(path), backend_on(path)
    hold = take(a, "a", TTL_MS * 100).hold
    refused(b, "b", TTL_MS)
    with sqlite3.connect(path) as sql:
        sql.execute("update keys set boot = 'an-earlier-boot ' || substr(boot, instr(boot, ' ') + 1)")
    with pytest.raises(NotHolder):
        a.renew(hold, deadline=soon())
    assert take(b, "b", TTL_MS).hold.epoch == hold.epoch + 1
    a.close()
    b.close()


def test_a_lease_of_another_time_namespace_is_held(path: Path) -> None:
    """Its BOOTTIME cannot be compared with ours; a release or a break still ends it."""
    a, b = backend_on(path), backend_on(path)
    hold = take(a, "a", TTL_MS).hold
    with sqlite3.connect(path) as sql:
        sql.execute("update keys set boot = boot || 'x', expires_at = 0 where key = 'lock'")
    refused(b, "b", TTL_MS)
    b.break_lock(hold.epoch, to=None, by="o", request=None, ttl_ms=TTL_MS, deadline=soon())
    take_when_free(b, "b", TTL_MS, TTL_MS + 500)
    a.close()
    b.close()


def test_c8_a_process_stopped_in_a_transaction_costs_no_more_than_the_deadline(path: Path) -> None:
    backend = backend_on(path)
    grant = take(backend, "a", TTL_MS * 100)
    script = (
        "import sqlite3, sys; s = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "s.execute('begin immediate'); print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        os.kill(other.pid, signal.SIGSTOP)
        try:
            deadline = soon(300)
            with pytest.raises(NotSent, match="locked"):
                backend.renew(grant.hold, deadline=deadline)
            assert now() - deadline <= 1_000
            assert backend.read(deadline=soon()).lock is not None
        finally:
            other.kill()
    assert backend.renew(grant.hold, deadline=soon()).hold == grant.hold
    backend.close()


def test_a_file_put_back_from_a_copy_shows_the_lower_epoch(path: Path, tmp_path: Path) -> None:
    a, b = backend_on(path), backend_on(path)
    give(a, take(a, "a", TTL_MS).hold)
    copy = tmp_path / "copy.db"
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    for _ in range(5):
        give(a, take(a, "a", TTL_MS).hold)
    before = b.read(deadline=soon())
    LocalStore(path).wipe()
    copy.rename(path)
    view = b.await_change(before.revision, deadline=soon())
    assert view is not None
    assert view.revision > before.revision
    assert view.epoch.epoch < before.epoch.epoch
    a.close()
    b.close()


@pytest.mark.parametrize("started", ["before", "after"])
def test_a_lock_in_a_copy_of_the_same_epoch_runs_anew(path: Path, tmp_path: Path, started: str) -> None:
    """By the copy it is long over, but its holder has renewed since and its server runs."""
    ttl_ms = 3_000  # a busy machine may stop us for a second
    a = backend_on(path)
    b = backend_on(path)
    hold = take(a, "a", ttl_ms).hold
    assert refused(b, "b", ttl_ms).node == "a"
    copy = tmp_path / "copy.db"
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    copied_at = now()
    while now() <= copied_at + ttl_ms:
        last = a.renew(hold, deadline=soon())
        a.await_change(a.read(deadline=soon()).revision, deadline=soon(ttl_ms // 5))
    LocalStore(path).wipe()
    copy.rename(path)
    if started == "after":
        b.close()
        b = backend_on(path)
    assert refused(b, "b", ttl_ms).node == "a"
    assert a.renew(hold, deadline=soon()).hold == hold
    give(a, hold)
    assert take(b, "b", ttl_ms).hold.epoch == last.hold.epoch + 1
    a.close()
    b.close()


def test_a_copy_with_a_lock_that_nobody_renews_is_free_after_its_ttl(path: Path, tmp_path: Path) -> None:
    a = backend_on(path)
    take(a, "a", TTL_MS)
    copy = tmp_path / "copy.db"
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    a.close()
    LocalStore(path).wipe()
    copy.rename(path)
    b = backend_on(path)
    opened_at = now()
    assert refused(b, "b", TTL_MS).node == "a"
    take_when_free(b, "b", TTL_MS, TTL_MS + 1_000)
    assert now() - opened_at >= TTL_MS
    b.close()


def test_a_file_that_is_moved_away_is_not_made_anew_and_goes_on_when_it_is_back(path: Path) -> None:
    """An empty file in its place would make SQLite delete the log, the newest part of what was moved."""
    a, b = backend_on(path), backend_on(path)
    hold = take(a, "a", 60_000).hold
    assert b.read(deadline=soon()).lock is not None
    away = path.rename(path.with_suffix(".away"))
    for backend in (a, b):
        with pytest.raises(NotSent, match=r"gone, but not its local\.db-wal and local\.db-shm: put it back"):
            backend.read(deadline=soon())
    with pytest.raises(NotSent, match="put it back"):
        backend_on(path).read(deadline=soon())
    path.touch()
    with pytest.raises(NotSent, match="put it back"):
        b.read(deadline=soon())
    away.replace(path)
    assert a.renew(hold, deadline=soon()).hold == hold
    lock = b.read(deadline=soon()).lock
    assert lock is not None
    assert (lock.node, lock.epoch) == ("a", hold.epoch)
    a.close()
    b.close()


def test_a_log_that_was_deleted_under_a_node_does_not_leave_it_alone_with_its_own(path: Path) -> None:
    """Else it and those who come later would each see a lock of their own in the same file."""
    a = backend_on(path)
    take(a, "a", TTL_MS)
    for log in logs(path):
        log.unlink()
    publish_and_stay = (
        "import sys; from pathlib import Path; from tests.contract.test_local import *\n"
        "b = backend_on(Path(sys.argv[1])); b.publish(node('b'), ttl_ms=60_000, deadline=soon())\n"
        "print('published', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", publish_and_stay, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "published\n"
        assert a.read(deadline=soon()).node("b") is not None
    a.close()


def test_nodes_that_make_the_file_at_once_make_one(path: Path) -> None:
    backends = [backend_on(path) for _ in range(4)]
    with ThreadPoolExecutor(len(backends)) as pool:
        names = [f"node-{number}" for number in range(len(backends))]
        list(
            pool.map(
                lambda backend, name: backend.publish(node(name), ttl_ms=60_000, deadline=soon()),
                backends,
                names,
            )
        )
    assert [
        backend.read(deadline=soon()).node(name) is not None
        for backend, name in zip(backends, names, strict=True)
    ] == [True] * 4
    assert sorted(file.name for file in path.parent.iterdir()) == ["local.db", "local.db-shm", "local.db-wal"]
    for backend in backends:
        backend.close()


def test_what_a_hung_disk_may_have_done_is_unknown(path: Path) -> None:
    """A worker that does not come back in time may yet write; one that only reads changes nothing."""
    backend = backend_on(path)
    assert isinstance(backend, LocalBackend)
    backend.read(deadline=soon())
    go_on = threading.Event()
    try:
        for how, error in (("synced", OutcomeUnknown), ("read", NotSent)):
            with pytest.raises(error):
                backend._do(how, soon(100), lambda _tx: go_on.wait(10))  # type: ignore[arg-type]
    finally:
        go_on.set()
        backend.close()


def test_bug_every_call_to_a_hung_disk_was_kept_until_it_went_on() -> None:
    """2 KB each, 30 MB an hour at a TTL of 2 s."""
    worker, go_on = Worker("test"), threading.Event()
    with pytest.raises(Expired):
        worker.call(go_on.wait, 0.05)
    for _ in range(20):
        with pytest.raises(Expired):
            worker.call(lambda: None, 0.001)

    gc.collect()
    assert sum(isinstance(found, _Job) for found in gc.get_objects()) < 4
    go_on.set()
    assert worker.call(lambda: 7, 5) == 7, "it goes on"
    worker.stop(lambda: None, 5)


def test_a_file_system_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vfat: the file is made all the same, and by one of those who make it at once."""

    def refuses(_source: str, _target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    backends = [backend_on(path) for _ in range(4)]
    with ThreadPoolExecutor(len(backends)) as pool:
        grants = list(
            pool.map(
                lambda number: backends[number].acquire(
                    f"n{number}", f"n{number}-1", 60_000, floor=NO_EPOCH, deadline=soon()
                ),
                range(len(backends)),
            )
        )

    assert sum(isinstance(answer, Grant) for answer in grants) == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["local.db", "local.db-shm", "local.db-wal"]
    for backend in backends:
        backend.close()


def test_a_link_that_fails_for_another_reason_makes_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_source: str, _target: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refuses)
    backend = backend_on(path)

    with pytest.raises(NotSent, match="Input/output error"):
        backend.read(deadline=soon())

    assert list(path.parent.iterdir()) == []
    backend.close()


def test_waiting_costs_next_to_nothing(path: Path) -> None:
    backend = backend_on(path)
    view = backend.read(deadline=soon())
    assert isinstance(backend, LocalBackend)
    used = os.times()
    assert backend.await_change(view.revision, deadline=soon(1_000)) is None
    after = os.times()
    assert (after.user + after.system) - (used.user + used.system) < 0.08
    backend.close()


def test_installed_backends_are_found_and_others_named() -> None:
    assert {"local", "etcd", "consul"} <= set(installed_backends())
    with pytest.raises(ConfigError, match=r"backend 'zookeeper' is not installed; installed: .*local"):
        load_backend("zookeeper")


def test_a_plug_in_that_cannot_be_imported_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "broken-1.0.dist-info"
    folder.mkdir()
    (folder / "entry_points.txt").write_text(
        "[aggregate_sidecar.backends]\nbroken = no_such_module:connect\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "broken" in installed_backends()
    with pytest.raises(ConfigError, match="no_such_module"):
        load_backend("broken")


def test_bug_ctrl_c_while_a_thread_is_started_is_nothing_at_the_end(path: Path) -> None:
    """`sidecar watch` ended with an internal error instead of 130: such a thread cannot be joined."""
    backend = backend_on(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.read(deadline=soon())

    backend.close()


def interrupted(_thread: threading.Thread) -> None:
    raise KeyboardInterrupt
