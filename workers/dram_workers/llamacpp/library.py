"""llama.cpp's C functions, bound by ctypes to the shared library inside the xllamacpp wheel.

The wheel exports llama.cpp's public C interface but ships no header, so the few structures that cross it are declared
here and checked against the library's own defaults before anything is called: a wheel whose structures moved is
refused instead of read wrongly.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

LOG_ERROR = 4
"""GGML_LOG_LEVEL_ERROR."""

_c_token_p = ctypes.POINTER(ctypes.c_int32)
_c_float_p = ctypes.POINTER(ctypes.c_float)


class ContextParams(ctypes.Structure):
    """The head of `llama_context_params`; the tail is kept as the library filled it."""

    _fields_ = [
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("n_rs_seq", ctypes.c_uint32),
        ("n_outputs_max", ctypes.c_uint32),
        ("n_outputs_max_per_seq", ctypes.c_uint32),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("rest", ctypes.c_uint8 * 476),
    ]


class ModelParams(ctypes.Structure):
    """`llama_model_params` as an opaque block: its defaults suit a CPU."""

    _fields_ = [("rest", ctypes.c_uint64 * 64)]


class Batch(ctypes.Structure):
    """`llama_batch`: tokens of one or more sequences with their positions and which of them give logits."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", _c_token_p),
        ("embd", _c_float_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class ThreadPoolParams(ctypes.Structure):
    """`ggml_threadpool_params`."""

    _fields_ = [
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    ]


LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

_void_p, _int, _int64, _bool, _char_p = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_bool, ctypes.c_char_p

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [LogCallback, _void_p]),
    "llama_version": (_char_p, []),
    "llama_print_system_info": (_char_p, []),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (_void_p, [_char_p, ModelParams]),
    "llama_model_free": (None, [_void_p]),
    "llama_init_from_model": (_void_p, [_void_p, ContextParams]),
    "llama_free": (None, [_void_p]),
    "llama_n_ctx": (ctypes.c_uint32, [_void_p]),
    "llama_n_batch": (ctypes.c_uint32, [_void_p]),
    "llama_n_threads": (_int, [_void_p]),
    "llama_attach_threadpool": (None, [_void_p, _void_p, _void_p]),
    "ggml_threadpool_params_default": (ThreadPoolParams, [ctypes.c_int]),
    "ggml_threadpool_new": (_void_p, [ctypes.POINTER(ThreadPoolParams)]),
    "ggml_threadpool_free": (None, [_void_p]),
    "llama_get_memory": (_void_p, [_void_p]),
    "llama_memory_clear": (None, [_void_p, _bool]),
    "llama_memory_seq_rm": (_bool, [_void_p, _int, _int, _int]),
    "llama_batch_get_one": (Batch, [_c_token_p, _int]),
    "llama_batch_init": (Batch, [_int, _int, _int]),
    "llama_batch_free": (None, [Batch]),
    "llama_decode": (_int, [_void_p, Batch]),
    "llama_get_logits_ith": (_c_float_p, [_void_p, _int]),
    "llama_model_get_vocab": (_void_p, [_void_p]),
    "llama_model_chat_template": (_char_p, [_void_p, _char_p]),
    "llama_model_n_params": (ctypes.c_uint64, [_void_p]),
    "llama_vocab_n_tokens": (_int, [_void_p]),
    "llama_vocab_bos": (_int, [_void_p]),
    "llama_vocab_eos": (_int, [_void_p]),
    "llama_vocab_get_text": (_char_p, [_void_p, _int]),
    "llama_vocab_is_eog": (_bool, [_void_p, _int]),
    "llama_vocab_get_add_bos": (_bool, [_void_p]),
    "llama_vocab_get_add_eos": (_bool, [_void_p]),
    "llama_tokenize": (_int, [_void_p, _char_p, _int, _c_token_p, _int, _bool, _bool]),
    "ggml_type_size": (ctypes.c_size_t, [ctypes.c_int]),
    "ggml_blck_size": (_int64, [ctypes.c_int]),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [ctypes.c_int, _void_p, _void_p, _int64, _int64, _int64, _void_p],
    ),
    "ggml_validate_row_data": (_bool, [ctypes.c_int, _void_p, ctypes.c_size_t]),
}

_errors: list[str] = []


def _on_log(level: int, text: bytes | None, _data: int | None) -> None:
    if level >= LOG_ERROR and text:
        _errors.append(text.decode(errors="replace").strip())
        del _errors[:-20]


_log_callback = LogCallback(_on_log)


def listen() -> None:
    """Hear errors from now on: another user of the library in this process may have taken its log."""
    library().llama_log_set(_log_callback, None)
    _errors.clear()


def last_errors() -> str:
    """What llama.cpp complained about since `listen`, oldest first."""
    return "; ".join(line for line in _errors if line)


@cache
def library() -> ctypes.CDLL:
    """The library, its functions declared, its structures checked."""
    from xllamacpp import xllamacpp

    lib = ctypes.CDLL(xllamacpp.__file__)
    for name, (restype, argtypes) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = restype, argtypes
    _check_structures(lib)
    lib.llama_log_set(_log_callback, None)
    lib.llama_backend_init()
    return lib


def _check_structures(lib: ctypes.CDLL) -> None:
    given = lib.llama_context_default_params()
    head = tuple(getattr(given, field[0]) for field in ContextParams._fields_[:-1])
    tokens = (ctypes.c_int32 * 2)(1, 2)
    batch = lib.llama_batch_get_one(tokens, 2)
    pool = lib.ggml_threadpool_params_default(3)
    checks: list[tuple[str, Callable[[], bool]]] = [
        ("llama_context_params", lambda: head == (512, 2048, 512, 1, 0, 0, 1, 4, 4)),
        ("llama_batch", lambda: batch.n_tokens == 2 and batch.token[1] == 2 and not batch.embd and not batch.logits),
        ("ggml_threadpool_params", lambda: (pool.n_threads, pool.poll, pool.strict_cpu) == (3, 50, False)),
    ]
    for name, fits in checks:
        if not fits():
            raise RuntimeError(f"the installed xllamacpp has another {name} than this code was written for")
