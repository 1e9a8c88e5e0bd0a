"""`DistillationJob.spec` as pydantic models. Field docstrings become the CRD's descriptions."""

from typing import Annotated, Any, Literal

from pydantic import Field

from dram_operator.api.schema import FREE_FORM, by
from dram_operator.api.teacher import SecretRef, Uri
from dram_workers.deepspeed_settings import OWNED_DEEPSPEED_KEYS
from dram_workers.model import Model
from dram_workers.objective import AttentionMaps, Divergence, HiddenStates, ObjectiveMode, Schedule
from dram_workers.stages import GgufType

Name = Annotated[str, Field(min_length=1, max_length=32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Limit = Annotated[float, Field(gt=0, le=1_000_000_000)]

# CEL sees only the keys of a free-form object that its schema names, so those that a rule refuses are named here.
_OWNED: dict[str, Any] = {
    "properties": {
        key: {"type": kind, "description": "Refused: Dram sets it."} | (FREE_FORM if kind == "object" else {})
        for key, (kind, _) in OWNED_DEEPSPEED_KEYS.items()
    }
}


class FromTeacher(Model):
    """A student cut from the teacher."""

    layers: Annotated[int, Field(ge=1, le=512)]
    """How many of the teacher's layers the student keeps, evenly spaced, first and last included."""


class Student(Model):
    """The model to train: a checkpoint of its own, or a cut of the teacher. Set exactly one."""

    uri: Uri | None = None
    """Where the student's initial weights lie, in the forms of teacher.uri."""
    from_teacher: FromTeacher | None = None
    """Start from some of the teacher's own layers."""


class Source(Model):
    """One file or folder of training text."""

    uri: Uri
    """JSON Lines (`.jsonl`, chat or completion form) or plain text (`.txt`); a folder takes every such file in it."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often this source is drawn relative to the others; 2 means each of its samples counts twice in an epoch."""


class Synthetic(Model):
    """Training text written by the teacher."""

    prompts_uri: Uri
    """JSON Lines with `prompt` or `messages` in every line."""
    responses_per_prompt: Annotated[int, Field(ge=1, le=64)] = 1
    """Answers to each prompt."""
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    """Longest answer in tokens."""
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Sampling temperature; 0 takes the likeliest token and allows one response a prompt."""


class Dataset(Model):
    """What the student learns from."""

    sources: Annotated[tuple[Source, ...], Field(max_length=20, json_schema_extra=by("uri"))] = ()
    """Files of training text."""
    synthetic: Synthetic | None = None
    """Let the teacher answer prompts, and train on the answers."""
    loss_on: Literal["Completions", "All"] = "Completions"
    """Which tokens are targets: every assistant turn with its end-of-turn token, or all of the text."""
    max_length: Annotated[int, Field(ge=16, le=131_072)] = 1024
    """Longest sample in tokens; longer ones are cut at the end."""
    packing: bool = True
    """Put several samples into one row; they never attend to each other."""
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Share of samples held out of training, for validation and for the divergence measure."""


class TeacherLogits(Model):
    """Where the soft targets come from."""

    mode: Literal["Online", "Cached"] = "Online"
    """Online: the teacher runs beside the student. Cached: its likeliest tokens are written once before training, where
    later jobs find them; training then holds no teacher."""
    top_k: Annotated[int, Field(ge=1, le=1024)] = 64
    """Cached: tokens kept for each target. The others are kept as the sum of their probabilities."""


class OnPolicySampling(Model):
    """How the student writes the completions of onPolicyFraction."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 1.0
    """Sampling temperature; 1 draws from the student's own distribution, 0 takes the likeliest token."""
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 128
    """Longest completion in tokens; dataset.maxLength bounds it too."""


class Objective(Model):
    """The loss: alpha x T^2 x divergence at temperature T + (1 - alpha) x cross-entropy."""

    mode: ObjectiveMode = "Logits"
    """Logits: match the teacher's token distributions, which takes one tokenizer for both. Sequence: cross-entropy on text,
    the teacher's answers above all; the student may have any tokenizer, and the teacher may be an endpoint."""
    temperature: Schedule = Schedule(start=1.0, end=1.0)
    """Temperature T of both distributions, over the steps."""
    alpha: Schedule = Schedule(start=0.9, end=0.5, schedule="Cosine")
    """Weight of the soft targets, over the steps; the hard labels get the rest."""
    divergence: Divergence = Divergence()
    """The divergence of the soft targets."""
    hidden_states: HiddenStates | None = None
    """Compare hidden states too, as a term of its own."""
    attention: AttentionMaps | None = None
    """Compare attention maps too, as a term of its own."""
    teacher_logits: TeacherLogits = TeacherLogits()
    """How the teacher's logits are obtained."""
    on_policy_fraction: Fraction = 0.0
    """Share of each step's samples whose last answer the current student writes and the teacher judges token by token
    (GKD). There is no hard label on such tokens, so alpha counts as 1 for them. Samples without a prompt stay as they are."""
    on_policy_sampling: OnPolicySampling | None = None
    """How those answers are drawn; absent takes temperature 1 and at most 128 tokens."""


class DeepSpeed(Model):
    """How DeepSpeed spreads the training."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage: 0 replicates all, 1 shards the optimizer, 2 the gradients too, 3 the parameters too."""
    offload: Literal["None", "Optimizer", "OptimizerAndParameters"] = "None"
    """What is kept in the host's memory between uses; needs a ZeRO stage that shards it."""
    config: Annotated[dict[str, Any], Field(max_length=64, json_schema_extra=_OWNED)] = {}
    """Raw DeepSpeed settings, for what the fields above do not say. Keys that Dram sets itself are refused."""


class Checkpoint(Model):
    """How often training is saved."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Steps between two checkpoints."""


class Validation(Model):
    """How the student is judged while it trains, on the validation split and never on the golden suite."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)]
    """Steps between two validations; there is one after the last step too. The weights of the best are exported."""


class Training(Model):
    """How the student is trained."""

    workers: Annotated[int, Field(ge=1, le=512)] = 1
    """Training pods; all start together. A suspended job may be given another number: it goes on from its checkpoint."""
    processes_per_worker: Annotated[int, Field(ge=1, le=16)] = 1
    """Ranks in one pod, one a GPU."""
    deepspeed: DeepSpeed = DeepSpeed()
    """DeepSpeed's settings."""
    precision: Literal["BF16", "FP16", "FP32"] = "BF16"
    """Arithmetic of the forward and backward pass; weights and optimizer stay in FP32. FP16 scales the loss and needs
    GPUs."""
    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """Passes over the training data; the default is 1 where maxSteps is absent."""
    max_steps: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    """Optimizer steps, instead of epochs; 0 exports the untrained student."""
    batch_tokens: Annotated[int, Field(ge=16, le=100_000_000)] = 8192
    """Tokens of one optimizer step, over all workers."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    """Highest learning rate."""
    learning_rate_schedule: Literal["Constant", "Linear", "Cosine"] = "Cosine"
    """How the rate falls from its highest value to zero after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps over which the rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """AdamW's decoupled weight decay."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW's two decay rates."""
    gradient_clipping: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """Largest norm of a step's gradient, above which it is scaled down; 0 leaves every gradient as it is."""
    freeze_embeddings_steps: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """Steps at the start in which the token embeddings do not change, nor a head that is tied to them."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of everything random."""
    checkpoint: Checkpoint = Checkpoint()
    """Checkpointing."""
    validation: Validation | None = None
    """Validation during training; absent, the weights after the last step are exported."""
    patience: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """End the training after so many validations in a row that were no better than the best; absent trains to the end."""


class Gguf(Model):
    """llama.cpp's file format."""

    type: GgufType
    """Quantization: F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M or Q4_0."""


class Export(Model):
    """One variant: the student in one device format. Set exactly one format key."""

    name: Name
    """The variant's name, unique in the job; `teacher` and `student` are taken."""
    gguf: Gguf
    """Export for llama.cpp."""
    required: bool = True
    """Whether the job can succeed without this variant."""


class Golden(Model):
    """The held-out suite that decides about every variant."""

    uri: Uri
    """JSON Lines with id, prompt or messages, and optionally reference, minSimilarity, exact, contains, regex,
    maxTokens and tags."""
    embedder: Uri | None = None
    """Sentence embedder, in the forms of teacher.uri; absent means the one in the worker image."""
    min_similarity: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Similarity to the reference answer that an item needs to pass, unless the item says otherwise."""
    max_reference_nll: Annotated[float, Field(gt=0, le=100)] = 3.0
    """Largest negative log-likelihood of the reference answer, in nats a token, with which an item passes."""
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = 128
    """Longest answer in tokens, unless the item says otherwise."""


class QualityGate(Model):
    """Limits on the golden suite and on the divergence from the float student.

    A limit that is absent is not checked; maxKLDivergence then has a default by quantization.
    """

    max_score_drop: Fraction | None = None
    """Largest loss of mean golden score against the float student."""
    min_teacher_retention: Fraction | None = None
    """Smallest share of the teacher's mean golden score that is kept."""
    min_golden_pass_rate: Fraction | None = None
    """Smallest share of golden items that pass, proven at 95 %."""
    max_kl_divergence: Annotated[float | None, Field(gt=0, le=100, alias="maxKLDivergence")] = None
    """Largest mean divergence from the float student, in nats a token, on held-out answers."""
    on_inconclusive: Literal["Fail", "Warn"] = "Fail"
    """What to do when the limit lies inside the interval."""


class PerformanceGate(Model):
    """Limits on the exported file as the bench pod measures it. A limit that is absent is not checked."""

    p95_latency_ms: Limit | None = None
    """95th percentile of the time for one whole answer, in milliseconds."""
    p99_latency_ms: Limit | None = None
    """99th percentile of the time for one whole answer, in milliseconds."""
    peak_memory_mib: Annotated[Limit | None, Field(alias="peakMemoryMiB")] = None
    """Peak resident memory of a fresh process, in MiB."""
    min_tokens_per_second: Limit | None = None
    """Generated tokens per second, one request at a time."""
    max_size_mib: Annotated[Limit | None, Field(alias="maxSizeMiB")] = None
    """Size of the variant's files, in MiB."""


class DeviceGate(Model):
    """The device that the variant is meant for."""

    memory_mib: Annotated[Limit, Field(alias="memoryMiB")]
    """Memory of the device in MiB; a variant whose peak exceeds it fails, and the headroom is reported."""


class Gates(Model):
    """What a variant must prove to be released."""

    quality: QualityGate = QualityGate()
    """How good the answers must be."""
    performance: PerformanceGate = PerformanceGate()
    """How fast and small it must be."""
    device: DeviceGate | None = None
    """What it must fit into."""


class Retention(Model):
    """What becomes of intermediate results; artifacts and reports stay."""

    keep_checkpoints: Annotated[int, Field(ge=1, le=100)] = 2
    """Checkpoints kept while training."""
    keep_stages_days: Annotated[int, Field(ge=0, le=3650)] | None = None
    """Days after which the stage folders of this prefix are pruned; absent keeps them."""


class Storage(Model):
    """Where results go."""

    uri: Uri
    """s3://bucket/prefix; file:///folder in local runs."""
    secret_ref: SecretRef | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN); absent where the service account
    has the rights."""
    service_account_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Service account of the worker pods, for storage rights bound to it."""
    endpoint: Uri | None = None
    """URL of an S3-compatible server; absent means AWS."""
    region: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Region of the bucket."""
    path_style: bool = False
    """Address the bucket in the path, as most self-hosted servers need."""
    ca_bundle: Annotated[str, Field(max_length=65_536)] | None = None
    """PEM certificates to trust for the endpoint."""
    retention: Retention = Retention()
    """What to prune."""
