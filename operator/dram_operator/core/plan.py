"""From a spec to the graph of stages. Later capabilities add nodes; they change none."""

import hashlib
import math
from typing import Any

from dram_operator.api.distillation_job import DistillationJob, DistillationJobSpec
from dram_operator.api.pods import PodTemplate
from dram_operator.api.spec import Export, OnPolicySampling
from dram_operator.api.status import Plan, PlannedInput, PlannedStage
from dram_workers import stages
from dram_workers.endpoint_model import EndpointModel
from dram_workers.model import Model
from dram_workers.objective import OnPolicy, Schedule
from dram_workers.stages import StageKind, canonical_json

CONFIDENCE = 0.95
"""Of every one-sided bound that a gate decides on."""

COSTLY = frozenset({StageKind.SYNTHESIZE, StageKind.TEACH, StageKind.TRAIN})
"""Kinds of stage that run the teacher for long, or train."""

PREFLIGHT_TIMINGS = 5
"""A certain failure needs few: a speed's bounds exist from five on, and four of five answers above a p95 are no chance."""

RUN_NEUTRAL = frozenset(
    {"suspend", "active_deadline_seconds", "pending_deadline_seconds", "retries", "ttl_seconds_after_finished"}
)
"""Fields that may change at any time without starting another run."""
EXECUTION_FIELDS: dict[str, set[str]] = {
    "training": {"workers", "processes_per_worker", "deepspeed", "checkpoint"},
    "pod_template": set(PodTemplate.model_fields) - {"image"},
}
"""Parts of the spec that say how a run is carried out, and not what comes out of it: a run that is not over goes on."""


def make_plan(job: DistillationJob, image: str) -> Plan:
    """The plan of one run, to be pinned in status."""
    return Plan(
        spec_hash=spec_hash(job.spec),
        execution_hash=execution_hash(job.spec),
        image=image,
        stages=plan_stages(job.spec, job.metadata.name),
    )


def spec_hash(spec: DistillationJobSpec) -> str:
    """SHA-256 over what makes a run: another value means another run."""
    makes_no_run: dict[str, Any] = dict.fromkeys(RUN_NEUTRAL, True) | EXECUTION_FIELDS
    return hashlib.sha256(canonical_json(spec.model_dump(mode="json", exclude=makes_no_run))).hexdigest()


def execution_hash(spec: DistillationJobSpec) -> str:
    """SHA-256 over how a run is carried out: another value means another run only when this one is over."""
    return hashlib.sha256(canonical_json(spec.model_dump(mode="json", include=EXECUTION_FIELDS))).hexdigest()


def plan_stages(spec: DistillationJobSpec, name: str) -> tuple[PlannedStage, ...]:
    """The graph in topological order."""
    preflights = [_preflight(spec, export, name) for export in spec.exports]
    nodes = [_resolve(spec), *preflights]
    if spec.dataset.synthetic:
        nodes.append(_synthesize(spec))
    nodes.append(_data(spec))
    if spec.objective.teacher_logits.mode == "Cached":
        nodes.append(_teach(spec))
    nodes += [_evaluate_teacher(spec), _train(spec), _evaluate_student(spec)]
    for export in spec.exports:
        nodes += [_export(export, name), _evaluate_variant(spec, export), _bench(spec, export)]
    return tuple(_held_back(node, preflights) for node in (*nodes, _publish(spec, nodes)))


def _held_back(node: PlannedStage, preflights: list[PlannedStage]) -> PlannedStage:
    """What costs much waits for every preflight, and an export for its own. No key depends on that."""
    if node.kind in COSTLY:
        return node.model_copy(update={"after": tuple(preflight.id for preflight in preflights)})
    if node.kind is StageKind.EXPORT:
        return node.model_copy(update={"after": (f"preflight-{node.variant}",)})
    return node


