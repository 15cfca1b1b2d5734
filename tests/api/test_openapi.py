"""Goal: the document at /openapi.json is true: whatever is asked, the answer is one that it announces.

Method: schemathesis makes requests from the document, good and bad, for the real API over HTTP; the store is
real and nobody is there, so that commands are refused or done at once. A status of 500 or above is an error
unless the document says when it comes. Not covered: /events, which does not end (test_served.py).
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from sidecar.api import commands
from sidecar.api.openapi import document
from sidecar.core import state as s
from tests.api.served import TOKEN, WITHIN_S, Served, lease, served
from tests.cli.stage import Stage
from tests.core.made import lock, other, request, view

QUICK = settings(
    max_examples=8,  # for each method of a path, good and bad
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


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


CHECKS = [
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.negative_data_rejection,
]
PATHS = [
    (method.upper(), path)
    for path, methods in document()["paths"].items()
    for method in methods
    if path != "/events"
]
ASKED = {path for method, path in PATHS if method == "POST"} | {"/history"}  # those that take something


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_answer_is_announced(node: Served, method: str, path: str) -> None:
    operation = schemathesis.openapi.from_dict(document())[path][method]
    announced = document()["paths"][path][method.lower()]["responses"]

    def look(case: Any) -> None:
        response = case.call(
            headers={"Authorization": f"Bearer {TOKEN}"}, timeout=WITHIN_S, base_url=node.api.url
        )
        assert str(response.status_code) in announced, response.text
        assert response.status_code != 500
        case.validate_response(response, checks=CHECKS)

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[: 1 + (path in ASKED)]:
        seeded = seed(7)(given(operation.as_strategy(generation_mode=mode))(look))
        QUICK(seeded)()


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
