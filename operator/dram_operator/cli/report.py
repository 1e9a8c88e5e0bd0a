"""The report of a job, from the object store, with the user's own credentials."""

import tempfile
from pathlib import Path

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.cli.cluster import Failure
from dram_workers.errors import StageError
from dram_workers.stages import StoreSettings
from dram_workers.store.open import open_store


def fetch_report(job: DistillationJob, uri: str, endpoint: str | None, region: str | None) -> bytes:
    """The report's bytes; Failure with the address when it cannot be read from here."""
    storage = job.spec.storage
    folder, _, name = uri.rpartition("/")
    with tempfile.NamedTemporaryFile("w", suffix=".crt") as authority:
        authority.write(storage.ca_bundle or "" if storage else "")
        authority.flush()
        settings = StoreSettings(
            uri=folder,
            endpoint=endpoint or (storage.endpoint if storage else None),
            region=region or (storage.region if storage else None),
            path_style=storage.path_style if storage else endpoint is not None,
            ca_file=authority.name if storage and storage.ca_bundle else None,
        )
        try:
            body = open_store(settings).get_bytes(name)
        except StageError as error:
            raise Failure(
                f"{uri} cannot be read from here: {error}: give credentials as for the AWS command line "
                "(AWS_PROFILE, AWS_ACCESS_KEY_ID …), and --endpoint where the spec has none"
            ) from error
    if body is None:
        raise Failure(f"{uri} is not there any more: it may have been deleted from the bucket")
    return body


def kept_report(job: DistillationJob, body: bytes) -> Path:
    """A file of its own for the browser, which reads it after this process has ended."""
    file = Path(tempfile.mkdtemp(prefix="dram-")) / f"{job.metadata.name}-report.html"
    file.write_bytes(body)
    return file
