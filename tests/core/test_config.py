"""What a good configuration becomes: defaults, environment over file, secrets, reloads, ``exec``.

Method: configurations in memory. Bad ones are in test_config_errors.py, arbitrary ones in
test_config_fuzz.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import backends.consul
import backends.etcd
from sidecar.clock import BootClock
from sidecar.config import (
    SECRET_VARIABLES,
    Change,
    Config,
    Secret,
    compound,
    diff,
    durations,
    exposed,
    for_exec,
    from_text,
    kinds,
    load,
    with_live,
    without_secrets,
)
from sidecar.config.schema import KEYS, Key, flat
from sidecar.core.units import usable_ms
from sidecar.errors import ConfigError
from sidecar.ports import Connect

LOCAL = "cluster: c\nnode: n\nbackend: local\n"
ETCD = 'cluster: c\nnode: n\nbackend: etcd\netcd: {endpoints: ["http://h:2379"]}\n'


def config(text: str = LOCAL, environ: dict[str, str] | None = None) -> Config:
    return from_text(text, environ or {}, source="good.yml")


# ---- the file


def test_the_example_of_the_specification_is_accepted(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key", "password"):
        (tmp_path / name).write_text("x\n")
    text = f"""
cluster: plant-7
node: node-a
backend: etcd
etcd:
  endpoints: ["https://10.0.0.1:2379", "https://10.0.0.2:2379", "https://10.0.0.3:2379"]
  ca_file: {tmp_path}/ca
  cert_file: {tmp_path}/cert
  key_file: {tmp_path}/key
  username: root
  password_file: {tmp_path}/password
consul: {{address: "http://127.0.0.1:8500", datacenter: dc1}}
local: {{path: /var/lib/aggregate-sidecar/local.db}}
lock: {{ttl: 10s, renew_every: 2s, request_timeout: 1500ms, stop_grace: 3s, kill_margin: 1s}}
node_options: {{priority: 100, eligible: true, failback: false}}
server:
  kind: aggregate
  command: ["/opt/aggregate/ag_server_console"]
  home: /opt/aggregate
  config_file: server.xml
  standby: monitoring
  user: aggregate
  environment: {{}}
  start_timeout: 5m
  stop_timeout: 60s
  stop_signal: TERM
  stop_command: [/bin/stop, 7]
  probes:
    ready: {{tcp: [6460]}}
    alive: {{tcp: [6460], every: 2s, timeout: 1s, failures: 3}}
  restarts: {{attempts: 3, within: 10m, backoff: 1s, backoff_max: 30s}}
hooks:
api: {{listen: "127.0.0.1:8009", token_file: {tmp_path}/password, plain_http_commands: false}}
log: {{format: text, level: info}}
paths: {{state: /var/lib/aggregate-sidecar, run: /run/aggregate-sidecar}}
guard: {{enforcement: auto}}
"""
    found = config(text)

    assert found.lock.renew_every_ms == 2_000
    assert found.server.probes.ready.tcp == (6460,)
    assert found.server.stop_command == ("/bin/stop", "7")
    assert found.etcd.password is None, "what is in a file is not kept"
    assert (found.api.listen, found.api.token) == ("127.0.0.1:8009", Secret("x"))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up its rights")
def test_bug_a_folder_that_is_shut_was_an_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``./install`` makes it, for a user whose environment holds all that is needed."""
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    monkeypatch.setattr(sys.modules["sidecar.config.load"], "DEFAULT_PATH", shut / "sidecar.yml")
    os.seteuid(65534)
    try:
        found = load(None, {"SIDECAR_CLUSTER": "c", "SIDECAR_BACKEND": "local"})
    finally:
        os.seteuid(0)
    assert found.cluster == "c"


def test_only_who_runs_it_is_patient_with_the_files_of_the_api(tmp_path: Path) -> None:
    text = LOCAL + "api: {listen: 'h:1', token_file: /no/token, tls_cert_file: /no/c, tls_key_file: /no/k}\n"
    (tmp_path / "sidecar.yml").write_text(text)
    with pytest.raises(ConfigError, match=r"api\.tls_cert_file: /no/c: no such file"):
        load(tmp_path / "sidecar.yml", {})

    found = load(tmp_path / "sidecar.yml", {}, patient=True)

    assert [line.partition(": api.")[2] for line in found.trouble] == [
        "tls_cert_file: /no/c: no such file",
        "tls_key_file: /no/k: no such file",
        "token_file: /no/token: no such file",
    ]
    assert found.api.token is None


