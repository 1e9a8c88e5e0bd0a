"""From `tokenizer.json` to llama.cpp's vocabulary: tokens, merges, pre-tokenizer, special tokens and chat template.

Byte-level BPE only. What is read here is claimed, not trusted: `proof` compares it with the file in llama.cpp.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType
from tokenizers import Tokenizer

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.export.checkpoint import Checkpoint
from dram_workers.stages import canonical_json

_GPT2_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*steps: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_PRE_TOKENIZERS: dict[bytes, str] = {
    canonical_json(content): name
    for name, content in (
        ("gpt-2", _GPT2_WORDS),
        ("smollm", _sequence({"type": "Digits", "individual_digits": True}, _GPT2_WORDS)),
        ("llama-bpe", _sequence(_split(_WORDS % "{1,3}"), _BYTES)),
        ("qwen2", _sequence(_split(_WORDS % ""), _BYTES)),
    )
}
"""llama.cpp's name of a pre-tokenizer, by the content of Hugging Face's."""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens with a meaning of their own; None where the model has none."""

    bos: int | None
    eos: int | None
    unknown: int | None
    padding: int | None
    stops: frozenset[int]
    """Every token at which the source model stops, `eos` among them."""
    adds_bos: bool
    adds_eos: bool


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer in llama.cpp's terms."""

    tokenizer: Tokenizer
    tokens: tuple[str, ...]
    kinds: tuple[TokenType, ...]
    merges: tuple[str, ...]
    pre: str
    composes_unicode: bool
    """The source puts text into Unicode's composed form (NFC) first, which llama.cpp does not."""
    special: SpecialTokens
    chat_template: str | None

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Put the vocabulary into the file's metadata."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.kinds))
        writer.add_token_merges(list(self.merges))
        special = self.special
        for add, token in (
            (writer.add_bos_token_id, special.bos),
            (writer.add_eos_token_id, special.eos),
            (writer.add_unk_token_id, special.unknown),
            (writer.add_pad_token_id, special.padding),
        ):
            if token is not None:
                add(token)
        # A second and third stop token have keys of their own; llama.cpp finds the usual ones by their text as well.
        others = sorted(special.stops - {special.eos})
        for add, token in zip((writer.add_eot_token_id, writer.add_eom_token_id), others, strict=False):
            add(token)
        writer.add_add_bos_token(special.adds_bos)
        writer.add_add_eos_token(special.adds_eos)
        writer.add_add_space_prefix(False)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read_vocabulary(checkpoint: Checkpoint, size: int) -> Vocabulary:
    """The vocabulary of a model with `size` rows of embedding. BadInput(UnsupportedModel) where llama.cpp has no equal."""
    content = checkpoint.json("tokenizer.json")
    model = content.get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _unsupported("a tokenizer that is not byte-level BPE in a tokenizer.json")
    normalizer = (content.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise _unsupported(f"the tokenizer's normalizer {normalizer}")
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens, kinds = _tokens(content, tokenizer.get_vocab(with_added_tokens=True), size)
    return Vocabulary(
        tokenizer=tokenizer,
        tokens=tokens,
        kinds=kinds,
        merges=tuple(_merge(pair) for pair in model["merges"]),
        pre=_pre_tokenizer(content.get("pre_tokenizer") or {}),
        composes_unicode=normalizer == "NFC",
        special=_special(checkpoint, tokenizer),
        chat_template=_chat_template(checkpoint),
    )


def _tokens(
    content: Mapping[str, Any], ids: Mapping[str, int], size: int
) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    """Token texts and kinds by id; rows that the tokenizer does not use are padding."""
    if max(ids.values()) >= size:
        raise _unsupported(f"a tokenizer of {max(ids.values()) + 1} tokens with an embedding of {size} rows")
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [TokenType.UNUSED] * size
    for text, number in ids.items():
        tokens[number], kinds[number] = text, TokenType.NORMAL
    for added in content.get("added_tokens", ()):
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    return tuple(tokens), tuple(kinds)


def _merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)


def _pre_tokenizer(content: Mapping[str, Any]) -> str:
    found = _PRE_TOKENIZERS.get(canonical_json(_plain(content)))
    if found is None:
        known = ", ".join(sorted(_PRE_TOKENIZERS.values()))
        raise _unsupported(f"the pre-tokenizer {canonical_json(content).decode()[:300]} (known: {known})")
    return found


def _plain(value: Any) -> Any:
    """The pre-tokenizer without the settings that do not change which tokens come out."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key != "trim_offsets"}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _special(checkpoint: Checkpoint, tokenizer: Tokenizer) -> SpecialTokens:
    config = checkpoint.config
    generation = checkpoint.json("generation_config.json")
    named = checkpoint.json("special_tokens_map.json") | checkpoint.json("tokenizer_config.json")

    def token(name: str) -> int | None:
        given = named.get(f"{name}_token")
        text = given.get("content") if isinstance(given, Mapping) else given
        found = tokenizer.token_to_id(text) if isinstance(text, str) else None
        return found if found is not None else next(iter(_ids(config.get(f"{name}_token_id"))), None)

    bos, eos = token("bos"), token("eos")
    stops = {*_ids(generation.get("eos_token_id", config.get("eos_token_id"))), *_ids(eos)}
    before, after = _added(tokenizer)
    if before not in ([], [bos]) or after not in ([], [eos]):
        raise _unsupported(f"a tokenizer that puts {before} before and {after} behind a text")
    return SpecialTokens(bos, eos, token("unk"), token("pad"), frozenset(stops), bool(before), bool(after))


def _ids(value: object) -> tuple[int, ...]:
    """Token ids of a config: none, one, or a list of them."""
    if isinstance(value, list):
        return tuple(item for item in value if isinstance(item, int))
    return (value,) if isinstance(value, int) else ()


def _added(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts around a text of its own accord."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    at = next(start for start in range(len(full)) if full[start : start + len(bare)] == bare)
    return full[:at], full[at + len(bare) :]


def _chat_template(checkpoint: Checkpoint) -> str | None:
    """The template that `apply_chat_template` uses: the file beside the tokenizer goes before the config's entry."""
    path: Path = checkpoint.folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    given = checkpoint.json("tokenizer_config.json").get("chat_template")
    if isinstance(given, list):
        given = next((entry["template"] for entry in given if entry.get("name") == "default"), None)
    return given if isinstance(given, str) else None


def _unsupported(what: str) -> BadInput:
    return BadInput(
        WorkerReason.UNSUPPORTED_MODEL,
        f"GGUF export does not take {what}",
        field="spec.student",
        remedy="use a student with a byte-level BPE tokenizer of GPT-2, SmolLM, Llama 3 or Qwen2",
    )
