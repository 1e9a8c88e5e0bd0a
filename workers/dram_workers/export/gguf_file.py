"""Write one GGUF file: metadata first, then tensor after tensor, so that memory holds one tensor at a time."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from dram_workers.context import Reporter
from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.export.architecture import (
    Architecture,
    Shape,
    architecture_of,
    gguf_name,
    reorder,
    rope_factors,
    shape_of,
    write_shape,
)
from dram_workers.export.checkpoint import Checkpoint
from dram_workers.export.quantize import quantize
from dram_workers.export.recipe import FILE_TYPES, ModelTraits, tensor_type
from dram_workers.export.vocabulary import Vocabulary
from dram_workers.stages import GgufType

_FLOATS: dict[GGMLQuantizationType, np.dtype[np.generic]] = {
    GGMLQuantizationType.F32: np.dtype(np.float32),
    GGMLQuantizationType.F16: np.dtype(np.float16),
}


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file before its values are read."""

    name: str
    source: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, without padding."""
        block, block_bytes = GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // block * block_bytes

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the array that is written: rows of values, or of bytes for block types."""
        if self.kind in _FLOATS:
            return self.shape
        return (*self.shape[:-1], self.size_bytes // int(np.prod(self.shape[:-1])))


@dataclass(frozen=True)
class Plan:
    """A model's tensors in file order."""

    architecture: Architecture
    shape: Shape
    tensors: tuple[PlannedTensor, ...]

    @property
    def bits_per_weight(self) -> float:
        """Effective bits per weight over all tensors."""
        return (
            8 * sum(each.size_bytes for each in self.tensors) / sum(int(np.prod(each.shape)) for each in self.tensors)
        )

    @property
    def kinds(self) -> Counter[str]:
        """How many tensors have each type."""
        return Counter(each.kind.name for each in self.tensors)


def plan_tensors(checkpoint: Checkpoint, file_type: GgufType) -> Plan:
    """Name and type every tensor. BadInput(UnsupportedModel) for a model that GGUF export does not take."""
    architecture, shape = architecture_of(checkpoint.config), shape_of(checkpoint.config)
    sources = [name for name in checkpoint.names if not (shape.tied and name == "lm_head.weight")]
    tied = "lm_head.weight" not in sources
    if tied and not shape.tied:
        raise BadInput(
            WorkerReason.UNSUPPORTED_MODEL,
            "config.json says tie_word_embeddings: false, but there is no lm_head.weight",
            field="spec.student",
            remedy="set tie_word_embeddings to true, or add the missing weights",
        )
    traits = ModelTraits(layers=shape.layers, tied=tied, seventy_billion=_seventy_billion(architecture, shape))
    planned = []
    for source in sources:
        name, size = gguf_name(source), checkpoint.shape(source)
        planned.append(PlannedTensor(name, source, size, tensor_type(name, size, file_type, traits)))
    return Plan(architecture, shape, tuple(sorted(planned, key=_file_order)))


def _seventy_billion(architecture: Architecture, shape: Shape) -> bool:
    """Whether llama.cpp counts the model as of its 70B class."""
    grouped = shape.heads != shape.key_value_heads
    return shape.layers == 80 and (architecture.gguf == "qwen2" or (architecture.gguf == "llama" and grouped))


@dataclass(frozen=True)
class Conversion:
    """Everything that decides the bytes of a file."""

    checkpoint: Checkpoint
    plan: Plan
    vocabulary: Vocabulary
    file_type: GgufType
    model_name: str


def write_gguf(
    conversion: Conversion, path: Path, *, threads: int, reporter: Reporter, stopping: threading.Event
) -> None:
    """Write the file; the same input gives the same bytes. Raises Interrupted between two tensors when told to stop."""
    plan = conversion.plan
    factors = rope_factors(plan.shape)
    with closing(gguf.GGUFWriter(path, plan.architecture.gguf)) as writer, ThreadPoolExecutor(threads) as pool:
        _add_metadata(writer, conversion)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        for each in plan.tensors:
            dtype = _FLOATS.get(each.kind, np.dtype(np.uint8))
            writer.add_tensor_info(each.name, each.stored_shape, dtype, each.size_bytes, each.kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for number, each in enumerate(plan.tensors, start=1):
            if stopping.is_set():
                raise Interrupted(WorkerReason.INTERRUPTED, f"stopped before tensor {number} of {len(plan.tensors)}")
            values = reorder(each.source, conversion.checkpoint.read(each.source), plan.architecture, plan.shape)
            writer.write_tensor_data(quantize(each.name, values, each.kind, pool))
            reporter.report(number, len(plan.tensors))


def _add_metadata(writer: gguf.GGUFWriter, conversion: Conversion) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(conversion.model_name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(FILE_TYPES[conversion.file_type][0])
    write_shape(writer, conversion.plan.architecture, conversion.plan.shape)
    conversion.vocabulary.write(writer)


def _file_order(tensor: PlannedTensor) -> tuple[int, str]:
    """Embedding and output first, then the layers in order, as llama.cpp's own files have them."""
    parts = tensor.name.split(".")
    return (int(parts[1]) if parts[0] == "blk" else -1, tensor.name)