def proof_items(limit: float, confidence: float = CONFIDENCE) -> int:
    """Trials that must all succeed to prove a success rate of at least `limit` (Clopper-Pearson, one-sided)."""
    return max(1, math.ceil(math.log(1 - confidence) / math.log(limit))) if limit > 0 else 1


def _node(
    stage_id: str,
    kind: StageKind,
    identity: Model,
    inputs: dict[str, tuple[str, str]] | None = None,
    execution: dict[str, Any] | None = None,
    variant: str | None = None,
) -> PlannedStage:
    return PlannedStage(
        id=stage_id,
        kind=kind,
        inputs={name: PlannedInput(stage=stage, output=output) for name, (stage, output) in (inputs or {}).items()},
        identity=identity.model_dump(mode="json"),
        execution=execution or {},
        variant=variant,
    )


def _resolve(spec: DistillationJobSpec) -> PlannedStage:
    cut = spec.student.from_teacher
    identity = stages.ResolveIdentity(
        mode=spec.objective.mode,
        teacher=spec.teacher.uri,
        endpoint=_endpoint(spec),
        student=spec.student.uri,
        layers=cut.layers if cut else None,
        sources=_sources(spec),
        prompts=spec.dataset.synthetic.prompts_uri if spec.dataset.synthetic else None,
        golden=spec.golden.uri,
        embedder=spec.golden.embedder,
        needs=_needs(spec),
    )
    return _node("resolve", StageKind.RESOLVE, identity)


def _endpoint(spec: DistillationJobSpec) -> EndpointModel | None:
    named = spec.teacher.endpoint
    return EndpointModel(url=named.url, model=named.model) if named else None


def _asking(spec: DistillationJobSpec) -> dict[str, Any]:
    """Execution of a stage in which the teacher answers."""
    named = spec.teacher.endpoint
    return {"endpointConcurrency": named.concurrency} if named else {}


def _sources(spec: DistillationJobSpec) -> tuple[stages.SourceSpec, ...]:
    return tuple(stages.SourceSpec(uri=source.uri, weight=source.weight) for source in spec.dataset.sources)


def _needs(spec: DistillationJobSpec) -> tuple[stages.ProofNeed, ...]:
    limit = spec.gates.quality.min_golden_pass_rate
    if limit is None:
        return ()
    return (stages.ProofNeed(field="spec.gates.quality.minGoldenPassRate", limit=limit, items=proof_items(limit)),)


def _synthesize(spec: DistillationJobSpec) -> PlannedStage:
    synthetic = spec.dataset.synthetic
    assert synthetic is not None
    identity = stages.SynthesizeIdentity(
        endpoint=_endpoint(spec),
        responses_per_prompt=synthetic.responses_per_prompt,
        max_new_tokens=synthetic.max_new_tokens,
        temperature=synthetic.temperature,
        seed=spec.training.seed,
    )
    inputs = {"prompts": ("resolve", "prompts")}
    if spec.teacher.uri:
        inputs["teacher"] = ("resolve", "teacher")
    return _node(
        "synthesize", StageKind.SYNTHESIZE, identity, inputs, {"workers": spec.teacher.workers, **_asking(spec)}
    )


def _data(spec: DistillationJobSpec) -> PlannedStage:
    identity = stages.DataIdentity(
        sources=_sources(spec),
        loss_on=spec.dataset.loss_on,
        max_length=spec.dataset.max_length,
        validation_fraction=spec.dataset.validation_fraction,
        seed=spec.training.seed,
    )
    inputs = {"tokenizer": ("resolve", "tokenizer"), "golden": ("resolve", "golden")}
    if spec.dataset.sources:
        inputs["sources"] = ("resolve", "sources")
    if spec.dataset.synthetic:
        inputs["samples"] = ("synthesize", "samples")
    return _node("data", StageKind.DATA, identity, inputs)


