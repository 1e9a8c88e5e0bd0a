"""The contract between who plans a stage and who runs it. Import-light: no torch, no kubernetes.

A stage config has three parts. `identity` is the mathematical recipe; together with the digests of `inputs` it makes the
stage's key, and so the folder of its result. `execution` is everything that must not change the result: where the store
is, how many workers, how often to checkpoint. The planner builds these objects, the worker parses the same classes.
"""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from dram_workers.deepspeed_settings import DeepSpeedSettings
from dram_workers.endpoint_model import EndpointModel
from dram_workers.memory import TrainingSetup
from dram_workers.model import Model
from dram_workers.objective import AttentionMaps, Divergence, HiddenStates, ObjectiveMode, OnPolicy, Schedule
from dram_workers.results import GateRow, ProgressSettings


class StageKind(StrEnum):
    """The kinds of stage, in the order in which a job passes them."""

    RESOLVE = "resolve"
    PREFLIGHT = "preflight"
    SYNTHESIZE = "synthesize"
    DATA = "data"
    TEACH = "teach"
    TRAIN = "train"
    EXPORT = "export"
    EVALUATE = "evaluate"
    BENCH = "bench"
    PUBLISH = "publish"


RECIPES: dict[StageKind, int] = dict.fromkeys(StageKind, 1)
"""A kind's recipe version: raised when the same identity and inputs would give another result."""


class StoreSettings(Model):
    """How to reach the object store. Credentials come from the environment, as the AWS SDK reads them."""

    uri: str
    """`s3://bucket/prefix` or `file:///folder`; every key below is relative to it."""
    endpoint: str | None = None
    """Endpoint of an S3-compatible server; absent means AWS."""
    region: str | None = None
    path_style: bool = False
    """Address the bucket in the path, as most self-hosted servers need."""
    ca_file: str | None = None
    """PEM file of the endpoint's certificate authority."""


class Execution(Model):
    """What every stage needs to run and what must not change its result."""

    store: StoreSettings
    mounts: dict[str, str] = {}
    """URI prefix to local folder, e.g. `pvc://data` to `/mnt/pvc/data`, or a bucket mapped by a local run."""
    scratch: str = "/scratch"
    """Writable folder; emptied by whoever starts the stage."""
    cache: str | None = None
    """Folder for downloads shared by stages on one machine; none means inside scratch."""
    progress: ProgressSettings | None = None
    threads: int | None = None
    """Compute threads; none means all cores of the pod."""
    endpoint_concurrency: int = 8
    """Requests to the teacher's endpoint at a time."""


class Input(Model):
    """One input of a stage: where it lies and the digest that it must have."""

    uri: str
    digest: str
    """`sha256:…` over the content, see `store.manifest.tree_digest`."""


class JobRef(Model):
    """The DistillationJob that a stage works for."""

    namespace: str
    name: str
    run: int = 1


class _Config(Model):
    stage: str
    """The node's id in the plan, e.g. `export-gguf-q4-k-m`."""
    key: str
    """64 hex digits; see `stage_key`."""
    attempt: int = 1
    job: JobRef
    inputs: dict[str, Input] = {}


# resolve


class SourceSpec(Model):
    """One dataset source as the user wrote it."""

    uri: str
    weight: float = 1.0


class ProofNeed(Model):
    """A limit of the gates and the golden items (or timings) it takes to prove it when all go well."""

    field: str
    limit: float
    items: int


class ResolveIdentity(Model):
    """What to pin: outputs are `teacher`?, `student`?, `tokenizer`, `sources`?, `prompts`?, `golden`, `embedder`.

    `tokenizer` is the one that the student will have: the teacher's, unless the mode is Sequence and the student brings
    its own.
    """

    mode: ObjectiveMode = "Logits"
    teacher: str | None = None
    """None when the teacher is an endpoint."""
    endpoint: EndpointModel | None = None
    student: str | None = None
    layers: int | None = None
    """Layers of a student cut from the teacher; checked against the teacher's config."""
    sources: tuple[SourceSpec, ...] = ()
    prompts: str | None = None
    golden: str
    embedder: str | None = None
    """None is the embedder that ships with the worker."""
    needs: tuple[ProofNeed, ...] = ()
    """Golden items that the gates need."""


class ResolveExecution(Execution):
    """What else `resolve` looks at. It is always done again, so none of this need be part of its key."""

    training: TrainingSetup | None = None


class ResolveConfig(_Config):
    """What the `resolve` stage reads."""

    kind: Literal[StageKind.RESOLVE] = StageKind.RESOLVE
    identity: ResolveIdentity
    execution: ResolveExecution


# synthesize


class SynthesizeIdentity(Model):
    """The teacher writes data. Inputs `teacher`?, `prompts`; output `samples` (JSON Lines, completion form)."""

    endpoint: EndpointModel | None = None
    """Who writes when there is no input `teacher`."""

    responses_per_prompt: int = 1
    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0


class TeacherExecution(Execution):
    """How the teacher's work is spread: over pods that share nothing but the store."""

    workers: int = 1
    """Pods of the Indexed Job; a local run is one process and does everything."""


