"""A `from_pretrained` folder in safetensors, read tensor by tensor without torch."""

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gguf.utility import LocalTensor, SafetensorsLocal
from numpy.typing import NDArray

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.layers import cut_config, kept_layers

_LAYER = re.compile(r"(model\.layers\.)(\d+)(\..+)")


class Checkpoint:
    """The weights and the config files of one model."""

    def __init__(self, folder: Path, layers: int | None = None) -> None:
        """Index the folder; with `layers`, as the student that is cut from it before training.

        BadInput(ModelNotFound) when it holds no config or no safetensors.
        """
        self.folder = folder
        self.config = self.json("config.json")
        files = sorted(folder.glob("*.safetensors"))
        if not self.config or not files:
            raise BadInput(
                WorkerReason.MODEL_NOT_FOUND,
                "the student's folder holds no config.json or no .safetensors file",
                field="spec.student",
                remedy="point it to a model in safetensors",
            )
        self._tensors: dict[str, LocalTensor] = {}
        for file in files:
            self._tensors.update(SafetensorsLocal(file).tensors)
        if layers is not None:
            self._cut(layers)

    def _cut(self, layers: int) -> None:
        total = self.config.get("num_hidden_layers")
        if total is None:
            # a family of another kind, which `architecture` refuses by its name
            return
        kept = kept_layers(total, layers)
        self.config = cut_config(self.config, kept)
        found = {name: _LAYER.fullmatch(name) for name in self._tensors}
        self._tensors = {
            f"{match[1]}{kept.index(int(match[2]))}{match[3]}" if match else name: self._tensors[name]
            for name, match in found.items()
            if match is None or int(match[2]) in kept
        }

    def json(self, name: str) -> dict[str, Any]:
        """One of the folder's JSON files; empty when it is not there."""
        path = self.folder / name
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, sorted."""
        return tuple(sorted(self._tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return self._tensors[name].shape

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32, which holds every value of float16 and bfloat16 exactly."""
        tensor = self._tensors[name]
        raw = tensor.mmap_bytes()
        match tensor.dtype:
            case "F32":
                values = raw.view("<f4")
            case "F16":
                values = raw.view("<f2").astype(np.float32)
            case "BF16":
                values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
            case other:
                raise BadInput(
                    WorkerReason.UNSUPPORTED_MODEL,
                    f"the tensor {name} is stored as {other}",
                    field="spec.student",
                    remedy="store the weights as F32, F16 or BF16",
                )
        return np.asarray(values, np.float32).reshape(tensor.shape)
