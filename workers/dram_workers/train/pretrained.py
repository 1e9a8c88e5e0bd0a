"""Models from `from_pretrained` folders: safetensors only, never code of their own."""

from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from dram_workers.data.dataset import Dataset
from dram_workers.errors import BadInput, WorkerReason


def load_config(folder: Path, field: str) -> PreTrainedConfig:
    """The model's config; BadInput when it is missing or its architecture is not one that transformers knows."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _unsupported(folder, error, field) from error
    return config


def load_model(
    folder: Path, dtype: torch.dtype | Literal["auto"], field: str, *, attention: str = "sdpa"
) -> PreTrainedModel:
    """The causal language model of a folder on the CPU, in `dtype` (auto: as it is stored), in evaluation mode."""
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            config=load_config(folder, field),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation=attention,
        )
    except (OSError, ValueError) as error:
        raise _unsupported(folder, error, field) from error
    model.train(mode=False)
    return model


def check_reach(model: PreTrainedModel, dataset: Dataset, field: str) -> None:
    """BadInput when a sample is longer than the model's context or has a token that the model does not have."""
    longest, positions = int(dataset.lengths.max()), getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise BadInput(
            WorkerReason.UNSUPPORTED_MODEL,
            f"the longest sample has {longest} tokens, the model reads {positions}",
            field="spec.dataset.maxLength",
            remedy=f"set maxLength to at most {positions}",
        )
    rows = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index]
    if dataset.highest_token >= rows:
        raise BadInput(
            WorkerReason.TOKENIZER_MISMATCH,
            f"the data has token {dataset.highest_token}, the model has {rows} embeddings",
            field=field,
            remedy="use a model that fits the tokenizer",
        )


def _unsupported(folder: Path, error: Exception, field: str) -> BadInput:
    return BadInput(
        WorkerReason.UNSUPPORTED_MODEL,
        f"{folder.name} does not load as a causal language model: {str(error)[:500]}",
        field=field,
        remedy="use a decoder-only model that transformers knows, saved with save_pretrained in safetensors",
    )
