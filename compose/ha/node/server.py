"""The stand-in AggreGate Server with PostgreSQL as its database, as libpq's variables (PGHOST, …) name it.

Every tick is one transaction: a line into `witness`, whoever writes it, and the plant's state in `plant`,
which takes nothing from an epoch below the last one it has seen. A server that is refused ends: the cover
for a machine that was frozen as a whole and resumed (docs/guarantees.md).

AT_NS is the host's CLOCK_BOOTTIME, read before the line is sent: comparable between containers, as they share
a kernel. It gives the lines their order, as a write may wait in PostgreSQL.
"""

import os
import sys
import time

import psycopg2

sys.path.append("/opt/sidecar/lib/python3.11/site-packages")
from sidecar.standin import record, server

PATIENCE_S, PAUSE_S = 30.0, 0.1  # of an active server whose database is away; a restart takes 1 to 3 s
OPTIONS = "connect_timeout=2 tcp_user_timeout=3000 keepalives_idle=2"
TICK = """
    with line as (insert into witness values (%(at_ns)s, %(kind)s, %(epoch)s, %(run)s, %(pid)s, %(node)s)
                  on conflict do nothing)
    update plant set epoch = %(epoch)s, node = %(node)s, beat = beat + 1
     where epoch <= %(epoch)s returning beat
"""


class Database(record.File):
    """PostgreSQL. One connection, opened when it is needed, again after it was lost."""

    def __init__(self) -> None:
        self._connection = None
        self._beat = 0

    def pen(self, node: str, epoch: int) -> "Pen":
        return Pen(self, node, epoch)

    def beat(self) -> int:
        """Return the master's last sign of life. A database that is away shows no other."""
        row = self.ask("select beat from plant", {}, patience_s=0)
        self._beat = row[0] if row else self._beat
        return self._beat

    def ask(self, sql: str, values: dict[str, object], patience_s: float) -> tuple | None:
        """Return the first row of the answer; None: there is none, or nobody to ask."""
        until = time.monotonic() + patience_s
        while True:
            try:
                if self._connection is None:
                    self._connection = psycopg2.connect(OPTIONS)
                    self._connection.autocommit = True
                with self._connection.cursor() as cursor:
                    cursor.execute(sql, values)
                    return cursor.fetchone()
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                self._connection = None
                if not patience_s:
                    return None
                if time.monotonic() >= until:
                    raise OSError("the database is away") from error
                time.sleep(PAUSE_S)


class Pen(record.Pen):
    """Writes to `witness` and `plant`."""

    def __init__(self, database: Database, node: str, epoch: int) -> None:
        self.node, self.epoch, self.run = node, epoch, os.urandom(4).hex()
        self._database = database

    def write(self, kind: str) -> None:
        values = {"at_ns": record.now_ns(), "kind": kind, "epoch": self.epoch, "run": self.run}
        values |= {"pid": os.getpid(), "node": self.node}
        if self._database.ask(TICK, values, PATIENCE_S) is None:
            raise OSError(f"the database has seen a later epoch than {self.epoch}")


sys.exit(server.main(sys.argv[1:], Database()))
