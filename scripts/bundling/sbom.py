"""The bill of materials, as CycloneDX 1.5 JSON: every wheel of the archive with version, hash and licence.

Our own: cyclonedx-bom describes an environment, which would have to be made first and is not what is shipped.
Here name, version, hash and licence are read from the very files.
Source: https://cyclonedx.org/docs/1.5/json/ ; core metadata, https://packaging.python.org.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any


def metadata(wheel: Path) -> Message:
    """Return the core metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        return HeaderParser().parsestr(archive.read(name).decode())


def component(wheel: Path, kind: str = "library") -> dict[str, Any]:
    """Return what is known of one wheel."""
    meta = metadata(wheel)
    name, version = str(meta["Name"]), str(meta["Version"])
    reference = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    return {
        "type": kind,
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": reference,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
        "licenses": _licences(meta),
        "properties": [{"name": "file", "value": f"wheels/{wheel.name}"}],
    }


def _licences(meta: Message) -> list[dict[str, Any]]:
    """Return an SPDX expression where there is one, else the words the package uses for itself."""
    if expression := meta["License-Expression"]:
        return [{"expression": expression}]
    classifiers = [str(c) for c in meta.get_all("Classifier") or ()]
    names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    given = str(meta["License"] or "").strip().splitlines()
    return [{"license": {"name": name}} for name in names or given[:1] or ["not stated"]]


def document(own: Path, needs: Sequence[Path]) -> str:
    """Return the whole bill; without time and serial number, so that the same input gives the same bytes."""
    main, parts = component(own, "application"), [component(wheel) for wheel in needs]
    return json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": main},
            "components": parts,
            "dependencies": [
                {"ref": main["bom-ref"], "dependsOn": sorted(part["bom-ref"] for part in parts)}
            ],
        },
        indent=1,
    )
