"""Puts one cluster together: the subject's nodes in their places, a server for each, a store, a deck."""

import random
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.config.load import load
from sidecar.config.timing import Term, granted_ms
from sidecar.demo.cluster import Cluster, DemoNode
from sidecar.standin.record import now_ns
from tests.harness.cells import Cell, MemoryGroup, Unavailable
from tests.harness.consuls import CLIENT_TOKEN
from tests.harness.fabric import Fabric
from tests.harness.tools import need
from tests.system.soak.arena import Arena
from tests.system.soak.deck import ROLES, Card, Deck, cards
from tests.system.soak.faults import WALL_CLOCK, set_clock
from tests.system.soak.limits import LOAD_ALLOWANCE_MS, return_terms
from tests.system.soak.nodes import PeerNode, Place, SidecarNode
from tests.system.soak.operators import Operator
from tests.system.soak.report import Findings
from tests.system.soak.stores import PASSWORD, USER, open_store

SUBJECTS = ("sidecar", "etcdctl", "consul-lock")
CONSUL_LOCK_MS = 15_000
"""The session of ``consul lock``, and its lock-delay; neither can be chosen."""
STANDIN = {"start_ms": 250, "activate_ms": 300, "max_life_ms": 0}
STANDIN_START_MS, JVM_START_MS = 550, 3_000
JAVA_SOURCE = Path(__file__).with_name("JvmServer.java")
CLOCK_SOURCE = Path(__file__).with_name("wallclock.c")
BOOTTIME_STEP_S = 100_000


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    folder: Path
    backend: str
    subject: str
    nodes: int
    seed: int
    ttl_ms: int
    broken: Path | None = None  # run this copy of the program instead
    kinds: tuple[str, ...] = ()  # only these
    roles: tuple[str, ...] = ROLES  # only in these
    each: bool = False  # each kind once
    skipped: dict[str, str] = field(default_factory=dict)  # what this machine lacks, by kind


@dataclass(frozen=True)
class Tools:
    """What had to be compiled; None: there is no compiler."""

    java: Path | None
    clock: Path | None


def make_tools(folder: Path, skipped: dict[str, str]) -> Tools:
    """Compile everything; what cannot be is named in *skipped*."""
    return Tools(compile_jvm(folder, skipped), compile_clock(folder, skipped))


def server_of(index: int, options: Options, java: Path | None) -> str:
    """Return what cluster *index* runs: every third one a JVM."""
    return "jvm" if options.subject == "sidecar" and java is not None and index % 3 == 1 else "standin"


def enforcement_of(index: int) -> str:
    """Return who holds the deadlines of cluster *index*: in every second one not the kernel."""
    return "process" if index % 2 == 1 else "kernel"


def compile_jvm(folder: Path, skipped: dict[str, str]) -> Path | None:
    """Return where the compiled server is; None, and the reason in *skipped*, where there is no JDK."""
    if shutil.which("java") is None or shutil.which("javac") is None:
        skipped["full GC"] = "no java and javac here: no cluster runs a real JVM"
        return None
    classes = folder / "classes"
    subprocess.run(["javac", "-d", str(classes), str(JAVA_SOURCE)], check=True)
    return classes


def arena(index: int, options: Options, fabric: Fabric, tools: Tools) -> Arena:
    """Build cluster *index*; nothing of the nodes is started yet.

    Raises:
        Unavailable: The machine does not have what it takes.
    """
    folder = options.folder / f"cluster-{index}"
    rng = random.Random(f"{options.seed}/{index}")
    store = open_store(options.backend, folder / "store", random.Random(f"{options.seed}/{index}/store"))
    try:
        server = server_of(index, options, tools.java)
        names = [f"node-{letter}" for letter in "abcdefgh"[: options.nodes]]
        ours = options.subject == "sidecar"
        cluster = Cluster(
            folder / "nodes",
            {},
            names=names,
            ttl=f"{options.ttl_ms}ms",
            cluster=f"soak-{index}",
            standin={**STANDIN, "role": 0 if ours else 1},
            settings={"log": {"format": "json"}},
            node_type=SidecarNode,
        )
        places = []
        for number, made in enumerate(cluster):
            section = store.section(number)
            assert isinstance(made, SidecarNode)
            cell = Cell(
                fabric,
                made.name,
                f"10.77.{index + 1}.{number + 1}",
                BOOTTIME_STEP_S * (1 + number + index * options.nodes),
                made.folder / "disk",
            )
            memory = _memory(options, f"{options.folder.name}-{index}-{number}")
            if ours:
                made.settings |= section
                made.settings["paths"]["state"] = str(cell.disk / "state")
                made.settings["guard"] = {"enforcement": enforcement_of(index)}
                if server == "jvm" and tools.java is not None:
                    _run_jvm(made, tools.java, cluster.witness)
                if options.broken is not None:
                    made.environment = {"PYTHONPATH": str(options.broken)}
                node: SidecarNode | PeerNode = made
            else:
                node = _peer(options, made, section)
            node.prefix = cell.prefix
            places.append(Place(node, cell, memory))
        if ours and index % 3 == 0 and tools.clock is not None:
            _own_clocks(places, tools.clock)
        name = f"cluster-{index}, {enforcement_of(index)}" if ours else f"cluster-{index}"
        return _arena(name, options, cluster, places, store, server, rng)
    except BaseException:
        store.close()
        raise


