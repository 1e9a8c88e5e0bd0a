"""Which type each tensor gets: llama.cpp's own rules for its file types, without an importance matrix.

The file type names a default; tensors that hurt more when rounded get more bits, and tensors whose row length is no
multiple of the type's block get the nearest type that fits (`llama_tensor_get_type` in llama.cpp's quantizer). What
these rules give is compared, tensor for tensor, in docs/design/quantizer-comparison.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from dram_workers.stages import GgufType

Q = GGMLQuantizationType

FILE_TYPES: Mapping[GgufType, tuple[LlamaFileType, GGMLQuantizationType]] = {
    GgufType.F16: (LlamaFileType.MOSTLY_F16, Q.F16),
    GgufType.Q8_0: (LlamaFileType.MOSTLY_Q8_0, Q.Q8_0),
    GgufType.Q6_K: (LlamaFileType.MOSTLY_Q6_K, Q.Q6_K),
    GgufType.Q5_K_M: (LlamaFileType.MOSTLY_Q5_K_M, Q.Q5_K),
    GgufType.Q4_K_M: (LlamaFileType.MOSTLY_Q4_K_M, Q.Q4_K),
    GgufType.Q4_0: (LlamaFileType.MOSTLY_Q4_0, Q.Q4_0),
}
"""llama.cpp's number of each file type, and the type of most of its tensors."""

_FALLBACK = {Q.Q4_K: Q.Q5_0, Q.Q5_K: Q.Q5_1, Q.Q6_K: Q.Q8_0}
_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.weight")


@dataclass(frozen=True)
class ModelTraits:
    """What the rules ask about a model."""

    layers: int
    tied: bool
    """The output shares the token embedding's tensor."""
    seventy_billion: bool = False
    """80 layers with grouped queries: llama.cpp's 70B class, whose value projections are small."""


def tensor_type(name: str, shape: tuple[int, ...], file_type: GgufType, traits: ModelTraits) -> GGMLQuantizationType:
    """The type of the tensor `name` (llama.cpp's name) with `shape` (rows, columns) in a file of `file_type`."""
    if len(shape) < 2 or not name.endswith("weight") or name.endswith("_norm.weight"):
        return Q.F32
    default = FILE_TYPES[file_type][1]
    if default == Q.F16:
        return Q.F16
    return _fitting(_wanted(name, shape[-1], default, file_type, traits), shape[-1])


def _wanted(
    name: str, columns: int, default: GGMLQuantizationType, file_type: GgufType, traits: ModelTraits
) -> GGMLQuantizationType:
    if name == "output.weight" or (traits.tied and name == "token_embd.weight"):
        fits = columns % GGML_QUANT_SIZES[default][0] == 0
        return Q.Q6_K if fits and default != Q.Q8_0 else Q.Q8_0
    match = _LAYER.fullmatch(name)
    if match is None or match[2] not in ("attn_v", "ffn_down") or file_type not in (GgufType.Q4_K_M, GgufType.Q5_K_M):
        return default
    if _more_bits(int(match[1]), traits.layers):
        return Q.Q6_K
    if match[2] == "attn_v" and traits.seventy_billion and default == Q.Q4_K:
        return Q.Q5_K
    return default


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fitting(wanted: GGMLQuantizationType, columns: int) -> GGMLQuantizationType:
    """The wanted type, or the one that llama.cpp falls back to when the row is no multiple of its block."""
    if columns % GGML_QUANT_SIZES[wanted][0] == 0:
        return wanted
    fallback = _FALLBACK.get(wanted, wanted)
    return fallback if columns % GGML_QUANT_SIZES[fallback][0] == 0 else Q.F16