class SynthesizeConfig(_Config):
    """What the `synthesize` stage reads."""

    kind: Literal[StageKind.SYNTHESIZE] = StageKind.SYNTHESIZE
    identity: SynthesizeIdentity
    execution: TeacherExecution


# data


class DataIdentity(Model):
    """Text to tokens. Inputs `tokenizer`, `sources`?, `samples`?; output `dataset`.

    `sources` is a folder with a subfolder for each source in order, `0`, `1`, …, that holds the source's files by their
    own names. The worker finds `execution.golden` under the input name `golden`.

    The dataset is a folder: `train.safetensors` and `validation.safetensors`, each with `tokens` int32 [N],
    `loss_mask` uint8 [N] (1 where the token is a target) and `offsets` int64 [samples + 1]; `samples.jsonl` with a
    sample's id, split and source in the same order; `prompts.json`, the digests of the normalised prompts, for the
    leak check; `facts.json`.
    """

    sources: tuple[SourceSpec, ...] = ()
    synthetic_weight: float = 1.0
    loss_on: Literal["Completions", "All"] = "Completions"
    max_length: int = 1024
    validation_fraction: float = 0.05
    seed: int = 0


class DataExecution(Execution):
    """What else the data stage is given."""

    golden: Input
    """Only for the leak check, so not part of the key: it passes or fails the stage, cached or not."""


class DataConfig(_Config):
    """What the `data` stage reads."""

    kind: Literal[StageKind.DATA] = StageKind.DATA
    identity: DataIdentity
    execution: DataExecution


# teach


class TeachIdentity(Model):
    """The teacher's logits for every target token of the train split.

    Inputs `teacher`, `tokenizer`, `dataset`, `student`?; output `logits`, a folder with `logits.json`, which names shards
    below `cache/teacher/`. Shards do not depend on this stage's key: a job with another dataset finds the samples that both have.
    """

    top_k: int = 64
    """Tokens kept for each target; the others are kept as the sum of their probabilities."""
    temperature: float = 1.0
    precision: Literal["BF16", "FP16", "FP32"] = "BF16"
    """Arithmetic of the teacher."""
    packing: bool = True
    """Which attention the teacher runs with, as in training."""
    layers: int | None = None
    """The student's layers where it is cut from the teacher; only a temperature other than 1 asks for them."""


class TeachConfig(_Config):
    """What the `teach` stage reads."""

    kind: Literal[StageKind.TEACH] = StageKind.TEACH
    identity: TeachIdentity
    execution: TeacherExecution


# train


class TrainIdentity(Model):
    """One distillation. Inputs `teacher`?, `student`?, `dataset`; output `student`, a plain `from_pretrained` folder.

    In Sequence mode the teacher is an input only where the student is cut from it. The student's folder also holds
    `train-log.jsonl` (one line a step: every loss term, schedule and rate) and `train-facts.json`, the facts of the run.
    """

    mode: ObjectiveMode = "Logits"
    """Sequence leaves nothing of the loss but the cross-entropy: temperature, alpha and divergence do nothing."""
    layers: int | None = None
    """Cut the student from the teacher by keeping this many evenly spaced layers."""
    temperature: Schedule
    alpha: Schedule
    divergence: Divergence = Divergence()
    hidden_states: HiddenStates | None = None
    attention: AttentionMaps | None = None
    precision: Literal["BF16", "FP16", "FP32"] = "BF16"
    max_steps: int | None = None
    epochs: float | None = None
    """Exactly one of maxSteps and epochs is set."""
    batch_tokens: int
    """Tokens of one optimizer step over all ranks; whole samples are drawn until it is reached."""
    max_length: int
    packing: bool
    learning_rate: float
    learning_rate_schedule: Literal["Constant", "Linear", "Cosine"] = "Cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clipping: float = 1.0
    """Largest norm of the gradient; 0 clips nothing."""
    freeze_embeddings_steps: int = 0
    """Steps at the start in which the token embeddings, and a head tied to them, do not change."""
    validation_every_steps: int | None = None
    """Steps between two looks at the validation split, of which the best one's weights become the student."""
    patience: int | None = None
    """Validations in a row without a better one that end the training."""
    seed: int = 0
    on_policy: OnPolicy | None = None
    """None when every completion is that of the data."""


class TrainExecution(Execution):
    """How training is spread and saved."""

    workers: int = 1
    """Pods of the gang; in a local run, processes."""
    processes_per_worker: int = 1
    rendezvous: str | None = None
    """`host:port` of rank 0's worker; none for a single worker."""
    deepspeed: DeepSpeedSettings = DeepSpeedSettings()
    checkpoint_every_steps: int = 50
    checkpoints_kept: int = 2
    micro_batch_tokens: int | None = None
    """Tokens of one forward pass of one rank; none lets the worker choose."""
    loss_tile_bytes: int = 64 * 1024 * 1024
    """Byte budget of one tile of the loss."""


class TrainConfig(_Config):
    """What the `train` stage reads."""

    kind: Literal[StageKind.TRAIN] = StageKind.TRAIN
    identity: TrainIdentity
    execution: TrainExecution


# export


