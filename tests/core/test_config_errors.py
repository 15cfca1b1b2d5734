"""Every way a configuration can be bad is one exact line that says where, what, and what would help.

Method: one row for each; the file is always called bad.yml. Not covered: how the command
line shows it.
"""

# ruff: noqa: E501  # rows are exact messages

import os
from pathlib import Path

import pytest

from sidecar.config import for_exec, from_text, load
from sidecar.errors import ConfigError, SidecarError, UsageError

GOOD = 'cluster: c\nnode: n\nbackend: etcd\netcd: {endpoints: ["http://h:2379"]}\n'
LOCAL = "cluster: c\nnode: n\nbackend: local\n"

FILE = {
    # empty, no YAML, not a mapping
    "": "bad.yml: is empty; write at least cluster and backend",
    "# nothing\n": "bad.yml: is empty; write at least cluster and backend",
    "- a\n": "bad.yml:1: expected keys such as cluster and backend at the top, got a list",
    "hello": "bad.yml:1: expected keys such as cluster and backend at the top, got 'hello'",
    "a: [1,\n": "bad.yml:2:1: not valid YAML: did not find expected node content",
    "a:\n\tb: 1\n": "bad.yml:2:1: not valid YAML: found character that cannot start any token"
    "; indent with spaces, not tabs",
    "a: b: c\n": "bad.yml:1:5: not valid YAML: mapping values are not allowed in this context"
    "; indented too deep, or a text without quotes?",
    "a:\n   b: 1\n  c: 2\n": "bad.yml:3:3: not valid YAML: did not find expected key"
    "; is the line indented like the ones above?",
    "a: \x01": "bad.yml:1: not valid YAML: it holds a character that is not allowed in text, U+0001",
    "a: 1\n---\nb: 2\n": "bad.yml:2: more than one YAML document",
    "a: *b\n": "bad.yml:1: a: alias *b stands for nothing above it",
    "a: !!python/object:os.system x\n": "bad.yml:1: a: YAML tags such as "
    "'tag:yaml.org,2002:python/object:os.syste' are not understood",
    "lock:\n  <<: {ttl: 1s}\n": "bad.yml:2: lock: merge keys (<<) are not supported; write the values out",
    LOCAL + "lock: {ttl: 10s}\nlock: {ttl: 9s}\n": "bad.yml:5: lock: given twice, first on line 4",
    "? [a]\n: 1\n": "bad.yml:1: a key must be text",
    "[" * 100: "bad.yml:1: nested deeper than 20 levels",
    # unknown keys
    LOCAL + "lock: {tll: 10s}\n": "bad.yml:4: lock.tll: unknown key; did you mean lock.ttl?",
    LOCAL + "clusters: x\n": "bad.yml:4: clusters: unknown key; did you mean cluster?",
    LOCAL + "ttl: 10s\n": "bad.yml:4: ttl: unknown key; did you mean lock.ttl?",
    LOCAL + "zzzzzz: 1\n": "bad.yml:4: zzzzzz: unknown key; docs/configuration.md lists all keys",
    LOCAL + "server:\n  probes:\n    alive: {evry: 1s}\n": "bad.yml:6: server.probes.alive.evry: "
    "unknown key; did you mean server.probes.alive.every?",
    LOCAL + "lock.ttl: 10s\n": "bad.yml:4: lock.ttl: a key cannot hold a dot; nest the keys instead",
    LOCAL + "'a\\nb': 1\n": "bad.yml:4: 'a\\\\nb': unknown key; docs/configuration.md lists all keys",
    # missing
    "node: n\nbackend: local\n": "bad.yml: cluster: missing; add it, for example cluster: plant-7",
    "cluster: c\n": "bad.yml: backend: missing; add it, for example backend: etcd",
    "cluster:\nbackend: local\n": "bad.yml:1: cluster: is empty; give a value or remove the key",
    # wrong types
    LOCAL + "lock: {ttl: 10}\n": "bad.yml:4: lock.ttl: expected a duration such as 10s, got the number 10: "
    "add a unit (ms, s, m, h)",
    LOCAL + "lock: {ttl: '10'}\n": "bad.yml:4: lock.ttl: expected a duration such as 10s, got '10': "
    "add a unit (ms, s, m, h)",
    LOCAL + "lock: {ttl: soon}\n": "bad.yml:4: lock.ttl: expected a duration such as 10s, got 'soon'",
    LOCAL + "lock: {ttl: [10s]}\n": "bad.yml:4: lock.ttl: expected a duration such as 10s, got a list",
    LOCAL + "lock: 10s\n": "bad.yml:4: lock: expected a mapping of keys, got '10s'",
    "cluster: 7\nbackend: local\n": "bad.yml:1: cluster: expected a name, got the number 7: put it in quotes",
    "cluster: true\nbackend: local\n": "bad.yml:1: cluster: expected a name, got true: put it in quotes",
    LOCAL
    + "node_options: {priority: high}\n": "bad.yml:4: node_options.priority: expected a whole number, got 'high'",
    LOCAL + "node_options: {priority: 1.5}\n": "bad.yml:4: node_options.priority: expected a whole number, "
    "got the number 1.5",
    LOCAL
    + "node_options: {eligible: maybe}\n": "bad.yml:4: node_options.eligible: expected true or false, got 'maybe'",
    LOCAL
    + "server: {command: run me}\n": "bad.yml:4: server.command: expected a list of a program and its arguments, "
    "got 'run me': no shell is used",
    LOCAL
    + "server: {command: []}\n": "bad.yml:4: server.command: is empty; the first item is the program to start",
    LOCAL
    + "server: {environment: {A: 1.5}}\n": "bad.yml:4: server.environment: A: expected text, got float: "
    "put it in quotes",
    LOCAL
    + "server: {environment: {SIDECAR_ROLE: x}}\n": "bad.yml:4: server.environment: SIDECAR_ROLE is set by "
    "the sidecar itself; remove it",
    LOCAL + "server: {environment: {'A B': x}}\n": "bad.yml:4: server.environment: 'A B' cannot be the name "
    "of a variable",
    # impossible values
    LOCAL + "lock: {ttl: -5s}\n": "bad.yml:4: lock.ttl: a duration cannot be negative, got '-5s'",
    LOCAL + "lock: {ttl: 0s}\n": "bad.yml:4: lock.ttl: must be at least 1s, got 0s",
    LOCAL + "lock: {ttl: 900ms}\n": "bad.yml:4: lock.ttl: must be at least 1s, got 900ms",
    LOCAL + "lock: {ttl: 2d}\n": "bad.yml:4: lock.ttl: must be at most 1d, got 2d",
    LOCAL + "lock: {ttl: 1.0005s}\n": "bad.yml:4: lock.ttl: must be whole milliseconds, got 1.0005s",
    LOCAL
    + "node_options: {priority: -1}\n": "bad.yml:4: node_options.priority: must be 0 to 1000000, got -1",
    "cluster: a/b\nbackend: local\n": "bad.yml:1: cluster: 'a/b' cannot be a name: at most 63 letters, digits, . _ -, "
    "first a letter or digit",
    "cluster: c\nbackend: local\nnode: ../x\n": "bad.yml:3: node: '../x' cannot be a name: at most 63 letters, digits, "
    ". _ -, first a letter or digit",
    LOCAL
    + "log: {level: loud}\n": "bad.yml:4: log.level: must be debug or info or warning or error, got 'loud'",
    LOCAL
    + "guard: {enforcement: none}\n": "bad.yml:4: guard.enforcement: must be auto or kernel or process, got 'none'",
    LOCAL + "paths: {state: var}\n": "bad.yml:4: paths.state: must be an absolute path, got 'var'",
    LOCAL + "server: {stop_signal: STOP}\n": "bad.yml:4: server.stop_signal: SIGSTOP does not end a program; "
    "use TERM, INT, QUIT or HUP",
    LOCAL
    + "server: {stop_signal: NAP}\n": "bad.yml:4: server.stop_signal: expected a signal name such as TERM, "
    "got 'NAP'",
    LOCAL + "server: {probes: {ready: {tcp: [70000]}}}\n": "bad.yml:4: server.probes.ready.tcp: item 1: "
    "a port must be 1 to 65535, got 70000",
    LOCAL
    + "server: {probes: {ready: {tcp: 6460}}}\n": "bad.yml:4: server.probes.ready.tcp: expected a list of ports, "
    "got the number 6460: write [6460]",
    LOCAL
    + "server: {probes: {ready: {http: {status: 200}}}}\n": "bad.yml:4: server.probes.ready.http.status: "
    "needs server.probes.ready.http.url as well",
    LOCAL + "server: {restarts: {backoff: 1m}}\n": "bad.yml:4: server.restarts.backoff: must be at most "
    "server.restarts.backoff_max, 30s",
    LOCAL + "server: {kind: command}\n": "bad.yml: server.command: missing, and server.kind is command; "
    "give the program to run",
    # the timing rule
    LOCAL
    + "lock: {ttl: 10s, stop_grace: 8s}\n": "bad.yml:4: lock: renew_every 2s + request_timeout 1500ms + "
    "stop_grace 8s + kill_margin 1s = 12500ms must be less than ttl 10s × 0.99 = 9900ms; "
    "raise lock.ttl to at least 15s or lower lock.stop_grace to at most 5399ms",
    LOCAL + "lock: {ttl: 1s, renew_every: 5s, request_timeout: 5s}\n": "bad.yml:4: lock: renew_every 5s + "
    "request_timeout 5s + stop_grace 300ms + kill_margin 100ms = 10400ms must be less than ttl 1s × 0.99 = 990ms; "
    "raise lock.ttl to at least 17s",
    # backends
    "cluster: c\nnode: n\nbackend: etcd\n": "bad.yml: etcd.endpoints: missing, and backend is etcd; "
    'add it, for example endpoints: ["https://10.0.0.1:2379"]',
    GOOD.replace("http://h:2379", "h:2379"): "bad.yml:4: etcd.endpoints: item 1: 'h:2379' has no scheme; "
    "write it as http://HOST:2379",
    GOOD.replace(
        ":2379", ""
    ): "bad.yml:4: etcd.endpoints: item 1: 'http://h' has no port; write it as http://HOST:2379",
    GOOD.replace(
        "2379", "99999"
    ): "bad.yml:4: etcd.endpoints: item 1: 'http://h:99999': the port must be 1 to 65535, got '99999'",
    GOOD.replace(
        "2379", "x"
    ): "bad.yml:4: etcd.endpoints: item 1: 'http://h:x': the port must be 1 to 65535, got 'x'",
    GOOD.replace(
        "http", "ftp"
    ): "bad.yml:4: etcd.endpoints: item 1: 'ftp://h:2379' must start with http:// or https://",
    GOOD.replace(
        "//h", "//u:hunter2@h"
    ): "bad.yml:4: etcd.endpoints: item 1: user and password do not belong into an "
    "address; give them by file or environment",
    GOOD.replace("//h:2379", "//:2379"): "bad.yml:4: etcd.endpoints: item 1: 'http://:2379' has no host; "
    "write it as http://HOST:2379",
    GOOD.replace("//h:2379", "//h:2379/v3"): "bad.yml:4: etcd.endpoints: item 1: 'http://h:2379/v3' must end "
    "after the port",
    GOOD.replace(
        '["http://h:2379"]', '["http://h:1", "https://h:2"]'
    ): "bad.yml:4: etcd.endpoints: http:// and https:// are mixed; use one of them for all",
    GOOD.replace(
        '["http://h:2379"]', '["http://h:1", "http://h:1"]'
    ): "bad.yml:4: etcd.endpoints: holds the same address twice",
    GOOD.replace('["http://h:2379"]', "[]"): "bad.yml:4: etcd.endpoints: is empty; "
    'give a list such as ["https://10.0.0.1:2379"]',
    GOOD.replace("]}", "], ca_file: /ca}"): "bad.yml:4: etcd.ca_file: etcd.endpoints is not https://, "
    "so it would have no effect",
    GOOD.replace("http", "https").replace(
        "]}", "], ca_file: /no/ca}"
    ): "bad.yml:4: etcd.ca_file: /no/ca: no such file",
    GOOD.replace("http", "https").replace(
        "]}", "], cert_file: /dev/null}"
    ): "bad.yml:4: etcd.cert_file: /dev/null: is not a regular file",
    GOOD.replace("]}", "], username: u}"): "bad.yml:4: etcd.username: needs a password: "
    "give etcd.password_file or SIDECAR_ETCD__PASSWORD",
    GOOD.replace(
        "]}", "], username: u, password_file: /no/p}"
    ): "bad.yml:4: etcd.password_file: /no/p: no such file",
    "cluster: c\nbackend: consul\nconsul: {address: 'h:8500'}\n": "bad.yml:3: consul.address: 'h:8500' has no scheme; "
    "write it as http://HOST:8500",
    "cluster: c\nnode: n\nbackend: etdc\n": "bad.yml:3: backend: no backend named etdc is installed; did you mean etcd?",
    "cluster: c\nnode: n\nbackend: paths\n": "bad.yml:3: backend: no backend named paths is installed; "
    "there are consul, etcd, local",
    # secrets do not stand in the file, and are not repeated
    GOOD.replace(
        "]}", "], password: hunter2}"
    ): "bad.yml:4: etcd.password: a secret cannot stand in the configuration; "
    "give etcd.password_file or SIDECAR_ETCD__PASSWORD instead",
    LOCAL
    + "consul: {token: hunter2}\n": "bad.yml:4: consul.token: a secret cannot stand in the configuration; "
    "give consul.token_file or SIDECAR_CONSUL__TOKEN instead",
    "cluster: c\nbackend: mine\nmine: {password: hunter2}\n": "bad.yml:3: mine.password: a secret cannot stand in the "
    "configuration; give mine.password_file or SIDECAR_MINE__PASSWORD instead",
    # the API
    LOCAL + "api: {listen: 8009}\n": "bad.yml:4: api.listen: expected HOST:PORT such as 127.0.0.1:8009, "
    "got the number 8009",
    LOCAL
    + "api: {listen: ':8009'}\n": "bad.yml:4: api.listen: expected HOST:PORT such as 127.0.0.1:8009, got ':8009'; "
    "every address is 0.0.0.0:8009 or [::]:8009",
    LOCAL + "api: {listen: 'h:8009', tls_cert_file: /etc/hostname}\n": "bad.yml:4: api.tls_cert_file: "
    "needs api.tls_key_file as well",
    LOCAL
    + "api: {listen: 'h:8009', tls_cert_file: /no, tls_key_file: /no}\n": "bad.yml:4: api.tls_cert_file: "
    "/no: no such file",
    LOCAL + "api: {listen: 'h:8009', token: hunter2}\n": "bad.yml:4: api.token: a secret cannot stand in the "
    "configuration; give api.token_file or SIDECAR_API__TOKEN instead",
    # hooks
    LOCAL
    + "hooks: {on_active: /bin/x}\n": "bad.yml:4: hooks.on_active: expected a list of a program and its "
    "arguments, got '/bin/x': no shell is used",
    LOCAL
    + "hooks: {before_active: [x], timeout: 5m}\n": "bad.yml:4: hooks.timeout: before_active is part of the start: "
    "must be less than server.start_timeout, 5m",
    LOCAL
    + "hooks: {before_active: [x], before_active_timeout: 6m}\n": "bad.yml:4: hooks.before_active_timeout: "
    "before_active is part of the start: must be less than server.start_timeout, 5m",
}

