"""From settings to a store."""

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import StoreSettings
from dram_workers.store.folder import FolderStore
from dram_workers.store.location import local_path
from dram_workers.store.objects import ObjectStore


def open_store(settings: StoreSettings, mounts: dict[str, str] | None = None) -> ObjectStore:
    """The store of these settings; a bucket mapped to a local folder is that folder. Nothing is contacted yet."""
    folder = local_path(settings.uri, mounts or {})
    if folder is not None:
        return FolderStore(folder, settings.uri)
    if settings.uri.startswith("s3://"):
        from dram_workers.store.s3 import S3Store

        return S3Store(settings)
    raise BadInput(
        WorkerReason.STORAGE_NOT_FOUND,
        f"{settings.uri} is no store",
        field="spec.storage.uri",
        remedy="Use s3://bucket/prefix, or file:///folder in a local run.",
    )
