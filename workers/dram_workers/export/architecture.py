"""From a Hugging Face config to what llama.cpp calls the same model: metadata and tensor names."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from dram_workers.errors import BadInput, WorkerReason


@dataclass(frozen=True)
class Architecture:
    """A model family of llama.cpp."""

    gguf: str
    interleaved_rope: bool = False
    """llama.cpp rotates neighbouring pairs where Hugging Face rotates halves, so query and key rows are reordered."""


ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", interleaved_rope=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3"),
}

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER_NAME = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True)
class Shape:
    """The numbers of a config that llama.cpp needs, under one name whatever the config calls them."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    context: int
    norm_epsilon: float
    rope_theta: float
    tied: bool
    rope_scaling: Mapping[str, Any]


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The family of a config. BadInput(UnsupportedModel) names what is supported."""
    name = (config.get("architectures") or ["none"])[0]
    found = ARCHITECTURES.get(name)
    if found is None:
        raise _unsupported(f"the architecture {name}", f"use one of {', '.join(ARCHITECTURES)}")
    if config.get("hidden_act", "silu") != "silu":
        raise _unsupported(f"the activation {config['hidden_act']}", "use a model with silu")
    if config.get("use_sliding_window"):
        raise _unsupported("sliding-window attention", "set use_sliding_window to false in config.json")
    if config.get("quantization_config"):
        raise _unsupported("weights that are quantized already", "use the model's float weights")
    return found


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape of a model, from either generation of transformers' configs."""
    rope = dict(config.get("rope_scaling") or {}) | dict(config.get("rope_parameters") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise _unsupported(f"the rotary scaling {kind}", "use a model with default or llama3 scaling")
    heads = config["num_attention_heads"]
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        norm_epsilon=config["rms_norm_eps"],
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope_scaling=rope if kind == "llama3" else {},
    )


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor. BadInput(UnsupportedModel) when it has none."""
    stem, _, suffix = name.rpartition(".")
    if stem in _WHOLE and suffix == "weight":
        return f"{_WHOLE[stem]}.weight"
    match = _LAYER_NAME.fullmatch(name)
    if match and match[2] in _LAYER:
        return f"blk.{match[1]}.{_LAYER[match[2]]}.{match[3]}"
    raise _unsupported(f"the tensor {name}", "use a plain decoder without adapters or experts")


def reorder(name: str, tensor: NDArray[np.float32], architecture: Architecture, shape: Shape) -> NDArray[np.float32]:
    """Rows of a query or key projection in the order of llama.cpp's rotary embedding; other tensors as they are."""
    heads = {"q_proj": shape.heads, "k_proj": shape.key_value_heads}.get(name.split(".")[-2])
    if heads is None or not architecture.interleaved_rope:
        return tensor
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)


def rope_factors(shape: Shape) -> NDArray[np.float32] | None:
    """Divisors of the rotary frequencies under llama3 scaling, float32 [head_size / 2]; None without scaling.

    Low frequencies are slowed by `factor`, high ones kept, those between blended (Llama 3.1's scheme).
    """
    scaling = shape.rope_scaling
    if not scaling:
        return None
    factor, low, high = (float(scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = float(scaling["original_max_position_embeddings"])
    exponents = np.arange(0, shape.head_size, 2, dtype=np.float32) / np.float32(shape.head_size)
    # float32 throughout, in this order: Llama 3's factors then equal those of llama.cpp's converter to the last bit.
    wavelengths = 2 * math.pi / (1 / np.float32(shape.rope_theta) ** exponents)
    smooth = (original / wavelengths - low) / (high - low)
    blended = 1 / ((1 - smooth) / factor + smooth)
    slowed = np.where(wavelengths > original / low, factor, blended)
    return np.where(wavelengths < original / high, 1, slowed).astype(np.float32)


def write_shape(writer: gguf.GGUFWriter, architecture: Architecture, shape: Shape) -> None:
    """Put the shape into the file's metadata."""
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    if architecture.interleaved_rope:
        writer.add_rope_dimension_count(shape.head_size)
        writer.add_vocab_size(shape.vocabulary)


def _unsupported(what: str, remedy: str) -> BadInput:
    return BadInput(
        WorkerReason.UNSUPPORTED_MODEL, f"GGUF export does not take {what}", field="spec.student", remedy=remedy
    )
