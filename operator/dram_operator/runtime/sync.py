"""Listings: the first one tells when the watches have told everything, later ones find what a watch missed."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import JOBS, PODS, Object, Resource
from dram_operator.core.jobs import JOB_LABEL
from dram_operator.errors import OperatorError
from dram_operator.runtime.cache import WATCHED, Cache, Key

log = logging.getLogger(__name__)

SETTLE_SECONDS = 5.0
"""How far a watch may lag behind a listing before what the listing told counts as missed by the watch."""
PATIENCE_SECONDS = 2.0
"""How long the watches get to tell what a listing told, before a new listing says what is still there to be told."""
POLL_SECONDS = 0.05
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
        """Wait until the watches have told all that is there; raises OperatorError when a listing fails.

        The listing itself does not fill the cache: what went between our listing and the watch's own would stay in it.
        """
        while not await self._have_watches_told():
            log.info("waiting for the watches")
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

    async def _have_watches_told(self) -> bool:
        """Whether everything that is listed now is known within a while."""
        untold = [
            (resource, obj)
            for resource in WATCHED
            for namespace in self._namespaces
            for obj in (await self._read(resource, namespace))[0]
        ]
        for _ in range(round(PATIENCE_SECONDS / POLL_SECONDS)):
            untold = [(resource, obj) for resource, obj in untold if not self._cache.knows(resource, obj)]
            if not untold:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _read(self, resource: Resource, namespace: str | None) -> tuple[list[Object], str]:
        labels = JOB_LABEL if resource in (JOBS, PODS) else ""
        return await self._api.list(resource, namespace, labels=labels)