class GgufType(StrEnum):
    """The GGUF file types on offer, by llama.cpp's names."""

    F16 = "F16"
    Q8_0 = "Q8_0"
    Q6_K = "Q6_K"
    Q5_K_M = "Q5_K_M"
    Q4_K_M = "Q4_K_M"
    Q4_0 = "Q4_0"


class ExportIdentity(Model):
    """Input `student`; output `artifact`, a file tree (for GGUF, one `.gguf` file)."""

    variant: str
    gguf: GgufType
    model_name: str
    """Goes into the file's metadata as its name."""


class ExportConfig(_Config):
    """What the `export` stage reads."""

    kind: Literal[StageKind.EXPORT] = StageKind.EXPORT
    identity: ExportIdentity
    execution: Execution


# evaluate and bench


class EvaluateIdentity(Model):
    """Answer the golden suite and score the answers; outputs `evaluation` (`answers.jsonl`, `scores.json`).

    Inputs by `subject`: `Teacher` has `model`?, `golden`, `embedder`; `Student` adds `teacherEvaluation`; `Variant` has
    `artifact`, `student`, `dataset`, `golden`, `embedder`, `teacherEvaluation`, `studentEvaluation`, and runs the file
    in its device runtime.
    """

    subject: Literal["Teacher", "Student", "Variant"]
    variant: str | None = None
    endpoint: EndpointModel | None = None
    """The teacher, when there is no input `model`; it gives answers, and no likelihood of references."""
    min_similarity: float = 0.8
    max_reference_nll: float = 3.0
    """Nats per token of the reference answer, teacher-forced."""
    max_tokens: int = 128
    """Longest greedy answer, unless the item says otherwise."""
    divergence_tokens: int = 2048
    """Held-out answer tokens over which the KL divergence to the float student is measured."""
    seed: int = 0


class EvaluateConfig(_Config):
    """What the `evaluate` stage reads."""

    kind: Literal[StageKind.EVALUATE] = StageKind.EVALUATE
    identity: EvaluateIdentity
    execution: Execution


class BenchIdentity(Model):
    """Measure the exported file on this pod's cores. Inputs `artifact`, `golden`; output `bench` (`timings.json`)."""

    variant: str
    target: str = "worker"
    """Name of the target; figures count for a gate only when it names the same one."""
    threads: int = 2
    context_tokens: int = 1024
    answer_tokens: int = 32
    timings: int = 59
    """Prompts timed: 59 prove a p95, 299 a p99."""
    processes: int = 3
    """Fresh processes that share the timings: loading and memory are seen more than once, at little cost."""


class BenchConfig(_Config):
    """What the `bench` stage reads."""

    kind: Literal[StageKind.BENCH] = StageKind.BENCH
    identity: BenchIdentity
    execution: Execution


# preflight


class PreflightIdentity(Model):
    """Export and measure the student as it is before training. Input `teacher` or `student`, and `golden`; output `bench`."""

    layers: int | None = None
    """Cut the student from the teacher, as training will; none takes the input `student` as it is."""
    export: ExportIdentity
    bench: BenchIdentity


class PreflightConfig(_Config):
    """What the `preflight` stage reads."""

    kind: Literal[StageKind.PREFLIGHT] = StageKind.PREFLIGHT
    identity: PreflightIdentity
    execution: Execution


# publish


class PublishVariant(Model):
    """A variant as the gates left it."""

    name: str
    gguf: GgufType
    releasable: bool


class PublishIdentity(Model):
    """Write artifacts, model card and report. Inputs: every earlier output, named `<stage>.<output>`."""

    variants: tuple[PublishVariant, ...]
    gates: tuple[GateRow, ...]
    manifest: dict[str, Any]
    """The user's spec, shown in the report."""
    warnings: tuple[str, ...] = ()
    """What earlier stages warned of."""
    job: str = ""
    """`namespace/name`: two jobs with one recipe publish to folders of their own."""


class PublishExecution(Execution):
    """What is done with results that nobody needs any more."""

    keep_stages_days: int | None = None
    """Stage folders that are older are pruned, those of this run excepted; none keeps them all."""


class PublishConfig(_Config):
    """What the `publish` stage reads."""

    kind: Literal[StageKind.PUBLISH] = StageKind.PUBLISH
    identity: PublishIdentity
    execution: PublishExecution


StageConfig = Annotated[
    ResolveConfig
    | PreflightConfig
    | SynthesizeConfig
    | DataConfig
    | TeachConfig
    | TrainConfig
    | ExportConfig
    | EvaluateConfig
    | BenchConfig
    | PublishConfig,
    Field(discriminator="kind"),
]
STAGE_CONFIG: TypeAdapter[StageConfig] = TypeAdapter(StageConfig)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: one value, one text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def stage_key(kind: StageKind, identity: Model, inputs: dict[str, Input]) -> str:
    """SHA-256 over the recipe version, the identity and the inputs' digests, as 64 hex digits."""
    recipe = {
        "kind": kind,
        "recipe": RECIPES[kind],
        "identity": identity.model_dump(mode="json"),
        "inputs": {name: given.digest for name, given in inputs.items()},
    }
    return hashlib.sha256(canonical_json(recipe)).hexdigest()