ENVIRONMENT = {
    ("SIDECAR_LOCK__TTL", "10"): "SIDECAR_LOCK__TTL (lock.ttl): expected a duration such as 10s, got '10': "
    "add a unit (ms, s, m, h)",
    ("SIDECAR_LOCK__TTL", ""): "SIDECAR_LOCK__TTL (lock.ttl): is empty; give a value or unset it",
    ("SIDECAR_LOCK__TLL", "1s"): "SIDECAR_LOCK__TLL: unknown variable; did you mean SIDECAR_LOCK__TTL?",
    ("SIDECAR_LOCK_TTL", "1s"): "SIDECAR_LOCK_TTL: unknown variable; did you mean SIDECAR_LOCK__TTL?",
    ("SIDECAR_CLUSTR", "x"): "SIDECAR_CLUSTR: unknown variable; did you mean SIDECAR_CLUSTER?",
    (
        "SIDECAR_LOCK",
        "10s",
    ): "SIDECAR_LOCK: lock is a group of keys; set one of them, such as SIDECAR_LOCK__TTL",
    ("SIDECAR_QQQ__X", "1"): "SIDECAR_QQQ__X: unknown variable; docs/configuration.md lists all keys",
    (
        "SIDECAR_NODE",
        "a b",
    ): "SIDECAR_NODE (node): 'a b' cannot be a name: at most 63 letters, digits, . _ -, "
    "first a letter or digit",
    ("SIDECAR_NODE_OPTIONS__PRIORITY", "x"): "SIDECAR_NODE_OPTIONS__PRIORITY (node_options.priority): "
    "expected a whole number, got 'x'",
    (
        "SIDECAR_SERVER__PROBES__READY__TCP",
        "6460,x",
    ): "SIDECAR_SERVER__PROBES__READY__TCP (server.probes.ready.tcp): "
    "item 2: expected a port number, got 'x'",
    (
        "SIDECAR_SERVER__PROBES__READY__TCP",
        "[6460",
    ): "SIDECAR_SERVER__PROBES__READY__TCP (server.probes.ready.tcp): "
    "not valid YAML: did not find expected ',' or ']'",
    (
        "SIDECAR_ETCD__PASSWORD",
        "hunter2\n",
    ): "SIDECAR_ETCD__PASSWORD (etcd.password): must be one line of at most 4096 printable characters",
    (
        "SIDECAR_ETCD__PASSWORD",
        "hunter2",
    ): "SIDECAR_ETCD__PASSWORD (etcd.password): needs etcd.username as well",
}