def test_defaults() -> None:
    found = config()

    assert (found.lock.ttl_ms, found.lock.request_timeout_ms, found.lock.kill_margin_ms) == (
        10_000,
        1_500,
        1_000,
    )
    assert found.local.path == "/var/lib/aggregate-sidecar/local.db"
    assert found.server.command == ("/opt/aggregate/ag_server_console",)
    assert found.server.standby == "monitoring"
    assert found.server.probes.ready.tcp is None
    assert found.server.probes.alive.tcp is None
    assert (found.once, found.source) == (False, "good.yml")


def test_the_node_is_named_like_the_host() -> None:
    host = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()

    assert config("cluster: c\nbackend: local\n").node == host


def test_kind_command_has_no_probe_and_no_standby_by_default() -> None:
    server = config(LOCAL + "server: {kind: command, command: [run]}\n").server

    assert (server.standby, server.probes.ready.tcp, server.probes.alive.tcp) == ("stopped", (), ())


def test_the_alive_probe_checks_what_the_ready_probe_does_unless_told() -> None:
    ready = "ready: {tcp: [1], command: [a], http: {url: 'http://h:1/x?y', status: 204}}"
    same = config(LOCAL + f"server: {{probes: {{{ready}}}}}\n").server.probes
    own = config(LOCAL + f"server: {{probes: {{{ready}, alive: {{tcp: [2]}}}}}}\n").server.probes

    assert (same.alive.tcp, same.alive.command) == ((1,), ("a",))
    assert (same.alive.http.url, same.alive.http.status) == ("http://h:1/x?y", 204)
    assert (own.alive.tcp, own.alive.command, own.alive.http.url) == ((2,), None, None)


def test_an_own_check_replaces_the_ports_of_server_xml() -> None:
    probes = config(LOCAL + "server: {probes: {ready: {command: [a]}}}\n").server.probes

    assert (probes.ready.tcp, probes.ready.command) == ((), ("a",))


@pytest.mark.parametrize("ttl_ms", [*range(1_000, 1_100), 3_000, 9_999, 86_400_000])
def test_ttl_alone_is_enough(ttl_ms: int) -> None:
    lock = config(LOCAL + f"lock: {{ttl: {ttl_ms}ms}}\n").lock

    parts_ms = lock.renew_every_ms + lock.request_timeout_ms + lock.stop_grace_ms + lock.kill_margin_ms
    assert parts_ms < usable_ms(lock.ttl_ms)


@pytest.mark.parametrize(("ms", "fits"), [(5_399, True), (5_400, False)])
def test_the_timing_rule_is_exact(ms: int, fits: bool) -> None:
    text = LOCAL + f"lock: {{ttl: 10s, stop_grace: {ms}ms}}\n"
    if fits:
        assert config(text).lock.stop_grace_ms == ms
    else:
        with pytest.raises(Exception, match=r"must be less than ttl 10s × 0\.99 = 9900ms"):
            config(text)


def test_words_that_yaml_1_1_would_change_stay_what_they_are() -> None:
    found = config(
        "cluster: no\nnode: 2024-01-01\nbackend: local\nnode_options: {eligible: yes, failback: off}\n"
    )

    assert (found.cluster, found.node) == ("no", "2024-01-01")
    assert (found.node_options.eligible, found.node_options.failback) == (True, False)


def test_an_anchor_can_be_used() -> None:
    found = config(LOCAL + "server: {probes: {ready: {tcp: &p [1]}, alive: {tcp: *p}}}\n")

    assert found.server.probes.alive.tcp == (1,)


# ---- the environment

