"""The C interface is what this code was written for, or it is refused."""

import ctypes

import pytest
from xllamacpp import xllamacpp

from dram_workers.llamacpp import library as bindings


def test_the_installed_wheel_has_the_structures_that_are_declared() -> None:
    lib = bindings.library()
    params = lib.llama_context_default_params()
    assert (params.n_ctx, params.n_batch, params.n_threads) == (512, 2048, 4)
    assert lib.llama_version() == b"0.6.0-dev"


def test_a_wheel_whose_structures_moved_is_refused() -> None:
    class Moved(ctypes.Structure):
        _fields_ = [("new_field", ctypes.c_uint32), *bindings.ContextParams._fields_]

    lib = ctypes.CDLL(xllamacpp.__file__)
    lib.llama_context_default_params.restype = Moved
    lib.llama_batch_get_one.restype = bindings.Batch
    lib.ggml_threadpool_params_default.restype = bindings.ThreadPoolParams
    with pytest.raises(RuntimeError, match="another llama_context_params"):
        bindings._check_structures(lib)