EXEC = {
    "etcd://h": "--backend: 'etcd://h' has no port; write it as etcd://HOST:2379",
    "etcd://h:0": "--backend: 'etcd://h:0': the port must be 1 to 65535, got '0'",
    "etcd://h:1,,h:2": "--backend: 'etcd://' has no host; write it as etcd://HOST:2379",
    "etcd://u:hunter2@h:1": "--backend: user and password do not belong on a command line; "
    "give them by SIDECAR_ETCD__*",
    "etcd://::1:2379": "--backend: 'etcd://::1:2379' has no host; write it as etcd://HOST:2379",
    "etcd://fe80::1:2379": "--backend: 'etcd://fe80::1:2379': the port must be 1 to 65535, got ':1:2379'"
    "; put an IPv6 address in brackets",
    "etcd://[::x]:1": "--backend: 'etcd://[::x]:1': '[::x]' is not an IPv6 address",
    "consul://a:1,b:2": "--backend: consul takes one address, that of the nearest agent",
    "local://x": "--backend: 'local://x' must name a file by its absolute path, as local:///PATH",
    "redis://h:1": "--backend: 'redis://h:1' is not known; write etcd://HOST:PORT[,HOST:PORT…], etcds://…, "
    "consul://HOST:PORT, consuls://… or local:///PATH",
    "h:2379": "--backend: 'h:2379' is not known; write etcd://HOST:PORT[,HOST:PORT…], etcds://…, "
    "consul://HOST:PORT, consuls://… or local:///PATH",
}


