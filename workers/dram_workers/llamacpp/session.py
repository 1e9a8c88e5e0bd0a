"""One sequence of context over a loaded model: greedy answers and teacher-forced logits.

Legend: T tokens, V vocabulary.
"""

import ctypes
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.llamacpp.library import last_errors, library, listen
from dram_workers.llamacpp.model import LlamaModel

BATCH_TOKENS = 512


@dataclass(frozen=True)
class Generation:
    """A greedy answer: its tokens without the stop token, and how long it took."""

    tokens: tuple[int, ...]
    stopped: bool
    """Whether a stop token ended it, not the limit."""
    first_token_seconds: float
    """Prompt and first token."""
    total_seconds: float


class LlamaSession:
    """A context of its own, for one thread of the caller; close it, or use it in a `with` block."""

    def __init__(self, model: LlamaModel, *, context_tokens: int, threads: int) -> None:
        """Make the context. BadInput(RuntimeRefused) when llama.cpp cannot, for want of memory for instance."""
        self._lib = library()
        self._model = model
        params = self._lib.llama_context_default_params()
        params.n_ctx = context_tokens
        params.n_batch = params.n_ubatch = params.n_outputs_max_per_seq = min(BATCH_TOKENS, context_tokens)
        params.n_threads = params.n_threads_batch = threads
        listen()
        self._context: int | None = self._lib.llama_init_from_model(model.handle, params)
        if not self._context:
            raise BadInput(
                WorkerReason.RUNTIME_REFUSED,
                f"llama.cpp could not make a context of {context_tokens} tokens: {last_errors() or 'no reason given'}",
                field="spec.exports",
                remedy="give the stage more memory",
            )
        self._batch_tokens: int = params.n_batch
        taken = (self._lib.llama_n_batch(self._context), self._lib.llama_n_threads(self._context))
        if taken != (self._batch_tokens, threads):
            raise RuntimeError("llama.cpp did not take the context's settings as given")
        self._pool = self._thread_pool(threads)
        self._batch = self._lib.llama_batch_init(self._batch_tokens, 0, 1)
        self.context_tokens: int = self._lib.llama_n_ctx(self._context)
        self._tokens: list[int] = []

    def _thread_pool(self, threads: int) -> int:
        # Without a pool of its own the context spins at every barrier, which starves whoever shares the cores.
        params = self._lib.ggml_threadpool_params_default(threads)
        params.poll = 0
        pool: int = self._lib.ggml_threadpool_new(ctypes.byref(params))
        self._lib.llama_attach_threadpool(self._context, pool, pool)
        return pool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the context; safe to call twice."""
        if self._context:
            self._lib.llama_free(self._context)
            self._lib.ggml_threadpool_free(self._pool)
            self._lib.llama_batch_free(self._batch)
        self._context = None

    def greedy(self, prompt: Sequence[int], max_tokens: int, *, past_stops: bool = False) -> Generation:
        """The likeliest token, again and again, until a stop token, the limit or the end of the context.

        With `past_stops` stop tokens are tokens like any other, so that every answer has the same length. What the context already shares with the prompt is not computed again; `rewind(0)` first for a cold start.
        """
        started = time.perf_counter()
        logits_V = self._resume(prompt)
        answer: list[int] = []
        first = 0.0
        while True:
            token = int(np.argmax(logits_V))
            first = first or time.perf_counter() - started
            stopped = not past_stops and self._model.stops(token)
            if stopped:
                break
            answer.append(token)
            if len(answer) >= max_tokens or len(self._tokens) >= self.context_tokens:
                break
            logits_V = self._feed([token])
        return Generation(tuple(answer), stopped, first, time.perf_counter() - started)

    def answer_logits(self, prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        """Logits [T, V] that predict each token of `answer`, teacher-forced behind `prompt`."""
        if len(prompt) + len(answer) > self.context_tokens:
            raise ValueError(f"{len(prompt) + len(answer)} tokens do not fit a context of {self.context_tokens}")
        logits_TV = np.empty((len(answer), self._model.vocabulary), np.float32)
        if len(answer):
            logits_TV[0] = self._resume(prompt)
        for start in range(0, len(answer) - 1, self._batch_tokens):
            part = answer[start : min(start + self._batch_tokens, len(answer) - 1)]
            self._decode(part, every=True)
            for row in range(len(part)):
                logits_TV[start + row + 1] = self._logits(row)
        return logits_TV

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens of the context."""
        self._lib.llama_memory_seq_rm(self._lib.llama_get_memory(self._context), 0, length, -1)
        del self._tokens[length:]

    def _resume(self, prompt: Sequence[int]) -> NDArray[np.float32]:
        """Bring the context to the end of the prompt; the logits [V] behind it."""
        pairs = zip(self._tokens, prompt[:-1], strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        self.rewind(shared)
        return self._feed(prompt[shared:])

    def _feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens; the logits [V] behind the last one, valid until the next call."""
        if not tokens or len(self._tokens) + len(tokens) > self.context_tokens:
            raise ValueError(
                f"{len(self._tokens)} + {len(tokens)} tokens do not fit a context of {self.context_tokens}"
            )
        part: Sequence[int] = ()
        for start in range(0, len(tokens), self._batch_tokens):
            part = tokens[start : start + self._batch_tokens]
            self._decode(part, every=False)
        return self._logits(len(part) - 1)

    def _decode(self, tokens: Sequence[int], *, every: bool) -> None:
        batch, count, behind = self._batch, len(tokens), len(self._tokens)
        batch.n_tokens = count
        for row, token in enumerate(tokens):
            batch.token[row] = token
            batch.pos[row] = behind + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = every or row == count - 1
        status = self._lib.llama_decode(self._context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}: {last_errors()}")
        self._tokens.extend(tokens)

    def _logits(self, row: int) -> NDArray[np.float32]:
        return np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, row), (self._model.vocabulary,))
