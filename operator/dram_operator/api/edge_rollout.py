"""The EdgeRollout resource."""

from typing import Any, Literal

from dram_operator.api.distillation_job import Metadata
from dram_operator.api.rollout_spec import EdgeRolloutSpec
from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_workers.model import Model

KIND = "EdgeRollout"
PLURAL = "edgerollouts"


class EdgeRollout(Model):
    """An EdgeRollout as read from the API or a file."""

    api_version: Literal["dram.dev/v1alpha1"] = "dram.dev/v1alpha1"
    kind: Literal["EdgeRollout"] = "EdgeRollout"
    metadata: Metadata
    spec: EdgeRolloutSpec
    status: EdgeRolloutStatus = EdgeRolloutStatus()

    @classmethod
    def from_object(cls, obj: dict[str, Any]) -> "EdgeRollout":
        """Read an API object or a manifest; raises pydantic's ValidationError."""
        return cls.model_validate(obj)

    @property
    def channel(self) -> str:
        """`namespace/name`: unique by construction, the same in every label and path."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
