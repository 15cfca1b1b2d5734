"""Secured stores: TLS on both sides, users and tokens of least privilege, each replaced under a holder.

Goal: what docs/security.md sets up keeps the contract, a rotation never costs the lock, and what is wrong
is said in one line within the request's deadline. Method: real etcd 3.4 (JWT) and 3.5 (simple tokens) and
Consul, certificates made on the fly, the page's own commands; a holder renews through every rotation. Not
covered: the rest of the clauses, which differ in nothing (test_clauses.py); several members (test_etcd.py).
"""

import datetime
import json
import re
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends._rotation import LOOK_EVERY_S
from backends._tls import has_expired
from sidecar.clock import BootClock
from sidecar.core.units import NO_EPOCH, Instant
from sidecar.errors import BackendError, Conflict, Denied, NotHolder, NotSent
from sidecar.plugins import load_backend
from sidecar.ports import Backend, BackendSettings, Grant
from tests.contract import test_clauses as clauses
from tests.contract.steps import CLOCK, every_call, now, take
from tests.contract.stores import PREFIX, ConsulStore, EtcdStore, Store, soon
from tests.harness.certificates import Authority, replace
from tests.harness.process import wait_until
from tests.harness.proxy import Proxy
from tests.harness.secured import CLUSTER, SecuredConsul, SecuredEtcd
from tests.harness.stores import ETCD34, ETCD35, b64
from tests.harness.tools import Tls

TTL_MS, TIMEOUT_MS = 12_000, 1_800  # of the holder: as the defaults divide a lease
SHORT = datetime.timedelta(seconds=3)
Vault = SecuredEtcd | SecuredConsul


@pytest.fixture(scope="module")
def vault_etcd34(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredEtcd]:
    with SecuredEtcd.run(tmp_path_factory.mktemp("vault34"), ETCD34) as vault:
        yield vault


@pytest.fixture(scope="module")
def vault_etcd35(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredEtcd]:
    with SecuredEtcd.run(tmp_path_factory.mktemp("vault35"), ETCD35) as vault:
        yield vault


@pytest.fixture(scope="module")
def vault_consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredConsul]:
    with SecuredConsul.run(tmp_path_factory.mktemp("vault-consul")) as vault:
        yield vault


@pytest.fixture(params=["etcd34", "etcd35"])
def vault_etcd(request: pytest.FixtureRequest) -> SecuredEtcd:
    found: SecuredEtcd = request.getfixturevalue(f"vault_{request.param}")
    return found


@pytest.fixture(params=["etcd34", "etcd35", "consul"])
def vault(request: pytest.FixtureRequest) -> Vault:
    found: Vault = request.getfixturevalue(f"vault_{request.param}")
    return found


# ---- the contract, with a user or token whose rights are the page's, for every cluster of the tests


class VaultEtcdStore(EtcdStore):
    def __init__(self, vault: SecuredEtcd) -> None:
        super().__init__(vault.store)
        self._options = vault.options | {"username": "contract"}
        self._options["password_file"] = str(vault.folder / "contract-password")
        if not (vault.folder / "contract-password").exists():
            replace(vault.folder / "contract-password", b"contract\n")
            everything = {"key": b64(f"/{PREFIX}/"), "range_end": b64(f"/{PREFIX}0")}
            vault.store.call("auth/user/add", name="contract", password="contract")
            vault.store.call("auth/role/add", name="contract")
            vault.store.call("auth/role/grant", name="contract", perm={"permType": "READWRITE"} | everything)
            vault.store.call("auth/user/grant", user="contract", role="contract")

    def configured(self, through: Proxy | None = None) -> tuple[str, dict[str, object]]:
        return "etcd", self._options


class VaultConsulStore(ConsulStore):
    def __init__(self, vault: SecuredConsul) -> None:
        super().__init__(vault.store)
        self._options = vault.options | {"token_file": str(vault.folder / "contract-token")}
        if not (vault.folder / "contract-token").exists():
            rules = f'key_prefix "{PREFIX}/" {{ policy = "write" }} session_prefix "" {{ policy = "write" }}'
            make_token(vault, "contract", rules, vault.folder / "contract-token")

    def configured(self, through: Proxy | None = None) -> tuple[str, dict[str, object]]:
        return "consul", self._options


