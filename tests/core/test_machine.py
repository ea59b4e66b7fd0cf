"""Any order of events keeps the rules. Safety is asserted at every command, liveness at the end."""

from __future__ import annotations

import math

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swapper.core import events as ev
from swapper.core.scheduler import Scheduler
from swapper.core.worker import WorkerState
from tests.core.world import model, registry

NAMES = "abcd"
FAILURES = [None, ev.Failure("bad_file", "x"), ev.Failure("out_of_memory", "x")]


class SchedulerMachine(RuleBasedStateMachine):
    """Plays the world by itself: clients, processes and time in any order that is possible."""

    @initialize(
        sizes=st.tuples(*[st.integers(1, 4)] * 4),
        host=st.integers(3, 8),
        parallel=st.integers(1, 3),
        limit=st.integers(0, 2),
        pinned=st.booleans(),
    )
    def start(self, sizes, host, parallel, limit, pinned):
        changes = {"parallel": parallel, "queue_timeout_s": 50.0, "queue_limit": 6}
        specs = [
            model(name, size, ttl_s=20.0, groups=("",), pin=pinned and name == "a", **changes)
            for name, size in zip(NAMES, sizes, strict=True)
        ]
        self.host, self.limit, self.parallel = host, limit, parallel
        limits = {"": limit} if limit else {}
        self.scheduler = Scheduler(registry(*specs, host=host, **limits))
        self.now, self.next_id = 0.0, 0
        self.charge: dict[str, int] = {}  # our own books, by worker
        self.held: dict[str, int] = {}  # and what those hold that sleep
        self.waiting: dict[int, str] = {}
        self.granted: dict[int, str] = {}
        self.draining: set[str] = set()
        self.starting: list[str] = []
        self.stopping: list[str] = []
        self.dozing: list[str] = []  # told to sleep or to wake
        self.asleep: set[str] = set()
        self.pinned: set[str] = {"a"} if pinned else set()

    def tell(self, event):
        commands = self.scheduler.handle(event, self.now)
        for command in commands:
            self.obey(command)
        self.check_pins(commands)
        for worker in self.scheduler.books.workers.values():
            if worker.state is WorkerState.READY:
                self.draining.discard(worker.id)
            elif worker.state is WorkerState.DRAINING:
                self.draining.add(worker.id)

    def obey(self, command):
        match command:
            case ev.StartWorker(worker_id, _, reserved):
                self.charge[worker_id] = reserved["host"]
                self.check_budget()
                names = [w.partition("#")[0] for w in self.charge]
                assert len(set(names)) == len(names), "two workers of one model"
                self.starting.append(worker_id)
            case ev.StopWorker(worker_id):
                assert worker_id not in self.granted.values(), "a busy worker was stopped"
                if worker_id in self.starting:
                    self.starting.remove(worker_id)
                self.stopping.append(worker_id)
                if worker_id in self.dozing:
                    self.dozing.remove(worker_id)
            case ev.SleepWorker(worker_id):
                assert worker_id not in self.granted.values(), "a busy worker was put to sleep"
                assert worker_id not in self.stopping + self.starting + self.dozing
                self.draining.discard(worker_id)
                self.dozing.append(worker_id)
                self.check_budget()
            case ev.WakeWorker(worker_id):
                self.asleep.remove(worker_id)
                self.dozing.append(worker_id)
                self.check_budget()
            case ev.Grant(request_id, worker_id):
                assert self.waiting.pop(request_id) == worker_id.partition("#")[0]
                assert worker_id in self.charge, "granted a worker that is gone"
                assert worker_id not in self.stopping + self.starting, "granted a worker not ready"
                assert worker_id not in self.dozing, "granted a worker that dozes"
                assert worker_id not in self.asleep, "granted a worker that sleeps"
                state = self.scheduler.books.workers[worker_id.partition("#")[0]].state
                assert state is not WorkerState.DRAINING or worker_id not in self.draining
                self.granted[request_id] = worker_id
                in_flight = list(self.granted.values()).count(worker_id)
                assert in_flight <= self.parallel
            case ev.Decided(name, "spare"):
                self.draining.discard(self.scheduler.books.workers[name].id)
            case ev.Reject(request_id):
                assert request_id in self.waiting, "refused what does not wait"
                del self.waiting[request_id]

    def check_pins(self, commands):
        """Nobody who is pinned goes for another: whoever does goes with that other's name for a reason."""
        told = [c for c in commands if isinstance(c, ev.Decided)]
        goes = [c for c in told if c.action in ("drain", "sleep", "stop")]
        moved = {c.model for c in goes if " needs " in c.reason}
        assert not moved & self.pinned, "a pinned model was moved out"
        books = self.scheduler.books
        assert {name for name in NAMES if books.is_pinned(name)} == self.pinned

    def check_budget(self):
        """By the books of the scheduler, which at rest are our own; those asleep keep what they said."""
        charged = self.scheduler.books.ledger.charged("host")
        assert charged <= self.host, "over-committed"
        assert charged >= sum(self.held.get(w, 0) for w in self.asleep), "what sleeps is forgotten"
        assert not self.limit or len(self.charge.keys() - self.asleep) <= self.limit, "too many"

    @rule(name=st.sampled_from(NAMES), earlier=st.sampled_from([0.0, 0.0, 5.0]))
    def arrive(self, name, earlier):
        self.next_id += 1
        self.waiting[self.next_id] = name
        self.tell(ev.RequestArrived(self.next_id, name, max(0.0, self.now - earlier)))

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def finish(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.granted)))
        del self.granted[request_id]
        self.tell(ev.RequestEnded(request_id))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def hang_up(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[request_id]
        self.tell(ev.RequestEnded(request_id))

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), measured=st.integers(0, 4), can_sleep=st.booleans())
    def ready(self, data, measured, can_sleep):
        worker_id = data.draw(st.sampled_from(self.starting))
        self.starting.remove(worker_id)
        memory = {"host": min(measured, self.charge[worker_id])}
        self.tell(ev.WorkerReady(worker_id, memory, can_sleep))

    @precondition(lambda self: self.dozing)
    @rule(data=st.data(), goes_well=st.sampled_from([True, True, False]))
    def doze(self, data, goes_well):
        self.finish_dozing(data.draw(st.sampled_from(self.dozing)), goes_well)

    def finish_dozing(self, worker_id, goes_well=True):
        """What was told to sleep or to wake has done so, or it has not."""
        state = self.scheduler.books.workers[worker_id.partition("#")[0]].state
        if not goes_well:
            self.tell(ev.SleepFailed(worker_id, "it did not answer"))
            assert worker_id in self.stopping
            return
        self.dozing.remove(worker_id)
        if state is WorkerState.SLEEPING:
            self.asleep.add(worker_id)
            self.held[worker_id] = max(1, self.charge[worker_id] // 2)
            self.tell(ev.WorkerSlept(worker_id, {"host": self.held[worker_id]}))
        else:
            self.tell(ev.WorkerWoke(worker_id))

    @precondition(lambda self: self.stopping)
    @rule(data=st.data())
    def stopped(self, data):
        worker_id = data.draw(st.sampled_from(self.stopping))
        self.exit(worker_id, None)

    @precondition(lambda self: self.charge)
    @rule(data=st.data(), failure=st.sampled_from(FAILURES))
    def die(self, data, failure):
        self.exit(data.draw(st.sampled_from(sorted(self.charge))), failure)

    def exit(self, worker_id, failure):
        """The processes are gone; whoever was in flight finds its connection broken."""
        del self.charge[worker_id]
        self.asleep.discard(worker_id)
        for books in (self.starting, self.stopping, self.dozing):
            if worker_id in books:
                books.remove(worker_id)
        self.tell(ev.WorkerExited(worker_id, failure))
        for request_id in [r for r, w in self.granted.items() if w == worker_id]:
            del self.granted[request_id]
            self.tell(ev.RequestEnded(request_id))

    @rule(name=st.sampled_from(NAMES))
    def load(self, name):
        self.tell(ev.LoadRequested(name))

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name):
        self.tell(ev.UnloadRequested(name))

    @rule(name=st.sampled_from(NAMES))
    def sleep(self, name):
        self.tell(ev.SleepRequested(name))

    @rule(name=st.sampled_from(NAMES), is_pinned=st.booleans())
    def pin(self, name, is_pinned):
        self.pinned = self.pinned - {name} | ({name} if is_pinned else set())
        self.tell(ev.PinChosen(name, is_pinned))

    @rule(name=st.sampled_from(NAMES), stays_s=st.sampled_from([0.0, 3.0, math.inf]))
    def keep(self, name, stays_s):
        self.tell(ev.StayChosen(name, stays_s))

    @rule(seconds=st.floats(0.01, 30.0))
    def wait(self, seconds):
        """Time passes, and no deadline is slept through."""
        end = self.now + seconds
        while (deadline := self.scheduler.next_deadline()) <= end:
            self.now = max(self.now, deadline)
            self.tell(ev.TimePassed())
        self.now = end

    @invariant()
    def books_agree(self):
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.check_integrity()
        assert {r: model for r, (model, _) in self.scheduler.books.waiting.items()} == self.waiting
        assert set(self.scheduler.books.in_flight) == set(self.granted)
        assert {w.id for w in self.scheduler.books.workers.values()} == set(self.charge)
        assert not self.waiting or self.scheduler.next_deadline() < math.inf, (
            "waits without a deadline"
        )

    def teardown(self):
        """A world that goes on kindly serves everybody: loads come up, answers end, stops are obeyed."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(2000):
            if self.granted:
                request_id = min(self.granted)
                del self.granted[request_id]
                self.tell(ev.RequestEnded(request_id))
            elif self.stopping:
                self.exit(self.stopping[0], None)
            elif self.dozing:
                self.finish_dozing(self.dozing[0])
            elif self.starting:
                self.tell(ev.WorkerReady(self.starting.pop(0)))
            elif self.waiting:
                self.now = max(self.now, self.scheduler.next_deadline())
                self.tell(ev.TimePassed())
            else:
                return
        raise AssertionError(f"still waiting: {self.waiting}")


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
