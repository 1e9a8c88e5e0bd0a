"""The sample, in a store of the installation."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dram_operator.api.spec import Storage
from dram_operator.cli.cluster import Failure
from dram_workers.errors import StageError
from dram_workers.store.objects import ObjectStore


@contextmanager
def opened(storage: Storage) -> Iterator[ObjectStore]:
    """The store; errors within the block are Failures that name it. Credentials are those that the AWS SDK finds."""
    from dram_operator.core.configs import store_settings
    from dram_workers.store.open import open_store

    with tempfile.NamedTemporaryFile("w", suffix=".crt") as authority:
        authority.write(storage.ca_bundle or "")
        authority.flush()
        try:
            yield open_store(store_settings(storage, authority.name))
        except StageError as error:
            raise Failure(f"{storage.uri} cannot be used: {error}") from error


def upload_sample(store: ObjectStore) -> None:
    """Put the sample's files into the root of a store."""
    from dram_operator.local.sample import write_sample

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_sample(folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                store.put_file(str(path.relative_to(folder)), path)
