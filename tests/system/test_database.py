"""Goal: docs/database.md is true: its roles, its hook and its commands work on a real PostgreSQL, and a
server that is no longer the active one can write nothing more, whatever has happened to its machine.

Method: SQL, configuration and commands are read from the page and run. A session that goes on by itself
stands for the server of a machine that was frozen and resumed.

Not covered: the options of the JDBC driver, PostgreSQL 16 and later.
"""

import json
import re
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.demo.cluster import DemoNode, until
from tests.harness.postgres import Postgres
from tests.harness.process import free_port, wait_until
from tests.harness.tools import ROOT

PAGE = (ROOT / "docs" / "database.md").read_text()
FENCE = ROOT / "docs" / "hooks" / "postgresql-fence"
WITHIN_S = 30
A, B = "aggregate_node_a", "aggregate_node_b"
BEFORE = """
CREATE ROLE aggregate LOGIN PASSWORD 'aggregate';
ALTER SCHEMA public OWNER TO aggregate;
SET ROLE aggregate;
CREATE TABLE work (id bigserial PRIMARY KEY, node text, at timestamptz DEFAULT clock_timestamp());
"""  # what a server that was alone has left


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.partition("## Fencing")[2], re.DOTALL)
    assert found is not None
    return found[1]


COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)


@contextmanager
def prepared() -> Iterator[Postgres]:
    """Run a database where the roles of the page were made."""
    with Postgres.run() as one:
        assert one.called("postgres", "CREATE DATABASE aggregate").returncode == 0
        one.ask(BEFORE)
        passwords = [line.split()[1] for line in block("sql").splitlines() if line.startswith("\\password")]
        one.ask(block("sql"), answers="".join(f"{name}\n{name}\n" for name in passwords))
        yield one


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with prepared() as one:
        yield one


@pytest.fixture(autouse=True)
def as_at_the_beginning(postgres: Postgres) -> None:
    postgres.ask(f"TRUNCATE sidecar_fence, work; ALTER ROLE {A} LOGIN; ALTER ROLE {B} LOGIN")


def fence(
    postgres: Postgres,
    role: str,
    epoch: int,
    group: str = "aggregate",
    user: str = "aggregate_fence",
    connection: str | None = None,
) -> "subprocess.Popen[str]":
    """Start the example as the hook would be."""
    return subprocess.Popen(
        [FENCE, connection or postgres.connection(user), group, role],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**postgres.environment, "SIDECAR_CLUSTER": "plant-7", "SIDECAR_EPOCH": str(epoch)},
    )


