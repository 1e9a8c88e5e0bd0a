"""The DistillationJob resource."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dram_operator.api.pods import PodTemplate
from dram_operator.api.schema import by
from dram_operator.api.spec import Dataset, Export, Gates, Golden, Objective, Storage, Student, Training
from dram_operator.api.status import DistillationJobStatus
from dram_operator.api.teacher import Teacher
from dram_workers.model import Model

GROUP = "dram.dev"
VERSION = "v1alpha1"
KIND = "DistillationJob"
PLURAL = "distillationjobs"


class DistillationJobSpec(Model):
    """Teacher, student, data and goals."""

    teacher: Teacher
    """The model to learn from. Immutable."""
    student: Student
    """The model to train. Immutable."""
    dataset: Dataset
    """What it learns from."""
    objective: Objective = Objective()
    """The loss."""
    training: Training = Training()
    """How it is trained."""
    exports: Annotated[tuple[Export, ...], Field(min_length=1, max_length=16, json_schema_extra=by("name"))]
    """The variants to make."""
    golden: Golden
    """The held-out suite."""
    gates: Gates = Gates()
    """What a variant must prove."""
    storage: Storage | None = None
    """Where results go; absent takes the installation's storage. Immutable."""
    suspend: bool = False
    """Save a checkpoint, delete the pods and wait; false goes on at that step."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Longest time the job may be active, suspension not counted."""
    pending_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 3600
    """Longest time that a stage's pods may wait to be placed; then they are torn down and tried again."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Attempts a stage may fail and be tried again; preemption and node loss are free."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Delete the DistillationJob this long after it finished; artifacts stay. Absent keeps it."""
    pod_template: PodTemplate = PodTemplate()
    """What the pods may differ in."""


class Metadata(BaseModel):
    """The part of object metadata that Dram reads."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class DistillationJob(Model):
    """A DistillationJob as read from the API or a file."""

    api_version: Literal["dram.dev/v1alpha1"] = "dram.dev/v1alpha1"
    kind: Literal["DistillationJob"] = "DistillationJob"
    metadata: Metadata
    spec: DistillationJobSpec
    status: DistillationJobStatus = DistillationJobStatus()

    @classmethod
    def from_object(cls, obj: dict[str, Any]) -> "DistillationJob":
        """Read an API object or a manifest; raises pydantic's ValidationError."""
        return cls.model_validate(obj)
