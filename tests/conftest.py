"""What every test can ask for: shared real stores, a namespace of its own, clusters to break.

| fixture | scope | is |
|---|---|---|
| etcd34, etcd35, consul | session | a real store |
| namespace | test | a cluster name no other test has |
| proxy | test | makes TCP proxies with fault verbs: ``proxy(store)`` |
| etcd_cluster | module | three etcd 3.4 members |

Whatever store is broken by a test, these and a module's own, is healed before the next one.
A tool that is missing skips the tests that need it; with CI set it fails them.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.harness.proxy import Proxy
from tests.harness.stores import ETCD34, ETCD35, Consul, Etcd, EtcdCluster, Store, heal_all, unique

# Slow files first, so that the workers end together (--no-loadscope-reorder keeps this order).
SLOW_FIRST = ("tests/system/", "tests/contract/", "tests/core/")


class FailuresAtOnce:
    """Prints what failed as it fails: a run that is cut short prints no summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.line(f"{report.nodeid}: {report.when} failed after {report.duration:.0f} s")
            self._terminal.line(report.longreprtext)


@pytest.hookimpl(trylast=True)  # after the terminal has its reporter
def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C mean something below us, also where a shell has started us in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # not in a worker
        config.pluginmanager.register(FailuresAtOnce(terminal))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        for index, prefix in enumerate(SLOW_FIRST):
            if item.nodeid.startswith(prefix):
                return index
        return len(SLOW_FIRST)

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _heal_stores() -> Iterator[None]:
    yield
    heal_all()


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A command that is over, run in this process, leaves them ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def etcd34(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with Etcd.run(tmp_path_factory.mktemp("etcd34"), ETCD34) as etcd:
        yield etcd


@pytest.fixture(scope="session")
def etcd35(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with Etcd.run(tmp_path_factory.mktemp("etcd35"), ETCD35) as etcd:
        yield etcd


@pytest.fixture(scope="session")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    with Consul.run(tmp_path_factory.mktemp("consul")) as consul:
        yield consul


@pytest.fixture(scope="module")
def etcd_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster.run(tmp_path_factory.mktemp("etcd-cluster")) as cluster:
        yield cluster


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    return unique(request.node.name)


@pytest.fixture
def proxy() -> Iterator[Callable[[Store], Proxy]]:
    with ExitStack() as stack:
        yield lambda store: stack.enter_context(Proxy(store.host_port))
