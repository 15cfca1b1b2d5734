"""The stand-in's sockets and its ``server.xml``. Standard library only: the server imports it."""

import os
import pyexpat
import select
import signal
import socket
import time

BACKLOG = 50
"""As in Java: a frozen server still lets 50 connections be made, which a TCP probe takes for life."""
IDLE_S = 5.0


class Ports:
    """Listening sockets and the connections they accepted; nothing here blocks."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.greeting = b""
        self._poll = select.poll()
        self._listeners: dict[int, tuple[socket.socket, str]] = {}
        self._clients: dict[int, tuple[socket.socket, str, float]] = {}

    def listen(self, port: int, kind: str, address: str | None = None) -> None:
        """Open *port* as ``client``, ``web`` or ``admin``.

        Raises:
            OSError: It cannot be opened.
        """
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address or self.address, port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener, kind
        self._poll.register(listener, select.POLLIN)

    def poll(self, wait_ms: int) -> str | None:
        """Serve for *wait_ms*; return a Net Admin order, ``E`` or ``R``, as soon as there is one."""
        until = time.monotonic() + wait_ms / 1000
        while True:
            left_ms = (until - time.monotonic()) * 1000
            for fd, _ in self._poll.poll(max(0.0, left_ms)):
                if fd in self._listeners:
                    self._accept(*self._listeners[fd])
                elif fd in self._clients and (order := self._answer(fd)):
                    return order
            if left_ms <= 0:
                break
        for fd, (_, _, since) in list(self._clients.items()):
            if time.monotonic() - since > IDLE_S:
                self._drop(fd)
        return None

    def close(self) -> None:
        """Close everything."""
        for fd in list(self._clients):
            self._drop(fd)
        for fd, (listener, _) in self._listeners.items():
            self._poll.unregister(fd)
            listener.close()
        self._listeners.clear()

    def _accept(self, listener: socket.socket, kind: str) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # gone again
        client.setblocking(False)
        if kind == "client":
            self._send(client, self.greeting)
            client.close()
            return
        self._clients[client.fileno()] = client, kind, time.monotonic()
        self._poll.register(client, select.POLLIN)

    def _answer(self, fd: int) -> str | None:
        client, kind, _ = self._clients[fd]
        try:
            said = client.recv(4096)
        except OSError:
            said = b""
        order = said[:1].decode("ascii", "replace")
        if kind == "admin":
            order = order if order in ("E", "R") else ""
            self._send(client, b"A\n" if order else b"E\n")
        elif said:
            order = ""
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.greeting)}\r\n"
            head += "Content-Type: application/json\r\nConnection: close\r\n\r\n"
            self._send(client, head.encode() + (b"" if said[:4] == b"HEAD" else self.greeting))
        self._drop(fd)
        return order or None

    def _send(self, client: socket.socket, data: bytes) -> None:
        try:  # noqa: SIM105 - contextlib costs 6 ms
            client.send(data)
        except OSError:
            pass  # gone again

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._clients.pop(fd)[0].close()


def load_settings(path: str) -> dict[str, str]:
    """Return the keys of a flat ``<config>`` in their order.

    Raises:
        ValueError: The file is torn or no configuration.
        OSError: It cannot be read.
    """
    settings: dict[str, str] = {}
    open_tags: list[str] = []

    def start(name: str, _attributes: object) -> None:
        open_tags.append(name)
        if len(open_tags) == 2:
            settings[name] = ""

    def text(data: str) -> None:
        if len(open_tags) == 2:
            settings[open_tags[-1]] += data

    parser = pyexpat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: open_tags.pop() and None
    parser.CharacterDataHandler = text
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            parser.Parse(file.read(), True)
    except pyexpat.ExpatError as error:
        raise ValueError(f"{path}: {error}") from error
    return settings


def save_settings(path: str, settings: dict[str, str], *, torn: bool) -> None:
    """Write *settings* over the file in place, as carelessly as the real server may."""
    settings = settings | ({"firstLaunch": "false"} if "firstLaunch" in settings else {})
    lines = [f"  <{key}>{_escape(value)}</{key}>\n" for key, value in settings.items()]
    data = ("<config>\n" + "".join(lines) + "</config>").encode()
    with open(path, "wb", buffering=0) as file:  # noqa: PTH123
        file.write(data[: len(data) // 2])
        if torn:
            os.kill(os.getpid(), signal.SIGKILL)
        file.write(data[len(data) // 2 :])


def _escape(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
