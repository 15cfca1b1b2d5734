"""``python -P -m sidecar``: the same as the console script."""

from sidecar.cli import entry

if __name__ == "__main__":
    entry()
