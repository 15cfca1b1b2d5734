"""Goal: threads may decode documents at once, from the first on.

Method: fresh processes, since a class is taken apart but once in each, and a thread switch wherever the
interpreter allows one. Not covered: what a document may hold (test_garbage.py).
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROCESSES = 6  # without the lock seven in eight of them end by SIGSEGV
AT_ONCE = """\
import sys, threading
from sidecar.documents import decode, encode
from tests.core.garbage import SOUND

sys.setswitchinterval(1e-6)
found = [(key, encode(value), type(value)) for key, value in SOUND.items()]
begin = threading.Barrier(8)

def read():
    begin.wait()
    for key, raw, kind in found:
        decode(key, raw, kind)

threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found))
"""


def test_bug_two_threads_that_decoded_to_a_class_for_the_first_time_ended_the_process() -> None:
    for _ in range(PROCESSES):
        done = subprocess.run(
            [sys.executable, "-c", AT_ONCE], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= 6


@pytest.mark.parametrize("path", [*ROOT.glob("sidecar/**/*.py"), *ROOT.glob("backends/*.py")], ids=str)
def test_a_class_is_prepared_before_anything_is_decoded_to_it(path: Path) -> None:
    for line, kind in _decoded_to(ast.parse(path.read_text())):
        assert kind.startswith("prepared("), f"{path}:{line}: {kind} may be taken apart by two threads"


def _decoded_to(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="decode"), keywords=[ast.keyword(arg="type", value=kind)]):
                yield node.lineno, ast.unparse(kind)
            case ast.Call(func=ast.Attribute(value=ast.Name("msgspec"), attr="convert"), args=[_, kind]):
                yield node.lineno, ast.unparse(kind)


def test_the_walk_finds_what_is_decoded() -> None:
    found = sorted(_decoded_to(ast.parse("msgspec.json.decode(raw, type=A).v\nmsgspec.convert(raw, B)")))
    assert found == [(1, "A"), (2, "B")]
