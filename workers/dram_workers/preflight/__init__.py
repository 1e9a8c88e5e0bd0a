"""Export and measure the student before it is trained: what cannot fit or convert then cannot afterwards. Torch-free."""

from dram_workers.bench import measure_artifact
from dram_workers.context import StageContext, StageOutcome
from dram_workers.export import export_checkpoint
from dram_workers.stages import PreflightConfig

DECISIVE = ("sizeMiB", "p95LatencyMs", "p99LatencyMs", "peakMemoryMiB", "tokensPerSecond")
"""Figures that training does not change. The others of an export and a benchmark are left to their own stages."""


def run(config: PreflightConfig, context: StageContext) -> StageOutcome:
    """Convert the untrained student, prove the file and time it as the later stages will; the file itself is not kept.

    Whether the figures are good enough is for the gates to say.
    """
    from dram_workers.export.checkpoint import Checkpoint

    identity = config.identity
    source = "student" if identity.layers is None else "teacher"
    checkpoint = Checkpoint(context.inputs.path(source), identity.layers)
    exported = export_checkpoint(identity.export, checkpoint, context)
    benched = measure_artifact(identity.bench, exported.folders["artifact"], context)
    facts = {name: benched.facts[name] for name in ("target", "cpu", "threads")}
    return StageOutcome(
        folders=benched.folders,
        measures=tuple(found for found in (*exported.measures, *benched.measures) if found.name in DECISIVE),
        facts={"file": exported.facts["file"], **facts},
    )
