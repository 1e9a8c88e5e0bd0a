"""The peer: the operator that kopf's own tutorial leads to, doing the same child and the same status.

`on.create`, `on.update` and `on.resume` handlers, the official client, status by kopf's patch. The child and the status
come from the same pure code as ours, so that only the way around them differs.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any

import kopf
from kubernetes import client, config

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.core.distillation import decide
from dram_operator.core.installation import Installation
from dram_operator.core.jobs import children
from dram_operator.core.observed import Observed

INSTALLATION = Installation(image="worker:1")


@kopf.on.startup()
def log_in(settings: kopf.OperatorSettings, **_: Any) -> None:
    """As the tutorial says."""
    config.load_kube_config()  # type: ignore[no-untyped-call]
    settings.scanning.disabled = True


@kopf.on.create("dram.dev", "v1alpha1", "distillationjobs")
@kopf.on.update("dram.dev", "v1alpha1", "distillationjobs", field="spec")
@kopf.on.resume("dram.dev", "v1alpha1", "distillationjobs")
async def reconcile(body: kopf.Body, patch: kopf.Patch, namespace: str | None, **_: Any) -> None:
    """Create the children that are missing and tell so."""
    job = DistillationJob.from_object(
        {key: body[key] for key in ("apiVersion", "kind", "metadata", "spec", "status") if key in body}
    )
    decision = decide(Observed(job), INSTALLATION, datetime.now(UTC))
    started = job.model_copy(update={"status": decision.status})
    for attempt in decision.start:
        for child in children(started, attempt, INSTALLATION):
            await asyncio.to_thread(_create, namespace, child)
    patch.status.update(_without_nulls(decision.status.model_dump(mode="json", by_alias=True)))


def _without_nulls(value: Any) -> Any:
    """The API server drops them, and kopf compares what it sent with what came back."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _create(namespace: str | None, child: dict[str, Any]) -> None:
    try:
        client.BatchV1Api().create_namespaced_job(namespace, child)  # type: ignore[arg-type]  # the client takes dicts too
    except client.ApiException as error:
        if error.status != 409:
            raise