def ended(hook: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return its exit status and what it said."""
    said, complained = hook.communicate(timeout=WITHIN_S)
    return hook.returncode, said + complained


def may_log_in(postgres: Postgres) -> set[str]:
    found = postgres.ask("SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'aggregate%'")
    return set(found.split())


class Session:
    """A server's connection, which is used whenever somebody says so."""

    def __init__(self, postgres: Postgres, role: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            ["psql", "-X", "-A", "-t", "-q", "-d", postgres.connection(role)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**postgres.environment, **environment},
        )
        self.role = role

    def write(self) -> str:
        """Write a row; return what is said to it: its role, or why not."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"INSERT INTO work (node) VALUES ('{self.role}') RETURNING node;\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.process.stdout.readline().strip()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_what_one_node_has_made_another_can_alter(postgres: Postgres) -> None:
    postgres.ask("CREATE TABLE made (x int); INSERT INTO made VALUES (1)", user=A)
    postgres.ask("ALTER TABLE made ADD y int; DROP TABLE made; INSERT INTO work (node) VALUES ('b')", user=B)

    old = postgres.called("aggregate", "SELECT 1", "aggregate")
    assert "not permitted to log in" in old.stderr


def test_only_the_one_that_is_let_in_can_write(postgres: Postgres) -> None:
    with Session(postgres, A) as before:
        assert before.write() == A
        done = ended(fence(postgres, B, 2))

        assert done == (0, f"{B} alone may use the database, since epoch 2\n")
        assert A not in before.write(), "its connection is gone"
    assert may_log_in(postgres) == {B, "aggregate_fence"}
    again = postgres.called(A, "SELECT 1", "aggregate")
    assert f'role "{A}" is not permitted to log in' in again.stderr
    with Session(postgres, B) as now:
        assert now.write() == B
        assert ended(fence(postgres, B, 2))[0] == 0, "a restart in place runs it again"
        assert now.write() == B, "and leaves its own connections alone"
    assert ended(fence(postgres, A, 3))[0] == 0
    assert may_log_in(postgres) == {A, "aggregate_fence"}


def test_a_hook_that_was_frozen_with_its_machine_shuts_nobody_out(postgres: Postgres) -> None:
    assert ended(fence(postgres, B, 7))[0] == 0
    late = f"postgresql-fence: epoch 6 is over: the database has seen 7, of {B}\n"

    with Session(postgres, B) as now:
        assert ended(fence(postgres, A, 6)) == (1, late)
        assert ended(fence(postgres, A, 7))[0] == 1, "an epoch is one node's alone"
        assert now.write() == B
    assert may_log_in(postgres) == {B, "aggregate_fence"}


def test_a_connection_that_was_just_being_opened_is_waited_for(postgres: Postgres) -> None:
    """PostgreSQL has looked at its role before, and shows it to nobody yet: post_auth_delay is just there."""
    with Session(postgres, A, PGOPTIONS="-c post_auth_delay=2") as late:
        hidden = (
            "SELECT count(*) FROM pg_locks AS lock WHERE locktype = 'virtualxid'"
            " AND NOT EXISTS (SELECT FROM pg_stat_activity AS shown WHERE shown.pid = lock.pid)"
        )
        wait_until(lambda: postgres.ask(hidden) == "1", "it is between the two")
        assert ended(fence(postgres, B, 2))[0] == 0
        assert A not in late.write()
    assert postgres.ask(f"SELECT count(*) FROM work WHERE node = '{A}'") == "0"


def test_one_that_never_says_its_password_is_waited_for_and_gets_nowhere(postgres: Postgres) -> None:
    connections = "connection authorized: user=aggregate_fence"
    with socket.create_connection(("127.0.0.1", postgres.port)) as stranger:
        words = b"user\0" + A.encode() + b"\0database\0aggregate\0\0"
        stranger.sendall(struct.pack("!II", len(words) + 8, 3 << 16) + words)
        assert stranger.recv(1) == b"R", "it is asked for its password"
        so_far = postgres.process.log.read_text().count(connections)
        hook = fence(postgres, B, 2)
        wait_until(
            lambda: postgres.process.log.read_text().count(connections) > so_far + 3,
            "the hook has looked again and again",
        )
        assert hook.poll() is None
        assert may_log_in(postgres) == {B, "aggregate_fence"}, "the door is shut already"
    assert ended(hook)[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"role": "aggregate_node_c"}, 'role "aggregate_node_c" does not exist'),
        ({"role": "aggregate_fence"}, "aggregate_fence is not a member of aggregate"),
        ({"group": "aggregat"}, 'role "aggregat" does not exist'),
        ({"user": "aggregate_gate"}, "password authentication failed"),
    ],
)
def test_it_says_what_is_wrong_and_changes_nothing(
    postgres: Postgres, words: dict[str, str], says: str
) -> None:
    status, said = ended(fence(postgres, **{"role": B, "epoch": 2, **words}))  # type: ignore[arg-type]

    assert (status, says in said) == (1, True), said
    assert "Traceback" not in said
    assert may_log_in(postgres) == {A, B, "aggregate_fence"}
    assert postgres.ask("SELECT count(*) FROM sidecar_fence") == "0"


def test_the_commands_of_the_page_show_who_is_let_in_and_let_others_in_again(postgres: Postgres) -> None:
    assert ended(fence(postgres, A, 5))[0] == 0
    where = {"PGHOST": str(postgres.folder), "PGPORT": str(postgres.port), "PGUSER": "postgres"}

    def runs(command: str) -> str:
        return subprocess.run(
            shlex.split(command),
            env={**postgres.environment, **where, "PAGER": "cat"},
            capture_output=True,
            text=True,
            check=True,
            timeout=WITHIN_S,
        ).stdout

    look, back = COMMANDS
    shown = runs(look)
    assert re.search(rf"plant-7 +\| +5 +\| {A}", shown)
    assert re.search(rf"{A} +\| t", shown)
    assert re.search(rf"{B} +\| f", shown)
    runs(back)
    assert may_log_in(postgres) == {A, B, "aggregate_fence"}
    assert {command.split()[0] for command in COMMANDS} == {"psql"}, "every command of the page is run above"


def test_the_fence_outlives_a_failover_of_the_database() -> None:
    """With synchronous replication; the hook finds the new primary by itself."""
    with prepared() as primary, Postgres.standby_of(primary) as standby:
        both = primary.connection("aggregate_fence").replace(
            f"host=127.0.0.1 port={primary.port}",
            f"host=127.0.0.1,127.0.0.1 port={standby.port},{primary.port} target_session_attrs=read-write",
        )
        assert ended(fence(primary, B, 2, connection=both))[0] == 0
        primary.process.kill()
        standby.promote()

        assert may_log_in(standby) == {B, "aggregate_fence"}
        assert ended(fence(standby, A, 1, connection=both))[0] == 1
        assert ended(fence(standby, A, 3, connection=both))[0] == 0
        assert may_log_in(standby) == {A, "aggregate_fence"}


# In a cluster

SERVER = """
import contextlib, socket, subprocess, sys
role, port, connection = sys.argv[1:]
words = ["psql", "-X", "-A", "-t", "-q", "-d", connection]
with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
    def write():
        psql.stdin.write(f"INSERT INTO work (node) VALUES ('{role}') RETURNING node;")
        psql.stdin.write("SELECT pg_sleep(0.02);\\n")
        psql.stdin.flush()
        return psql.stdout.readline()
    assert write()
    with socket.create_server(("127.0.0.1", int(port))) as server:
        server.setblocking(False)
        while write():
            psql.stdout.readline()
            with contextlib.suppress(BlockingIOError):  # ready is who accepts
                server.accept()[0].close()
"""


def node_on(postgres: Postgres, folder: Path, name: str) -> DemoNode:
    """Return a node with the configuration of the page, for its own role."""
    role, port, home = {"node-a": A, "node-b": B}[name], free_port(), folder / name
    home.mkdir()
    secret = home / "pgpass"
    secret.write_text("*:*:*:aggregate_fence:aggregate_fence\n")
    secret.chmod(0o600)
    text = block("yaml").replace("/usr/local/lib/hooks", str(FENCE.parent)).replace(A, role)
    text = text.replace("/etc/aggregate-sidecar/pgpass", str(secret))
    text = text.replace("host=db1,db2", f"host=127.0.0.1,127.0.0.1 port={free_port()},{postgres.port}")
    settings: dict[str, Any] = yaml.safe_load(text)
    settings["server"] |= {
        "kind": "command",
        "command": [sys.executable, "-c", SERVER, role, str(port), postgres.connection(role)],
        "probes": {"ready": {"tcp": [port], "every": "50ms"}},
        "stop_timeout": "5s",
    }
    settings |= {
        "cluster": "plant-7",
        "node": name,
        "backend": "local",
        "local": {"path": str(folder / "store.db")},
        "lock": {"ttl": "8s"},
        "paths": {"state": str(home / "state"), "run": str(home / "run")},
    }
    return DemoNode(name, home, settings, environment={"PATH": postgres.environment["PATH"]})


def test_in_a_cluster_the_former_active_writes_nothing_more(postgres: Postgres, tmp_path: Path) -> None:
    nodes = {name: node_on(postgres, tmp_path, name) for name in ("node-a", "node-b")}
    a, b = nodes.values()

    def sidecar(*words: str) -> str:
        command = [sys.executable, "-P", "-m", "sidecar", *words, "-c", str(a.config)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def state(name: str) -> str:
        found = {one["node"]: one["state"] for one in json.loads(sidecar("status", "-o", "json"))["nodes"]}
        return str(found.get(name, ""))

    try:
        a.start()
        until("node-a serves", lambda: state("node-a") == "running", 30_000)
        b.start()
        until("node-b is able", lambda: state("node-b") == "monitoring", 30_000)
        with Session(postgres, A) as resumed:
            assert resumed.write() == A
            sidecar("switchover", "--to", "node-b", "--yes")
            assert A not in resumed.write()
        assert postgres.ask("SELECT epoch || ' ' || role FROM sidecar_fence") == f"2 {B}"
        first = f"SELECT min(id) FROM work WHERE node = '{B}'"
        late = f"SELECT count(*) FROM work WHERE node = '{A}' AND id > ({first})"
        assert postgres.ask(late) == "0"
        sidecar("switchover", "--to", "node-a", "--yes")
        assert postgres.ask("SELECT epoch || ' ' || role FROM sidecar_fence") == f"3 {A}"
        assert may_log_in(postgres) == {A, "aggregate_fence"}
    finally:
        for node in nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.terminate()
            node.clean_up()
            print(f"--- {node.name}\n{node.log.read_text()[-4_000:] if node.log.exists() else ''}")
