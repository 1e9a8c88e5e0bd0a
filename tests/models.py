"""Tiny models and a small real tokenizer, made on the spot and the same every time. Import-light: torch is imported inside."""

import json
from dataclasses import dataclass
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML: every turn between `<|im_start|>role` and `<|im_end|>`."""

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_CORPUS = (
    "How do I reset the router? Hold the small button on the back for ten seconds until the light turns white.",
    "Where can I see my bill? Open the app, choose Account, then Bills; each bill can be saved as a file.",
    "My phone has no signal abroad. Turn on roaming in the settings and choose a network by hand.",
    "You can cancel the contract within 14 days. After that a notice of one month applies.",
    "What does the plan cost? The small plan costs 9.99 euros a month, the large one 24.99 euros.",
    "system user assistant The quick brown fox jumps over the lazy dog. 0123456789 äöüß ñ ç – €",
)


@dataclass(frozen=True)
class ModelShape:
    """The size of a tiny Llama. Widths that are multiples of 256 take every K-quant."""

    layers: int = 4
    hidden: int = 64
    intermediate: int = 128
    heads: int = 4
    key_value_heads: int = 2
    tied: bool = True
    vocabulary: int | None = None
    """Rows of the embedding; None is the tokenizer's size, more are padding."""
    context: int = 512


def write_tokenizer(folder: Path, *, vocabulary: int = 512, chat: bool = True) -> Path:
    """Train a byte-level BPE (pre-tokenizer of SmolLM2) on a few sentences and save it as `from_pretrained` reads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "model_max_length": 8192,
        "clean_up_tokenization_spaces": False,
    }
    if chat:
        config["chat_template"] = CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return folder


def write_model(folder: Path, shape: ModelShape | None = None, *, seed: int = 0, chat: bool = True) -> Path:
    """Write a random Llama with its tokenizer as a `from_pretrained` folder in safetensors.

    The weights are wide enough (standard deviation 0.15) that greedy answers survive rounding.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    shape = shape or ModelShape()
    write_tokenizer(folder, chat=chat)
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    config = LlamaConfig(
        vocab_size=shape.vocabulary or size,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def support_rows(count: int, *, offset: int = 0) -> list[dict[str, object]]:
    """Completion rows of a telecom support desk, each with a prompt of its own."""
    subjects = ("router", "bill", "roaming", "contract", "voicemail", "data plan", "SIM card", "landline")
    return [
        {
            "prompt": f"Question {number}: what about my {subjects[number % len(subjects)]}?",
            "completion": f"Open the app, choose {subjects[number % len(subjects)]} and follow step {number % 7 + 1}.",
        }
        for number in range(offset, offset + count)
    ]
