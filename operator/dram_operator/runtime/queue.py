"""A de-duplicating queue of keys: each is worked on by one worker at a time, failed ones wait longer each time."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 60.0


class Schedule(Generic[KeyT]):
    """When which key is due. No task, no clock: every call is told the time.

    A key is at most once in the schedule, at its earliest asked time. While it is taken, asking for it is remembered
    and it comes back when it is done, so that nothing that happened meanwhile is lost.
    """

    def __init__(self) -> None:
        self._due: dict[KeyT, float] = {}
        self._heap: list[tuple[float, int, KeyT]] = []
        self._order = itertools.count()
        self._taken: set[KeyT] = set()
        self._failures: dict[KeyT, int] = {}

    def add(self, key: KeyT, due: float) -> None:
        """Ask for a key at a time; an earlier asking stands."""
        known = self._due.get(key)
        if known is not None and known <= due:
            return
        self._due[key] = due
        if key not in self._taken:
            heapq.heappush(self._heap, (due, next(self._order), key))

    def take(self, now: float) -> KeyT | None:
        """The key that has been due longest, for one worker; None when none is due."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if key not in self._taken and self._due.get(key) == due:
                del self._due[key]
                self._taken.add(key)
                return key
        return None

    def done(self, key: KeyT) -> None:
        """The worker is through; what was asked for meanwhile is scheduled."""
        self._taken.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], next(self._order), key))

    def failed(self, key: KeyT) -> float:
        """Count a failure; returns the seconds to wait before the next attempt."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return float(min(FIRST_BACKOFF_SECONDS * 2 ** min(failures, 16), LONGEST_BACKOFF_SECONDS))

    def succeeded(self, key: KeyT) -> None:
        """Forget the key's failures."""
        self._failures.pop(key, None)

    def next_due(self) -> float | None:
        """When the next key is due; None when nothing is asked for."""
        while self._heap and (self._heap[0][2] in self._taken or self._due.get(self._heap[0][2]) != self._heap[0][0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def depth(self, now: float) -> int:
        """Keys that are due and that no worker has taken."""
        return sum(due <= now for key, due in self._due.items() if key not in self._taken)


class Queue(Generic[KeyT]):
    """The schedule on the event loop's clock, with workers waiting for it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._schedule: Schedule[KeyT] = Schedule()
        self._clock = clock
        self._changed = asyncio.Event()
        self._stopped = False

    def add(self, key: KeyT, delay: float = 0.0) -> None:
        """Ask for a key, now or in `delay` seconds."""
        self._schedule.add(key, self._clock() + delay)
        self._changed.set()

    async def take(self) -> KeyT | None:
        """Wait for a key that is due; None once the queue is stopped."""
        while not self._stopped:
            key = self._schedule.take(self._clock())
            if key is not None:
                return key
            await self._wait()
        return None

    async def _wait(self) -> None:
        due = self._schedule.next_due()
        self._changed.clear()
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                await self._changed.wait()
        except TimeoutError:
            pass

    def done(self, key: KeyT) -> None:
        """The worker is through with the key."""
        self._schedule.done(key)
        self._changed.set()

    def retry(self, key: KeyT, at_least: float = 0.0) -> float:
        """Ask for a key that failed, after its back-off; returns the delay in seconds."""
        delay = max(self._schedule.failed(key), at_least)
        self.add(key, delay)
        return delay

    def forget(self, key: KeyT) -> None:
        """The key succeeded: its next failure waits the shortest time again."""
        self._schedule.succeeded(key)

    def stop(self) -> None:
        """Let the workers go once they are through with what they have."""
        self._stopped = True
        self._changed.set()

    @property
    def depth(self) -> int:
        """Keys that wait for a worker although they are due."""
        return self._schedule.depth(self._clock())
