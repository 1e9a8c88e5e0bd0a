"""How much memory a training will need, from configs and weight headers alone. No torch.

Weights, gradients and optimizer by ZeRO stage follow Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training
Trillion Parameter Models" (arXiv 1910.02054), with the copies that DeepSpeed makes of FP32 weights. Activations follow
Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (arXiv 2205.05198), counted for the
blocks that we train: RMS norms, rotary positions, grouped queries, gated MLP. docs/design/memory.md holds the formulas
against measured trainings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from dram_workers.model import Model

MIB = 1024 * 1024
FP32_BYTES = 4
RUNTIME_BYTES = {"cpu": 590 * MIB, "cuda": 970 * MIB}
"""A rank before it has loaded any model: Python, torch, transformers, DeepSpeed; by what torch was built for."""
KEPT_STATES_BYTES = 1 << 30
"""The most that a rank keeps of the teacher's hidden states."""
BUCKET_PARAMETERS = 500_000_000
"""Gradients that DeepSpeed gathers in one buffer before it reduces them (`reduce_bucket_size`)."""
MICRO_BATCH_TOKENS = 4096
"""Tokens that a rank runs through the models at once on a CPU, unless the job says otherwise."""
LOSS_SHARE = 1.5
"""Of the tile's byte budget, at most, for all that the loss needs beside its gradients."""


@dataclass(frozen=True)
class ModelSize:
    """The numbers of a model that its memory follows from."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int) -> "ModelSize":
        """From a config.json, whatever the family calls its fields; what it does not say is guessed as is usual."""
        text = config.get("text_config") or config

        def field(*names: str, otherwise: int) -> int:
            return next((int(text[name]) for name in names if text.get(name)), otherwise)

        hidden = field("hidden_size", "n_embd", "d_model", otherwise=1)
        heads = field("num_attention_heads", "n_head", otherwise=1)
        return cls(
            parameters=parameters,
            layers=field("num_hidden_layers", "n_layer", "num_layers", otherwise=1),
            hidden=hidden,
            intermediate=field("intermediate_size", "n_inner", otherwise=4 * hidden),
            heads=heads,
            key_value_heads=field("num_key_value_heads", otherwise=heads),
            head_size=field("head_dim", otherwise=hidden // heads),
            vocabulary=field("vocab_size", otherwise=1),
            tied=bool(text.get("tie_word_embeddings", False)),
        )

    @property
    def embedding(self) -> int:
        """Parameters of the token embedding, which are those of the head too."""
        return self.vocabulary * self.hidden

    @property
    def stack(self) -> int:
        """Parameters of all layers together."""
        return max(0, self.parameters - self.embedding * (1 if self.tied else 2))

    def cut(self, layers: int | None) -> "ModelSize":
        """The student that keeps this many layers; the model itself for None."""
        if layers is None:
            return self
        rest = self.parameters - self.stack
        return replace(self, layers=layers, parameters=rest + self.stack * layers // self.layers)


class TrainingSetup(Model):
    """What the memory of a training pod follows from, beside the models."""

    precision: str = "BF16"
    """As in spec.training."""
    zero_stage: int = 0
    """The stage in effect."""
    offload: bool = False
    """DeepSpeed keeps the optimizer apart, and copies gradients to it."""
    world: int = 1
    """Ranks of the whole gang."""
    ranks_in_pod: int = 1
    """Ranks that share the limit."""
    batch_tokens: int
    max_length: int
    max_steps: int | None = None
    micro_batch_tokens: int | None = None
    loss_tile_bytes: int = 64 * 1024 * 1024
    without_teacher: bool = False
    """No teacher runs beside the student: its logits are cached, or its text is all there is."""
    attention_maps: bool = False
    """The loss compares them."""
    hidden_states: bool = False
    """The loss compares those of every layer, not of the last alone."""
    limit_bytes: int | None = None
    """Memory limit of the pod; none where it is not known, or where the models live in a GPU's memory."""


@dataclass(frozen=True)
class Estimate:
    """Bytes of one pod by what they are needed for, in reading order."""

    certain: Mapping[str, int]
    """Needed at every step, whatever the data is."""
    expected: Mapping[str, int]
    """An upper estimate: it depends on the lengths of samples and on the allocator."""

    @property
    def certain_bytes(self) -> int:
        """Less cannot do."""
        return sum(self.certain.values())

    @property
    def total_bytes(self) -> int:
        """The peak that is expected."""
        return self.certain_bytes + sum(self.expected.values())

    def sentence(self) -> str:
        """The parts with their sizes, the empty ones left out."""
        parts = {**self.certain, **self.expected}
        return ", ".join(f"{name} {size / MIB:,.0f} MiB" for name, size in parts.items() if size >= MIB / 2)