OVERRIDE: dict[str, tuple[str, object]] = {
    "Name": ("other-name", "other-name"),
    "Text": ("other", "other"),
    "AbsolutePath": ("/other", "/other"),
    "Duration": ("77s", 77_000),
    "Integer": ("123", 123),
    "Flag": ("yes", True),
    "SignalName": ("sigint", "INT"),
    "SecretText": ("s3cret", Secret("s3cret")),
    "Url": ("https://[::1]:81", "https://[::1]:81"),
    "Listen": ("[::]:81", "[::]:81"),
    "Urls": ("http://a:1, http://b:2", ("http://a:1", "http://b:2")),
    "Ports": ("1,2", (1, 2)),
    "Argv": ("a,b", ("a", "b")),
    "Environment": ("{A: b}", {"A": "b"}),
}
NEEDS = {
    "lock.renew_every": {"SIDECAR_LOCK__TTL": "10m"},
    "lock.request_timeout": {"SIDECAR_LOCK__TTL": "10m"},
    "lock.stop_grace": {"SIDECAR_LOCK__TTL": "10m"},
    "lock.kill_margin": {"SIDECAR_LOCK__TTL": "10m"},
    "server.restarts.backoff": {"SIDECAR_SERVER__RESTARTS__BACKOFF_MAX": "5m"},
    "server.probes.ready.http.status": {"SIDECAR_SERVER__PROBES__READY__HTTP__URL": "http://h"},
    "server.probes.alive.http.status": {"SIDECAR_SERVER__PROBES__ALIVE__HTTP__URL": "http://h"},
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_every_key_can_be_set_by_the_environment(key: Key) -> None:
    if isinstance(key.kind, kinds.Choice):
        text, value = key.kind.words[-1], key.kind.words[-1]
    elif key.path == "backend":
        text, value = "consul", "consul"
    else:
        text, found = OVERRIDE[type(key.kind).__name__]
        value = found  # type: ignore[assignment]
    environ = {key.variable: text} | NEEDS.get(key.path, {})
    if key.path.startswith("server.") and text == "command":
        environ["SIDECAR_SERVER__COMMAND"] = "run"

    assert flat(config(LOCAL, environ))[key.path] == value


def test_the_names_of_variables_are_unambiguous() -> None:
    assert len({key.variable for key in KEYS.values()}) == len(KEYS)


def test_text_that_looks_like_a_number_is_text_in_the_environment() -> None:
    assert config(LOCAL, {"SIDECAR_CLUSTER": "7", "SIDECAR_NODE": "0123"}).node == "0123"


def test_lists_can_be_json() -> None:
    environ = {"SIDECAR_SERVER__COMMAND": '["run", "a,b", 7]', "SIDECAR_SERVER__PROBES__READY__TCP": "[]"}
    server = config(LOCAL, environ).server

    assert (server.command, server.probes.ready.tcp) == (("run", "a,b", "7"), ())


def test_single_variables_for_the_server_join_those_of_the_file() -> None:
    text = LOCAL + "server: {environment: {A: file, B: file}}\n"
    environ = {"SIDECAR_SERVER__ENVIRONMENT__B": "env", "SIDECAR_SERVER__ENVIRONMENT__C_x": "7"}

    assert config(text, environ).server.environment == {"A": "file", "B": "env", "C_x": "7"}


def test_what_a_child_of_ours_inherits_is_no_mistake() -> None:
    ours = {"SIDECAR_CLUSTER": "x", "SIDECAR_NODE": "y", "SIDECAR_ROLE": "active", "SIDECAR_EPOCH": "17"}
    found = config(LOCAL, ours | {"SIDECAR_CONFIG": "/x", "PATH": "/bin"})

    assert (found.cluster, found.node) == ("x", "y")


def test_what_kubernetes_sets_for_a_service_of_that_name_is_left_alone() -> None:
    service = {
        "SIDECAR_SERVICE_HOST": "10.0.0.1",
        "SIDECAR_PORT": "tcp://10.0.0.1:1",
        "SIDECAR_PORT_1_TCP_PORT": "1",
    }

    assert config(LOCAL, service) == config()


def test_the_environment_is_enough_without_a_file() -> None:
    found = load(None, {"SIDECAR_CLUSTER": "c", "SIDECAR_BACKEND": "local"})

    assert (found.cluster, found.source) == ("c", "environment")


def test_the_file_is_found_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_bytes(b"\xef\xbb\xbf" + LOCAL.replace("\n", "\r\n").encode())

    assert load(None, {"SIDECAR_CONFIG": f"{tmp_path}/c.yml"}) == load(tmp_path / "c.yml", {})


# ---- secrets


def shown(found: Config) -> list[str]:
    """Return every text that a configuration is turned into."""
    return [
        repr(found),
        str(found.etcd),
        f"{found.etcd.password}",
        json.dumps(found.redacted()),
        str(diff(found, config())),
    ]


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("hunter2\r\n")
    text = ETCD.replace("]}", f"], username: u, password_file: {tmp_path}/p}}")
    text += "server: {environment: {DB_PASSWORD: hunter2}}\n"
    found = config(text)

    assert not any("hunter2" in text for text in shown(found))
    assert found.redacted()["etcd"] == {
        "endpoints": ["http://h:2379"],
        "username": "u",
        "password_file": f"{tmp_path}/p",
    }
    assert found.backend_settings().options == {
        "endpoints": ["http://h:2379"],
        "username": "u",
        "password_file": f"{tmp_path}/p",  # read by the backend, and again when it changes
    }


def test_a_secret_of_the_environment_is_never_shown() -> None:
    found = config(ETCD.replace("]}", "], username: u}"), {"SIDECAR_ETCD__PASSWORD": "hunter2"})

    assert found.backend_settings().options["password"] == "hunter2"
    assert not any("hunter2" in text for text in shown(found))


def test_a_secret_of_the_environment_counts_before_the_file() -> None:
    text = "cluster: c\nbackend: consul\nconsul: {token_file: /no/such}\n"
    found = config(text, {"SIDECAR_CONSUL__TOKEN": "t"})

    assert found.backend_settings().options == {"address": "http://127.0.0.1:8500", "token": "t"}


@pytest.mark.parametrize(("mode", "may"), [(0o600, None), (0o640, None), (0o644, "read"), (0o602, "change")])
def test_a_secret_file_that_everybody_may_read_or_change_is_named(
    tmp_path: Path, mode: int, may: str | None
) -> None:
    for name in ("p", "unused"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(mode if name == "p" else 0o666)
    text = ETCD.replace("]}", f"], username: u, password_file: {tmp_path}/p}}")
    text += f"consul: {{token_file: {tmp_path}/unused}}\n"

    said = [f"etcd.password_file: {tmp_path}/p: every user of this machine may {may} it (mode {mode:04o})"]
    found = [line.removesuffix(": chmod 0600") for line in exposed.warnings(config(text))]
    assert found == (said if may else [])


def test_secret_files_of_a_backend_not_in_use_are_not_touched() -> None:
    assert config(LOCAL + "consul: {token_file: /no/such}\n").backend == "local"


def test_a_secret_cannot_be_written_anywhere() -> None:
    import copy
    import pickle

    for way in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            way(Secret("s"))


def test_children_do_not_get_our_secrets() -> None:
    environ = dict.fromkeys(SECRET_VARIABLES, "s") | {"PATH": "/bin", "SIDECAR_NODE": "n"}

    assert without_secrets(environ) == {"PATH": "/bin", "SIDECAR_NODE": "n"}


# ---- backends


@pytest.mark.parametrize(
    ("text", "environ", "connect"),
    [
        pytest.param(
            ETCD,
            {"SIDECAR_ETCD__USERNAME": "u", "SIDECAR_ETCD__PASSWORD": "p"},
            backends.etcd.connect,
        ),
        (
            "cluster: c\nbackend: consul\n",
            {"SIDECAR_CONSUL__TOKEN": "t", "SIDECAR_CONSUL__DATACENTER": "dc1"},
            backends.consul.connect,
        ),
    ],
)
def test_the_built_in_backends_take_what_they_are_given(
    text: str, environ: dict[str, str], connect: Connect
) -> None:
    connect(config(text, environ).backend_settings(), BootClock()).close()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a plug-in as pip would: a folder with its entry point."""
    folder = tmp_path / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: mine\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[aggregate_sidecar.backends]\nmy-store = mine:connect\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my-store"


def test_a_plug_in_gets_its_section_as_it_stands(plugin: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("hunter2\n")
    text = f"cluster: c\nbackend: {plugin}\n{plugin}: {{host: [a, 1], on: true, token_file: {tmp_path}/t}}\n"
    found = config(text, {"SIDECAR_MY_STORE__DEPTH": "7", "SIDECAR_MY_STORE__PASSWORD": "p"})

    assert found.backend_settings().options == {
        "host": ["a", 1],
        "on": True,
        "depth": 7,
        "token": "hunter2",
        "password": "p",
    }
    assert "hunter2" not in repr(found) + json.dumps(found.redacted())
    assert found.redacted()[plugin] == {
        "host": ["a", 1],
        "on": True,
        "depth": 7,
        "token": "***",
        "password": "***",
    }


# ---- reloads


def test_a_reload_tells_what_waits_for_a_restart() -> None:
    new = config(LOCAL + "lock: {ttl: 20s}\nlog: {level: debug}\n")

    changes = diff(config(), new)

    assert Change("lock.ttl", "10s", "20s", True) in changes
    assert Change("log.level", "info", "debug", False) in changes
    assert [change.key for change in changes if not change.needs_restart] == ["log.level"]


def test_a_reload_puts_only_the_live_part_in_force() -> None:
    old, new = config(), config(LOCAL + "lock: {ttl: 20s}\nlog: {level: debug}\n")

    mixed = with_live(old, new)

    assert (mixed.lock, mixed.log) == (old.lock, new.log)
    assert [change.key for change in diff(old, mixed)] == ["log.level"]


def test_a_changed_secret_is_seen_and_not_shown() -> None:
    text = ETCD.replace("]}", "], username: u}")
    old, new = (config(text, {"SIDECAR_ETCD__PASSWORD": secret}) for secret in ("one", "two"))

    assert diff(old, new) == [Change("etcd.password", "***", "***", True)]


def test_probes_stay_with_the_kind_of_server_they_were_written_for() -> None:
    old, new = config(), config(LOCAL + "server: {kind: command, command: [run]}\n")

    assert with_live(old, new).server.probes == old.server.probes


def test_nothing_changes_nothing() -> None:
    assert diff(config(), config()) == []
    with pytest.raises(AttributeError):
        config().lock.ttl_ms = 1  # type: ignore[misc]


# ---- exec


def executed(url: str, environ: dict[str, str] | None = None, *, once: bool = False) -> Config:
    return for_exec(url, "c", None, 5_000, 3, ["sleep", "1"], once, Path("/s"), environ=environ or {})


@pytest.mark.parametrize(
    ("url", "backend", "options"),
    [
        ("etcd://h:1,[::1]:2", "etcd", {"endpoints": ["http://h:1", "http://[::1]:2"]}),
        ("etcds://h:1/", "etcd", {"endpoints": ["https://h:1"]}),
        ("consul://h:1", "consul", {"address": "http://h:1"}),
        ("CONSULS://h:1", "consul", {"address": "https://h:1"}),
        ("local:///a/b.db", "local", {"path": "/a/b.db"}),
    ],
)
def test_a_backend_by_url(url: str, backend: str, options: dict[str, object]) -> None:
    found = executed(url)

    assert (found.backend, found.backend_settings().options) == (backend, options)


def test_exec_runs_a_command_under_the_lock() -> None:
    found = executed("local:///d", {"SIDECAR_NODE": "from-env", "SIDECAR_CLUSTER": "not-this"})

    assert (found.server.kind, found.server.command, found.server.standby) == (
        "command",
        ("sleep", "1"),
        "stopped",
    )
    assert (found.cluster, found.node, found.lock.ttl_ms) == ("c", "from-env", 5_000)
    assert (found.server.restarts.attempts, found.once) == (3, False)
    assert found.backend_settings().state_dir == Path("/s")


def test_exec_once_does_not_restart() -> None:
    found = executed("local:///d", once=True)

    assert (found.server.restarts.attempts, found.once) == (0, True)


def test_bug_exec_took_its_own_defaults_before_the_environment() -> None:
    environ = {"SIDECAR_LOCK__TTL": "20s", "SIDECAR_SERVER__RESTARTS__ATTEMPTS": "7"}

    def found(ttl_ms: int | None, restarts: int | None, once: bool = False) -> tuple[int, int]:
        made = for_exec(
            "local:///d", "c", None, ttl_ms, restarts, ["true"], once, Path("/s"), environ=environ
        )
        return made.lock.ttl_ms, made.server.restarts.attempts

    assert found(None, None) == (20_000, 7)
    assert found(5_000, 0) == (5_000, 0)
    assert found(None, None, once=True) == (20_000, 0)
    environ.clear()
    assert found(None, None) == (10_000, 3)  # what the help says


def test_exec_takes_credentials_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "ca").touch()
    environ = {
        "SIDECAR_ETCD__USERNAME": "u",
        "SIDECAR_ETCD__PASSWORD": "p",
        "SIDECAR_ETCD__CA_FILE": f"{tmp_path}/ca",
    }

    assert executed("etcds://h:1", environ).backend_settings().options == {
        "endpoints": ["https://h:1"],
        "ca_file": f"{tmp_path}/ca",
        "username": "u",
        "password": "p",
    }


# ---- durations


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0s", 0),
        ("1ms", 1),
        ("1500ms", 1_500),
        ("1.5s", 1_500),
        ("1m30s", 90_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert durations.parse(text) == ms
    assert durations.parse(durations.render(ms)) == ms


# ---- what it costs


def test_loading_needs_neither_msgspec_nor_the_rest_of_the_program() -> None:
    code = "import sys, sidecar.config; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    heavy = {
        "msgspec",
        "click",
        "rich",
        "psutil",
        "grpc",
        "sidecar.ports",
        "importlib.metadata",
        "difflib",
        "logging",
    }
    assert not heavy & set(loaded)


def test_kinds_say_what_they_expect() -> None:
    assert all(key.kind.says for key in KEYS.values())
    assert compound.Options().says
