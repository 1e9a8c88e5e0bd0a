"""Models for the comparison with llama.cpp's quantizer: every rule of the recipe decides something in one of them.

Weights come from numpy's PCG64 integers, so they are the same on every machine; no torch.
"""

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.models import write_tokenizer


@dataclass(frozen=True)
class MadeModel:
    """A random model of a chosen shape."""

    architecture: str = "LlamaForCausalLM"
    hidden: int = 256
    intermediate: int = 512
    layers: int = 9
    heads: int = 4
    key_value_heads: int = 2
    tied: bool = True
    more: dict[str, Any] = field(default_factory=dict)
    """Further entries of the config."""


MADE_MODELS = {
    "wide": MadeModel(),
    "untied": MadeModel(tied=False, layers=5),
    "fallback": MadeModel(hidden=96, intermediate=288, heads=3, key_value_heads=1),
    "odd": MadeModel(hidden=80, intermediate=160, heads=5, key_value_heads=1, layers=2, tied=False),
    "eighty": MadeModel(layers=80, intermediate=256),
    "llama3-rope": MadeModel(
        layers=2,
        more={
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            }
        },
    ),
    "qwen2": MadeModel(architecture="Qwen2ForCausalLM", layers=5),
    "qwen3": MadeModel(architecture="Qwen3ForCausalLM", layers=5, more={"head_dim": 64}),
}


def write_made_model(folder: Path, made: MadeModel) -> Path:
    """Write the model with a small byte-level BPE tokenizer as a `from_pretrained` folder."""
    write_tokenizer(folder)
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    config = {
        "architectures": [made.architecture],
        "model_type": made.architecture.removesuffix("ForCausalLM").lower(),
        "hidden_act": "silu",
        "hidden_size": made.hidden,
        "intermediate_size": made.intermediate,
        "num_hidden_layers": made.layers,
        "num_attention_heads": made.heads,
        "num_key_value_heads": made.key_value_heads,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": made.tied,
        "vocab_size": vocabulary,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | made.more
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(
        {name: _values(name, shape) for name, shape in _shapes(made, vocabulary).items()}, folder / "model.safetensors"
    )
    return folder


def _shapes(made: MadeModel, vocabulary: int) -> dict[str, tuple[int, ...]]:
    size = made.hidden // made.heads
    queries, keys = made.heads * size, made.key_value_heads * size
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (made.hidden,),
        "post_attention_layernorm.weight": (made.hidden,),
        "self_attn.q_proj.weight": (queries, made.hidden),
        "self_attn.k_proj.weight": (keys, made.hidden),
        "self_attn.v_proj.weight": (keys, made.hidden),
        "self_attn.o_proj.weight": (made.hidden, queries),
        "mlp.gate_proj.weight": (made.intermediate, made.hidden),
        "mlp.up_proj.weight": (made.intermediate, made.hidden),
        "mlp.down_proj.weight": (made.hidden, made.intermediate),
    }
    if made.architecture == "Qwen2ForCausalLM":
        layer |= {f"self_attn.{part}_proj.bias": (rows,) for part, rows in (("q", queries), ("k", keys), ("v", keys))}
    if made.architecture == "Qwen3ForCausalLM":
        layer |= {"self_attn.q_norm.weight": (size,), "self_attn.k_norm.weight": (size,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, made.hidden),
        "model.norm.weight": (made.hidden,),
    }
    if not made.tied:
        shapes["lm_head.weight"] = (vocabulary, made.hidden)
    for number in range(made.layers):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes


def _values(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    # The sum of three uniform integers is bell-shaped, like trained weights, and exact in float32.
    total = sum(draw.integers(-1024, 1024, shape).astype(np.float32) for _ in range(3))
    values = np.asarray(total, np.float32) / np.float32(16384)
    return values + np.float32(1) if "norm" in name else values
