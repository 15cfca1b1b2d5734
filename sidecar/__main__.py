"""``python -P -m sidecar``: the same as the console script."""

from sidecar.entry import entry

if __name__ == "__main__":
    entry()