def _teach(spec: DistillationJobSpec) -> PlannedStage:
    temperature, cut = spec.objective.temperature.start, spec.student.from_teacher
    identity = stages.TeachIdentity(
        top_k=spec.objective.teacher_logits.top_k,
        temperature=temperature,
        precision=spec.training.precision,
        packing=spec.dataset.packing,
        # Only then is the student looked at, so that logits at temperature 1 serve students of any depth.
        layers=cut.layers if cut and temperature != 1 else None,
    )
    inputs = {name: ("resolve", name) for name in ("teacher", "tokenizer")} | {"dataset": ("data", "dataset")}
    if spec.student.uri:
        inputs["student"] = ("resolve", "student")
    return _node("teach", StageKind.TEACH, identity, inputs, {"workers": spec.teacher.workers})


def _train(spec: DistillationJobSpec) -> PlannedStage:
    training, cut = spec.training, spec.student.from_teacher
    identity = stages.TrainIdentity(
        mode=spec.objective.mode,
        layers=cut.layers if cut else None,
        temperature=spec.objective.temperature,
        alpha=spec.objective.alpha if spec.objective.mode == "Logits" else Schedule(start=0.0, end=0.0),
        divergence=spec.objective.divergence,
        hidden_states=spec.objective.hidden_states,
        attention=spec.objective.attention,
        precision=training.precision,
        max_steps=training.max_steps,
        epochs=training.epochs if training.epochs or training.max_steps is not None else 1.0,
        batch_tokens=training.batch_tokens,
        max_length=spec.dataset.max_length,
        packing=spec.dataset.packing,
        learning_rate=training.learning_rate,
        learning_rate_schedule=training.learning_rate_schedule,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        betas=training.betas,
        gradient_clipping=training.gradient_clipping,
        freeze_embeddings_steps=training.freeze_embeddings_steps,
        validation_every_steps=training.validation.every_steps if training.validation else None,
        patience=training.patience,
        seed=training.seed,
        on_policy=_on_policy(spec),
    )
    execution = {
        "workers": training.workers,
        "processesPerWorker": training.processes_per_worker,
        "deepspeed": {
            "zeroStage": training.deepspeed.zero_stage,
            "offload": training.deepspeed.offload,
            "config": training.deepspeed.config,
        },
        "checkpointEverySteps": training.checkpoint.every_steps,
        "checkpointsKept": spec.storage.retention.keep_checkpoints if spec.storage else 2,
    }
    inputs = {"dataset": ("data", "dataset")}
    if spec.objective.mode == "Logits" or cut:
        inputs["teacher"] = ("resolve", "teacher")
    if spec.student.uri:
        inputs["student"] = ("resolve", "student")
    if spec.objective.teacher_logits.mode == "Cached":
        inputs["logits"] = ("teach", "logits")
    return _node("train", StageKind.TRAIN, identity, inputs, execution)


def _preflight(spec: DistillationJobSpec, export: Export, name: str) -> PlannedStage:
    cut = spec.student.from_teacher
    identity = stages.PreflightIdentity(
        layers=cut.layers if cut else None,
        export=_export_identity(export, name),
        bench=stages.BenchIdentity(variant=export.name, timings=PREFLIGHT_TIMINGS, processes=1),
    )
    student = "teacher" if cut else "student"
    inputs = {student: ("resolve", student), "golden": ("resolve", "golden")}
    return _node(f"preflight-{export.name}", StageKind.PREFLIGHT, identity, inputs, variant=export.name)


def _on_policy(spec: DistillationJobSpec) -> OnPolicy | None:
    objective = spec.objective
    if not objective.on_policy_fraction:
        return None
    sampling = objective.on_policy_sampling or OnPolicySampling()
    return OnPolicy(
        fraction=objective.on_policy_fraction,
        temperature=sampling.temperature,
        max_new_tokens=sampling.max_new_tokens,
    )


