"""Keep the golden suite held out: no golden prompt may stand in the training data.

Prompts are compared by digest after normalisation, so that a cached dataset can be checked against a new golden file
without reading its text again.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

from dram_workers.data.sources import Record
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.golden import GoldenItem

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
SHOWN = 3
"""Leaks that the message names."""


def normalised(text: str) -> str:
    """Case, punctuation, accents' encoding and white space do not make another prompt."""
    words = "".join(c if c.isalnum() else " " for c in unicodedata.normalize("NFKC", text).casefold())
    return " ".join(words.split())


def conversation_key(turns: Iterable[str]) -> str:
    """Digest of the user turns that lead to an answer; system prompts do not make another prompt."""
    return hashlib.sha256("\x1f".join(normalised(turn) for turn in turns).encode()).hexdigest()[:32]


def record_keys(record: Record) -> Iterable[str]:
    """The prompts in a record: of a conversation, one an answer; of plain text, every line and every sentence."""
    asked: list[str] = []
    for role, content in record.messages:
        if role == "user":
            asked.append(content)
        elif role == "assistant":
            yield conversation_key(asked)
    for line in record.text.splitlines():
        for piece in {line, *_SENTENCE_END.split(line)}:
            if normalised(piece):
                yield conversation_key([piece])


def check_leaks(prompts: Mapping[str, str], golden: Iterable[GoldenItem]) -> None:
    """BadInput(GoldenLeak) when a golden prompt is among `prompts` (key to the place where it stands)."""
    leaks = []
    for item in golden:
        key = conversation_key(turn["content"] for turn in item.conversation if turn["role"] == "user")
        if key in prompts:
            leaks.append(f"{item.id} ({prompts[key]})")
    if leaks:
        shown = ", ".join(leaks[:SHOWN]) + (f" and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else "")
        raise BadInput(
            WorkerReason.GOLDEN_LEAK,
            f"{len(leaks)} golden prompts stand in the training data: {shown}",
            field="spec.golden.uri",
            remedy="take these prompts out of the training data, or replace them in the golden file",
        )
