"""``python -m sidecar.standin --home DIR --witness FILE``: make a stand-in's home (Compose images use it)."""

import argparse
from pathlib import Path

from sidecar.standin import install


def main() -> None:
    """Read the command line and install."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.standin")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--witness", type=Path, required=True)
    parser.add_argument("--address", default="0.0.0.0")  # noqa: S104 - the default is for containers
    parser.add_argument("--node", default="")
    for name, default in (
        ("client-port", 6460),
        ("web-port", 8443),
        ("plain-web-port", 8080),
        ("admin-port", 6440),
        ("heartbeat-port", 7800),
        ("role", 0),
        ("detection-ms", 10_000),
        ("start-ms", 1_000),
        ("activate-ms", 1_000),
        ("tick-ms", 20),
        ("max-life-ms", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = vars(parser.parse_args())
    install(options.pop("home"), **options)


if __name__ == "__main__":
    main()
