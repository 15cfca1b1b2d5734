"""A stand-in for AggreGate Server: behaves as docs/aggregate.md says, and does nothing useful.

    launcher (sh) -> this process     `python -I -S boot.py server -o HOME [-f FILE]`

    settings -> plugins -> storage -> [standby waits here while the master works] -> contexts -> serving

- Reads ``server.xml`` at start and writes what it read then back on stop, in place and not atomically:
  an edit made while it runs is lost, a kill during the save tears the file.
- clusterRole 0 and 1 serve. 2 watches the shared database, here the witness file, for signs of life of a
  master, and makes itself the master after clusterFailureDetectionTime of silence: no arbiter, no fence.
- The client and web ports are open only while it serves. Net Admin is open in either role.
- SIGTERM and Net Admin ``E`` stop it gracefully; a JVM exits with 143 on SIGTERM, and so does this.
- What can go wrong on demand is in ``faults.py``; ``faults.json`` is read again at every tick.

One thread, standard library only, no files of the program but the neighbours in this folder.
"""

import itertools
import json
import os
import signal
import sys
import time

from sidecar.standin import faults, record
from sidecar.standin.plumbing import Ports, load_settings, save_settings

EXIT_TERM = 143
STANDBY_TICK_MS = 50
GC_MS_MAX = ESCAPE_MS_MAX = 60_000


class Failure(Exception):
    """The server cannot go on, and says why."""


