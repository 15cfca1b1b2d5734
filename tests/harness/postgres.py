"""A real PostgreSQL of a test's own: Debian's programs, in a folder that goes with it.

    with Postgres.run() as postgres:
        postgres.ask("SELECT 1"); postgres.ask("SELECT 1", user="aggregate_node_a")

It does not run as root, so its folder is not below pytest's, which nobody else may enter. The superuser comes
in by the socket without a password; everybody else by TCP, with one.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.harness.process import Process, free_port, unavailable, wait_until
from tests.harness.tools import TOOLS, libraries

WITHIN_S = 60
AS_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
SETTINGS = ("fsync=off", "log_connections=on", "log_min_messages=info", "max_connections=30")
LOADED = ("JAVA_HOME", "PERL5LIB", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE")


def programs() -> Path:
    """Return the folder with initdb, postgres and psql; without them the test is skipped, in CI failed."""
    places = [*TOOLS.glob("usr/lib/postgresql/*/bin"), *Path("/usr/lib/postgresql").glob("*/bin")]
    found = [place for place in places if (place / "initdb").exists()]
    if not found:
        unavailable("PostgreSQL is not here; scripts/test installs it")
    if os.geteuid() != 0:
        unavailable("needs root, to start PostgreSQL as somebody else")
    return max(found, key=lambda place: int(re.sub(r"\D", "", place.parent.name) or 0))


class Postgres:
    """One server. *folder*: where its socket is."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder, self.bin, self.port = folder, bin_folder, free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in LOADED},
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            **(libraries() if bin_folder.is_relative_to(TOOLS) else {}),
        }
        settings = (
            *SETTINGS,
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={folder}",
        )
        options = [word for setting in settings for word in ("-c", setting)]
        command: list[str | Path] = [*AS_NOBODY, bin_folder / "postgres", "-D", folder / "data", *options]
        self.process = Process("postgres", command, folder / "log", self.environment)

    @classmethod
    @contextmanager
    def run(cls) -> Iterator[Self]:
        """Make and start one for the ``with`` block."""
        auth = ["--auth-local=trust", "--auth-host=scram-sha-256", "--username=postgres"]
        with cls._made("initdb", "--no-sync", "--encoding=UTF8", *auth) as one:
            yield one

    @classmethod
    @contextmanager
    def standby_of(cls, primary: "Postgres") -> Iterator[Self]:
        """Make and start one that follows *primary*, whose commits wait for it from then on."""
        where = ["--host", str(primary.folder), "--port", str(primary.port), "--username=postgres"]
        with cls._made(
            "pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "--no-sync", *where
        ) as one:
            primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf()")
            followed = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait_until(lambda: primary.ask(followed) == "1", "the standby follows in step")
            yield one

    @classmethod
    @contextmanager
    def _made(cls, program: str, *words: str) -> Iterator[Self]:
        found = programs()
        folder = Path(tempfile.mkdtemp(prefix="sidecar-postgres-"))
        try:
            os.chown(folder, 65534, 65534)
            one = cls(folder, found)
            one._maintain(program, "--pgdata", str(folder / "data"), *words)
            one.process.start()
            try:
                one.process.wait_ready(lambda: one.called("postgres", "SELECT 1").returncode == 0)
                yield one
            finally:
                one.process.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def promote(self) -> None:
        """Make a standby the primary, as an operator would."""
        self._maintain("pg_ctl", "promote", "--wait", "--pgdata", str(self.folder / "data"))

    def _maintain(self, program: str, *words: str) -> None:
        command: list[str | Path] = [*AS_NOBODY, self.bin / program, *words]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, env=self.environment)

    def connection(self, user: str, database: str = "aggregate") -> str:
        """Return how psql gets there as *user*, whose password is its name."""
        if user == "postgres":
            return f"host={self.folder} port={self.port} dbname={database} user=postgres"
        return f"host=127.0.0.1 port={self.port} dbname={database} user={user} password={user}"

    def called(
        self, user: str, script: str, database: str = "postgres", answers: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run *script* by psql, which has no terminal: what it would ask there it reads from *answers*."""
        words = [
            "psql",
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.connection(user, database),
        ]
        file = self.folder / f"{os.urandom(4).hex()}.sql"
        file.write_text(script)
        try:
            return subprocess.run(
                [*words, "-f", file],
                input=answers,
                capture_output=True,
                text=True,
                timeout=WITHIN_S,
                check=False,
                env=self.environment,
                start_new_session=True,
            )
        finally:
            file.unlink()

    def ask(self, script: str, user: str = "postgres", answers: str = "") -> str:
        """Return what psql prints in the database ``aggregate``."""
        done = self.called(user, script, "aggregate", answers)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
