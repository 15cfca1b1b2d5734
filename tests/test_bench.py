"""``scripts/bench --write``: two runs share docs/benchmarks.*, and each keeps what the other wrote.

Not covered: what is measured.
"""

import json
from pathlib import Path

from benchmark.results import Row, write


def test_each_run_keeps_what_the_other_wrote(tmp_path: Path) -> None:
    write(
        "peers", [Row("crash", "sidecar exec", "ms", 20, [19], note="a busy machine")], {"cores": 2}, tmp_path
    )
    assert "Not measured yet." in (tmp_path / "benchmarks.md").read_text()

    write("api", [Row("descriptors", "sidecar exec", "", 300, [196])], {"cores": 4}, tmp_path)
    write("peers", [Row("crash", "sidecar exec", "ms", 20, [21])], {"cores": 3}, tmp_path)

    page = (tmp_path / "benchmarks.md").read_text()
    assert "| crash | sidecar exec | 1 | 21 ms | 21 ms | ≤ 20 ms | missed |" in page
    assert "| descriptors | sidecar exec | 1 | 196 | 196 | ≤ 300 | met |" in page
    assert "- cores: 3" in page
    assert "Measured on:\n- cores: 4" in page
    assert "a busy machine" not in page
    found = json.loads((tmp_path / "benchmarks.json").read_text())
    assert (found["v"], found["machine"], found["api"]["machine"]) == (1, {"cores": 3}, {"cores": 4})
    assert found["api"]["rows"][0]["samples"] == [196]
