"""Put the archive together: ``python -m bundling WHEELHOUSE INTO``, of what ./scripts/wheelhouse made.

The same files give the same bytes: sorted names, one time, no owners, modes of our own.
"""

import gzip
import hashlib
import io
import platform
import sys
import tarfile
from pathlib import Path

from bundling import sbom

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PROGRAMS = ("install", "upgrade", "uninstall")
HOOKS = "docs/hooks/"  # examples to be copied; those that are programs can be run
PYTHON = "3.11"
SUMS = "SHA256SUMS"

Files = dict[str, bytes]


def collect(own: Path, needs: list[Path], version: str) -> Files:
    """Return every file of the archive by its name there, the sums last."""
    files = {name: (HERE / name).read_bytes() for name in (*PROGRAMS, "sidecar.yml.example")}
    files |= {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in (own, *needs)}
    files |= {f"docs/{path.name}": path.read_bytes() for path in (ROOT / "docs").glob("*.md")}
    files |= {f"{HOOKS}{path.name}": path.read_bytes() for path in (ROOT / HOOKS).iterdir() if path.is_file()}
    files |= {name: (ROOT / name).read_bytes() for name in ("README.md", "CHANGELOG.md", "LICENSE")}
    unit = "aggregate-sidecar.service"
    files[unit] = (ROOT / "sidecar" / "systemd" / unit).read_bytes()
    files["sbom.cdx.json"] = sbom.document(own, needs).encode()
    facts = {"VERSION": version, "PYTHON": PYTHON, "MACHINE": platform.machine()}
    files["release"] = "".join(f"{name}={value}\n" for name, value in facts.items()).encode()
    sums = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return files | {SUMS: "".join(sums).encode()}


def pack(files: Files, top: str, epoch: int) -> bytes:
    """Return the archive, everything below the folder *top*."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name in sorted(files):
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mtime = len(files[name]), epoch
            info.mode = 0o755 if name in PROGRAMS or _is_hook(name, files[name]) else 0o644
            tar.addfile(info, io.BytesIO(files[name]))
    return out.getvalue()


def _is_hook(name: str, data: bytes) -> bool:
    return name.startswith(HOOKS) and data.startswith(b"#!")  # keepalived refuses a file that is executable


def main(made: Path, into: Path) -> None:
    """Write the archive and its sum, and print where it is."""
    (own,), needs = (made / "own").glob("*.whl"), sorted((made / "needs").glob("*.whl"))
    version = str(sbom.metadata(own)["Version"])
    top = f"aggregate-sidecar-{version}"
    data = pack(collect(own, needs, version), top, int((made / "epoch").read_text()))
    tag = f"cp{PYTHON.replace('.', '')}-linux-{platform.machine()}"
    path = into / f"{top}-{tag}.tar.gz"
    into.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_name(path.name + ".sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
