"""One GGUF file loaded into llama.cpp: its weights and its tokenizer."""

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Self

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.llamacpp.library import last_errors, library, listen


class LlamaModel:
    """A loaded model, to be shared by sessions; close it after them, or use it in a `with` block."""

    def __init__(self, path: Path) -> None:
        """Load the file. BadInput(RuntimeRefused) when llama.cpp does not take it."""
        self._lib = library()
        listen()
        self.handle: int | None = self._lib.llama_model_load_from_file(
            str(path).encode(), self._lib.llama_model_default_params()
        )
        if not self.handle:
            raise BadInput(
                WorkerReason.RUNTIME_REFUSED,
                f"llama.cpp could not load {path.name}: {last_errors() or 'no reason given'}",
                field="spec.exports",
                remedy="export again with this release, or report the model's architecture",
            )
        self._vocab = self._lib.llama_model_get_vocab(self.handle)
        self.vocabulary: int = self._lib.llama_vocab_n_tokens(self._vocab)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the weights; safe to call twice."""
        if self.handle:
            self._lib.llama_model_free(self.handle)
        self.handle = None

    @property
    def bos(self) -> int:
        """Id of the token that begins a text; -1 when there is none."""
        return int(self._lib.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> int:
        """Id of the token that ends a text; -1 when there is none."""
        return int(self._lib.llama_vocab_eos(self._vocab))

    def text_of(self, token: int) -> str:
        """The text of one token as the vocabulary has it; empty for no token."""
        text: bytes | None = self._lib.llama_vocab_get_text(self._vocab, token) if token >= 0 else None
        return text.decode() if text is not None else ""

    @property
    def adds_bos(self) -> bool:
        """Whether the tokenizer puts BOS before a text."""
        return bool(self._lib.llama_vocab_get_add_bos(self._vocab))

    @property
    def adds_eos(self) -> bool:
        """Whether the tokenizer puts EOS behind a text."""
        return bool(self._lib.llama_vocab_get_add_eos(self._vocab))

    @property
    def chat_template(self) -> str | None:
        """The Jinja template in the file."""
        text: bytes | None = self._lib.llama_model_chat_template(self.handle, None)
        return text.decode() if text is not None else None

    def stops(self, token: int) -> bool:
        """Whether generation ends at this token."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids; special tokens written in the text are read as such."""
        body = text.encode()
        room = len(body) + 2
        ids = (ctypes.c_int32 * room)()
        count = self._lib.llama_tokenize(self._vocab, body, len(body), ids, room, add_special, True)
        if count < 0:
            raise RuntimeError(f"llama.cpp needs {-count} tokens for {len(body)} bytes of text")
        return list(ids[:count])