def estimate(teacher: ModelSize, student: ModelSize, setup: TrainingSetup) -> Estimate:
    """What a pod needs while it trains; all its ranks need the same."""
    certain = _states(student, setup) | {"teacher": 0 if setup.without_teacher else teacher.parameters * _width(setup)}
    expected = {
        "runtime": RUNTIME_BYTES["cpu" if version("torch").endswith("+cpu") else "cuda"],
        **_copies(student, setup),
        "activations": _activations(student, setup),
        "attention maps": _maps(teacher, student, setup) if setup.attention_maps else 0,
        "hidden states": _hidden_states(teacher, student, setup) if setup.hidden_states else 0,
        "loss": round(LOSS_SHARE * setup.loss_tile_bytes) + FP32_BYTES * student.embedding,
        "teacher's states": 0 if setup.without_teacher else _kept_states(teacher, setup),
    }
    here = setup.ranks_in_pod
    return Estimate(
        certain={name: size * here for name, size in certain.items()},
        expected={name: size * here for name, size in expected.items()},
    )


def _width(setup: TrainingSetup) -> int:
    """Bytes of a number in the forward and backward pass."""
    return FP32_BYTES if setup.precision == "FP32" else 2


def _states(student: ModelSize, setup: TrainingSetup) -> dict[str, int]:
    """Weights, gradients and AdamW's two averages in FP32, each whole or this rank's share of it."""
    whole = FP32_BYTES * student.parameters
    share, stage = -(-whole // setup.world), setup.zero_stage
    return {
        "weights": share if stage == 3 else whole,
        "gradients": share if stage >= 2 else whole,
        "optimizer": 2 * (share if stage >= 1 else whole),
    }


def _copies(student: ModelSize, setup: TrainingSetup) -> dict[str, int]:
    """What DeepSpeed and autocast hold twice."""
    whole, share = FP32_BYTES * student.parameters, -(-FP32_BYTES * student.parameters // setup.world)
    bucket = FP32_BYTES * min(student.parameters, BUCKET_PARAMETERS)
    return {
        "ZeRO's copies": 0 if setup.zero_stage == 0 else share + bucket + (2 * share if setup.offload else 0),
        # the buffer of the collective, and the weights that are cut out of it
        "gathered weights": 2 * whole if setup.zero_stage == 3 else 0,
        "cast weights": 0 if setup.precision == "FP32" else 2 * student.stack,
    }


def _tokens(setup: TrainingSetup) -> int:
    """Tokens of the largest micro-batch: a step is filled with whole samples, and its ranks share them."""
    share = setup.batch_tokens // setup.world + setup.max_length
    return max(setup.max_length, min(setup.micro_batch_tokens or MICRO_BATCH_TOKENS, share))


def _activations(student: ModelSize, setup: TrainingSetup) -> int:
    """What the layers keep for their backward pass.

    The residual stream and the norms stay in FP32 under autocast; every linear layer keeps an input of its own in the
    narrow type, as do the attention's products. Attention maps are made again, so those of one layer are there at a time.
    """
    width, narrow = _width(setup), setup.precision != "FP32"
    heads = 2 * (student.heads + student.key_value_heads) * student.head_size
    token = 16 * student.hidden + (5 * width if narrow else 2 * width) * student.hidden
    token += width * heads + 4 * width * student.intermediate
    maps = student.heads * setup.max_length * (2 * FP32_BYTES + width if narrow else 2 * FP32_BYTES)
    return (student.layers * token + maps) * _tokens(setup)


def _maps(teacher: ModelSize, student: ModelSize, setup: TrainingSetup) -> int:
    """Attention maps that both models hand to the loss, in FP32, and the gradient of the student's."""
    rows = teacher.layers * teacher.heads + 2 * student.layers * student.heads
    return FP32_BYTES * rows * setup.max_length * _tokens(setup)


def _hidden_states(teacher: ModelSize, student: ModelSize, setup: TrainingSetup) -> int:
    """Hidden states of every layer that both models hand to the loss, in FP32, and the gradient of the student's."""
    return FP32_BYTES * (teacher.layers * teacher.hidden + 2 * student.layers * student.hidden) * _tokens(setup)


def _kept_states(teacher: ModelSize, setup: TrainingSetup) -> int:
    """The teacher's last hidden states of the samples that were seen, up to their limit."""
    if setup.max_steps is None:
        return KEPT_STATES_BYTES
    tokens = setup.max_steps * (setup.batch_tokens // setup.world + setup.max_length)
    return min(KEPT_STATES_BYTES, tokens * teacher.hidden * _width(setup))
