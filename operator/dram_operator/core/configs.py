"""From a planned stage and earlier results to the config that its worker reads."""

from typing import Any

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.spec import Storage
from dram_operator.api.status import PlannedStage, StageState
from dram_operator.core.installation import Installation
from dram_operator.core.memory import training_setup
from dram_operator.core.plan import RUN_NEUTRAL
from dram_workers.results import StageResult
from dram_workers.stages import (
    STAGE_CONFIG,
    GgufType,
    Input,
    JobRef,
    PublishIdentity,
    PublishVariant,
    StageConfig,
    StageKind,
    StoreSettings,
    stage_key,
)

CONFIG_FOLDER = "/etc/dram"
STORAGE_CA_FILE = f"{CONFIG_FOLDER}/storage-ca.crt"
PROGRESS_CA_FILE = f"{CONFIG_FOLDER}/progress-ca.crt"
TOKEN_FILE = "/var/run/secrets/dram/token"  # noqa: S105 -- a path, not a secret
RENDEZVOUS_PORT = 29500
PROGRESS_PATH = "/v1/progress"
"""Where the operator takes progress, below the installation's URL."""


class MissingOutputError(LookupError):
    """An earlier stage's result lacks what the plan says it has: operator and worker images do not fit together."""


Results = dict[str, StageResult]
"""Results of finished stages by stage id."""


def stage_folder(storage_uri: str, kind: StageKind, key: str) -> str:
    """URI of the folder that holds a stage's result."""
    return f"{storage_uri.rstrip('/')}/stages/{kind}/{key}"


def storage_of(job: DistillationJob, installation: Installation) -> Storage | None:
    """The job's storage, or the installation's."""
    return job.spec.storage or installation.storage


def artifacts_folder(job: DistillationJob, installation: Installation) -> str:
    """URI of the folder below which the job's artifacts lie, by variant and digest."""
    storage = storage_of(job, installation)
    root = storage.uri.rstrip("/") if storage else ""
    return f"{root}/artifacts/{job.metadata.namespace}/{job.metadata.name}"


def pvc_claims(job: DistillationJob) -> tuple[str, ...]:
    """Names of the claims that the job's URIs point into, in order."""
    spec = job.spec
    uris = [spec.teacher.uri, spec.student.uri, spec.golden.uri, spec.golden.embedder]
    uris += [source.uri for source in spec.dataset.sources]
    uris += [spec.dataset.synthetic.prompts_uri] if spec.dataset.synthetic else []
    claims = (uri.removeprefix("pvc://").split("/", 1)[0] for uri in uris if uri and uri.startswith("pvc://"))
    return tuple(dict.fromkeys(claims))


def inputs_of(
    stage: PlannedStage, plan: tuple[PlannedStage, ...], results: Results, storage_uri: str
) -> dict[str, Input]:
    """The stage's inputs with addresses and digests. Inputs whose stage has no result are left out."""
    kinds = {node.id: node.kind for node in plan}
    found = {}
    for name, source in stage.inputs.items():
        result = results.get(source.stage)
        output = result.outputs.get(source.output) if result else None
        if result is None or output is None:
            if stage.kind is not StageKind.PUBLISH:
                raise MissingOutputError(f"{source.stage} left no output {source.output}, which {stage.id} needs")
            continue
        folder = stage_folder(storage_uri, kinds[source.stage], result.key)
        found[name] = Input(uri=output.uri or f"{folder}/{output.path or source.output}", digest=output.digest)
    return found


def publish_identity(stage: PlannedStage, job: DistillationJob, releasable: dict[str, bool]) -> PlannedStage:
    """The publish stage with the spec and what only the status knows; variants without an export are absent."""
    types: dict[str, GgufType] = {export.name: export.gguf.type for export in job.spec.exports}
    identity = PublishIdentity.model_validate(stage.identity).model_copy(
        update={
            "gates": job.status.gates,
            "warnings": tuple(
                f"{done.id}: {done.message}"
                for done in job.status.stages
                if done.state is StageState.SUCCEEDED and done.message
            ),
            "manifest": job.spec.model_dump(mode="json", exclude_none=True, exclude=set(RUN_NEUTRAL)),
            "job": f"{job.metadata.namespace}/{job.metadata.name}",
            "variants": tuple(
                PublishVariant(name=name, gguf=types[name], releasable=good) for name, good in releasable.items()
            ),
        }
    )
    return stage.model_copy(update={"identity": identity.model_dump(mode="json")})


def build_config(
    job: DistillationJob,
    stage: PlannedStage,
    inputs: dict[str, Input],
    attempt: int,
    installation: Installation,
    rendezvous: str | None = None,
) -> StageConfig:
    """The config of one attempt; raises ValidationError when plan and worker contract do not fit together."""
    body: dict[str, Any] = {
        "kind": stage.kind,
        "stage": stage.id,
        "key": "0" * 64,
        "attempt": attempt,
        "job": JobRef(namespace=job.metadata.namespace, name=job.metadata.name, run=job.status.run),
        "inputs": inputs,
        "identity": stage.identity,
        "execution": _execution(job, stage, installation, rendezvous),
    }
    if stage.kind is StageKind.DATA:
        body["execution"]["golden"] = inputs["golden"]
        body["inputs"] = {name: given for name, given in inputs.items() if name != "golden"}
    config = STAGE_CONFIG.validate_python(body)
    return config.model_copy(update={"key": stage_key(config.kind, config.identity, config.inputs)})


def _execution(
    job: DistillationJob,
    stage: PlannedStage,
    installation: Installation,
    rendezvous: str | None,
) -> dict[str, Any]:
    storage = storage_of(job, installation)
    assert storage is not None, "decide refuses a job without storage"
    execution: dict[str, Any] = {
        "store": store_settings(storage, STORAGE_CA_FILE if installation.on_cluster else None),
        "mounts": {f"pvc://{claim}": f"/mnt/pvc/{claim}" for claim in pvc_claims(job)} | installation.mounts,
        "scratch": installation.scratch,
        "cache": installation.cache,
        **stage.execution,
    }
    if installation.progress_url:
        execution["progress"] = {
            "url": installation.progress_url.rstrip("/") + PROGRESS_PATH,
            "tokenFile": TOKEN_FILE,
            "caFile": PROGRESS_CA_FILE if installation.progress_ca else None,
        }
    if stage.kind is StageKind.RESOLVE:
        execution["training"] = training_setup(job, installation)
    if stage.kind is StageKind.TRAIN:
        execution["rendezvous"] = rendezvous
    if stage.kind is StageKind.PUBLISH:
        execution["keepStagesDays"] = storage.retention.keep_stages_days
    return execution


def store_settings(storage: Storage, ca_file: str | None) -> StoreSettings:
    """How a process reaches a storage; `ca_file` is where it finds the authority, if `storage` has one of its own."""
    return StoreSettings(
        uri=storage.uri,
        endpoint=storage.endpoint,
        region=storage.region,
        path_style=storage.path_style,
        ca_file=ca_file if storage.ca_bundle else None,
    )