@pytest.mark.parametrize("text", FILE, ids=lambda text: repr(text[-40:]))
def test_a_bad_file_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_text(text, {}, source="bad.yml")

    assert str(caught.value) == FILE[text]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("variable", ENVIRONMENT, ids=lambda pair: "=".join(pair))
def test_a_bad_variable_is_one_line(variable: tuple[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_text(GOOD, dict([variable]), source="bad.yml")

    assert str(caught.value) == ENVIRONMENT[variable]


@pytest.mark.parametrize("url", EXEC)
def test_a_bad_backend_url_is_one_line(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        for_exec(url, "c", "n", 10_000, 3, ["true"], False, Path("/s"), environ={})

    assert str(caught.value) == EXEC[url]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cluster": "a b"}, "--cluster: 'a b' cannot be a name: at most 63 letters, digits, . _ -, "),
        ({"node": ""}, "--node: is empty; give a value or remove the key"),
        ({"ttl_ms": 500}, "--ttl: must be at least 1s, got 500ms"),
        ({"ttl_ms": -1}, "--ttl: a duration cannot be negative, got '-1ms'"),
        ({"restarts": -1}, "--restarts: must be 0 to 1000, got -1"),
        ({"command": []}, "CMD: is empty; the first item is the program to start"),
        ({"state_dir": Path("s")}, "--state-dir: must be an absolute path, got 's'"),
    ],
)
def test_a_bad_option_of_exec_names_the_option(wrong: dict[str, object], message: str) -> None:
    options: dict[str, object] = {
        "backend_url": "local:///d",
        "cluster": "c",
        "node": "n",
        "ttl_ms": 10_000,
        "restarts": 3,
        "command": ["true"],
        "once": False,
        "state_dir": Path("/s"),
        "environ": {},
    }
    with pytest.raises(UsageError) as caught:
        for_exec(**(options | wrong))  # type: ignore[arg-type]

    assert str(caught.value).startswith(message)


class TestFiles:
    def message(self, path: Path | None, environ: dict[str, str] | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            load(path, environ or {})
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "no.yml"

        assert self.message(path) == f"{path}: no such file; `sidecar init` writes one, or give --config"
        assert self.message(None, {"SIDECAR_CONFIG": str(path)}) == self.message(path)

    def test_a_folder_on_the_way_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        assert self.message(tmp_path / "file" / "x") == f"{tmp_path}/file/x: not a directory"

    def test_a_directory(self, tmp_path: Path) -> None:
        assert self.message(tmp_path) == f"{tmp_path}: is a directory, not a file"

    def test_a_pipe_is_refused_instead_of_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")

        assert self.message(tmp_path / "pipe") == f"{tmp_path}/pipe: is not a regular file"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_unreadable(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yml"
        path.touch(mode=0)

        assert (
            self.message(path) == f"{path}: not readable by user id {os.geteuid()}; "
            "run this as its owner or root, or change its owner or mode"
        )

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yml"
        path.write_bytes(b"cluster: c\nnode: \xff\n")

        assert self.message(path) == f"{path}:2: not UTF-8 text; save it as UTF-8"

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yml"
        path.write_bytes(b"#" * 1_000_001)

        assert self.message(path) == f"{path}: is larger than 1000000 bytes"

    def test_an_odd_path_stays_one_line(self, tmp_path: Path) -> None:
        assert "\n" not in self.message(tmp_path / "a\nb")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"\n", "is empty"),
            (b"a\nb\n", "must be one line of at most 4096 printable characters"),
            (b"\xff", "not UTF-8 text"),
            (b"x" * 1_100_000, "is larger than 1048576 bytes"),
        ],
    )
    def test_a_secret_that_is_none(self, tmp_path: Path, content: bytes, reason: str) -> None:
        secret = tmp_path / "token"
        secret.write_bytes(content)
        text = f"cluster: c\nnode: n\nbackend: consul\nconsul: {{token_file: {secret}}}\n"

        with pytest.raises(ConfigError) as caught:
            from_text(text, {}, source="bad.yml")

        assert str(caught.value) == f"bad.yml:4: consul.token_file: {secret}: {reason}"


