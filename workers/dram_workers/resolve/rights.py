"""Whether the store lets a job do what it will have to do."""

import uuid

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.store.objects import ObjectStore

PROBE_FOLDER = "probe"


def check_rights(store: ObjectStore) -> None:
    """List, write, write conditionally, read and delete one small object.

    The listing comes first: some servers create a missing bucket on the first write.
    """
    next(iter(store.list(f"{PROBE_FOLDER}/")), None)
    key = f"{PROBE_FOLDER}/{uuid.uuid4().hex}"
    store.put_bytes(key, b"first")
    try:
        if store.put_bytes(key, b"second", if_absent=True) or store.get_bytes(key) != b"first":
            raise BadInput(
                WorkerReason.STORAGE_UNAVAILABLE,
                f"{store.uri('')} overwrites objects that are to be written only once",
                field="spec.storage.endpoint",
                remedy="Use an object store that honours If-None-Match, so that two attempts cannot mix their results.",
            )
    finally:
        store.delete([key])
