"""Goal: the document at /openapi.json is true: whatever is asked, the answer is one that it announces.

Method: schemathesis makes requests from the document, good and bad, against the real API over HTTP; the store is
real and empty, so that commands are refused or done at once. A status of 500 or above is an error unless the
document says when it comes. Not covered: /events, which does not end (test_served.py).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from sidecar.api import commands
from sidecar.api.openapi import document
from sidecar.core import state as s
from tests.api.served import TOKEN, Served, lease, served
from tests.cli.stage import Stage
from tests.core.made import lock, other, request, view

EXAMPLES = 6  # for each path and method; a soak may take more


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("openapi")
    stage = Stage(folder / "local.db")
    stage.acquire("node-a")
    stage.record("first start")
    stage.release()
    stage.backend.withdraw("node-a", "node-a-1", deadline=stage.soon)
    with served(folder, metrics=lambda: b"up 1\n") as made:
        nodes = (other("b"), other("a", role="active", state="running"))
        seen = view(lock("a"), nodes=nodes, request=request())
        made.tell(s.Serving(lease(3_600_000), 3), seen)
        yield made
    stage.close()


@pytest.fixture
def api_schema(node: Served) -> Any:
    found = schemathesis.openapi.from_url(f"{node.api.url}/openapi.json")
    found.config.generation.update(max_examples=EXAMPLES)
    return found.exclude(path="/events")


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_announced(case: Any) -> None:
    response = case.call(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)

    announced = document()["paths"][case.path][case.method.lower()]["responses"]
    assert str(response.status_code) in announced, response.text
    assert response.status_code != 500
    case.validate_response(
        response,
        excluded_checks=[
            schemathesis.checks.not_a_server_error,  # 503 and 504 are announced, and 500 is looked for above
            *(getattr(schemathesis.checks, "ignored_auth", None),),
        ],
    )


def test_it_has_every_path_and_no_other(node: Served) -> None:
    paths = document()["paths"]

    for path, methods in paths.items():
        for method in methods:
            status = (
                node.ask(method.upper(), path, headers={"Last-Event-ID": "x"}).status
                if path != "/events"
                else 0
            )
            assert status not in (404, 405), (method, path)
    assert {f"/{name}" for name in commands.COMMANDS} == {
        p for p, methods in paths.items() if "post" in methods
    }


def test_the_statuses_of_commands_are_those_of_the_command_line() -> None:
    announced = document()["paths"]["/failover"]["post"]["responses"]

    assert commands.OUTCOMES.keys() == commands.HTTP.keys() == set(range(6))
    assert {str(status) for status in commands.HTTP.values()} <= set(announced)
