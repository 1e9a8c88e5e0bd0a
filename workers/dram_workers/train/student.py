"""Where the student comes from, and the folder that it becomes."""

import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from dram_workers.layers import cut_config, kept_layers
from dram_workers.train.intermediate import layer_stack

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


def cut_from(teacher: PreTrainedModel, layers: int, attention: str) -> PreTrainedModel:
    """A student that is the teacher without the layers between the kept ones, its weights copied."""
    total = teacher.config.num_hidden_layers
    kept = kept_layers(total, layers)
    student: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        type(teacher.config).from_dict(cut_config(teacher.config.to_dict(), kept)),
        dtype=torch.float32,
        attn_implementation=attention,
    )
    stack, _ = layer_stack(teacher)
    weights: dict[str, Tensor] = {}
    for name, value in teacher.state_dict().items():
        inside, _, rest = name.removeprefix(f"{stack}.").partition(".")
        if not name.startswith(f"{stack}."):
            weights[name] = value
        elif int(inside) in kept:
            weights[f"{stack}.{kept.index(int(inside))}.{rest}"] = value
    student.load_state_dict(weights, strict=True)
    student.generation_config = teacher.generation_config
    return student


def save_student(student: PreTrainedModel, weights: dict[str, Tensor], tokenizer: Path, folder: Path) -> None:
    """Write a plain `from_pretrained` folder: FP32 safetensors, tied weights once, the tokenizer as it was."""
    student.config.dtype = torch.float32
    student.save_pretrained(folder, state_dict=weights)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
