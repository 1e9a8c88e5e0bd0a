"""The kinds of object that Dram serves: all that the CRDs, the reference and the check without a cluster are made from."""

from dataclasses import dataclass

from pydantic import BaseModel

from dram_operator.api import distillation_job, edge_rollout
from dram_operator.api.distillation_job import GROUP, DistillationJobSpec
from dram_operator.api.rollout_rules import ROLLOUT_RULES
from dram_operator.api.rollout_spec import EdgeRolloutSpec
from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.api.rule import Rule
from dram_operator.api.rules import RULES
from dram_operator.api.status import DistillationJobStatus


@dataclass(frozen=True)
class Column:
    """A printer column of `kubectl get`."""

    name: str
    type: str
    path: str
    description: str


@dataclass(frozen=True)
class Resource:
    """A kind of object."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    rules: tuple[Rule, ...]
    """In the order of the spec."""
    columns: tuple[Column, ...]
    wide_columns: tuple[Column, ...]
    """What `kubectl get -o wide` adds."""

    @property
    def file(self) -> str:
        """Name of its file in `crds/`."""
        return f"{GROUP}_{self.plural}.yaml"


_SUCCEEDED = '.status.conditions[?(@.type=="Succeeded")]'
_READY = '.status.conditions[?(@.type=="Ready")]'
_AGE = Column("Age", "date", ".metadata.creationTimestamp", "Time since the object was made.")

DISTILLATION_JOB = Resource(
    kind=distillation_job.KIND,
    plural=distillation_job.PLURAL,
    short_name="dj",
    description="A model distilled, exported, proven and published.",
    spec=DistillationJobSpec,
    status=DistillationJobStatus,
    rules=RULES,
    columns=(
        Column("Status", "string", f"{_SUCCEEDED}.reason", "Why the job is where it is."),
        Column("Stage", "string", ".status.stage", "The stage at work."),
        Column("Percent", "integer", ".status.progress.percent", "Share of the whole job that is done."),
        Column("ETA", "integer", ".status.progress.etaSeconds", "Estimated seconds until the stage at work ends."),
        Column("Score", "string", ".status.bestScore", "Golden score of the best variant that may be released."),
        Column("Gate", "string", ".status.gate", "The gates in a word: Pending, Pass, Warn, or the first that failed."),
        _AGE,
    ),
    wide_columns=(
        Column("Run", "integer", ".status.run", "Number of the run."),
        Column("Step", "integer", ".status.progress.step", "Steps that the stage at work has done."),
        Column("Best", "string", ".status.best", "The best variant that may be released."),
        Column("Report", "string", ".status.reportUri", "Where the report lies."),
        Column("Message", "string", f"{_SUCCEEDED}.message", "The status in a sentence."),
    ),
)

EDGE_ROLLOUT = Resource(
    kind=edge_rollout.KIND,
    plural=edge_rollout.PLURAL,
    short_name="er",
    description="What a channel of devices should run: rolled out step by step, watched, and rolled back when it is bad.",
    spec=EdgeRolloutSpec,
    status=EdgeRolloutStatus,
    rules=ROLLOUT_RULES,
    columns=(
        Column("Status", "string", f"{_READY}.reason", "Why the rollout is where it is."),
        Column("Stable", "string", ".status.stable.name", "What devices run outside of an attempt."),
        Column("Candidate", "string", ".status.candidate.name", "What is being rolled out."),
        Column("Step", "string", ".status.step.shown", "The step at work, and how many there are."),
        Column(
            "Percent", "integer", ".status.step.percent", "Share of the devices that is meant to run the candidate."
        ),
        Column(
            "Gate", "string", ".status.gate", "The metrics in a word: Pass, Waiting, or the first that is in breach."
        ),
        _AGE,
    ),
    wide_columns=(
        Column("Attempt", "integer", ".status.attempt", "Number of the attempt."),
        Column("Expected", "integer", ".status.step.devices.expected", "Devices that should run the candidate."),
        Column("Healthy", "integer", ".status.step.devices.healthy", "Devices that run it well."),
        Column(
            "Failed", "integer", ".status.step.devices.failed", "Devices that fell back, refused it or went silent."
        ),
        Column("Message", "string", f"{_READY}.message", "The status in a sentence."),
    ),
)

RESOURCES = (DISTILLATION_JOB, EDGE_ROLLOUT)
"""Every kind."""
