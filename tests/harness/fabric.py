"""A network between nodes and stores, made of TUN devices, that loses, delays and cuts by verbs.

    node's network namespace          this process                  the stores' side
    10.77.<cluster>.<node>  ── tun ──  Fabric (one thread)  ── tun ──  10.77.0.1

Every packet of a node passes through `Fabric`, so what a fault did to it is counted, not assumed:
``port.dropped`` and ``port.delayed``. IPv4 only. It needs nothing of the kernel but TUN (no netem, no
bridge, no netfilter). Not for throughput: some thousand packets a second.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field

STORES = "10.77.0.1"
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001
_MTU_BYTES = 2_048
_WAIT_S = 0.5


@dataclass
class Port:
    """A node's way to everybody else. The faults are plain fields; 0 and False: none."""

    name: str
    address: str
    fd: int
    cut_out: bool = False  # nothing that the node sends arrives
    cut_in: bool = False  # nothing arrives at the node
    delay_ms: int = 0  # in each direction
    loss: float = 0.0  # of each direction
    dropped: int = 0
    delayed: int = 0
    passed: int = 0
    dice: random.Random = field(default_factory=random.Random)

    def heal(self) -> None:
        """Let everything through again, at once."""
        self.cut_out = self.cut_in = False
        self.delay_ms, self.loss = 0, 0.0

    def delay_s(self, *, outbound: bool) -> float | None:
        """Return after how long the packet goes on; None: it is lost."""
        if (self.cut_out if outbound else self.cut_in) or (self.loss and self.dice.random() < self.loss):
            self.dropped += 1
            return None
        if self.delay_ms:
            self.delayed += 1
        self.passed += 1
        return self.delay_ms / 1000


class Fabric:
    """Forwards packets between all ports and the stores until it is closed."""

    def __init__(self) -> None:
        self._ports: dict[int, Port] = {}
        self._by_address: dict[bytes, Port] = {}
        self._late: list[tuple[float, int, int, bytes]] = []  # when, a tie-break, to which fd, what
        self._count = 0
        self._epoll = select.epoll()
        self._closing = False
        self._stores_fd = _tun("fabric")
        for words in (f"addr add {STORES}/16 dev fabric", "link set fabric up"):
            subprocess.run(["ip", *words.split()], check=True)
        self._epoll.register(self._stores_fd, select.EPOLLIN)
        self._thread = threading.Thread(target=self._forward, name="fabric", daemon=True)
        self._thread.start()

    def connect(self, name: str, address: str, pid: int) -> Port:
        """Give the network namespace of process *pid* the only way out that it has; return it."""
        device = f"tun{len(self._ports)}"
        port = Port(name, address, _tun(device))
        subprocess.run(["ip", "link", "set", device, "netns", str(pid)], check=True)
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"]
        up = (
            "link set lo up",
            f"addr add {address}/32 dev {device}",
            f"link set {device} up",
            f"route add default dev {device} src {address}",
        )
        for words in up:
            subprocess.run([*inside, *words.split()], check=True)
        self._ports[port.fd] = port
        self._by_address[socket.inet_aton(address)] = port
        self._epoll.register(port.fd, select.EPOLLIN)
        return port

    def close(self) -> None:
        """Stop forwarding and remove the devices."""
        self._closing = True
        self._thread.join()
        for fd in (self._stores_fd, *self._ports):
            os.close(fd)
        self._epoll.close()

    def _forward(self) -> None:
        while not self._closing:
            now = time.monotonic()
            while self._late and self._late[0][0] <= now:
                _, _, fd, packet = heapq.heappop(self._late)
                self._write(fd, packet)
            wait_s = min(_WAIT_S, self._late[0][0] - now) if self._late else _WAIT_S
            for fd, _ in self._epoll.poll(wait_s):
                self._read(fd)

    def _read(self, fd: int) -> None:
        for _ in range(64):  # a busy port must not keep the others waiting
            try:
                packet = os.read(fd, _MTU_BYTES)
            except OSError:
                return
            if packet[0] >> 4 == 4:
                outbound = fd != self._stores_fd
                port = self._ports.get(fd) if outbound else self._by_address.get(packet[16:20])
                if port is not None:
                    self._pass(port, packet, outbound=outbound)

    def _pass(self, port: Port, packet: bytes, *, outbound: bool) -> None:
        delay_s = port.delay_s(outbound=outbound)
        to = self._stores_fd if outbound else port.fd
        if delay_s is None:
            return
        if delay_s:
            self._count += 1
            heapq.heappush(self._late, (time.monotonic() + delay_s, self._count, to, packet))
        else:
            self._write(to, packet)

    @staticmethod
    def _write(fd: int, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # its queue is full, or the other end has gone: lost, as on a wire
            os.write(fd, packet)


def _tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd
