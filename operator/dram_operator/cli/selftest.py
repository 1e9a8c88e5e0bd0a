"""`dram selftest`: a tiny job of its own through every stage of an installation; what `helm test` runs."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress

import click

from dram_operator.adapters.resources import DISTILLATION_JOBS, Object
from dram_operator.api.spec import Storage
from dram_operator.cli.cluster import Cluster, Failure, on_cluster
from dram_operator.cli.samples import opened, upload_sample
from dram_operator.errors import NotFound, SettingsInvalid
from dram_workers.store.location import join
from dram_workers.store.objects import ObjectStore

LOOK_SECONDS = 2.0
LEAVE_SECONDS = 180.0
"""What pods may take to leave: a trainer has two minutes to save a checkpoint."""
SETTLED = ("True", "False")


@click.command()
@click.option(
    "--timeout",
    "timeout_seconds",
    metavar="SECONDS",
    default=1500,
    show_default=True,
    type=click.IntRange(1, 86_400),
    help="How long the job may take.",
)
@on_cluster
async def selftest(cluster: Cluster, timeout_seconds: int) -> None:
    """Run a tiny job through every stage on this cluster, wait until it has succeeded, and take it away again.

    A random teacher with its data is put into the installation's storage (DRAM_STORAGE, with the credentials that the
    AWS SDK finds), below a prefix that is emptied afterwards. The job's pods are real ones. Exit codes: 0 it succeeded;
    4 it did not, and why.
    """
    storage = _storage()
    name = f"dram-selftest-{secrets.token_hex(3)}"
    own = storage.model_copy(update={"uri": join(storage.uri, name)})
    with opened(own) as store:
        try:
            await asyncio.to_thread(upload_sample, store)
            await _run(cluster, name, own, timeout_seconds)
        finally:
            await asyncio.to_thread(_clear, store)


async def _run(cluster: Cluster, name: str, storage: Storage, timeout_seconds: int) -> None:
    from dram_operator.local.sample import sample_spec

    spec = sample_spec(storage.uri, storage.model_dump(mode="json", by_alias=True, exclude_unset=True))
    metadata = {"name": name, "namespace": cluster.namespace}
    manifest = {"apiVersion": "dram.dev/v1alpha1", "kind": DISTILLATION_JOBS.kind, "metadata": metadata, "spec": spec}
    begun = time.monotonic()
    async with cluster.explaining("create", DISTILLATION_JOBS, name):
        made = await cluster.api.create(DISTILLATION_JOBS, cluster.namespace, manifest)
    click.echo(f"DistillationJob {cluster.namespace}/{name} below {storage.uri}")
    try:
        async with asyncio.timeout(timeout_seconds):
            message = await _followed(cluster, name)
    except TimeoutError as error:
        raise Failure(
            f"{name} has not ended after {timeout_seconds} s: the last lines say where it is; `kubectl dram doctor` may say why"
        ) from error
    finally:
        await _delete(cluster, name, made["metadata"]["uid"])
    click.echo(f"succeeded after {time.monotonic() - begun:.0f} s: {message}")


async def _followed(cluster: Cluster, name: str) -> str:
    """Tell what changes until the job has ended; returns its last words. Failure when it did not succeed."""
    told: set[str] = set()
    while True:
        obj = await cluster.read(DISTILLATION_JOBS, name)
        for line in _lines(obj):
            if line not in told:
                click.echo(line)
                told.add(line)
        ended = _condition(obj, "Succeeded")
        if ended.get("status") == "True":
            return str(ended["message"])
        if ended.get("status") == "False":
            raise Failure(f"{name} failed ({ended['reason']}): {ended['message']}")
        await asyncio.sleep(LOOK_SECONDS)


def _lines(obj: Object) -> Iterator[str]:
    status = obj.get("status", {})
    for stage in status.get("stages", ()):
        yield f"  {stage['id']}: {stage['state']}"
    ended = _condition(obj, "Succeeded")
    if ended and ended["status"] not in SETTLED:
        yield f"{ended['reason']}: {ended['message']}"


def _condition(obj: Object, kind: str) -> Object:
    return next((one for one in obj.get("status", {}).get("conditions", ()) if one["type"] == kind), {})


async def _delete(cluster: Cluster, name: str, uid: str) -> None:
    """Delete the job and wait until its pods are gone, so that none writes below the prefix any more."""
    async with cluster.explaining("delete", DISTILLATION_JOBS, name):
        with suppress(NotFound, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await cluster.api.delete(DISTILLATION_JOBS, cluster.namespace, name, uid=uid, propagation="Foreground")
                while True:
                    await cluster.api.get(DISTILLATION_JOBS, cluster.namespace, name)
                    await asyncio.sleep(LOOK_SECONDS)


def _storage() -> Storage:
    """The installation's storage, from the variables of its pods."""
    from dram_operator.settings import Settings

    try:
        storage = Settings.load().storage
    except SettingsInvalid as error:
        raise Failure(str(error)) from error
    if storage is None:
        raise Failure(
            "the installation has no storage, so its jobs cannot be tried: set `storage` in the chart's values"
        )
    return storage


def _clear(store: ObjectStore) -> None:
    store.delete([found.key for found in store.list("")])
