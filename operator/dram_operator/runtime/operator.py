"""One replica of the operator, from start to stop."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import DISTILLATION_JOBS, EDGE_ROLLOUTS
from dram_operator.runtime.board import ProgressBoard
from dram_operator.runtime.cache import SERVED, Cache, Key
from dram_operator.runtime.events import Recorder
from dram_operator.runtime.leader import Elector
from dram_operator.runtime.metrics import JobCollector, Metrics
from dram_operator.runtime.progress import ProgressEndpoint
from dram_operator.runtime.queue import Queue
from dram_operator.runtime.reconcile import Reconciler
from dram_operator.runtime.rollouts.service import MakeArtifacts, Rollouts
from dram_operator.runtime.servers import (
    Health,
    Leadership,
    Listener,
    ProgressRouter,
    follow_renewal,
    metrics_app,
    server_tls,
)
from dram_operator.runtime.surroundings import Surroundings
from dram_operator.runtime.sync import Sync
from dram_operator.runtime.tokens import Tokens
from dram_operator.runtime.workers import Workers
from dram_operator.settings import Settings

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long a stopping replica finishes what it began; the pod is killed after 30 s."""

Watch = Callable[["Operator"], Awaitable[None]]
Reconcile = Callable[[Key], Awaitable[float | None]]


