"""Lists of devices that lie beside the repository: `<repository>/inventory/<namespace>/…`, for that namespace alone.

They are read with the installation's own credentials. The operator has none of the tenants, and a rollout that could
name any object of the bucket would read other tenants' lists.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from dram_operator.adapters.releases.bucket import Bucket, Unchanged
from dram_operator.errors import NotFound, Refused

FOLDER = "inventory"
LARGEST_BYTES = 64 << 20
"""Half a million devices with a few labels each."""
REMEMBERED_BYTES = 2 * LARGEST_BYTES
"""Of all lists together; what does not fit is read anew each time."""


@dataclass(frozen=True)
class _Kept:
    etag: str
    text: str
    size_bytes: int


class InventoryFiles:
    """The lists of one installation. An unchanged one costs a request without a body, and is the same text object."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def inventory_file(self, uri: str, namespace: str) -> str:
        """The text of a list. Refused or NotFound with field and remedy; Unavailable when the server does not answer."""
        key = self._key(uri, namespace)
        kept = self._kept.get(key)
        try:
            stored = await asyncio.to_thread(
                self._bucket.get, key, unless=kept.etag if kept else None, most_bytes=LARGEST_BYTES
            )
        except Unchanged:
            assert kept is not None
            self._kept.move_to_end(key)
            return kept.text
        self._kept.pop(key, None)
        if stored is None:
            raise NotFound(f"spec.inventory.uri: there is no {uri}: upload it, or remove the field")
        try:
            text = stored.body.decode()
        except UnicodeDecodeError as error:
            raise Refused(f"spec.inventory.uri: {uri} is no UTF-8: write JSON Lines") from error
        self._keep(key, _Kept(stored.etag, text, len(stored.body)))
        return text

    def _key(self, uri: str, namespace: str) -> str:
        root = self._bucket.uri.rstrip("/")
        allowed = f"{root}/{FOLDER}/{namespace}/"
        inside = uri.removeprefix(allowed).split("/")
        if not uri.startswith(allowed) or any(part in ("", ".", "..") for part in inside):
            raise Refused(f"spec.inventory.uri: {uri} is not this namespace's: put the file below {allowed}")
        return uri.removeprefix(f"{root}/")

    def _keep(self, key: str, kept: _Kept) -> None:
        self._kept[key] = kept
        while sum(each.size_bytes for each in self._kept.values()) > REMEMBERED_BYTES:
            self._kept.popitem(last=False)
