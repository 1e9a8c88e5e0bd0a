"""Proof that an exported file reads, ends and templates text as its source model does.

The file is loaded into llama.cpp itself and compared with Hugging Face's tokenizer on texts that separate the two when
anything is off: scripts, emoji, whitespace runs, digits, contractions, special tokens inside text.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import TokenType

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.export.vocabulary import Vocabulary
from dram_workers.llamacpp import LlamaModel, LlamaSession

_PIECES = (
    *"aAzZéßøŁñçğşıİ",
    *"0123456789٣५௫Ⅷ½²",
    *" \n\t\r\u00a0\u2003\u3000\u200b",
    *".,;:!?'\"`~@#$%^&*()[]{}<>|\\/+-=_€£—…«»¿°",
    *"нещо漢字かなカナ한국어កខעבריתعربيไทยहिन्दी",
    *"🚀🦙😶‍🌫️👩🏽‍💻🇩🇪✅",
    "hello", "Hello", " WORLD", "router", "can't", "I'LL", "we've", "3.14", "1 000 000", "2026-11-21", "00:05",
    "  ", "    ", "\n\n", "\n\n\n", "\r\n", " \t ", "def f(x):\n    return x", "https://example.org/?q=1&r=%20",
    "e\u0301", "o\u0308", "naïve", "Größe", "Ünïcödé", "AB-12/34", "#1", "€9.99", "...", "------", "'''", "<|", "|>", "</s>",
)  # fmt: skip
_TEXTS = (
    "",
    " ",
    "How do I reset my router?",
    "You can't cancel within 14 days; it's 9.99 euros, not 99.9!",
    " leading and trailing  ",
    "1234567890 12 345 6789 0.5 1,000",
    "I'm you're he's we'll they've I'd 'TIS 'tis",
    "tabs\tand\nnewlines\r\nand  \n  spaces \n\n\n here",
    "日本語と한국어와 Русский עברית العربية ไทย हिन्दी",
    "👩🏽‍💻 🇩🇪 ✅ 😶‍🌫️ emoji",
)
_MIXES = 400


def fuzz_texts(special: tuple[str, ...], *, composed: bool) -> Iterator[str]:
    """The same texts every time: fixed ones, then mixes of pieces and of the model's special tokens.

    With `composed`, in Unicode's composed form (NFC): the source normalises its input and llama.cpp does not.
    """
    draw = np.random.default_rng(0)
    pieces = _PIECES + special
    mixes = ("".join(pieces[at] for at in draw.integers(0, len(pieces), draw.integers(1, 25))) for _ in range(_MIXES))
    around = (f"before{token}after {token} {token}\n" for token in special)
    for text in (*_TEXTS, *around, *mixes):
        yield unicodedata.normalize("NFC", text) if composed else text


def prove(path: Path, vocabulary: Vocabulary) -> int:
    """Load the file and compare; the number of texts whose tokens were equal.

    BadInput(ConversionUnproven) with the first difference, BadInput(RuntimeRefused) when the file does not load.
    """
    with LlamaModel(path) as model:
        _prove_special(model, vocabulary)
        count = _prove_tokens(model, vocabulary)
        _prove_finite(model)
        return count


def _prove_special(model: LlamaModel, vocabulary: Vocabulary) -> None:
    special = vocabulary.special
    claims: list[tuple[str, object, object]] = [
        ("the number of tokens", len(vocabulary.tokens), model.vocabulary),
        ("the chat template", vocabulary.chat_template, model.chat_template),
        ("whether BOS is added", special.adds_bos, model.adds_bos),
        ("whether EOS is added", special.adds_eos, model.adds_eos),
        *((f"stopping at token {token}", True, model.stops(token)) for token in sorted(special.stops)),
    ]
    if special.bos is not None:
        claims.append(("the BOS token", special.bos, model.bos))
    if special.eos is not None:
        claims.append(("the EOS token", special.eos, model.eos))
    for what, want, got in claims:
        if want != got:
            raise _unproven(f"{what} is {want!r} in the source model and {got!r} in the file")


def _prove_tokens(model: LlamaModel, vocabulary: Vocabulary) -> int:
    special = tuple(
        token
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
    )
    count = 0
    for text in fuzz_texts(special, composed=vocabulary.composes_unicode):
        for add_special in (False, True):
            want = vocabulary.tokenizer.encode(text, add_special_tokens=add_special).ids
            got = model.tokenize(text, add_special=add_special)
            if want != got:
                at = next(
                    (i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got))
                )
                raise _unproven(
                    f"{text!r} becomes {want[at : at + 5]} at token {at} in the source model and {got[at : at + 5]} in the file"
                )
        count += 1
    return count


def _prove_finite(model: LlamaModel) -> None:
    """One forward pass in the runtime: a file can load and still hold nonsense."""
    with LlamaSession(model, context_tokens=64, threads=1) as session:
        logits_TV = session.answer_logits([0, 1], [0, 1])
    if not np.isfinite(logits_TV).all():
        raise BadInput(
            WorkerReason.CONVERSION_UNPROVEN,
            "the file's logits are not finite",
            field="spec.exports",
            remedy="use another checkpoint where it came so, or train at a lower learning rate",
        )


def _unproven(message: str) -> BadInput:
    return BadInput(
        WorkerReason.CONVERSION_UNPROVEN,
        message,
        field="spec.exports",
        remedy="this tokenizer cannot be carried over faithfully: use a student with a supported one",
    )