@pytest.fixture(params=["etcd35", "consul"])
def store(request: pytest.FixtureRequest) -> Store:
    vault = request.getfixturevalue(f"vault_{request.param}")
    return VaultEtcdStore(vault) if isinstance(vault, SecuredEtcd) else VaultConsulStore(vault)


test_c1 = clauses.test_c1_each_acquisition_gets_a_larger_epoch
test_c2 = clauses.test_c2_asking_again_while_holding_keeps_the_epoch
test_c3_release = clauses.test_c3_release_frees_the_lock_at_once
test_c4 = clauses.test_c4_the_same_instance_at_another_epoch_is_not_that_hold
test_c6 = clauses.test_c6_a_broken_lock_stops_the_holder_and_is_not_free
test_c10 = clauses.test_c10_a_change_wakes_whoever_waits
test_c11 = clauses.test_c11_with_a_hold_only_while_it_is_valid
test_c12 = clauses.test_c12_withdraw_takes_back_ones_own_alone
test_c15 = clauses.test_c15_close_ends_what_is_under_way_and_may_be_repeated
test_history = clauses.test_history_leaves_out_what_cannot_be_read


def test_the_rights_on_the_page_are_enough_for_every_call_and_reach_nothing_else(vault: Vault) -> None:
    with connected(vault) as backend:
        hold = take(backend, "a", TTL_MS, floor=0).hold
        for name, call in every_call(backend, hold).items():
            try:
                call(soon())
            except (NotHolder, Conflict):
                pass  # an answer of the store, not a refusal
            except Denied as error:
                pytest.fail(f"{name}: {error}")
    with (
        connected(vault, cluster=f"{CLUSTER}0") as neighbour,
        pytest.raises(Denied, match=r"permission denied|403"),
    ):
        neighbour.acquire("a", "a-1", TTL_MS, floor=NO_EPOCH, deadline=soon())
    with connected(vault) as backend:
        view = backend.read(deadline=soon())
        assert view.lock is None or view.lock.state == "broken"


# ---- rotations


def test_tokens_of_etcd_end_and_are_renewed(vault_etcd: SecuredEtcd, tmp_path: Path) -> None:
    with connected(vault_etcd, cluster=CLUSTER) as backend, holding(backend) as holder:
        if vault_etcd.store.version == ETCD35:  # each use of a simple token makes it live on: let it be idle
            holder.pause()
            wait_until(lambda: log_says(vault_etcd, "deleted a simple token"), "etcd forgets the token")
            holder.go_on()
        else:
            token = vault_etcd.store.token("aggregate-sidecar", vault_etcd.password_file.read_text().strip())
            wait_until(lambda: not vault_etcd.store.accepts(token), "a JWT of now has ended")
        holder.renewed()
        assert holder.errors == []


@pytest.mark.parametrize("first", ["file", "etcd"])
def test_a_password_is_changed_under_a_holder(vault_etcd35: SecuredEtcd, first: str) -> None:
    vault, new = vault_etcd35, f"new-password-{first}"
    with connected(vault) as backend, holding(backend) as holder:
        if first == "file":
            replace(vault.password_file, f"{new}\n".encode())
            vault.store.set_password("aggregate-sidecar", new)
        else:
            vault.store.set_password("aggregate-sidecar", new)
            wait_until(lambda: holder.errors, "the old password is refused")
            replace(vault.password_file, f"{new}\n".encode())
        holder.renewed()
        for error in holder.errors:
            assert isinstance(error, Denied)
            assert "wrong user name or password for aggregate-sidecar" in str(error)
            assert str(vault.password_file) in str(error)