def test_aliases_cannot_blow_up() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
    )
    with pytest.raises(ConfigError, match=r"^bad.yml:\d+: more than 10000 values$"):
        from_text(bomb, {}, source="bad.yml")


@pytest.mark.parametrize(
    ("environ", "ttl_ms", "blames"),
    [
        ({"SIDECAR_LOCK__RENEW_EVERY": "9s"}, 2_000, "SIDECAR_LOCK__RENEW_EVERY (lock.renew_every): "),
        ({"SIDECAR_LOCK__STOP_GRACE": "1500ms"}, None, "SIDECAR_LOCK__STOP_GRACE (lock.stop_grace): "),
        ({"SIDECAR_LOCK__KILL_MARGIN": "550ms", "SIDECAR_LOCK__REQUEST_TIMEOUT": "550ms"}, 2_000, "--ttl: "),
    ],
)
def test_bug_the_timing_rule_blamed_a_section_that_nobody_wrote(
    environ: dict[str, str], ttl_ms: int | None, blames: str
) -> None:
    given = environ if ttl_ms else environ | {"SIDECAR_LOCK__TTL": "2s"}
    with pytest.raises(SidecarError) as caught:
        for_exec("local:///x", "c", "n", ttl_ms, 3, ["true"], False, Path("/s"), environ=given)

    assert str(caught.value).startswith(f"{blames}renew_every ")