def _evaluate(spec: DistillationJobSpec, subject: Any, variant: str | None = None) -> stages.EvaluateIdentity:
    golden = spec.golden
    return stages.EvaluateIdentity(
        subject=subject,
        variant=variant,
        min_similarity=golden.min_similarity,
        max_reference_nll=golden.max_reference_nll,
        max_tokens=golden.max_tokens,
        seed=spec.training.seed,
    )


_GOLDEN = {"golden": ("resolve", "golden"), "embedder": ("resolve", "embedder")}


def _evaluate_teacher(spec: DistillationJobSpec) -> PlannedStage:
    inputs = {"model": ("resolve", "teacher"), **_GOLDEN} if spec.teacher.uri else _GOLDEN
    identity = _evaluate(spec, "Teacher").model_copy(update={"endpoint": _endpoint(spec)})
    return _node("evaluate-teacher", StageKind.EVALUATE, identity, inputs, _asking(spec))


def _evaluate_student(spec: DistillationJobSpec) -> PlannedStage:
    inputs = {"model": ("train", "student"), "teacherEvaluation": ("evaluate-teacher", "evaluation"), **_GOLDEN}
    return _node("evaluate-student", StageKind.EVALUATE, _evaluate(spec, "Student"), inputs)


def _export_identity(export: Export, name: str) -> stages.ExportIdentity:
    return stages.ExportIdentity(variant=export.name, gguf=export.gguf.type, model_name=name)


def _export(export: Export, name: str) -> PlannedStage:
    inputs = {"student": ("train", "student")}
    identity = _export_identity(export, name)
    return _node(f"export-{export.name}", StageKind.EXPORT, identity, inputs, variant=export.name)


def _evaluate_variant(spec: DistillationJobSpec, export: Export) -> PlannedStage:
    inputs = {
        "artifact": (f"export-{export.name}", "artifact"),
        "student": ("train", "student"),
        "dataset": ("data", "dataset"),
        "teacherEvaluation": ("evaluate-teacher", "evaluation"),
        "studentEvaluation": ("evaluate-student", "evaluation"),
        **_GOLDEN,
    }
    identity = _evaluate(spec, "Variant", export.name)
    return _node(f"evaluate-{export.name}", StageKind.EVALUATE, identity, inputs, variant=export.name)


def _bench(spec: DistillationJobSpec, export: Export) -> PlannedStage:
    identity = stages.BenchIdentity(variant=export.name, timings=_timings(spec))
    inputs = {"artifact": (f"export-{export.name}", "artifact"), "golden": ("resolve", "golden")}
    return _node(f"bench-{export.name}", StageKind.BENCH, identity, inputs, variant=export.name)


def _timings(spec: DistillationJobSpec) -> int:
    """As many as the set limits need (59 prove a p95, 299 a p99: `dram_workers.intervals`); a median and a speed are known well with fewer."""
    limits = spec.gates.performance
    if limits.p99_latency_ms is not None:
        return 299
    return 59 if limits.p95_latency_ms is not None else 29


_OUTPUTS = {
    StageKind.SYNTHESIZE: ("samples",),
    StageKind.DATA: ("dataset",),
    StageKind.TEACH: ("logits",),
    StageKind.TRAIN: ("student",),
    StageKind.EXPORT: ("artifact",),
    StageKind.EVALUATE: ("evaluation",),
    StageKind.BENCH: ("bench",),
}


def _publish(spec: DistillationJobSpec, nodes: list[PlannedStage]) -> PlannedStage:
    inputs = {f"{node.id}.{output}": (node.id, output) for node in nodes for output in _OUTPUTS.get(node.kind, ())}
    resolved = ("teacher", "tokenizer", "golden") if spec.teacher.uri else ("tokenizer", "golden")
    inputs |= {f"resolve.{output}": ("resolve", output) for output in resolved}
    # Variants, gates and the spec are added when it starts: status need not hold the spec twice.
    return _node("publish", StageKind.PUBLISH, stages.PublishIdentity(variants=(), gates=(), manifest={}), inputs)
