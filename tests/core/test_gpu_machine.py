"""Two GPUs, whose drivers take their time: whatever the order of events, nothing is over-committed.

The machine knows what really is on each GPU: what workers hold, what the driver has not given back
yet, and what other programs took. Readings are begun, and arrive later."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swapper.core import events as ev
from swapper.core.ledger import RETURN_S
from swapper.core.registry import ModelSpec, Registry, Variant
from swapper.core.scheduler import Scheduler

NAMES = "abcd"
GPUS = ("cuda:0", "cuda:1")
TOTAL = 10  # of each GPU, of which budgets may be less
HOST = 12
FAILURES = [None, ev.Failure("crashed", "x"), ev.Failure("out_of_memory", "x")]

placed = st.sampled_from([GPUS[:1], GPUS[1:], GPUS])
variants = st.lists(
    st.builds(
        lambda gpus, size, host, layers: Variant(
            {"host": host, **dict.fromkeys(gpus, size)},
            {"devices": [*gpus], "gpu_layers": layers, "size": size},
            (layers, -len(gpus)),
        ),
        placed, st.integers(1, 9), st.integers(0, 4), st.integers(1, 2),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


class GpuMachine(RuleBasedStateMachine):
    """Clients, processes, two drivers and other programs."""

    @initialize(
        ways=st.tuples(*[variants] * len(NAMES)),
        budgets=st.tuples(*[st.integers(5, TOTAL)] * 2),
        pinned=st.booleans(),
    )
    def start(self, ways, budgets, pinned):
        self.specs = {
            name: ModelSpec(
                name, "echo", tuple(way), load_s=1.0, ttl_s=20.0, queue_timeout_s=50.0,
                parallel=2, pin=pinned and name == "a",
            )
            for name, way in zip(NAMES, ways, strict=True)
        }  # fmt: skip
        self.budgets = {"host": HOST, **dict(zip(GPUS, budgets, strict=True))}
        self.scheduler = Scheduler(Registry(self.specs, self.budgets))
        self.now, self.next_id = 0.0, 0
        self.charge: dict[str, dict[str, int]] = {}
        self.ready: set[str] = set()
        self.stopping: list[str] = []
        self.lingering: list[tuple[str, int, float]] = []  # GPU, bytes, since when
        self.others = dict.fromkeys(GPUS, 0)
        self.others_read = dict.fromkeys(GPUS, 0)
        self.read_at = -1.0
        self.begun: list[tuple[float, frozenset[str], dict[str, ev.DeviceReading]]] = []
        self.waiting: dict[int, str] = {}
        self.granted: dict[int, str] = {}
        self.deliver(*self.sample()[::2])

    # -- what is true

    def held(self, gpu: str, workers) -> int:
        return sum(self.charge[w].get(gpu, 0) for w in workers if w in self.ready)

    def sample(self, counted=None):
        """What a reading shows that counted these workers, if the driver is asked now."""
        counted = frozenset(self.charge) if counted is None else counted
        readings = {}
        for gpu in GPUS:
            lingers = sum(size for name, size, _ in self.lingering if name == gpu)
            used = self.held(gpu, self.charge) + lingers + self.others[gpu]
            ours = self.held(gpu, counted & self.charge.keys())
            readings[gpu] = ev.DeviceReading(TOTAL, max(0, TOTAL - used), ours)
        return self.now, counted, readings

    def deliver(self, at, readings):
        self.read_at = max(self.read_at, at)
        for gpu, reading in readings.items():
            self.others_read[gpu] = TOTAL - reading.free - reading.ours
        self.tell(ev.DevicesRead(readings, at))

    def check_room(self, worker_id: str, reserved):
        for name, need in reserved.items():
            taken = sum(charge.get(name, 0) for charge in self.charge.values())
            assert need + taken <= self.budgets[name], f"{name} over-committed by {worker_id}"
        for gpu in GPUS:
            if not reserved.get(gpu):
                continue
            taken = sum(charge.get(gpu, 0) for charge in self.charge.values())
            # What lingers is in the last reading, or was too short ago for one to have told.
            fresh = sum(
                size
                for name, size, since in self.lingering
                if name == gpu and since > self.read_at and since + RETURN_S > self.now
            )
            assert reserved[gpu] + taken + fresh + self.others_read[gpu] <= TOTAL, (
                f"{worker_id} was given memory of {gpu} that the driver still holds"
            )

    # -- the world

    def tell(self, event):
        for command in self.scheduler.handle(event, self.now):
            match command:
                case ev.StartWorker(worker_id, name, reserved):
                    self.check_room(worker_id, reserved)
                    self.check_choice(name, reserved, command.settings)
                    self.charge[worker_id] = dict(reserved)
                case ev.StopWorker(worker_id):
                    assert worker_id not in self.granted.values()
                    self.stopping.append(worker_id)
                case ev.Grant(request_id, worker_id):
                    assert worker_id in self.ready
                    del self.waiting[request_id]
                    self.granted[request_id] = worker_id
                case ev.Reject(request_id):
                    del self.waiting[request_id]

    def check_choice(self, name, reserved, chosen):
        """It is a layout of the model, and takes no less than the model was known to need there."""
        [variant] = {v.key: v for v in self.specs[name].variants if v.settings == chosen}.values()
        assert reserved.keys() >= variant.needs.keys()

    @rule(name=st.sampled_from(NAMES))
    def arrive(self, name):
        self.next_id += 1
        self.waiting[self.next_id] = name
        self.tell(ev.RequestArrived(self.next_id, name))

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def finish(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.granted)))
        del self.granted[request_id]
        self.tell(ev.RequestEnded(request_id))

    @precondition(lambda self: self.coming_up())
    @rule(data=st.data())
    def come_up(self, data):
        worker_id = data.draw(st.sampled_from(self.coming_up()))
        self.ready.add(worker_id)
        self.tell(ev.WorkerReady(worker_id))

    def coming_up(self):
        return sorted(self.charge.keys() - self.ready - set(self.stopping))

    @precondition(lambda self: self.ready - set(self.stopping))
    @rule(data=st.data(), size=st.integers(1, 9))
    def measure(self, data, size):
        """A worker proves to take less, or more: that is nobody's fault, and counts from then on."""
        worker_id = data.draw(st.sampled_from(sorted(self.ready - set(self.stopping))))
        gpus = [gpu for gpu in GPUS if self.charge[worker_id].get(gpu)]
        self.charge[worker_id].update(dict.fromkeys(gpus, size))
        self.tell(ev.WorkerMeasured(worker_id, dict.fromkeys(gpus, size)))

    @precondition(lambda self: self.charge)
    @rule(data=st.data(), failure=st.sampled_from(FAILURES))
    def end(self, data, failure):
        self.exit(data.draw(st.sampled_from(sorted(self.charge))), failure)

    @precondition(lambda self: self.stopping)
    @rule()
    def stopped(self):
        self.exit(self.stopping[0], None)

    def exit(self, worker_id, failure):
        charge = self.charge.pop(worker_id)
        if worker_id in self.ready:
            self.lingering += [(gpu, charge[gpu], self.now) for gpu in GPUS if charge.get(gpu)]
        self.ready.discard(worker_id)
        if worker_id in self.stopping:
            self.stopping.remove(worker_id)
        self.tell(ev.WorkerExited(worker_id, failure))
        for request_id in [r for r, w in self.granted.items() if w == worker_id]:
            del self.granted[request_id]
            self.tell(ev.RequestEnded(request_id))

    @precondition(lambda self: self.lingering)
    @rule(data=st.data())
    def driver_gives_back(self, data):
        self.lingering.remove(data.draw(st.sampled_from(self.lingering)))

    @rule(gpu=st.sampled_from(GPUS), size=st.integers(0, 4))
    def others_take(self, gpu, size):
        self.others[gpu] = size

    @rule()
    def begin_reading(self):
        self.begun = [self.sample()]  # one at a time; a new one forgets the old

    @precondition(lambda self: self.begun)
    @rule(asked_late=st.booleans())
    def reading_arrives(self, asked_late):
        at, counted, readings = self.begun.pop()
        if asked_late:  # the driver answered just now, of processes that were listed before
            readings = self.sample(counted)[2]
        self.deliver(at, readings)

    @rule(seconds=st.sampled_from([0.05, 1.0, 6.0, 30.0]))
    def wait(self, seconds):
        end = self.now + seconds
        while (deadline := self.scheduler.next_deadline()) <= end:
            self.now = max(self.now, deadline)
            self.tell(ev.TimePassed())
        self.now = end

    @invariant()
    def books_agree(self):
        if hasattr(self, "scheduler"):
            self.scheduler.check_integrity()
            charges = {w: self.scheduler.books.ledger.charge_of(w) for w in self.charge}
            assert charges == self.charge

    def teardown(self):
        """Where drivers, programs and clients are kind, everybody is served or told why not."""
        if not hasattr(self, "scheduler"):
            return
        self.lingering, self.others = [], dict.fromkeys(GPUS, 0)
        for _ in range(1000):
            self.deliver(*self.sample()[::2])
            if self.granted:
                request_id = min(self.granted)
                del self.granted[request_id]
                self.tell(ev.RequestEnded(request_id))
            elif self.stopping:
                self.exit(self.stopping[0], None)
                self.lingering = []
            elif starting := self.coming_up():
                self.ready.add(starting[0])
                self.tell(ev.WorkerReady(starting[0]))
            elif self.waiting:
                self.now = max(self.now, self.scheduler.next_deadline())
                self.tell(ev.TimePassed())
            else:
                return
        raise AssertionError(f"still waiting: {self.waiting}")


TestGpuMachine = GpuMachine.TestCase
TestGpuMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
