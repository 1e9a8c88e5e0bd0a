"""Float rows to GGUF blocks, by llama.cpp's own quantizer."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.llamacpp.library import library

_ROWS_VALUES = 1 << 20
"""Values that one task quantizes: small enough to share a matrix between threads."""


def quantize(
    name: str, values: NDArray[np.float32], kind: GGMLQuantizationType, pool: ThreadPoolExecutor
) -> NDArray[np.generic]:
    """A tensor [..., columns] in `kind`: float32 or float16 as such, block types as uint8 [..., bytes of a row].

    Rows are independent, so the bytes do not depend on the number of threads. BadInput(ConversionUnproven) when a
    value is not finite, or not in the new type.
    """
    if kind == GGMLQuantizationType.F32:
        return _finite(name, np.ascontiguousarray(values))
    if kind == GGMLQuantizationType.F16:
        with np.errstate(over="ignore"):
            return _finite(name, values.astype(np.float16))
    block, block_bytes = GGML_QUANT_SIZES[kind]
    columns = values.shape[-1]
    rows = np.ascontiguousarray(values).reshape(-1, columns)
    blocks = np.empty((rows.shape[0], columns // block * block_bytes), np.uint8)
    step = max(1, _ROWS_VALUES // columns)
    tasks = [
        pool.submit(_rows, name, rows[at : at + step], blocks[at : at + step], kind) for at in range(0, len(rows), step)
    ]
    for task in tasks:
        task.result()
    return blocks.reshape(*values.shape[:-1], -1)


def _rows(name: str, rows: NDArray[np.float32], blocks: NDArray[np.uint8], kind: GGMLQuantizationType) -> None:
    lib = library()
    _finite(name, rows)  # a block of Q8_0 would swallow a NaN without a trace
    source, target = rows.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p)
    lib.ggml_quantize_chunk(kind.value, source, target, 0, rows.shape[0], rows.shape[1], None)
    if not lib.ggml_validate_row_data(kind.value, target, blocks.nbytes):
        raise _not_finite(name)


def _finite(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(values).all():
        raise _not_finite(name)
    return values


def _not_finite(name: str) -> BadInput:
    return BadInput(
        WorkerReason.CONVERSION_UNPROVEN,
        f"the tensor {name} holds values that are not finite in its new type",
        field="spec.exports",
        remedy="use another checkpoint where it came so, or train at a lower learning rate; Q8_0 holds more than F16",
    )