def _arena(
    name: str,
    options: Options,
    cluster: Cluster,
    places: list[Place],
    store: Any,
    server: str,
    rng: random.Random,
) -> Arena:
    ours = options.subject == "sidecar"
    operator, bound, lease_ms = None, _peer_terms(options), options.ttl_ms
    if ours:
        nodes = list(cluster)
        for node in nodes:
            node.write_config()
        config = load(nodes[0].config, {})
        start_ms = JVM_START_MS if server == "jvm" else STANDIN_START_MS
        bound, lease_ms = return_terms(config, start_ms), granted_ms(config)
        operator = Operator([node.config for node in nodes], cluster.folder.parent / "commands.log", rng)
    elif options.subject == "consul-lock":
        lease_ms = CONSUL_LOCK_MS
    without = set(options.skipped)
    without |= {"deaf server", "failing start"} if server == "jvm" else {"full GC"}
    if any(place.clock is None for place in places):
        without.add(WALL_CLOCK)
    monitoring = ours and server != "jvm"
    found = cards(store.kinds(), sidecar=ours, monitoring=monitoring, without=sorted(without))
    found = [card for card in found if card.role in options.roles and _wanted(card, options)]
    return Arena(
        cluster=cluster,
        places=places,
        store=store,
        deck=Deck(found, rng, once=options.each),
        operator=operator,
        findings=Findings(f"{name}, {places[0].cell.port.address}", server, bound),
        random=rng,
        lease_ms=lease_ms,
        monitoring=monitoring,
    )


def _wanted(card: Card, options: Options) -> bool:
    return not options.kinds or card.name in options.kinds


def _memory(options: Options, name: str) -> MemoryGroup | None:
    try:
        return MemoryGroup(name)
    except Unavailable as why:
        options.skipped["memory pressure"] = str(why)
        return None


def _run_jvm(node: DemoNode, classes: Path, witness: Path) -> None:
    (port,) = node.ports[:1]
    offset_ns = now_ns() - time.monotonic_ns()
    java = [
        "java",
        "-Xms512m",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        f"-Xlog:gc:file={node.home}/gc.log::filecount=0",
    ]
    server = node.settings["server"]
    server |= {
        "kind": "command",
        "command": [
            *java,
            "-cp",
            str(classes),
            "JvmServer",
            str(node.home),
            str(witness),
            str(port),
            str(offset_ns),
        ],
        "standby": "stopped",
        "probes": {"ready": {"tcp": [port], "every": "50ms"}},
    }


def compile_clock(folder: Path, skipped: dict[str, str]) -> Path | None:
    """Return the library that moves a wall clock; None, and the reason in *skipped*, without a compiler."""
    if shutil.which("cc") is None:
        skipped[WALL_CLOCK] = "no C compiler here (cc): no sidecar has a wall clock that can be moved"
        return None
    library = folder / "wallclock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, CLOCK_SOURCE, "-ldl"], check=True)
    return library


def _own_clocks(places: list[Place], library: Path) -> None:
    """Give each sidecar, and nothing that it starts, a wall clock that a file moves."""
    for place in places:
        assert isinstance(place.node, SidecarNode)
        place.clock = place.node.folder / "wall-clock"
        set_clock(place.clock, 0)
        place.node.wear(library, place.clock)


def _peer(options: Options, made: DemoNode, section: Mapping[str, Any]) -> PeerNode:
    launcher = str(made.home / "ag_server_console")
    environment = {"SIDECAR_NODE": made.name, "SIDECAR_EPOCH": "0"}
    if options.subject == "etcdctl":
        words = [str(need("etcdctl-3.4")), "--endpoints", ",".join(section["etcd"]["endpoints"])]
        words += [
            "--user",
            f"{USER}:{PASSWORD}",
            "lock",
            "--ttl",
            str(options.ttl_ms // 1000),
            "soak",
            "--",
            launcher,
        ]
        environment["ETCDCTL_API"] = "3"
    else:
        words = [str(need("consul")), "lock", "-http-addr", section["consul"]["address"], "-shell=false"]
        words += ["soak", launcher]
        environment["CONSUL_HTTP_TOKEN"] = CLIENT_TOKEN
    return PeerNode(made.name, made.folder, words, environment)


def _peer_terms(options: Options) -> tuple[Term, ...]:
    """How soon a peer has to be back: by what its documentation promises, and the same allowance."""
    consul = options.subject == "consul-lock"
    lease_ms = CONSUL_LOCK_MS if consul else options.ttl_ms
    terms = [Term("its lease, twice where the store may double it", 2 * lease_ms)]
    if consul:
        terms.append(Term("lock-delay", CONSUL_LOCK_MS))
    terms += [Term("the server starts", STANDIN_START_MS), Term("allowance", LOAD_ALLOWANCE_MS)]
    return tuple(terms)


EDITS = (
    (
        "sidecar/guard/terms.py",
        "return self.deadline_ms - self.kill_margin_ms",
        "return self.deadline_ms + 86_400_000",
    ),
    (
        "sidecar/guard/terms.py",
        "return self.deadline_ms - (self.kill_margin_ms + 1) // 2",
        "return self.deadline_ms + 86_400_000",
    ),
)
"""What makes the broken build: a guard that holds no deadline, nor does the kernel for it."""


def broken_build(folder: Path) -> Path:
    """Copy the program to *folder* and break it; return *folder*.

    Raises:
        ValueError: A line to break is not there any more.
    """
    root = Path(__file__).parents[3]
    for package in ("sidecar", "backends"):
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in EDITS:
        path = folder / name
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{name} does not hold once: {old}")
        path.write_text(text.replace(old, new))
    return folder