def test_a_variable_is_blamed_before_the_section_in_the_file() -> None:
    with pytest.raises(ConfigError, match=r"^SIDECAR_LOCK__RENEW_EVERY .lock.renew_every.: renew_every 9s"):
        from_text(LOCAL + "lock: {ttl: 3s}\n", {"SIDECAR_LOCK__RENEW_EVERY": "9s"}, source="bad.yml")


def test_exec_has_no_hooks() -> None:
    environ = {"SIDECAR_HOOKS__ON_ACTIVE": "x"}
    with pytest.raises(ConfigError, match=r"SIDECAR_HOOKS__ON_ACTIVE .hooks.on_active.: exec has no hooks"):
        for_exec("local:///x", "c", "n", 10_000, 3, ["true"], False, Path("/s"), environ=environ)


NO_F = "server.config_file: 'plant.xml', but server.command has no -f: the server would read server.xml"
OTHER_F = "server.command: -f 'plant.xml': the server would not read server.config_file, 'server.xml'"
OTHER_O = "server.command: -o '/opt/b' is not server.home, in whose 'server.xml' the role is written"


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ("config_file: plant.xml, command: [/opt/aggregate/ag_server]", NO_F),
        ("config_file: plant.xml, command: [/bin/setsid, -f, plant.xml, ./ag_server]", NO_F),
        ("config_file: plant.xml, command: [./ag_server, -f]", "-f '': the server would not read"),
        ("command: [./ag_server, -f, plant.xml]", OTHER_F),
        ("command: [./ag_server, -f, server.xml, -f, plant.xml]", OTHER_F),
        ("command: [./ag_server, -f, /opt/b/server.xml]", "-f '/opt/b/server.xml': the server would not"),
        ("command: [/opt/own/start, -f, plant.xml]", OTHER_F),
        ("command: [/bin/su, -c, \"./ag_server -f 'plant.xml'\", ag]", OTHER_F),
        ('command: [/bin/sh, -c, "exec ./it\'s -f plant.xml"]', OTHER_F),
        ('command: [/bin/bash, -lc, "exec ./ag_server -f plant.xml"]', OTHER_F),
        ('command: [/bin/su, ag, "--command=./ag_server -f plant.xml"]', OTHER_F),
        ('command: [/bin/sh, -c, "test -x ag_server && ./ag_server -f plant.xml"]', OTHER_F),
        ('command: [/bin/sh, -c, "cd /opt/aggregate;./ag_server -f plant.xml>log"]', OTHER_F),
        ("command: [./ag_server, -o, /opt/b]", OTHER_O),
    ],
)
def test_bug_the_role_was_written_into_a_file_that_the_server_does_not_read(server: str, says: str) -> None:
    """Two nodes whose servers read a server.xml with clusterRole 1 in it were both active."""
    with pytest.raises(ConfigError) as caught:
        from_text(f"{LOCAL}server: {{{server}}}\n", {}, source="bad.yml")

    assert says in str(caught.value)
    assert str(caught.value).startswith("bad.yml:4: server.")