def test_a_token_of_consul_is_replaced_before_and_after_the_old_one_ends(vault_consul: SecuredConsul) -> None:
    vault = vault_consul
    with connected(vault) as backend, holding(backend) as holder:
        for early in (True, False):
            old = vault.token_file.read_text().strip()
            if early:  # both are good: what is in the file is used before the old one is deleted
                make_token(vault, "", "", vault.token_file)
                await_other_token(backend, old)
                delete_token(vault, old)
                holder.renewed()
                assert holder.errors == []
            else:
                new = vault.folder / "next-token"
                make_token(vault, "", "", new)
                delete_token(vault, old)
                wait_until(lambda: holder.errors, "the old token is refused")
                new.replace(vault.token_file)
                holder.renewed()
                assert all(isinstance(error, Denied) for error in holder.errors)


def test_a_token_without_rights_saw_nothing_and_the_next_one_looks_again(
    vault_consul: SecuredConsul, tmp_path: Path
) -> None:
    """What it did not see must not be taken for an empty store once the file has a better one."""
    make_token(vault_consul, "blind", f'key_prefix "{PREFIX}/other/" {{ policy = "read" }}', tmp_path / "t")
    with (
        connected(vault_consul, options={"token_file": str(tmp_path / "t")}) as backend,
        connected(vault_consul) as other,
        holding(other),
    ):
        make_token(vault_consul, "", "", tmp_path / "t")
        view = backend.read(deadline=soon())
        assert view.lock is not None
        assert view.lock.node == "a"


@pytest.mark.parametrize("vault", ["etcd34", "consul"], indirect=True)
def test_certificates_are_replaced_under_a_holder(vault: Vault) -> None:
    """All of them: the client's (of an authority that is new), the server's, and whom both trust."""
    next_authority = Authority()
    both = vault.authority.pem + next_authority.pem
    short = vault.authority.issue(vault.folder / "client", lives=SHORT)
    with (
        restored(vault),
        Proxy(vault.store.host_port) as proxy,
        connected(vault, through=proxy) as backend,
        holding(backend) as holder,
    ):
        old, before = vault.folder / "old.pem", proxy.connections
        replace(old, short.cert.read_bytes())
        # one file after the other, the pair not matching for a while: what is in force stays
        new = vault.authority.issue(vault.folder / "new")
        replace(short.cert, new.cert.read_bytes())
        replace(short.key, new.key.read_bytes())
        replace(short.ca, both)
        wait_until(lambda: proxy.connections > before, "connected again", 3 * LOOK_EVERY_S)
        holder.renewed()
        assert holder.errors == [], "the old connection served until the new one did"
        wait_until(lambda: has_expired(str(old)), "the old certificate has ended")
        replace_server(vault, next_authority)
        proxy.cut()
        holder.renewed()


@pytest.mark.parametrize("vault", ["etcd35", "consul"], indirect=True)
def test_files_that_the_store_does_not_accept_leave_those_before_in_force(vault: Vault) -> None:
    with (
        restored(vault),
        Proxy(vault.store.host_port) as proxy,
        connected(vault, through=proxy) as backend,
        holding(backend) as holder,
    ):
        for authority, trials in (
            (Authority(), 2),
            (vault.authority, 1),
        ):  # the second after the first has ended
            tried = proxy.connections + trials
            new = authority.issue(vault.folder / "new")
            replace(vault.client.cert, new.cert.read_bytes())
            replace(vault.client.key, new.key.read_bytes())
            wait_until(lambda tried=tried: proxy.connections >= tried, "tried", 5 * LOOK_EVERY_S)  # type: ignore[misc]
            holder.renewed()
            assert holder.errors == []


# ---- what is said


Options = dict[str, object]


def wrong_ca(vault: Vault, folder: Path) -> Options:
    return {"ca_file": str(Authority().issue(folder).ca)}


def no_certificate(vault: Vault, folder: Path) -> Options:
    return {"cert_file": None, "key_file": None}


def foreign_certificate(vault: Vault, folder: Path) -> Options:
    tls = Authority().issue(folder)
    return {"cert_file": str(tls.cert), "key_file": str(tls.key)}


