"""Fixtures of the contract: a ``store`` for each of `STORES`, and backends on it, closed afterwards."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sidecar.ports import Backend
from tests.contract.stores import STORES, Store
from tests.harness.proxy import Proxy

Connect = Callable[..., Backend]


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    name: str = request.param
    found = STORES[name](request)
    yield found
    found.thaw()


@pytest.fixture
def connect(store: Store, namespace: str) -> Iterator[Connect]:
    """Return what makes another backend of this test's cluster, or of another one."""
    with ExitStack() as stack:

        def make(cluster: str = namespace, through: Proxy | None = None) -> Backend:
            backend = store.connect(cluster, through)
            stack.callback(backend.close)
            return backend

        yield make


@pytest.fixture
def a(connect: Connect) -> Backend:
    return connect()


@pytest.fixture
def b(connect: Connect) -> Backend:
    return connect()
