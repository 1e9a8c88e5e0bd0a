"""Comparing tokenizers by content: what decides which id a text gets, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.fetch.located import Located

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""What it takes to tokenize, to render a conversation and to know where an answer ends."""

PARTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "vocabulary": lambda parsed: parsed["model"].get("vocab"),
    "merges": lambda parsed: _merges(parsed["model"].get("merges")),
    "model": lambda parsed: _settings(parsed["model"]),
    "normaliser": lambda parsed: parsed.get("normalizer"),
    "pre-tokenizer": lambda parsed: parsed.get("pre_tokenizer"),
    "special tokens": lambda parsed: _added(parsed.get("added_tokens") or []),
}
"""Padding, truncation, decoder and templates are left out: they change no id of a text."""


def check_same(teacher: Located, student: Located) -> None:
    """BadInput that names what differs. Rows of the embedding beyond the vocabulary are padding and may differ."""
    first, second = _parse(teacher, "spec.teacher.uri"), _parse(student, "spec.student.uri")
    differing = [name for name, part in PARTS.items() if part(first) != part(second)]
    if not differing:
        return
    raise BadInput(
        WorkerReason.TOKENIZER_MISMATCH,
        f"the tokenizers of {teacher.uri} and {student.uri} differ in {', '.join(differing)}{_sizes(first, second)}: "
        "their logits cannot be compared token by token",
        field="spec.student.uri",
        remedy=(
            "Use a student with the teacher's tokenizer, cut one from the teacher (spec.student.fromTeacher), or train on "
            "text that the teacher wrote: Sequence mode (spec.objective.mode) takes any two tokenizers."
        ),
    )


def check_tokenizer(model: Located, field: str) -> None:
    """BadInput when the model brings no tokenizer that can be read without its code."""
    _parse(model, field)


def _parse(model: Located, field: str) -> dict[str, Any]:
    body = model.read("tokenizer.json")
    try:
        parsed = json.loads(body or b"")
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("model"), dict):
        raise BadInput(
            WorkerReason.UNSUPPORTED_MODEL,
            f"{model.uri} has no readable tokenizer.json",
            field=field,
            remedy="Save it once with AutoTokenizer.from_pretrained(model).save_pretrained(folder).",
        )
    return parsed


def _merges(merges: list[str | list[str]] | None) -> list[tuple[str, ...]]:
    """Merges are written as pairs or, in older files, as two words with a space between."""
    return [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in merges or []]


def _settings(model: dict[str, Any]) -> dict[str, Any]:
    """The model's other settings; absent, null and false are the same to the library."""
    return {
        name: value
        for name, value in model.items()
        if name not in {"vocab", "merges"} and value not in (None, False, "")
    }


def _added(tokens: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    fields = ("id", "content", "special", "lstrip", "rstrip", "single_word", "normalized")
    return sorted(tuple(token.get(name) for name in fields) for token in tokens)


def _sizes(first: dict[str, Any], second: dict[str, Any]) -> str:
    ours, theirs = len(first["model"].get("vocab") or ()), len(second["model"].get("vocab") or ())
    return f" ({ours} and {theirs} entries)" if ours != theirs else ""
