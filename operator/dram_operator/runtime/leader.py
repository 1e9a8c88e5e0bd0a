"""Leader election by a coordination.k8s.io Lease.

Our own, because `kubernetes.aio.leaderelection` (37.0.1) dies on a refused connection, has no request timeout below
five minutes (a hanging renewal would outlive the lease), measures by the wall clock, writes local time as UTC, and does
not release the lease when it is told to stop, which makes every rolling update wait for the expiry.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import LEASES, Object
from dram_operator.errors import Conflict, LeaseLost, NameTaken, NotFound, OperatorError

log = logging.getLogger(__name__)

RENEWALS = 6
"""Attempts to renew within one lease: one lost answer must not depose a leader."""
RETRY_SECONDS = 0.5
"""Between two attempts of a renewal that failed."""
MARGIN = 2 / 3
"""A leader that could not renew for this share of the lease stops; the rest is for stopping before another starts."""


class Elector:
    """One candidate for the lease."""

    def __init__(
        self,
        api: Kubernetes,
        namespace: str,
        name: str,
        identity: str,
        seconds: float,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._api, self._namespace, self._name, self.identity = api, namespace, name, identity
        self._seconds, self._clock, self._now = seconds, clock, now
        self._lease: Object | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0

    @property
    def holder(self) -> str | None:
        """Identity of the replica that leads as far as this one knows."""
        return (self._lease["spec"].get("holderIdentity") or None) if self._lease else None

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while not await self._attempt():  # noqa: ASYNC110 -- another process holds it: nothing here could set an event
            await asyncio.sleep(self._seconds / RENEWALS * random.uniform(0.8, 1.2))  # noqa: S311 -- jitter
        log.info("leading", extra={"identity": self.identity})

    async def hold(self) -> None:
        """Renew the lease for as long as that works; raises LeaseLost when it no longer does."""
        while True:
            await asyncio.sleep(self._seconds / RENEWALS)
            while not await self._renew():
                if self.holder != self.identity:
                    raise LeaseLost(f"{self.holder} took the lease over")
                if self._left <= 0:
                    raise LeaseLost(f"not renewed for {self._seconds * MARGIN:.0f} s")
                await asyncio.sleep(min(RETRY_SECONDS, self._left))

    @property
    def _left(self) -> float:
        """Seconds in which the lease must be renewed."""
        return max(0.0, self._renewed_at + self._seconds * MARGIN - self._clock())

    async def _renew(self) -> bool:
        """One renewal: at first by what is known of the lease, so that it takes one request; given up when it hangs."""
        try:
            async with asyncio.timeout(min(self._left, self._seconds / 3)):
                return await self._attempt(self._lease)
        except TimeoutError:
            log.warning("lease not renewed: no answer")
            return False

    async def release(self) -> None:
        """Give the lease back, so that a successor need not wait for its expiry."""
        if self.holder != self.identity or self._lease is None:
            return
        spec = self._lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._write(self._lease | {"spec": spec})
        except OperatorError as error:
            log.warning("lease not released: %s", error)

    async def _attempt(self, known: Object | None = None) -> bool:
        """Take or renew the lease if it is ours to take; False when it is not, or nobody can say."""
        asked_at = self._clock()
        try:
            lease = known or await self._read()
            if not self._may_take(lease):
                return False
            await self._write(self._claim(lease))
        except (Conflict, NameTaken):
            return await self._attempt() if known else False
        except OperatorError as error:
            log.warning("lease not renewed: %s", error)
            return False
        self._renewed_at = asked_at
        return True

    async def _read(self) -> Object | None:
        try:
            lease = await self._api.get(LEASES, self._namespace, self._name)
        except NotFound:
            return None
        self._see(lease)
        return lease

    def _see(self, lease: Object) -> None:
        known = self._lease["metadata"]["resourceVersion"] if self._lease else None
        if lease["metadata"]["resourceVersion"] != known:
            self._seen_at = self._clock()
        self._lease = lease

    def _may_take(self, lease: Object | None) -> bool:
        """Ours, free, or silent for its whole duration on our own clock: other machines' clocks are not trusted."""
        if lease is None or lease["spec"].get("holderIdentity") in (None, "", self.identity):
            return True
        duration: float = lease["spec"].get("leaseDurationSeconds", self._seconds)
        return self._clock() - self._seen_at > duration

    def _claim(self, lease: Object | None) -> Object:
        now = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = lease["metadata"] if lease else {"name": self._name, "namespace": self._namespace}
        old = lease["spec"] if lease else {}
        spec = old | {"holderIdentity": self.identity, "renewTime": now, "leaseDurationSeconds": round(self._seconds)}
        if old.get("holderIdentity") != self.identity:
            spec |= {"acquireTime": now, "leaseTransitions": old.get("leaseTransitions", 0) + 1}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def _write(self, lease: Object) -> None:
        if "resourceVersion" in lease["metadata"]:
            self._see(await self._api.replace(LEASES, self._namespace, self._name, lease))
        else:
            self._see(await self._api.create(LEASES, self._namespace, lease))
