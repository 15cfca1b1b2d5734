"""A sidecar: the real core, and around it what the real shell does with its orders.

One lock call is under way at a time and is answered exactly once, after the request timeout at the
latest; what it asked for may still happen later. A frozen sidecar gets everything late, in order.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from sidecar.core import state as s
from sidecar.core.decide import begin, decide
from sidecar.core.model import NodeRecord, View
from sidecar.core.outlook import describe, wake_at
from sidecar.core.units import Epoch, Instant, lease_deadline, silence_ms
from tests.core.simulation.host import KILL_TAKES_MS, Guard, Host, Tree
from tests.core.simulation.loop import Event, Network
from tests.core.simulation.store import Behind, Busy, Conflicting, NotHolderAnswer, Store

Verb = Callable[[], s.Observation | None]  # None: the answer is a grant of the epoch of the call
PROBE_MS = 100


def void(_: object) -> None:
    """Nobody hears the answer."""


class Shell:
    def __init__(self, host: Host, store: Store, network: Network) -> None:
        self.host, self.store, self.network, self.loop = host, store, network, host.loop
        self.alive = True
        self.born_at = self.loop.now
        self.exited: s.Exit | None = None
        self.frozen_until = 0
        self.trees: dict[s.Run, Tree] = {}
        guard, found, stopping = self._find()
        self.guard = guard
        self.policy = replace(host.policy, instance=guard.instance)
        now = host.clock.now()
        self.node = begin(self.policy, now, host.mark, found, stopping=stopping)
        self.checks: Callable[[Shell, s.Observation, s.Node, tuple[s.Action, ...]], None] = lambda *_: None
        self.mishap: Callable[[Shell, s.Action], None] = lambda *_: None
        self._inbox: deque[s.Observation] = deque()
        self._pending: deque[s.Action] = deque()
        self._call = 0
        self._calling = False
        self._tick = 0
        self._unanswered: dict[s.Run, Guard] = {}  # starts the guard has been sent
        self._order_at = 0  # the socket to the guard keeps the order
        self._published: NodeRecord | None = None
        self._view_under_way = False
        self._seen_revision = (-1, -1)
        self._watched: tuple[int, Instant] | None = None  # lock index, and since when
        store.watchers.append(self._notified)
        self.observe(s.Tick())
        self._poll()
        self._heartbeat()

    # life

    def _find(self) -> tuple[Guard, s.StartServer | None, bool]:
        host = self.host
        guard = host.guard
        if guard is None or not guard.alive:
            return host.new_guard(), None, False
        tree = guard.tree
        if tree is None or tree.dead:
            return guard, None, False
        self.trees[0] = tree
        self.loop.counts[f"adopted {tree.role}"] += 1
        self.loop.tell(host.name, f"adopts {tree}")
        self.loop.after(PROBE_MS, lambda: self.tree_ready(tree))
        found = s.StartServer(0, tree.role, tree.epoch, Instant(tree.terms.deadline_ms))
        return guard, found, tree.stopping or tree.dying

    def crash(self) -> None:
        self.alive = False
        self.store.watchers.remove(self._notified)
        self.loop.tell(self.host.name, "SIDECAR ENDS")

    @property
    def frozen(self) -> bool:
        return self.loop.now < self.frozen_until

    def freeze(self, until: int) -> None:
        self.frozen_until = max(self.frozen_until, until)
        self.loop.at(self.frozen_until, self.thaw)

    def thaw(self) -> None:
        self._carry_on()
        while self.alive and not self.frozen and self._inbox:
            self._decide(self._inbox.popleft())
        if self.alive and not self.frozen:
            self._decide(s.Tick())
            self._notified()

    # observations

    def observe(self, seen: s.Observation) -> None:
        if not self.alive:
            return
        if self.frozen:
            if not isinstance(seen, s.Tick):
                self._inbox.append(seen)
        else:
            self._decide(seen)

    def _decide(self, seen: s.Observation) -> None:
        before, now = self.node, self.host.clock.now()
        self.node, actions = decide(before, seen, now, self.policy)
        self.loop.cells[type(before.phase).__name__, type(seen).__name__] += 1
        if actions or not isinstance(seen, s.Tick):
            self.loop.tell(self.host.name, (now, seen, "→", self.node.phase, actions))
        self.checks(self, seen, before, actions)
        self._pending.extend(actions)
        self._carry_on()
        if self.alive:
            self._publish_changes(now)
            self._schedule_tick(now)

    def _carry_on(self) -> None:
        while self.alive and not self.frozen and self._pending:
            self.mishap(self, self._pending[0])
            if self.alive and not self.frozen:
                self._act(self._pending.popleft())

    def _schedule_tick(self, now: Instant) -> None:
        self._tick += 1
        mine = self._tick

        def tick() -> None:
            if mine == self._tick:
                self.observe(s.Tick())

        self.loop.at(self.host.clock.true(wake_at(self.node, now, self.policy)), tick)

    def tree_ready(self, tree: Tree) -> None:
        run = self._run_of(tree)
        if tree.ready and not tree.dead and run is not None:
            self.observe(s.ServerReady(run))

    def tree_gone(self, tree: Tree) -> None:
        def tell() -> None:
            run = self._run_of(tree)
            if run is not None:
                del self.trees[run]
                self.observe(s.ServerGone(run, 1))

        self.loop.after(self.loop.random.randint(0, 5), tell)
        run = self._run_of(tree)
        if run is not None and self.loop.chance(0.2):  # told by the guard, too
            again_ms = self.loop.random.randint(10, 500)
            self.loop.after(again_ms, lambda: self.observe(s.ServerGone(run, 1)))

    def _run_of(self, tree: Tree) -> s.Run | None:
        return next((run for run, known in self.trees.items() if known is tree), None)

    def probe(self) -> None:
        for run, tree in list(self.trees.items()):
            if tree.activated_at is not None and not tree.dead:
                self.observe(s.ServerActivated(run))
            elif tree.sick and not tree.dead:
                self.observe(s.ServerSick(run, "does not answer"))

    # orders

    def _act(self, action: s.Action) -> None:
        match action:
            case s.Acquire(floor):
                self._acquire(floor)
            case s.Renew(epoch):
                self._lock_call(lambda: self._renew(epoch), epoch)
            case s.Release(epoch, cause):
                self._lock_call(lambda: self._release(epoch, cause), epoch)
            case s.StartServer():
                self._to_guard(lambda: self._start(action), action.run)
            case s.ExtendServer(run, deadline):
                self._to_guard(lambda: self._with(run, lambda t: self.guard.extend(t, deadline)))
            case s.StopServer(run, kill_at):
                self._to_guard(lambda: self._with(run, lambda t: self.guard.stop(t, kill_at)))
            case s.KillServer(run):
                self._to_guard(lambda: self._with(run, self.guard.kill))
            case s.SaveMark(epoch):
                self.host.mark = epoch
            case s.Answer():
                self._answer(action)
            case s.RecordChange():
                self.loop.counts["changes recorded"] += 1
            case s.Alarm():
                self.loop.counts["alarms"] += 1
            case s.Exit():
                self._exit(action)
            case _:
                assert_never(action)

    def _exit(self, order: s.Exit) -> None:
        self.exited = order
        self.loop.counts["exit, server kept" if order.kept else "exit"] += 1
        self.crash()
        if not order.kept:
            if self.host.trees:
                raise self.host.violation(f"exits while the {self.host.trees[0]} lives")
            self.guard.die()
            self.store.withdraw(self.host.name)

    def _to_guard(self, order: Event, starts: s.Run | None = None) -> None:
        random = self.loop.random
        delay_ms = 0 if random.random() < 0.8 else random.randint(1, 30)
        self._order_at = max(self._order_at, self.loop.now + delay_ms)

        def send() -> None:
            if starts is not None and self.guard.alive:
                self._unanswered[starts] = self.guard
            self._send(order)

        self.loop.at(self._order_at, send)

    def _send(self, order: Event) -> None:
        if not self.alive and self.exited is None:
            return
        if self.guard.alive:
            self.guard.order(order)
        elif self.alive:
            order()  # a start finds that there is no guard; everything else finds nothing

    def guard_gone(self, guard: Guard) -> None:
        """A start that was not answered by a guard that is dead has not happened: the proof is the same."""

        def tell() -> None:
            for run in [run for run, asked in self._unanswered.items() if asked is guard]:
                del self._unanswered[run]
                self.observe(s.ServerGone(run, None, "the guard is gone"))

        self.loop.after(KILL_TAKES_MS + 1, tell)

    def _with(self, run: s.Run, order: Callable[[Tree], None]) -> None:
        if run in self.trees:
            order(self.trees[run])

    def _start(self, order: s.StartServer) -> None:
        if not self.guard.alive:
            if self.host.trees:
                raise self.host.violation(f"ordered {order} while the {self.host.trees[0]} lives")
            self.guard = self.host.new_guard(self.policy.instance)

        def started(tree: Tree | None) -> None:
            self._unanswered.pop(order.run, None)
            if not self.alive:
                return
            if tree is None:
                self.observe(s.ServerGone(order.run, None, "refused by the guard"))
            else:
                self.trees[order.run] = tree

        self.guard.start(order, self.policy.kill_margin_ms, started)

    # lock calls

    def _acquire(self, floor: Epoch) -> None:
        watched = self._watched[0] if self._watched is not None and self._silent() else None
        name, ttl_ms = self.host.name, self.policy.ttl_ms

        def verb() -> Epoch:
            return self.store.acquire(name, self.policy.instance, ttl_ms, floor, watched)

        sent_at = self.host.clock.now()

        def answer() -> s.Observation:
            try:
                epoch = verb()
            except Busy:
                return s.Taken()
            except Behind:
                return s.CallFailed("epoch behind", lasting=True)
            return s.Granted(epoch, sent_at, lease_deadline(sent_at, ttl_ms))

        self._send_call(answer)

    def _lock_call(self, verb: Callable[[], s.Observation | None], epoch: Epoch) -> None:
        sent_at = self.host.clock.now()

        def answer() -> s.Observation:
            try:
                done = verb()
            except NotHolderAnswer:
                return s.Lost(epoch)
            return done or s.Granted(epoch, sent_at, lease_deadline(sent_at, self.policy.ttl_ms))

        self._send_call(answer)

    def _renew(self, epoch: Epoch) -> None:
        self.store.renew(self.policy.instance, epoch)

    def _release(self, epoch: Epoch, cause: str) -> s.Observation:
        self.store.release(self.policy.instance, epoch, cause)
        return s.Released(epoch)

    def _send_call(self, carry_out: Callable[[], s.Observation]) -> None:
        if self._calling:
            raise self.host.violation("a second lock call while one is under way")
        self._calling, self._call = True, self._call + 1
        mine = self._call

        def answer(seen: s.Observation) -> None:
            if self.alive and mine == self._call and self._calling:
                self._calling = False
                self.observe(seen)
            elif self.alive and not isinstance(seen, s.CallFailed):
                self.loop.counts[f"answer after give-up: {type(seen).__name__}"] += 1

        def execute() -> None:
            if self.loop.now < self.store.frozen_until:
                self.loop.at(self.store.frozen_until, execute)
                return
            if not (self.alive and mine == self._call and self._calling):
                self.loop.counts["late request executed"] += 1
            seen = carry_out()
            back = self.network.trip()
            if back is not None and not self.host.cut:
                self.loop.after(back, lambda: answer(seen))

        self.host.clock.after(self.policy.request_timeout_ms, lambda: answer(s.CallFailed("timed out")))
        there = self.network.trip()
        if self.host.cut or there is None:
            if self.loop.chance(0.3):
                self.loop.after(3, lambda: answer(s.CallFailed("not sent")))
            return
        self.loop.after(there, execute)
        if self.loop.chance(0.01 * self.network.harshness):
            self.loop.counts["request duplicated"] += 1
            again_ms = there + self.loop.random.randint(1, self.policy.ttl_ms)
            self.loop.after(again_ms, lambda: void(carry_out()))

    # documents, presence, the watch

    def _answer(self, order: s.Answer) -> None:
        def execute() -> None:
            if self.loop.now < self.store.frozen_until:
                self.loop.at(self.store.frozen_until, execute)
                return
            try:
                self.store.write_request(order.request, order.expected)
            except Conflicting:
                self.observe(s.AnswerFailed())

        there = self.network.trip()
        if there is None or self.host.cut:
            self.host.clock.after(self.policy.request_timeout_ms, lambda: self.observe(s.AnswerFailed()))
        else:
            self.loop.after(there, execute)
            if self.loop.chance(0.01 * self.network.harshness):  # done, but it does not know
                self.host.clock.after(self.policy.request_timeout_ms, lambda: self.observe(s.AnswerFailed()))

    def _record(self, now: Instant) -> NodeRecord:
        return describe(
            self.node, now, self.policy, enforcement="kernel", version="0", unix_ms=0, server=None
        )

    def _publish_changes(self, now: Instant) -> None:
        record, known = self._record(now), self._published
        if known is None or (
            (record.state, record.message, record.available, record.mark, record.epoch)
            != (known.state, known.message, known.available, known.mark, known.epoch)
        ):
            self._publish(replace(record, lease_left_ms=None))

    def _publish(self, record: NodeRecord) -> None:
        self._published = record
        there = self.network.trip()
        if self.host.cut or there is None:
            return

        def execute() -> None:
            if self.alive and self._published is record and self.loop.now >= self.store.frozen_until:
                self.store.publish(record, self.policy.ttl_ms)

        self.loop.after(there, execute)

    def _heartbeat(self) -> None:
        if self.alive:
            if not self.frozen and self._published is not None:
                self._publish(self._published)
            self.host.clock.after(self.policy.ttl_ms // 4, self._heartbeat)

    def _poll(self) -> None:
        if self.alive:
            self._notified()
            self.probe()
            self.host.clock.after(self.policy.ttl_ms // 5, self._poll)

    def _notified(self) -> None:
        if not self.alive or self._view_under_way or self.frozen:
            return
        if self._seen_revision == (self.store.generation, self.store.revision):
            return
        out, back = self.network.trip(), self.network.trip()
        if out is None or back is None or self.host.cut:
            return
        self._view_under_way = True
        self.loop.after(out, lambda: self._look(back))

    def _look(self, back: int) -> None:
        if self.loop.now < self.store.frozen_until:
            self.loop.at(self.store.frozen_until, lambda: self._look(back))
            return
        view, index = self.store.view(), self.store.lock_index
        revision = self.store.generation, self.store.revision
        self.loop.after(back, lambda: self._arrived(view, index, revision))

    def _arrived(self, view: View, index: int, revision: tuple[int, int]) -> None:
        self._view_under_way = False
        if not self.alive or self.host.cut:
            return
        if self.frozen:
            self.loop.at(self.frozen_until, lambda: self._arrived(view, index, revision))
            return
        if revision > self._seen_revision:
            self._seen_revision = revision
            self._watch_lock(view, index)
            self.observe(s.Seen(self._judged(view)))
        self._notified()

    # where the store keeps no leases: the silence of the holder, on this node's clock

    def _watch_lock(self, view: View, index: int) -> None:
        self._view = view
        if self.store.leases or view.lock is None:
            self._watched = None
        elif self._watched is None or self._watched[0] != index:
            self._watched = index, self.host.clock.now()
            self.host.clock.after(silence_ms(view.lock.ttl_ms), lambda: self._silence_over(index))

    def _silent(self) -> bool:
        lock = self._view.lock
        if self._watched is None or lock is None:
            return False
        return self.host.clock.now() >= self._watched[1] + silence_ms(lock.ttl_ms)

    def _silence_over(self, index: int) -> None:
        if self.alive and self._watched is not None and self._watched[0] == index:
            self.loop.counts["silence over"] += 1
            self.observe(s.Seen(self._judged(self._view)))

    def _judged(self, view: View) -> View:
        return replace(view, lock_expired=True) if self._silent() else view
