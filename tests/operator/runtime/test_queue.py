"""The queue: nothing asked for is lost, nothing is worked on twice at once, nothing comes early."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dram_operator.runtime.queue import FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, Queue, Schedule

KEYS = st.sampled_from("abc")
DELAYS = st.integers(0, 10).map(float)


class ScheduleModel(RuleBasedStateMachine):
    """The schedule beside the plainest model of it: a dict of due times."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule[str] = Schedule()
        self.now = 0.0
        self.due: dict[str, float] = {}
        self.taken: set[str] = set()

    @rule(key=KEYS, delay=DELAYS)
    def add(self, key: str, delay: float) -> None:
        self.schedule.add(key, self.now + delay)
        self.due[key] = min(self.due.get(key, self.now + delay), self.now + delay)

    @rule()
    def take(self) -> None:
        key = self.schedule.take(self.now)
        ready = {k: due for k, due in self.due.items() if k not in self.taken and due <= self.now}
        assert (key is None) == (not ready)
        if key is not None:
            assert key in ready
            assert ready[key] == min(ready.values()), "somebody waited longer"
            del self.due[key]
            self.taken.add(key)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.taken)))
        self.schedule.done(key)
        self.taken.remove(key)

    @rule(seconds=DELAYS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def tells_when_to_look_again(self) -> None:
        waiting = [due for key, due in self.due.items() if key not in self.taken]
        assert self.schedule.next_due() == min(waiting, default=None)
        assert self.schedule.depth(self.now) == sum(due <= self.now for due in waiting)


TestSchedule = ScheduleModel.TestCase
TestSchedule.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_the_back_off_of_a_key_grows_to_a_limit_and_is_forgotten_on_success() -> None:
    schedule: Schedule[str] = Schedule()
    delays = [schedule.failed("a") for _ in range(12)]
    assert delays[0] == FIRST_BACKOFF_SECONDS
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_BACKOFF_SECONDS
    assert schedule.failed("b") == FIRST_BACKOFF_SECONDS, "every key has its own"
    schedule.succeeded("a")
    assert schedule.failed("a") == FIRST_BACKOFF_SECONDS


async def test_a_waiting_worker_is_woken_by_an_earlier_key() -> None:
    queue: Queue[str] = Queue(asyncio.get_running_loop().time)
    queue.add("late", 3600)
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("now")
    assert await taking == "now"


async def test_a_key_asked_for_while_it_is_worked_on_comes_back_once() -> None:
    queue: Queue[str] = Queue(asyncio.get_running_loop().time)
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    queue.add("a")
    assert queue.depth == 0
    queue.done("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert queue.depth == 0


async def test_a_stopped_queue_lets_its_workers_go() -> None:
    queue: Queue[str] = Queue(asyncio.get_running_loop().time)
    workers = [asyncio.create_task(queue.take()) for _ in range(8)]
    await asyncio.sleep(0)
    queue.stop()
    assert await asyncio.gather(*workers) == [None] * 8


async def test_a_server_that_names_a_delay_is_obeyed() -> None:
    queue: Queue[str] = Queue(asyncio.get_running_loop().time)
    assert queue.retry("a", at_least=30.0) == 30.0
    assert queue.retry("a") == 2 * FIRST_BACKOFF_SECONDS
