"""The newest commit of the release repository that was seen, kept outside of its bucket: it unmasks a bucket that went back.

It stands in an annotation of the operator's lease. That is written by whoever leads, and a lost floor only costs the warning.
"""

import json
import logging
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import LEASES
from dram_operator.errors import NotFound, OperatorError

if TYPE_CHECKING:
    from dram_operator.adapters.releases.state import Versions

log = logging.getLogger(__name__)

ANNOTATION = "dram.dev/releases"


class Floor:
    """Remembers versions; they only ever grow."""

    def __init__(self, api: Kubernetes, namespace: str, lease: str) -> None:
        self._api, self._namespace, self._lease = api, namespace, lease
        self._versions: Versions | None = None

    async def versions(self) -> "Versions":
        """What was seen last, read from the lease once; raises OperatorError when it cannot be read."""
        if self._versions is None:
            self._versions = await self._read()
        return self._versions

    async def see(self, versions: "Versions") -> None:
        """Take note of a commit."""
        known = await self.versions()
        newest = type(known)(
            **{one.name: max(getattr(known, one.name), getattr(versions, one.name)) for one in fields(known)}
        )
        if newest == known:
            return
        self._versions = newest
        annotations = {ANNOTATION: json.dumps(asdict(newest), sort_keys=True)}
        try:
            await self._api.patch(LEASES, self._namespace, self._lease, {"metadata": {"annotations": annotations}})
        except OperatorError as error:
            log.warning("commit %d not noted: %s", newest.sequence, error)

    async def _read(self) -> "Versions":
        from dram_operator.adapters.releases.state import Versions

        try:
            lease = await self._api.get(LEASES, self._namespace, self._lease)
        except NotFound:
            return Versions()
        text = lease["metadata"].get("annotations", {}).get(ANNOTATION, "{}")
        try:
            return Versions(**{name: int(value) for name, value in json.loads(text).items()})
        except (ValueError, TypeError, AttributeError):
            log.warning("annotation %s of the lease cannot be read and counts as absent", ANNOTATION)
            return Versions()
