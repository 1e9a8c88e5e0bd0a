"""What every worker pod has: the restricted form, the store's credentials, and its config from an annotation."""

from collections.abc import Mapping
from typing import Any

from dram_operator.api.distillation_job import GROUP, VERSION, Metadata
from dram_operator.api.pods import PodTemplate, Resources
from dram_operator.api.spec import Storage
from dram_operator.core import configs
from dram_operator.core.installation import Installation
from dram_workers.model import Model

STAGE_LABEL = f"{GROUP}/stage"
KIND_LABEL = f"{GROUP}/kind"
ATTEMPT_LABEL = f"{GROUP}/attempt"
RUN_LABEL = f"{GROUP}/run"
CONFIG_ANNOTATION = f"{GROUP}/stage-config"
STORAGE_CA_ANNOTATION = f"{GROUP}/storage-ca"

CONTAINER = "worker"
NVIDIA = "nvidia.com/"
"""What the names of their GPUs begin with: gpu, gpu.shared, mig-1g.10gb."""
USER_ID = 65532
DEFAULT_GRACE_SECONDS = 15

COMMON_LABELS = {
    "app.kubernetes.io/name": "dram",
    "app.kubernetes.io/component": "worker",
    "app.kubernetes.io/managed-by": "dram-operator",
}

Manifest = dict[str, Any]


def owner(kind: str, metadata: Metadata) -> list[Manifest]:
    """The owner reference of a child: with the owner, the child goes.

    It does not hold the owner back (`blockOwnerDeletion`): where OwnerReferencesPermissionEnforcement is on, that takes a right to the owner's finalizers.
    """
    return [
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "name": metadata.name,
            "uid": metadata.uid,
            "controller": True,
        }
    ]


def pod_settings(storage: Storage | None, installation: Installation, grace_seconds: int) -> Manifest:
    """The part of a pod's spec that depends on nothing but the place: Pod Security restricted, and no API token."""
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"serviceAccountName": storage.service_account_name} if storage and storage.service_account_name else {}),
        **(
            {"imagePullSecrets": [{"name": name} for name in installation.image_pull_secrets]}
            if installation.image_pull_secrets
            else {}
        ),
    }


def image_of(pods: PodTemplate, installation: Installation) -> str:
    """The job's own image, else the installation's: the one for GPUs where any stage asks for NVIDIA's."""
    asked = [resources for _, resources in pods.resources if resources]
    names = {name for resources in asked for name in (*resources.requests, *resources.limits)}
    on_gpus = any(name.startswith(NVIDIA) for name in names)
    return pods.image or (installation.cuda_image if on_gpus else "") or installation.image


def container(kind: str, image: str, resources: Resources, installation: Installation) -> Manifest:
    """The worker's container, without environment and mounts."""
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": installation.image_pull_policy,
        "command": ["dram", "worker", kind, "--config", f"{configs.CONFIG_FOLDER}/config.json"],
        "resources": plain(resources),
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def environment(storage: Storage | None, installation: Installation) -> list[Manifest]:
    """Where to write, and the store's credentials by reference."""
    values = {"HOME": installation.scratch, "TMPDIR": installation.scratch, "OMP_WAIT_POLICY": "PASSIVE"}
    env: list[Manifest] = [{"name": name, "value": value} for name, value in values.items()]
    if storage and storage.secret_ref:
        secret = storage.secret_ref.name
        env += [secret_env(key, secret, key) for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        env.append(secret_env("AWS_SESSION_TOKEN", secret, "AWS_SESSION_TOKEN", optional=True))
    return env


def secret_env(name: str, secret: str, key: str, *, optional: bool = False) -> Manifest:
    """A variable from a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": optional}}}


def volumes(files: Mapping[str, str]) -> list[Manifest]:
    """The config folder, with annotations as files by name, and scratch space."""
    items = [
        {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{name}']"}} for path, name in files.items()
    ]
    return [{"name": "config", "downwardAPI": {"items": items}}, {"name": "scratch", "emptyDir": {}}]


def mounts(installation: Installation) -> list[Manifest]:
    """Where those two are mounted."""
    return [
        {"name": "config", "mountPath": configs.CONFIG_FOLDER, "readOnly": True},
        {"name": "scratch", "mountPath": installation.scratch},
    ]


def file_name(path: str) -> str:
    """Name of a file in the config folder."""
    return path.rsplit("/", 1)[1]


def plain(model: Model) -> Manifest:
    """A model as an object of the API."""
    return model.model_dump(mode="json", exclude_none=True)
