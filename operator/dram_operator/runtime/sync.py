"""Listings: the first one fills the cache, later ones find what a watch missed."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import DISTILLATION_JOBS, Resource
from dram_operator.core.jobs import JOB_LABEL
from dram_operator.errors import OperatorError
from dram_operator.runtime.cache import WATCHED, Cache, Key

log = logging.getLogger(__name__)

SETTLE_SECONDS = 5.0
"""How far a watch may lag behind a listing before what the listing told counts as missed by the watch."""
DEAF_AFTER = 2
"""Listings in a row that told of something old and unseen: then the watch is dead, and a restart heals it."""


class Sync:
    """Lists what is watched, now and then."""

    def __init__(
        self, api: Kubernetes, cache: Cache, namespaces: Sequence[str], wake: Callable[[Key], None], seconds: float
    ) -> None:
        self._api = api
        self._cache = cache
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._wake = wake
        self._seconds = seconds
        self._missed = 0
        self.is_done = False

    async def first(self) -> None:
        """Fill the cache and wake every DistillationJob; raises OperatorError when a listing fails."""
        for resource in WATCHED:
            await self._list(resource)
        for key in self._cache.names():
            self._wake(key)
        self.is_done = True

    async def repeat(self) -> None:
        """Compare now and then, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                missed = [key for resource in WATCHED for key in await self._compare(resource)]
            except OperatorError as error:
                log.warning("not listed: %s", error)
                continue
            self._missed = self._missed + 1 if missed else 0
            for key in missed:
                self._wake(key)

    @property
    def is_hearing(self) -> bool:
        """False when listing after listing tells what the watches did not."""
        return self._missed < DEAF_AFTER

    async def _compare(self, resource: Resource) -> set[Key]:
        """What a listing tells that the watch did not tell within the settling time."""
        listings = [(namespace, *await self._read(resource, namespace)) for namespace in self._namespaces]
        await asyncio.sleep(SETTLE_SECONDS)
        missed: set[Key] = set()
        for namespace, listed, version in listings:
            missed |= self._cache.replace(resource, listed, version, namespace)
        if missed:
            log.warning("the watch missed %d objects", len(missed), extra={"kind": resource.kind})
        return missed

    async def _list(self, resource: Resource) -> None:
        for namespace in self._namespaces:
            listed, version = await self._read(resource, namespace)
            self._cache.replace(resource, listed, version, namespace)

    async def _read(self, resource: Resource, namespace: str | None) -> tuple[list[dict[str, object]], str]:
        labels = "" if resource is DISTILLATION_JOBS else JOB_LABEL
        return await self._api.list(resource, namespace, labels=labels)
