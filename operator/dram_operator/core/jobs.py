"""From an attempt to the Kubernetes objects that carry it out: a Job, and a headless Service for a gang.

The config travels in an annotation of the pod template and is mounted from there, so that an attempt is one write: there
is no moment at which a Job exists without its config, and nothing else to clean up.
"""

import hashlib

from dram_operator.api.distillation_job import GROUP, KIND, DistillationJob
from dram_operator.api.pods import PodTemplate, Resources
from dram_operator.api.spec import Storage
from dram_operator.api.status import PlannedStage
from dram_operator.core import configs, worker_pod
from dram_operator.core.attempts import resources_key
from dram_operator.core.installation import Installation
from dram_operator.core.observed import Attempt
from dram_operator.core.worker_pod import (
    ATTEMPT_LABEL,
    CONFIG_ANNOTATION,
    DEFAULT_GRACE_SECONDS,
    KIND_LABEL,
    RUN_LABEL,
    STAGE_LABEL,
    STORAGE_CA_ANNOTATION,
    Manifest,
    plain,
    secret_env,
)
from dram_workers.stages import STAGE_CONFIG, StageKind

JOB_LABEL = f"{GROUP}/job"
PROGRESS_CA_ANNOTATION = f"{GROUP}/progress-ca"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

ENDPOINT_KEY = "OPENAI_API_KEY"
"""Key of the Secret of spec.teacher.endpoint, and the variable that the worker reads."""
PROGRESS_AUDIENCE = "dram-progress"
GRACE_SECONDS: dict[StageKind, int] = {StageKind.TRAIN: 120}
"""Time to save a checkpoint after SIGTERM."""
LONGEST_NAME = 63


def attempt_name(job: str, stage_id: str, number: int) -> str:
    """`<job>-<stage>-<attempt>`, shortened with a hash where a DNS label would not hold it."""
    name = f"{job}-{stage_id}-{number}"
    if len(name) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(f"{job}/{stage_id}".encode()).hexdigest()[:8]
    return f"{f'{job}-{stage_id}'[: LONGEST_NAME - 10 - len(str(number))]}-{mark}-{number}"


def rendezvous(job: str, node: PlannedStage, number: int, workers: int) -> str | None:
    """Where the ranks of a gang meet: the pod of index 0, behind the headless Service."""
    if workers == 1:
        return None
    return f"{attempt_name(job, node.id, number)}-0.{service_name(job)}:{configs.RENDEZVOUS_PORT}"


def service_name(job: str) -> str:
    """Name of the headless Service of a job's training pods."""
    return f"{job}-train"


def children(job: DistillationJob, attempt: Attempt, installation: Installation) -> tuple[Manifest, ...]:
    """The objects of one attempt, in the order in which they are created; all are create-only."""
    body = _job(job, attempt, installation)
    return (_service(job), body) if attempt.config.kind is StageKind.TRAIN else (body,)


def _labels(job: DistillationJob, attempt: Attempt) -> dict[str, str]:
    return worker_pod.COMMON_LABELS | {
        JOB_LABEL: job.metadata.name,
        STAGE_LABEL: attempt.stage,
        KIND_LABEL: attempt.config.kind.value,
        ATTEMPT_LABEL: str(attempt.attempt),
        RUN_LABEL: str(attempt.run),
    }


def _service(job: DistillationJob) -> Manifest:
    selector = {JOB_LABEL: job.metadata.name, KIND_LABEL: StageKind.TRAIN.value}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service_name(job.metadata.name),
            "namespace": job.metadata.namespace,
            "labels": dict(selector),
            "ownerReferences": worker_pod.owner(KIND, job.metadata),
        },
        "spec": {
            "clusterIP": "None",
            # Ranks look each other up before they are ready.
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [{"name": "rendezvous", "port": configs.RENDEZVOUS_PORT}],
        },
    }


def _job(job: DistillationJob, attempt: Attempt, installation: Installation) -> Manifest:
    pods, labels = job.spec.pod_template, _labels(job, attempt)
    queue = {QUEUE_LABEL: pods.queue_name} if pods.queue_name else {}
    several = attempt.config.kind is StageKind.TRAIN or attempt.workers > 1
    numbered: Manifest = {"completionMode": "Indexed"} if several else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": attempt.name,
            "namespace": job.metadata.namespace,
            "labels": labels | queue,
            "ownerReferences": worker_pod.owner(KIND, job.metadata),
        },
        "spec": {
            "completions": attempt.workers,
            "parallelism": attempt.workers,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            # Set at creation only: from then on it belongs to Kueue.
            "suspend": bool(queue),
            **numbered,
            "template": {
                "metadata": {
                    "labels": dict(pods.labels) | labels,
                    "annotations": _annotations(job, attempt, installation),
                },
                "spec": _pod(job, attempt, installation),
            },
        },
    }


