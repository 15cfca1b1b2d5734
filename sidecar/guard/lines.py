"""Cuts what a program prints into lines. Standard library only, like everything a guard is made of."""

from __future__ import annotations


def cut(partial: bytes, data: bytes, most: int) -> tuple[list[bytes], bytes]:
    """Return the whole lines of *partial* and *data*, each of at most *most* bytes, and what is left of them.

    A longer line is cut into several, also while its end is still to come.
    """
    *lines, rest = (partial + data).split(b"\n")
    while len(rest) >= most:
        lines.append(rest[:most])
        rest = rest[most:]
    parts = [line[at : at + most] for line in lines for at in range(0, max(1, len(line)), most)]
    return parts, rest
