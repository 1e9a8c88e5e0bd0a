"""Once a day: releases that no rollout needs any more leave the repository."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime

from pydantic import ValidationError

from dram_operator.adapters.releases.desk import ReleaseDesk
from dram_operator.adapters.releases.repository import ReleaseRepository
from dram_operator.adapters.releases.unneeded import Cleared, clear, digests_of
from dram_operator.adapters.resources import Object
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.errors import OperatorError

log = logging.getLogger(__name__)

EVERY_SECONDS = 24 * 3600.0


class Clearing:
    """Clears the repository of one installation. The leader's: it alone knows what it has just promised."""

    def __init__(
        self,
        desk: ReleaseDesk,
        repository: ReleaseRepository,
        rollouts: Callable[[], Iterable[Object]],
        shown: Callable[[], Iterable[str]],
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`rollouts` are all EdgeRollouts there are; `shown` are digests that may be on their way into a status."""
        self._desk = desk
        self._repository = repository
        self._rollouts = rollouts
        self._shown = shown
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Clear every day, until cancelled. What fails is tried the next day."""
        while True:
            await self._sleep(EVERY_SECONDS)
            try:
                cleared = await self.once()
            except OperatorError as error:
                log.warning("the release repository was not cleared: %s", error)
            else:
                log.info("cleared %d releases and %d files", len(cleared.withdrawn), len(cleared.deleted))

    async def once(self) -> Cleared:
        """Clear now. An EdgeRollout that this operator cannot read stops it: nobody knows what that one needs."""
        needed = set(self._shown())
        for obj in self._rollouts():
            try:
                needed.update(digests_needed(EdgeRollout.from_object(obj)))
            except ValidationError as error:
                metadata = obj["metadata"]
                name = f"{metadata['namespace']}/{metadata['name']}"
                raise OperatorError(f"EdgeRollout {name} cannot be read: {error.errors()[0]['msg']}") from error
        return await asyncio.to_thread(clear, self._desk, self._repository, needed, self._clock())


def digests_needed(rollout: EdgeRollout) -> Iterator[str]:
    """Artifacts that a rollout offers, may go back to, or is about to offer."""
    status = rollout.status
    for known in (status.candidate, status.stable, status.previous):
        if known:
            yield from digests_of(known.release)
    if status.artifact:
        yield status.artifact.digest
    if rollout.spec.artifact.sha256:
        yield rollout.spec.artifact.sha256