def _annotations(job: DistillationJob, attempt: Attempt, installation: Installation) -> dict[str, str]:
    storage = configs.storage_of(job, installation)
    config = STAGE_CONFIG.dump_json(attempt.config, exclude_none=True).decode()
    extra = {
        STORAGE_CA_ANNOTATION: storage.ca_bundle if storage else None,
        PROGRESS_CA_ANNOTATION: installation.progress_ca,
    }
    known = {name: text for name, text in extra.items() if text}
    return dict(job.spec.pod_template.annotations) | {CONFIG_ANNOTATION: config} | known


def _pod(job: DistillationJob, attempt: Attempt, installation: Installation) -> Manifest:
    pods, kind = job.spec.pod_template, attempt.config.kind
    storage = configs.storage_of(job, installation)
    gang = {"subdomain": service_name(job.metadata.name)} if kind is StageKind.TRAIN else {}
    return {
        **gang,
        **worker_pod.pod_settings(storage, installation, GRACE_SECONDS.get(kind, DEFAULT_GRACE_SECONDS)),
        **_placement(pods),
        "containers": [_container(job, attempt, installation)],
        "volumes": _volumes(job, attempt, installation),
    }


def _placement(pods: PodTemplate) -> Manifest:
    placement = {
        "nodeSelector": dict(pods.node_selector),
        "tolerations": [plain(toleration) for toleration in pods.tolerations],
        "affinity": pods.affinity,
        "priorityClassName": pods.priority_class_name,
        "runtimeClassName": pods.runtime_class_name,
    }
    return {name: value for name, value in placement.items() if value}


def _container(job: DistillationJob, attempt: Attempt, installation: Installation) -> Manifest:
    pods, kind = job.spec.pod_template, attempt.config.kind
    plan = job.status.plan
    sized: Resources | None = getattr(pods.resources, resources_key(kind)) or pods.resources.default
    image = (plan.image if plan else "") or worker_pod.image_of(pods, installation)
    return {
        **worker_pod.container(kind.value, image, sized or installation.default_resources, installation),
        "env": _environment(job, attempt, installation),
        "volumeMounts": _mounts(job, attempt, installation),
    }


def _environment(job: DistillationJob, attempt: Attempt, installation: Installation) -> list[Manifest]:
    env = worker_pod.environment(configs.storage_of(job, installation), installation)
    endpoint = job.spec.teacher.endpoint
    if endpoint and endpoint.secret_ref and _asks_endpoint(attempt):
        env.append(secret_env(ENDPOINT_KEY, endpoint.secret_ref.name, ENDPOINT_KEY))
    return env + [secret_env(e.name, e.secret_name, e.key) for e in job.spec.pod_template.env_from_secrets]


def _asks_endpoint(attempt: Attempt) -> bool:
    """Whether the stage calls the teacher's endpoint: only such a pod is given the key."""
    return getattr(attempt.config.identity, "endpoint", None) is not None


def _volumes(job: DistillationJob, attempt: Attempt, installation: Installation) -> list[Manifest]:
    files = {"config.json": CONFIG_ANNOTATION} | _authorities(configs.storage_of(job, installation), installation)
    volumes = worker_pod.volumes(files)
    if attempt.config.kind is StageKind.TRAIN:
        # Ranks on one node share tensors through it; the default of 64 MiB is too small.
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    if installation.progress_url:
        token = {"audience": PROGRESS_AUDIENCE, "expirationSeconds": 3600, "path": "token"}
        volumes.append({"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}})
    return volumes + [
        {"name": _claim_volume(claim), "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim in configs.pvc_claims(job)
    ]


def _authorities(storage: Storage | None, installation: Installation) -> dict[str, str]:
    """CA files by file name, where there are any."""
    files = {}
    if storage and storage.ca_bundle:
        files[worker_pod.file_name(configs.STORAGE_CA_FILE)] = STORAGE_CA_ANNOTATION
    if installation.progress_ca:
        files[worker_pod.file_name(configs.PROGRESS_CA_FILE)] = PROGRESS_CA_ANNOTATION
    return files


def _mounts(job: DistillationJob, attempt: Attempt, installation: Installation) -> list[Manifest]:
    mounts = worker_pod.mounts(installation)
    if installation.progress_url:
        mounts.append({"name": "token", "mountPath": configs.TOKEN_FILE.rsplit("/", 1)[0], "readOnly": True})
    if attempt.config.kind is StageKind.TRAIN:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 -- the pod's own
    return mounts + [
        {"name": _claim_volume(claim), "mountPath": f"/mnt/pvc/{claim}", "readOnly": True}
        for claim in configs.pvc_claims(job)
    ]


def _claim_volume(claim: str) -> str:
    return f"pvc-{claim}"[:LONGEST_NAME]