class Operator:
    """The parts of a replica, wired. `watch` feeds `cache` and wakes what changed until it is cancelled."""

    def __init__(
        self,
        settings: Settings,
        api: Kubernetes,
        watch: Watch,
        claim_signals: Callable[[], None] = lambda: None,
        make_artifacts: MakeArtifacts | None = None,
    ) -> None:
        self.settings = settings
        self.api = api
        self.claim_signals = claim_signals
        self.cache = Cache()
        self.board = ProgressBoard(_now)
        self.recorder = Recorder(api, _now, settings.identity)
        self._queues: dict[str, Queue[Key]] = {resource.kind: Queue(time.monotonic) for resource in SERVED}
        self._rollouts = Rollouts(
            Surroundings(settings, api, self.cache, self.recorder, self.wake, _now), make_artifacts
        )
        self.metrics = Metrics(
            {kind: partial(getattr, queue, "depth") for kind, queue in self._queues.items()},
            JobCollector(self.cache.distillation_jobs, self.board),
            self._rollouts.collector(),
        )
        api.on_write = self.metrics.count_write
        self.leads = False
        self.metrics_port = settings.metrics_port
        self.progress_port = settings.progress_port
        self._watch = watch
        self._workers = self._staff()
        self._sync = Sync(api, self.cache, settings.namespaces, self.wake, settings.resync_seconds)
        self._elector: Elector | None = None

    def wake(self, key: Key, delay: float = 0.0) -> None:
        """Have an object looked at, and with a DistillationJob the rollouts that wait for it."""
        self._queues[key.kind].add(key, delay)
        for waiting in self.cache.waiting_for(key):
            self._queues[waiting.kind].add(waiting)

    def _staff(self) -> tuple[Workers, ...]:
        """Workers for each kind: an outage that slows one kind down does not hold the other."""
        jobs = Reconciler(self.api, self.cache, self.board, self.recorder, self.settings.installation(), _now)
        reconcilers: dict[str, Reconcile] = {
            DISTILLATION_JOBS.kind: jobs,
            EDGE_ROLLOUTS.kind: self._rollouts.reconcile,
        }
        return tuple(
            Workers(kind, self._queues[kind], reconcile, self.metrics, self.settings.workers)
            for kind, reconcile in reconcilers.items()
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve, wait for the lease, lead until `stop` is set; raises LeaseLost, or what made leading impossible."""
        async with AsyncExitStack() as stack:
            await self._listen(stack)
            elector = self._elector = self._candidate()
            stopping = asyncio.create_task(stop.wait())
            stack.callback(stopping.cancel)
            if await _finished(elector.acquire(), stopping):
                await self._lead(elector, stopping)

    async def _lead(self, elector: Elector, stopping: "asyncio.Task[bool]") -> None:
        """Act as the leader; whatever ends first ends all, and the lease is given back last."""
        holding = asyncio.create_task(elector.hold())
        self.leads = True
        self.metrics.leader.set(1)
        try:
            async with AsyncExitStack() as stack:
                background = {_spawn(stack, self.recorder.run()), _spawn(stack, self._watch(self))}
                background.add(_spawn(stack, self._rollouts.run()))
                if not await _finished(self._sync.first(), stopping, holding, *background):
                    return
                background.add(_spawn(stack, self._sync.repeat()))
                working = asyncio.create_task(self._work())
                stack.push_async_callback(self._finish, working)
                parts = {working, *background}
                await asyncio.wait({stopping, holding, *parts}, return_when=asyncio.FIRST_COMPLETED)
                if holding.done():
                    working.cancel()
                for part in (holding, *parts):
                    _raise_if_failed(part)
        finally:
            self.leads = False
            self.metrics.leader.set(0)
            lost = holding.done()
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            if not lost:
                await elector.release()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            for workers in self._workers:
                group.create_task(workers.run())

    async def _finish(self, working: "asyncio.Task[None]") -> None:
        """Let running reconciles end and their events be sent."""
        for queue in self._queues.values():
            queue.stop()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await asyncio.gather(working, return_exceptions=True)
                await self.recorder.drain()
        except TimeoutError:
            log.warning("stopped with work unfinished; the next leader takes it up")

    async def _listen(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        health = Health(
            is_live=lambda: all(workers.are_moving for workers in self._workers) and self._sync.is_hearing,
            is_ready=self._is_ready,
        )
        listener = Listener(metrics_app(self.metrics.registry, health), settings.metrics_port)
        stack.push_async_callback(listener.stop)
        self.metrics_port = await listener.start()
        if settings.progress_certificate is None or settings.progress_key is None:
            return
        endpoint = ProgressEndpoint(Tokens(self.api, time.monotonic), self.cache, self.board, self.wake)
        leadership = Leadership(lambda: self.leads, self._leader_address)
        router = ProgressRouter(endpoint, leadership, settings.progress_url, settings.progress_ca)
        tls = server_tls(settings.progress_certificate, settings.progress_key)
        _spawn(stack, follow_renewal(tls, settings.progress_certificate, settings.progress_key))
        progress = Listener(router.app(), settings.progress_port, tls)
        stack.push_async_callback(progress.stop)
        self.progress_port = await progress.start()

    def _candidate(self) -> Elector:
        settings = self.settings
        address = settings.progress_address or f"{settings.pod_ip or '127.0.0.1'}:{self.progress_port}"
        return Elector(
            self.api,
            settings.lease_namespace,
            settings.lease_name,
            f"{settings.identity}@{address}",
            settings.lease_seconds,
            time.monotonic,
            _now,
        )

    def _is_ready(self) -> bool:
        """A leader that has seen everything, or a standby that knows a leader to pass reports on to."""
        return self._sync.is_done if self.leads else self._leader_address() is not None

    def _leader_address(self) -> str | None:
        holder = self._elector.holder if self._elector else None
        return holder.partition("@")[2] or None if holder else None


async def _finished(work: Awaitable[None], *signals: "asyncio.Task[bool] | asyncio.Task[None]") -> bool:
    """Do some work unless a signal comes first; False when one did."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task, *signals}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for signal in signals:
        _raise_if_failed(signal)
    return False


def _spawn(stack: AsyncExitStack, work: Awaitable[None]) -> "asyncio.Task[None]":
    """Run something until the stack unwinds."""
    task = asyncio.ensure_future(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    return task


def _raise_if_failed(task: "asyncio.Task[bool] | asyncio.Task[None]") -> None:
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        raise error


def _now() -> datetime:
    return datetime.now(UTC)
