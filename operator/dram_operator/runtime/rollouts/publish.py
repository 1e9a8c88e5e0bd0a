"""Writing a decision down: the status, then the finalizer, then the signed document. Each write is a fence for the next.

The status carries the resource version of what was decided on, and the document replaces the one that was decided on or nothing: whoever was overtaken
in between, however long ago, writes neither. The finalizer stands before the first document, so that no object goes without telling its devices.
"""

import logging
from dataclasses import dataclass

from dram_agent.document import ChannelDocument
from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import EDGE_ROLLOUTS, Object
from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.runtime.cache import Cache
from dram_operator.runtime.rollouts.releases import Releases, Signed
from dram_operator.runtime.status import status_patch

log = logging.getLogger(__name__)

FINALIZER = "dram.dev/stable-is-published"


@dataclass(frozen=True)
class Publisher:
    """Writes for EdgeRollouts. Conflict whenever somebody was faster; every answer goes into the cache."""

    api: Kubernetes
    cache: Cache
    releases: Releases | None

    async def write_status(self, obj: Object, old: EdgeRolloutStatus, new: EdgeRolloutStatus) -> Object:
        """Patch what differs; returns the object as it is then."""
        if old == new:
            return obj
        written = await self._patch(obj, {"status": status_patch(old, new)}, "status")
        at = new.step.shown if new.step else None
        log.info("status written", extra={**about(obj), "attempt": new.attempt, "step": at, "gate": new.gate})
        return written

    async def publish(self, obj: Object, document: ChannelDocument, signed: Signed) -> bool:
        """Sign the document where it differs from the signed one; returns whether it did."""
        if self.releases is None or not signed.is_read:
            return False
        if FINALIZER not in finalizers(obj):
            if "deletionTimestamp" in obj["metadata"]:
                return False
            # Also where the document stays as it is: a restored object takes over what another one signed.
            await self._patch(obj, {"metadata": {"finalizers": [*finalizers(obj), FINALIZER]}})
        if document == signed.document:
            return False
        await self.releases.publish(document.channel, document, signed.digest)
        log.info("document signed", extra={**about(obj), "attempt": document.attempt})
        return True

    async def let_go(self, obj: Object) -> None:
        """Remove the finalizer."""
        kept = [one for one in finalizers(obj) if one != FINALIZER]
        await self._patch(obj, {"metadata": {"finalizers": kept}})

    async def _patch(self, obj: Object, body: Object, subresource: str | None = None) -> Object:
        metadata = obj["metadata"]
        fenced = {**body, "metadata": {**body.get("metadata", {}), "resourceVersion": metadata["resourceVersion"]}}
        written = await self.api.patch(EDGE_ROLLOUTS, metadata["namespace"], metadata["name"], fenced, subresource)
        self.cache.apply(EDGE_ROLLOUTS, written)
        return written


def finalizers(obj: Object) -> list[str]:
    """The finalizers of an object."""
    return list(obj["metadata"].get("finalizers", ()))


def about(obj: Object) -> dict[str, object]:
    """The fields by which log lines of one rollout are found."""
    return {"namespace": obj["metadata"]["namespace"], "rollout": obj["metadata"]["name"]}
