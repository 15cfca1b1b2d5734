"""A server for the guard's tests: ``python -I -S guard_server.py WITNESS VERB…``.

Every process of it appends "pid boottime_ms" to WITNESS every few ms: who wrote when is the proof of
who lived when. The verbs run in order; the last thing is to beat until killed.
"""

import os
import signal
import subprocess
import sys
import time

witness = sys.argv[1]


def write(word: str) -> None:
    now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    fd = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, f"{word} {now_ms}\n".encode())
    os.close(fd)


def beat(name: str) -> None:
    while True:
        write(name)
        time.sleep(0.005)


def on_term(status: int, after_s: float) -> None:
    def leave(*_: object) -> None:
        write("term")
        time.sleep(after_s)
        write("bye")
        os._exit(status)

    signal.signal(signal.SIGTERM, leave)


for verb in sys.argv[2:]:
    name, _, value = verb.partition("=")
    if name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif name == "daemon":  # double fork, own session, as far away as a process can get
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                beat("daemon")
            os._exit(0)
    elif name == "child":  # stays in the group, and needs a while to say goodbye
        if os.fork() == 0:
            on_term(0, float(value))
            beat("child")
    elif name == "session":  # leaves the group, as a launcher's JVM may, and needs a while to say goodbye
        if os.fork() == 0:
            os.setsid()
            on_term(0, float(value))
            beat("session")
    elif name == "polite":
        on_term(int(value or 0), 0)
    elif name == "slow":
        on_term(0, float(value))
    elif name == "exit":
        while not os.path.exists(witness):  # noqa: PTH110 - -S -I: start fast
            time.sleep(0.005)
        os._exit(int(value))
    elif name == "flood":
        row = b"x" * 99 + b"\n"
        for _row in range(int(value) // 100):
            os.write(1, row)
        write("flooded")
    elif name == "say":
        print(value, flush=True)
    elif name == "whoami":
        write(f"uid={os.getuid()}/{os.getgid()}/{sorted(os.getgroups())}")
    elif name == "ps":
        write(f"pid={os.getpid()}")
        pids = sorted(p for p in os.listdir("/proc") if p.isdigit())  # noqa: PTH208
        write("proc=" + ",".join(pids))
    elif name == "env":
        write(f"env={os.environ.get(value)}")
    elif name == "run":
        subprocess.run(["/bin/sh", "-c", value])
beat("root")
