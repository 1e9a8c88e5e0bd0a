"""Pruning of what can be made again. Artifacts and reports are never touched."""

import logging
from collections import defaultdict
from collections.abc import Set as AbstractSet

from dram_workers.store.manifest import MANIFEST
from dram_workers.store.objects import ObjectInfo, ObjectStore

DAY_SECONDS = 86_400
PRUNED = ("stages/", "checkpoints/", "probe/")

logger = logging.getLogger(__name__)


def prune(store: ObjectStore, days: int, keys: AbstractSet[str], now: float) -> int:
    """Delete folders of stages and checkpoints whose newest object is older than `days`; returns their number.

    Folders of `keys` stay: they belong to the run that asks. `now` is in seconds since the epoch.
    """
    oldest = now - days * DAY_SECONDS
    pruned = 0
    for folder, objects in _folders(store).items():
        if set(folder.split("/")) & keys or max(info.modified for info in objects) >= oldest:
            continue
        # without its manifest the folder does not exist for readers, whatever happens in between
        names = [info.key for info in objects]
        store.delete([name for name in names if name.endswith(f"/{MANIFEST}")])
        store.delete([name for name in names if not name.endswith(f"/{MANIFEST}")])
        pruned += 1
    if pruned:
        logger.info("pruned %d folders older than %d days", pruned, days)
    return pruned


def _folders(store: ObjectStore) -> dict[str, list[ObjectInfo]]:
    """Objects by the folder that is pruned as one: `stages/<kind>/<key>`, `checkpoints/<key>`."""
    found: dict[str, list[ObjectInfo]] = defaultdict(list)
    for root in PRUNED:
        depth = 3 if root == "stages/" else 2
        for info in store.list(root):
            found["/".join(info.key.split("/")[:depth])].append(info)
    return found
