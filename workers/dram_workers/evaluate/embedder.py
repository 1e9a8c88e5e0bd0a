"""A sentence embedder from its folder: token embeddings, pooled and normalised.

Read directly instead of through sentence-transformers, whose import alone takes seconds and which cuts long texts off
without a word. Legend: N texts, T tokens, E size of an embedding.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModel

from dram_workers.errors import BadInput, WorkerReason

BATCH = 32
_POOLINGS = ("pooling_mode_mean_tokens", "pooling_mode_cls_token")


class Embedder:
    """Texts to unit vectors. A text longer than the model reads is embedded in windows, weighted by their tokens."""

    def __init__(self, folder: Path) -> None:
        """Load the folder. BadInput when it is no embedder of a kind that is supported."""
        try:
            self._model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, ValueError) as error:
            raise _unsupported(
                f"{folder.name} does not load: {str(error)[:300]}", WorkerReason.MODEL_NOT_FOUND
            ) from error
        self._model.train(mode=False)
        pooling = _read(folder / "1_Pooling" / "config.json") or {"pooling_mode_mean_tokens": True}
        chosen = [name for name, value in pooling.items() if name.startswith("pooling_mode") and value is True]
        if len(chosen) != 1 or chosen[0] not in _POOLINGS:
            raise _unsupported(f"it pools by {', '.join(chosen) or 'nothing'}", WorkerReason.UNSUPPORTED_MODEL)
        self._by_mean = chosen[0] == "pooling_mode_mean_tokens"
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        around = self._tokenizer.encode("", add_special_tokens=True).ids
        self._before, self._behind = around[: len(around) // 2], around[len(around) // 2 :]
        longest = _read(folder / "sentence_bert_config.json").get("max_seq_length")
        self.window_tokens: int = (longest or self._model.config.max_position_embeddings) - len(around)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [N, E]; a text without tokens is the zero vector, similar to nothing."""
        windows = [(row, window) for row, text in enumerate(texts) for window in self._windows(text)]
        order = sorted(range(len(windows)), key=lambda at: len(windows[at][1]))
        embedded_NE = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), BATCH):
            batch = [windows[at] for at in order[start : start + BATCH]]
            for (row, window), vector_E in zip(batch, self._pooled([ids for _, ids in batch]), strict=True):
                embedded_NE[row] += vector_E * len(window)
        lengths = np.linalg.norm(embedded_NE, axis=1, keepdims=True)
        np.divide(embedded_NE, lengths, out=embedded_NE, where=lengths > 0)
        return embedded_NE

    def _windows(self, text: str) -> list[list[int]]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [ids[start : start + self.window_tokens] for start in range(0, len(ids), self.window_tokens)]

    @torch.inference_mode()
    def _pooled(self, windows: Sequence[list[int]]) -> NDArray[np.float32]:
        rows = [[*self._before, *window, *self._behind] for window in windows]
        longest = max(len(row) for row in rows)
        tokens_NT = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask_NT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        states_NTE = self._model(input_ids=tokens_NT, attention_mask=mask_NT).last_hidden_state
        if self._by_mean:
            weight_NT1 = mask_NT.unsqueeze(-1).to(states_NTE.dtype)
            pooled_NE = (states_NTE * weight_NT1).sum(1) / weight_NT1.sum(1)
        else:
            pooled_NE = states_NTE[:, 0]
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled_NE, dim=1).numpy()
        return vectors


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _unsupported(why: str, reason: WorkerReason) -> BadInput:
    return BadInput(
        reason,
        f"the embedder cannot be used: {why}",
        field="spec.golden.embedder",
        remedy="use a BERT-like sentence embedder in safetensors with mean or CLS pooling, or leave the field out",
    )
