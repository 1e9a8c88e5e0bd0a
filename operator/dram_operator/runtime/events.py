"""Kubernetes Events: one a transition, repeats counted in the one that exists."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import BY_KIND, EVENTS, Object
from dram_operator.core.observed import JobEvent
from dram_operator.core.rollout.observed import RolloutEvent
from dram_operator.core.times import stamp
from dram_operator.errors import NameTaken, NotFound, OperatorError

log = logging.getLogger(__name__)

WAITING = 2_000
"""Events that may wait to be sent. They are for people: under a flood the newest are dropped, never the reconciles."""
REMEMBERED = 10_000
LONGEST_MESSAGE = 1024
"""The API server's own limit."""


Told = JobEvent | RolloutEvent


class _Waiting(NamedTuple):
    involved: Object
    event: Told
    at: datetime


class Recorder:
    """Sends Events in the background, so that no reconcile waits for them."""

    def __init__(self, api: Kubernetes, clock: Callable[[], datetime], instance: str) -> None:
        self._api = api
        self._clock = clock
        self._instance = instance
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(WAITING)
        self._counts: OrderedDict[str, int] = OrderedDict()

    def record(self, obj: Object, event: Told) -> None:
        """Hand an Event over; it is sent soon, or dropped when too many wait."""
        try:
            self._queue.put_nowait(_Waiting(involved_object(obj), event, self._clock()))
        except asyncio.QueueFull:
            log.warning("event dropped: too many are waiting", extra={"reason": event.reason})

    async def run(self) -> None:
        """Send until cancelled. An Event that cannot be sent is logged and dropped."""
        while True:
            waiting = await self._queue.get()
            try:
                await self._send(waiting)
            except OperatorError as error:
                log.warning("event not recorded: %s", error, extra={"reason": waiting.event.reason})
            finally:
                self._queue.task_done()

    async def drain(self) -> None:
        """Wait until everything handed over was sent."""
        await self._queue.join()

    async def _send(self, waiting: _Waiting) -> None:
        body = manifest(waiting.involved, waiting.event, waiting.at, self._instance)
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        seen = self._counts.get(name, 0)
        if not seen:
            try:
                await self._api.create(EVENTS, namespace, body)
                return self._remember(name, 1)
            except NameTaken:
                seen = 1
        try:
            again = {"count": seen + 1, "lastTimestamp": stamp(waiting.at)}
            await self._api.patch(EVENTS, namespace, name, again)
            self._remember(name, seen + 1)
        except NotFound:
            await self._api.create(EVENTS, namespace, body)
            self._remember(name, 1)

    def _remember(self, name: str, count: int) -> None:
        self._counts[name] = count
        self._counts.move_to_end(name)
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)


def involved_object(obj: Object) -> Object:
    """The reference to the object that an Event is about."""
    metadata, resource = obj["metadata"], BY_KIND[obj["kind"]]
    return {
        "apiVersion": f"{resource.group}/{resource.version}",
        "kind": resource.kind,
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
    }


def manifest(involved: Object, event: Told, at: datetime, instance: str) -> Object:
    """The Event object. Its name follows from what it says, so that a repeat meets the first one."""
    said = "\n".join((involved["uid"], event.type, event.reason, event.message))
    name = f"{involved['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": involved["namespace"]},
        "involvedObject": involved,
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:LONGEST_MESSAGE],
        "count": 1,
        "firstTimestamp": stamp(at),
        "lastTimestamp": stamp(at),
        "source": {"component": "dram-operator"},
        "reportingComponent": "dram-operator",
        "reportingInstance": instance,
    }
