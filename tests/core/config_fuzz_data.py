"""What `config_fuzz` draws from: valid configurations, the files they name, and everything odd."""

import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.harness.tools import ROOT, Tls

Tree = dict[str, Any]


class Files:
    """A folder with what configurations may name: what they should, and what they should not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "server.xml").write_bytes((ROOT / "tests/data/server.xml").read_bytes())
        self.program = self.home / "ag_server_console"
        self.program.write_text("#!/bin/sh\n")
        self.program.chmod(0o755)
        self.secret = folder / "secret"
        self.secret.write_text("opensesame\n")
        self.tls = Tls.make(folder / "tls")
        self.odd = self._odd()

    def _odd(self) -> list[Path]:
        made = {
            "empty": b"",
            "binary": bytes(range(256)),
            "two-lines": b"one\ntwo\n",
            "torn.xml": b"<config><clusterRole>1</clus",
            "other.xml": b"<html/>",
            "long": b"x" * 70_000,
        }
        for name, content in made.items():
            (self.folder / name).write_bytes(content)
        os.mkfifo(self.folder / "pipe")
        with (self.folder / "huge").open("wb") as file:
            file.truncate(3 << 30)
        (self.folder / "dangling").symlink_to(self.folder / "nowhere")
        (self.folder / "loop").symlink_to(self.folder / "loop")
        names = [
            *made,
            "pipe",
            "huge",
            "dangling",
            "loop",
            "nowhere/at/all",
            "empty/below",
            "x" * 300,
            "x" * 300 + "/s.db",
        ]
        return [
            *(self.folder / name for name in names),
            self.folder,
            Path("/dev/zero"),
            Path("/proc/self/mem"),
        ]


def valid(files: Files) -> list[Tree]:
    """Return one good configuration for each backend, together with every section, fresh."""
    common: Tree = {
        "cluster": "plant-7",
        "node": "node-a",
        "lock": {"ttl": "10s", "renew_every": "2s", "request_timeout": "1500ms", "stop_grace": "3s"},
        "node_options": {"priority": 100, "eligible": True, "failback": False},
        "log": {"format": "json", "level": "info"},
        "paths": {"state": str(files.folder), "run": str(files.folder / "run")},
        "guard": {"enforcement": "auto"},
    }
    command: Tree = {
        "kind": "command",
        "command": ["/bin/sleep", "60"],
        "user": "nobody",
        "environment": {"LANG": "C.UTF-8", "N": 1},
        "stop_command": ["/bin/true"],
        "stop_signal": "INT",
        "probes": {
            "ready": {"tcp": [6460], "http": {"url": "http://h/x", "status": 200}, "every": "1s"},
            "alive": {"command": ["/bin/true"], "timeout": "1s", "failures": 3},
        },
        "restarts": {"attempts": 3, "within": "10m", "backoff": "1s", "backoff_max": "30s"},
    }
    aggregate: Tree = {
        "kind": "aggregate",
        "home": str(files.home),
        "command": [str(files.program)],
        "config_file": "server.xml",
        "standby": "monitoring",
        "start_timeout": "5m",
        "stop_timeout": "60s",
    }
    etcd = {"endpoints": ["http://10.0.0.1:2379", "http://[::1]:2379"], "username": "u"}
    tls = {"endpoints": ["https://10.0.0.1:2379"], "ca_file": str(files.tls.ca)}
    keys = {"cert_file": str(files.tls.cert), "key_file": str(files.tls.key)}
    consul = {"address": "https://127.0.0.1:8501", "datacenter": "dc1", "token_file": str(files.secret)}
    return [
        {
            **common,
            "backend": "etcd",
            "etcd": {**etcd, "password_file": str(files.secret)},
            "server": command,
        },
        {**common, "backend": "etcd", "etcd": {**tls, **keys}, "server": aggregate},
        {
            **common,
            "backend": "consul",
            "consul": {**consul, "ca_file": str(files.tls.ca)},
            "server": command,
        },
        {**common, "backend": "consul", "consul": {"address": "http://h:8500"}, "server": command},
        {**common, "backend": "local", "local": {"path": str(files.folder / "s.db")}, "server": command},
        {"cluster": "c", "backend": "local", "paths": common["paths"], "server": command},
    ]


NAMES = (
    *(
        "",
        " ",
        "a.b",
        "<<",
        "null",
        "true",
        "1",
        "-",
        "?",
        "=",
        "\0",
        "\x1b[31m",
        "\u202e",
        "\ufeff",
        "é",
        "日本",
    ),
    *(
        "\U0001f600",
        "x" * 5_000,
        "a\nb",
        "a\tb",
        "ttl ",
        "__proto__",
        "&a",
        "*a",
        "!!int",
        "api",
        "hooks",
        "password",
    ),
)
"""Names of keys that are none."""

_SCALARS: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.0, -0.0, 1e308, 1e-320),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        " ",
        "nan",
        ".nan",
        ".inf",
        "1e999",
        "0x1f",
        "1_000",
        "0o7",
    ),
    *(
        "-1s",
        "1",
        "0s",
        "1us",
        "9" * 30 + "s",
        "1.0000001s",
        "1s1s1s",
        "10 s",
        "१०s",
        "null",
        "~",
        "yes",
        "NO",
    ),
    *(
        "\0",
        "\x07\x1b]0;x\x07",
        "\u2028",
        "\u202eabc",
        "\ufeffx",
        "\ud800",
        "e\u0301" * 50,
        "\U0001f600",
        "x" * 70_000,
    ),
    *(
        "/",
        "//",
        "/../..",
        "relative",
        "/\0",
        "~/x",
        "$HOME",
        "%s%n{0}",
        "http://",
        "http://h:99999",
        "ftp://h:1",
    ),
    *(
        "https://u:p@h:1",
        "http://[::g]:1",
        "http://h:1/a b",
        "etcd",
        "consul",
        "local",
        "sqlite",
        "TERM",
        "KILL",
    ),
    *("SIGSTOP", "CHLD", "aggregate", "command", "monitoring", "stopped", "kernel", "2001-01-01", "12:30:45"),
)


def value(draw: random.Random, files: Files, depth: int = 0) -> object:
    """Return something that hardly any key wants."""
    kind = draw.random()
    if kind < 0.75 or depth > 3:
        return draw.choice((*_SCALARS, *(str(path) for path in files.odd)))
    if kind < 0.85:
        return [value(draw, files, depth + 1) for _ in range(draw.choice((0, 1, 2, 70)))]
    if kind < 0.95:
        return {draw.choice(NAMES): value(draw, files, depth + 1) for _ in range(draw.choice((0, 1, 3)))}
    deep: object = "end"
    for _ in range(draw.choice((5, 30, 300))):
        deep = [deep] if draw.random() < 0.5 else {"a": deep}
    return deep


Change = Callable[[random.Random, bytes], bytes]


def _bytes(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 20))):
        at = draw.randrange(len(changed) + 1)
        piece = bytes(draw.randrange(256) for _ in range(draw.choice((0, 1, 1, 4))))
        changed[at : at + draw.choice((0, 1, 5))] = piece
    return bytes(changed)


def _tokens(draw: random.Random, content: bytes) -> bytes:
    changed = content.decode(errors="surrogateescape")
    for _ in range(draw.choice((1, 2, 6))):
        at = draw.randrange(len(changed) + 1)
        changed = changed[:at] + draw.choice(TOKENS) + changed[at:]
    return changed.encode(errors="surrogateescape")


TOKENS = (
    *(
        ":",
        ": ",
        "- ",
        "-",
        "[",
        "]",
        "{",
        "}",
        ",",
        "|",
        ">",
        "|2-\n",
        '"',
        "'",
        "#",
        " #",
        "&a ",
        "*a",
        "!",
        "!!str ",
    ),
    *(
        "!!python/object/apply:os.system [x]",
        "!!binary ",
        "!!set {}",
        "!!timestamp ",
        "? ",
        "@",
        "`",
        "%",
        "---\n",
    ),
    *(
        "...\n",
        "%YAML 1.2\n---\n",
        "%TAG ! x\n",
        "\t",
        "\n\t",
        "\r",
        "\r\n",
        "\0",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x1b",
    ),
    *(
        "<<: *a\n",
        "<<: {a: b}\n",
        "\n  ",
        "\n",
        "~",
        '"\\ud800"',
        '"\\x00"',
        '"\\U00110000"',
        "\\",
        "é",
        "\U0001f600",
    ),
)


def _lines(draw: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True) or [b"\n"]
    at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(5):
        case 0:
            lines.insert(other, lines[at])  # a key twice, or in the wrong place
        case 1:
            lines[at], lines[other] = lines[other], lines[at]
        case 2:
            del lines[at]
        case 3:
            lines[at] = b"\t" + lines[at].lstrip()
        case _:
            lines[at] = b" " * draw.randrange(1, 9) + lines[at]
    return b"".join(lines)


def _bomb(draw: random.Random, content: bytes) -> bytes:
    """A billion laughs, or the same by mappings, or a list that holds itself."""
    rows = [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"]
    for level in range(1, draw.choice((3, 12, 60))):
        many = b", ".join([f"*a{level - 1}".encode()] * 10)
        rows.append(f"a{level}: &a{level} ".encode() + draw.choice((b"[%s]\n", b"{k: [%s]}\n")) % many)
    return draw.choice((content + b"".join(rows), b"".join(rows) + content, content + b"z: &z [*z]\n"))


def _big(draw: random.Random, content: bytes) -> bytes:
    return content + draw.choice(
        (
            b"#" * 900_000,
            b"# x\n" * 300_000,
            b"[" * 50_000,
            b"{a: " * 50_000,
            b"- " * 50_000,
            b"x" * 500_000 + b": 1\n",
            b"".join(b"k%d: 1\n" % number for number in range(20_000)),
            b"k: " + b"9" * 200_000 + b"\n",
            b'k: "' + b"\\u0041" * 20_000 + b'"\n',
        )
    )


def _encoded(draw: random.Random, content: bytes) -> bytes:
    text = content.decode(errors="replace")
    codec = draw.choice(
        ("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7", "latin-1", "cp037", "shift-jis")
    )
    return text.encode(codec, errors="replace")


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _binary(draw: random.Random, content: bytes) -> bytes:
    with suppress(FileNotFoundError):
        return draw.choice(
            (draw.randbytes(5_000), b"\0" * 5_000, Path("/bin/true").read_bytes()[:90_000], b"")
        )
    return b"\x7fELF"


TEXT: list[tuple[str, Change]] = [
    ("bytes", _bytes),
    ("tokens", _tokens),
    ("tokens", _tokens),
    ("lines", _lines),
    ("lines", _lines),
    ("bomb", _bomb),
    ("big", _big),
    ("encoded", _encoded),
    ("cut", _cut),
    ("binary", _binary),
    ("twice", lambda draw, content: content + content),
    ("documents", lambda draw, content: content + b"---\n" + content),
    ("ends of lines", lambda draw, content: content.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\x0b")))),
    ("tabs", lambda draw, content: content.replace(b"  ", b"\t")),
]
"""Changes of the text, by name."""
