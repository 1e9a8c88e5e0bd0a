"""Publish: artifacts of the variants that their gates let out, and the report, whatever the gates said."""

import time

from dram_workers.context import StageContext, StageOutcome
from dram_workers.publish.artifact import artifact_folder, publish_artifact
from dram_workers.publish.evidence import gather, stage_of
from dram_workers.publish.retention import prune
from dram_workers.results import Output, StageResult
from dram_workers.stages import JobRef, PublishConfig
from dram_workers.store.manifest import MANIFEST, digest_of
from dram_workers.store.stage import RESULT_BYTES

__all__ = ["recheck", "report_key", "run"]

ROOM_BYTES = 400
"""Of a result, for what stands beside the outputs."""


def run(config: PublishConfig, context: StageContext) -> StageOutcome:
    """Write artifacts and report, then prune old stages if that is asked for."""
    from dram_workers.publish.report import write_report

    evidence = gather(config, context)
    variants = [variant for variant in config.identity.variants if variant.releasable]
    pinned = {}
    for done, variant in enumerate(variants):
        context.reporter.report(done, len(variants) + 1)
        pinned[f"artifact-{variant.name}"] = publish_artifact(config, context, evidence, variant)
    path = write_report(config, context, evidence, pinned)
    context.store.put_file(report_key(config.job), path)
    pinned["report"] = Output(digest=digest_of(path), uri=context.store.uri(report_key(config.job)))
    context.reporter.report(len(variants) + 1, len(variants) + 1)
    if config.execution.keep_stages_days is not None:
        found = (stage_of(given.uri, context.store) for given in config.inputs.values())
        used = {key for _, key in filter(None, found)} | {config.key}
        prune(context.store, config.execution.keep_stages_days, used, time.time())
    return StageOutcome(pinned=_short(pinned), facts={"released": len(variants), "reportBytes": path.stat().st_size})


def recheck(config: PublishConfig, context: StageContext, cached: StageResult) -> bool:
    """Whether what was published is still there: a later run replaces the report, and people delete things."""
    report = context.work / "report.html"
    report.write_bytes(context.store.get_bytes(report_key(config.job)) or b"")
    if digest_of(report) != cached.outputs["report"].digest:
        return False
    folders = (
        artifact_folder(config.job, variant.name, cached.outputs[f"artifact-{variant.name}"].digest)
        for variant in config.identity.variants
        if variant.releasable
    )
    return all(context.store.get_bytes(f"{folder}/{MANIFEST}") is not None for folder in folders)


def report_key(job: JobRef) -> str:
    """The store's key of a job's report; the report of the latest run."""
    return f"reports/{job.namespace}/{job.name}/report.html"


def _short(outputs: dict[str, Output]) -> dict[str, Output]:
    """The outputs, without addresses of artifacts where all would be too long: `artifact_folder` follows from the digest."""
    result = StageResult(key="", outputs=outputs)
    if len(result.model_dump_json(exclude_none=True).encode()) + ROOM_BYTES <= RESULT_BYTES:
        return outputs
    return {
        name: output if name == "report" else output.model_copy(update={"uri": None})
        for name, output in outputs.items()
    }