def ended_certificate(vault: Vault, folder: Path) -> Options:
    tls = vault.authority.issue(folder, lives=-SHORT)
    return {"cert_file": str(tls.cert), "key_file": str(tls.key)}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (wrong_ca, r"the server's certificate is signed by none of (etcd|consul)\.ca_file /"),
        (no_certificate, r"the server wants a client certificate: set (etcd|consul)\.cert_file and"),
        (foreign_certificate, r"the server refuses the client certificate (etcd|consul)\.cert_file /"),
        (ended_certificate, r"the client certificate (etcd|consul)\.cert_file \S+ has expired: renew it"),
    ],
    ids=["authority", "no certificate", "of a stranger", "expired"],
)
def test_certificates_that_are_wrong_here(
    vault: Vault, wrong: Callable[[Vault, Path], Options], says: str, tmp_path: Path
) -> None:
    assert_said(vault, says, options=wrong(vault, tmp_path))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"lives": -SHORT}, r"the server's certificate has expired .*renew it there"),
        ({"hosts": ["elsewhere.example"]}, r"the server's certificate is for another name or address"),
    ],
    ids=["expired", "another name"],
)
def test_certificates_that_are_wrong_there(vault: Vault, made: dict[str, Any], says: str) -> None:
    with restored(vault):
        replace_server(vault, vault.authority, **made)
        assert_said(vault, says)


