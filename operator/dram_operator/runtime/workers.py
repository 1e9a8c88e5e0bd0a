"""The loop around the reconcile: eight workers, one key each at a time, and nobody else who writes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from dram_operator.errors import Conflict, NotFound, OperatorError, Unavailable
from dram_operator.runtime.cache import Key
from dram_operator.runtime.metrics import Metrics
from dram_operator.runtime.queue import Queue

log = logging.getLogger(__name__)

STUCK_SECONDS = 180.0
"""A reconcile that takes longer hangs: it makes a handful of requests of at most 30 s each."""


class Workers:
    """Takes keys of one kind from their queue and reconciles them until the queue is stopped."""

    def __init__(
        self,
        kind: str,
        queue: Queue[Key],
        reconcile: Callable[[Key], Awaitable[float | None]],
        metrics: Metrics,
        count: int,
    ) -> None:
        self._kind = kind
        self._queue = queue
        self._reconcile = reconcile
        self._metrics = metrics
        self._count = count
        self._since: dict[Key, float] = {}

    async def run(self) -> None:
        """Work until the queue is stopped and what was begun is finished."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._work())

    @property
    def are_moving(self) -> bool:
        """False when a reconcile hangs."""
        return all(time.monotonic() - since < STUCK_SECONDS for since in self._since.values())

    async def _work(self) -> None:
        while (key := await self._queue.take()) is not None:
            self._since[key] = time.monotonic()
            try:
                with self._metrics.reconcile_seconds.labels(self._kind).time():
                    await self._once(key)
            finally:
                del self._since[key]
                self._queue.done(key)

    async def _once(self, key: Key) -> None:
        """One reconcile; whatever goes wrong with one object must not stop the others."""
        fields = {"namespace": key.namespace, "kind": key.kind, "object": key.name}
        try:
            due = await self._reconcile(key)
        except Conflict:
            self._queue.retry(key)
        except NotFound:
            self._queue.forget(key)
        except OperatorError as error:
            self._metrics.reconcile_errors.labels(self._kind).inc()
            delay = self._queue.retry(key, (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0)
            log.warning("tried again in %.1f s: %s", delay, error, extra=fields)
        except Exception:
            self._metrics.reconcile_errors.labels(self._kind).inc()
            log.exception("tried again in %.1f s after a fault", self._queue.retry(key), extra=fields)
        else:
            self._queue.forget(key)
            if due is not None:
                self._queue.add(key, due)
