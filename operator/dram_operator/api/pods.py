"""The closed list of what a user may override in the pods of a job."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dram_operator.api.schema import FREE_FORM, by
from dram_workers.model import Model

Label = Annotated[str, Field(max_length=253)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) else value


Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(min_length=1, max_length=32, json_schema_extra={"x-kubernetes-int-or-string": True}),
]
"""A Kubernetes quantity such as 500m or 4Gi; a bare whole number may be written without quotes."""

_FREE_OBJECT = {"type": "object", "description": "In Kubernetes' own form.", **FREE_FORM}
_AFFINITIES: dict[str, Any] = {
    "additionalProperties": False,
    "properties": dict.fromkeys(("nodeAffinity", "podAffinity", "podAntiAffinity"), _FREE_OBJECT),
}


class Resources(Model):
    """Compute resources of one container."""

    requests: Annotated[dict[Label, Quantity], Field(max_length=16)] = {}
    """What the scheduler reserves, e.g. cpu: "4"."""
    limits: Annotated[dict[Label, Quantity], Field(max_length=16)] = {}
    """What the pod may use at most, e.g. nvidia.com/gpu: "1"."""


class Toleration(Model):
    """A node taint that the pods tolerate."""

    key: Label | None = None
    """Taint key; absent with operator Exists tolerates all."""
    operator: Literal["Exists", "Equal"] | None = None
    """How value is compared."""
    value: Label | None = None
    """Taint value for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect tolerated; absent means all."""
    toleration_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """How long NoExecute is tolerated."""


class SecretEnv(Model):
    """An environment variable taken from a Secret of the namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the variable."""
    secret_name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key in the Secret."""


class StageResources(Model):
    """Resources by kind of stage; what is absent takes the installation's defaults."""

    train: Resources | None = None
    """Training pods."""
    synthesize: Resources | None = None
    """Pods in which the teacher writes data or logits."""
    evaluate: Resources | None = None
    """Pods that answer the golden suite."""
    bench: Resources | None = None
    """Pods that measure the exported file."""
    default: Resources | None = None
    """Every other pod."""


class PodTemplate(Model):
    """What the pods of a job may differ in. Nothing else of a pod can be set."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Worker image; absent takes the installation's, the one for GPUs where a stage asks for `nvidia.com/gpu`."""
    resources: StageResources = StageResources()
    """Compute resources by kind of stage."""
    node_selector: Annotated[dict[Label, Label], Field(max_length=32)] = {}
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that are tolerated."""
    affinity: Annotated[dict[str, Any] | None, Field(max_length=3, json_schema_extra=_AFFINITIES)] = None
    """Affinity in Kubernetes' own form."""
    priority_class_name: ObjectName | None = None
    """Priority class."""
    runtime_class_name: ObjectName | None = None
    """Runtime class, e.g. nvidia."""
    env_from_secrets: Annotated[tuple[SecretEnv, ...], Field(max_length=32, json_schema_extra=by("name"))] = ()
    """Environment variables from Secrets, e.g. HF_TOKEN."""
    labels: Annotated[dict[Label, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = {}
    """Labels added to the pods."""
    annotations: Annotated[dict[Label, Annotated[str, Field(max_length=1024)]], Field(max_length=32)] = {}
    """Annotations added to the pods."""
    queue_name: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Kueue LocalQueue that admits the pods."""