@pytest.mark.parametrize(
    "server",
    [
        "config_file: plant.xml, command: [./ag_server, -f, ./plant.xml, -o, /opt/aggregate/]",
        "home: /opt/b, config_file: plant.xml, command: [/opt/c/ag_server, -f, /opt/b/plant.xml]",
        "command: [./ag_server_console, -f, server.xml, -o, .]",
        "command: [/bin/setsid, -f, ./ag_server]",
        'config_file: plant.xml, command: [/bin/su, -c, "./ag_server -f plant.xml", ag]',
        'config_file: plant.xml, command: [/bin/bash, -ec, "exec ./ag_server -f plant.xml"]',
        'config_file: plant.xml, command: [/bin/sh, -c, "(./ag_server -f plant.xml)"]',
        'command: [/bin/sh, -c, "rm -f core; ./ag_server; rm -f core"]',
        "kind: command, command: [/bin/tail, -f, /var/log/syslog]",
    ],
)
def test_a_command_that_reads_the_same_file_is_good(server: str) -> None:
    from_text(f"{LOCAL}server: {{{server}}}\n", {}, source="good.yml")


def test_the_default_command_reads_the_file_that_is_edited() -> None:
    found = from_text(f"{LOCAL}server: {{home: /opt/b, config_file: plant.xml}}\n", {}, source="good.yml")

    assert found.server.command == ("/opt/b/ag_server_console", "-f", "plant.xml")