def test_a_password_or_right_that_is_wrong(vault_etcd: SecuredEtcd, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("not-this-one\n")
    says = r"wrong user name or password for aggregate-sidecar: etcd\.password_file \S+/password is read"
    assert_said(vault_etcd, says, Denied, options={"password_file": str(tmp_path / "password")})
    says = f"permission denied: .* readwrite on the keys below /{PREFIX}/other/ \\(user aggregate-sidecar\\)"
    assert_said(vault_etcd, says, Denied, "other")
    says = r"set etcd\.username and etcd\.password_file"
    assert_said(vault_etcd, says, Denied, options={"username": None, "password_file": None})


def test_a_token_or_right_that_is_wrong(vault_consul: SecuredConsul, tmp_path: Path) -> None:
    make_token(vault_consul, "", "", tmp_path / "revoked")
    delete_token(vault_consul, (tmp_path / "revoked").read_text().strip())
    needs = rf"403 .*consul\.token_file has to name a token with write on key_prefix {PREFIX}/"
    assert_said(vault_consul, needs + CLUSTER, Denied, options={"token_file": str(tmp_path / "revoked")})
    assert_said(vault_consul, f"{needs}other/ ", Denied, "other")


# ---- in their words


def make(vault: Vault, cluster: str, through: Proxy | None, options: dict[str, object]) -> Backend:
    chosen = vault.options | options
    name = "etcd" if isinstance(vault, SecuredEtcd) else "consul"
    if through is not None:
        url = f"https://{through.address}"
        chosen |= {"endpoints": [url]} if name == "etcd" else {"address": url}
    given = {key: value for key, value in chosen.items() if value is not None}
    return load_backend(name)(BackendSettings(cluster, given), BootClock())


@contextmanager
def connected(
    vault: Vault, cluster: str = CLUSTER, through: Proxy | None = None, options: Options | None = None
) -> Iterator[Backend]:
    backend = make(vault, cluster, through, options or {})
    try:
        yield backend
    finally:
        backend.close()


def assert_said(
    vault: Vault,
    says: str,
    kind: type[BackendError] = NotSent,
    cluster: str = CLUSTER,
    options: Options | None = None,
) -> None:
    """Make a read and a write fail, each in time and with one line that has the address and *says*."""
    with connected(vault, cluster, options=options) as backend:
        calls: list[Callable[[], object]] = [
            lambda: backend.read(deadline=soon(1_500)),
            lambda: backend.acquire("a", "a-1", TTL_MS, floor=NO_EPOCH, deadline=soon(1_500)),
        ]
        for call in calls:
            asked_at = now()
            with pytest.raises(BackendError) as caught:
                call()
            assert now() - asked_at < 1_700
            line = str(caught.value)
            assert isinstance(caught.value, kind), repr(caught.value)
            assert re.search(says, line), line
            assert vault.store.address in line
            assert "\n" not in line


class Holder:
    """Takes the lock and renews it as a sidecar does, on a thread of its own."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._until(lambda: self._take(), "the lock is ours")
        self.errors: list[BackendError] = []
        self.renewals, self.lost = 0, False
        self._end, self._go = threading.Event(), threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _take(self) -> bool:
        answer = self._backend.acquire("a", "a-1", TTL_MS, floor=NO_EPOCH, deadline=soon())
        if isinstance(answer, Grant):
            self.grant = answer
        return isinstance(answer, Grant)

    @staticmethod
    def _until(condition: Callable[[], object], what: str) -> None:
        wait_until(condition, what, 3 * TTL_MS / 1000)

    def _run(self) -> None:
        while not self._end.wait(0.1):
            self._go.wait()
            try:
                grant = self._backend.renew(self.grant.hold, deadline=Instant(CLOCK.now() + TIMEOUT_MS))
            except BackendError as error:
                self.errors.append(error)
                self.lost = self.lost or CLOCK.now() >= self.grant.deadline or isinstance(error, NotHolder)
                continue
            self.lost = self.lost or grant.sent_at >= self.grant.deadline
            self.grant, self.renewals = grant, self.renewals + 1

    def pause(self) -> None:
        self._go.clear()

    def go_on(self) -> None:
        self._go.set()

    def renewed(self) -> None:
        """Wait for two renewals from now on."""
        enough = self.renewals + 2
        self._until(lambda: self.renewals >= enough or self.lost, "renewals go on")
        assert not self.lost, self.errors

    def stop(self) -> None:
        self._end.set()
        self._go.set()
        self._thread.join(5)


@contextmanager
def restored(vault: Vault) -> Iterator[None]:
    """Leave the server and its clients with certificates of the one authority."""
    try:
        yield
    finally:
        replace_server(vault, vault.authority)
        vault.authority.issue(vault.folder / "client")


@contextmanager
def holding(backend: Backend) -> Iterator[Holder]:
    """Hold the lock for the length of the block; it must never have been lost on the way."""
    holder = Holder(backend)
    try:
        holder.renewed()
        yield holder
    finally:
        holder.stop()
    assert not holder.lost, holder.errors
    view = backend.read(deadline=soon())
    assert view.lock is not None
    assert view.lock.epoch == holder.grant.hold.epoch
    backend.release(holder.grant.hold, cause="test", deadline=soon())


def replace_server(vault: Vault, authority: Authority, **made: Any) -> None:
    """Give the server another certificate: etcd reads it for each connection, Consul when told to."""
    clients_trusted = vault.server.ca.read_bytes()
    new = authority.issue(vault.folder / "server", **made)
    replace(new.ca, clients_trusted)
    if isinstance(vault, SecuredConsul):
        vault.store.process._signal(signal.SIGHUP)
        wait_until(lambda: presents(vault, new), "Consul shows its new certificate")


def presents(vault: Vault, tls: Tls) -> bool:
    shown = ssl.get_server_certificate(vault.store.host_port, timeout=5)
    return ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(
        re.findall("-----BEGIN.*?END CERTIFICATE-----\n", tls.cert.read_text(), re.DOTALL)[0]
    )


def make_token(vault: SecuredConsul, name: str, rules: str, into: Path) -> None:
    """Make a token, of a new policy or, without a name, of the page's."""
    policy = name or f"aggregate-sidecar-{CLUSTER}"
    if name:
        vault.store.call("PUT", "/v1/acl/policy", json.dumps({"Name": name, "Rules": rules}).encode())
    made = vault.store.call("PUT", "/v1/acl/token", json.dumps({"Policies": [{"Name": policy}]}).encode())
    replace(into, f"{json.loads(made)['SecretID']}\n".encode())


def delete_token(vault: SecuredConsul, secret: str) -> None:
    mine = vault.store.request("GET", "/v1/acl/token/self", headers={"X-Consul-Token": secret})
    vault.store.call("DELETE", f"/v1/acl/token/{json.loads(mine)['AccessorID']}")


def await_other_token(backend: Any, old: str) -> None:
    wait_until(lambda: backend._client.current_token != old, "the new token is used", 3 * LOOK_EVERY_S)


def log_says(vault: Vault, text: str) -> bool:
    return text in vault.store.process.log.read_text(errors="replace")