class Server:
    """One start of the server, until it stops."""

    def __init__(self, home: str, config_file: str, database: record.File | None = None) -> None:
        self.home = home
        self.config = os.path.join(home, config_file)  # noqa: PTH118
        with open(os.path.join(home, "standin.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            self.options: dict[str, object] = json.load(file)
        self.faults = faults.Faults(os.path.join(home, faults.FILE))  # noqa: PTH118
        self.database = database or record.File(str(self.options["witness"]))
        self.ports = Ports(str(self.options["address"]))
        self.node = os.environ.get("SIDECAR_NODE") or str(self.options["node"])
        self.pen: record.Pen | None = None  # there while it serves
        self.settings: dict[str, str] = {}
        self.stopping: str | None = None  # TERM, E or R
        self.born = time.monotonic()
        self.up_at: float | None = None
        self.collected = 0  # version of the faults whose full collection is done

    def run(self) -> int:
        """Start, work, stop; return the exit code."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, self._on_term)
        if self._start_up():
            if self._int("clusterRole", 0) == 2:
                self._monitor()
            else:
                self._serve(int(os.environ.get("SIDECAR_EPOCH") or 0))
        self._stop()
        if self.stopping == "R":
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the documented restart, in the same process
        return EXIT_TERM if self.stopping == "TERM" else 0

    def _on_term(self, _signal: int, _frame: object) -> None:
        if not self.faults.deaf_to_sigterm:
            self.stopping = self.stopping or "TERM"

    # -- stages -------------------------------------------------------------------------------

    def _start_up(self) -> bool:
        """Go through the stages before the cluster's; tell whether to go on."""
        self.say("Starting AggreGate Server (stand-in)")
        self.say("Loading server settings")
        try:
            self.settings = load_settings(self.config)
        except (OSError, ValueError) as error:
            raise Failure(f"Cannot load server settings: {error}") from error
        if self.faults.start_fails:
            raise Failure("Cannot start: told to fail")
        if admin := self._option("admin_port"):
            self._listen(admin, "admin", "127.0.0.1")
        self.say("Initializing plugins")
        self._wait(self._option("start_ms") + self.faults.slow_start_ms)
        self.say("Accessing storage")
        return self.stopping is None

    def _monitor(self) -> None:
        """Stand by: wait for the master to fall silent, or to be told to stop."""
        self.say("Monitoring Master Server Status")
        self.up_at = time.monotonic()
        detection_s = self._int("clusterFailureDetectionTime", 20_000) / 1000
        seen, seen_at = self.database.beat(), time.monotonic()
        while self.stopping is None:
            self._turn(STANDBY_TICK_MS)
            if (beat := self.database.beat()) != seen and not self.faults.deaf_to_heartbeats:
                seen, seen_at = beat, time.monotonic()
            if self.faults.self_activate or time.monotonic() - seen_at > detection_s:
                self.say("Master Server is silent, activating: Failover Master")
                return self._serve(0)  # nobody gave it an epoch
        return None

    def _serve(self, epoch: int) -> None:
        """Be active: say so in the witness first, then open the ports, then tick."""
        self.say("Starting contexts")
        self._wait(self._option("activate_ms"))
        if self.stopping:
            return
        self.pen = self.database.pen(self.node, epoch)
        self.pen.write(record.OPEN)
        greeting = {"node": self.node, "epoch": epoch, "run": self.pen.run}
        self.ports.greeting = json.dumps(greeting).encode() + b"\n"
        self._listen(self._int("clientPort", 6460), "client")
        self._listen(self._int("webAppsSslPort", 8443), "web")
        if plain := self._int("webAppsNonSslPort", 0):
            self._listen(plain, "web")
        self.say("Server started")
        self.up_at = time.monotonic()
        if self.faults.escape:
            self._escape()
        tick_ms = self._option("tick_ms")
        while self.stopping is None:
            self._turn(tick_ms)

    def _stop(self) -> None:
        self.say("Stopping server")
        self._wait(self.faults.slow_stop_ms, stoppable=False)
        self.ports.close()
        if self.pen:
            self.pen.write(record.CLOSE)
            self.pen = None
        if self.settings and self.up_at is not None:
            save_settings(self.config, self.settings, torn=self.faults.torn_server_xml)
        self.say("Server stopped")

    # -- one turn of the loop -----------------------------------------------------------------

    def _turn(self, wait_ms: int) -> None:
        """Serve for *wait_ms*, let the faults happen, and say in the witness that it still works."""
        order = self.ports.poll(wait_ms)
        if order:
            self.stopping = self.stopping or order
        self.faults.reload()
        while self.faults.freeze:
            self._end_of_life()
            time.sleep(wait_ms / 1000)
            self.faults.reload()
        if self.faults.full_gc_ms and self.collected != self.faults.version:
            self.collected = self.faults.version
            until = time.monotonic() + min(self.faults.full_gc_ms, GC_MS_MAX) / 1000
            while time.monotonic() < until:
                pass  # 100 % CPU, and nobody is served
        if self.faults.crash_after_ms and self.up_at is not None:
            since = max(self.up_at, self.faults.loaded_at)
            if time.monotonic() - since >= self.faults.crash_after_ms / 1000:
                os._exit(self.faults.exit_code)
        self._end_of_life()
        if self.pen:
            self.pen.write(record.TICK)

    def _wait(self, wait_ms: int, *, stoppable: bool = True) -> None:
        until = time.monotonic() + wait_ms / 1000
        while (left := until - time.monotonic()) > 0 and not (stoppable and self.stopping):
            self._turn(max(1, min(self._option("tick_ms"), int(left * 1000))))

    def _end_of_life(self) -> None:
        life_ms = self._option("max_life_ms")
        if life_ms and time.monotonic() - self.born > life_ms / 1000:
            raise Failure("max_life_ms has passed: nobody seems to look after this server")

    def _escape(self) -> None:
        """Leave a daemon behind, in a session of its own, that is as active as this process."""
        if os.fork():
            os.wait()
            return
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.chdir("/")
        self.ports.close()
        until = time.monotonic() + ESCAPE_MS_MAX / 1000
        while time.monotonic() < until and self.pen:
            time.sleep(self._option("tick_ms") / 1000)
            self.pen.write(record.TICK)
        os._exit(0)

    # -- small things -------------------------------------------------------------------------

    def _listen(self, port: int, kind: str, address: str | None = None) -> None:
        try:
            self.ports.listen(port, kind, address)
        except OSError as error:
            raise Failure(f"Cannot open port {port}: {error.strerror}") from error

    def _int(self, key: str, default: int) -> int:
        try:
            return int(self.settings.get(key, default))
        except ValueError as error:
            raise Failure(f"Cannot load server settings: {key} is not a number") from error

    def _option(self, name: str) -> int:
        value = self.options.get(name, 0)
        return value if isinstance(value, int) else 0

    def say(self, text: str) -> None:
        """Write *text* to the console and to ``logs/server.log``."""
        stamp = time.strftime("%d.%m.%Y %H:%M:%S") + f",{time.time_ns() // 1_000_000 % 1000:03d}"
        try:
            print(text, flush=True)  # noqa: T201 - the splash screen and console of the real one
            logs = os.path.join(self.home, "logs")  # noqa: PTH118
            os.makedirs(logs, exist_ok=True)  # noqa: PTH103
            with open(os.path.join(logs, "server.log"), "a", encoding="utf-8") as log:  # noqa: PTH118, PTH123
                log.write(f"{stamp} INFO  {'ag.core':25} {text}\n")
        except OSError:
            pass  # a JVM does not end because nobody reads its console


def main(arguments: list[str], database: record.File | None = None) -> int:
    """Run one server: ``-o HOME`` and ``-f FILE`` as the real one; its other options are ignored.

    *database*: instead of the witness file that its home names.
    """
    home, config_file = ".", "server.xml"
    for option, value in itertools.pairwise(arguments):
        home = value if option == "-o" else home
        config_file = value if option == "-f" else config_file
    server = Server(home, config_file, database)
    try:
        return server.run()
    except Failure as failure:
        server.say(str(failure))
        return 1
