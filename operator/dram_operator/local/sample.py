"""A random teacher with its tokenizer and data, so small that a whole job with it takes a minute or two.

Written without torch, which the operator's image has not, and the same every time: the formats are those that `from_pretrained` reads.
"""

import json
import random
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LAYERS, HIDDEN, INTERMEDIATE, HEADS, KEY_VALUE_HEADS = 4, 64, 128, 4, 2
CONTEXT = 512
DEVIATION = 0.15
"""Of the weights: wide enough that greedy answers survive rounding."""
SEED = 7
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (("t", "h"), ("th", "e"), ("i", "n"), ("e", "r"), ("o", "u"), ("a", "n"), ("r", "e"), ("o", "n"))
TRAINING_ROWS, GOLDEN_ROWS = 64, 4
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEACHER, DATA, GOLDEN = "teacher", "data.jsonl", "golden.jsonl"


def write_sample(folder: Path) -> None:
    """Write the folder `teacher`, `data.jsonl` and `golden.jsonl`."""
    teacher = folder / TEACHER
    teacher.mkdir(parents=True)
    tokenizer = _tokenizer()
    size = len(tokenizer["model"]["vocab"])
    for name, content in (
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", _tokenizer_config()),
        ("config.json", _model_config(size)),
    ):
        (teacher / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    (teacher / "model.safetensors").write_bytes(_safetensors(size))
    rows = [_row(number) for number in range(TRAINING_ROWS + GOLDEN_ROWS)]
    golden = [{"id": f"g{number}", "prompt": row["prompt"]} for number, row in enumerate(rows[TRAINING_ROWS:])]
    for file, lines in ((DATA, rows[:TRAINING_ROWS]), (GOLDEN, golden)):
        (folder / file).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def sample_spec(uri: str, storage: dict[str, Any]) -> dict[str, Any]:
    """The spec of a job with the sample that lies below `uri`: a few steps, one variant, one gate, every stage."""
    small = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}}
    return {
        "teacher": {"uri": f"{uri}/{TEACHER}"},
        "student": {"fromTeacher": {"layers": LAYERS // 2}},
        "dataset": {"sources": [{"uri": f"{uri}/{DATA}"}], "maxLength": 192},
        "training": {"maxSteps": 4, "batchTokens": 768, "precision": "FP32"},
        "exports": [{"name": "gguf-q8-0", "gguf": {"type": "Q8_0"}}],
        "golden": {"uri": f"{uri}/{GOLDEN}", "maxTokens": 4},
        "gates": {"performance": {"maxSizeMiB": 128}},
        "podTemplate": {"resources": {"default": small}},
        "storage": storage,
    }


def _row(number: int) -> dict[str, str]:
    subject = ("router", "bill", "roaming", "contract", "voicemail", "data plan", "SIM card", "landline")[number % 8]
    return {
        "prompt": f"Question {number}: what about my {subject}?",
        "completion": f"Open the app, choose {subject} and follow step {number % 7 + 1}.",
    }


def _alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE, as GPT-2 chose them."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


def _tokenizer() -> dict[str, Any]:
    tokens = [*SPECIAL_TOKENS, *_alphabet(), *("".join(pair) for pair in MERGES)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": text, **flags, "special": True} for number, text in enumerate(SPECIAL_TOKENS)
        ],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "unk_token": SPECIAL_TOKENS[0],
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: number for number, text in enumerate(tokens)},
            "merges": [list(pair) for pair in MERGES],
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _model_config(size: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": "float32",
    }


def _tensors(size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight of a Llama."""
    narrow = HIDDEN // HEADS * KEY_VALUE_HEADS
    yield "model.embed_tokens.weight", (size, HIDDEN)
    for layer in range(LAYERS):
        for name, shape in (
            ("self_attn.q_proj", (HIDDEN, HIDDEN)),
            ("self_attn.k_proj", (narrow, HIDDEN)),
            ("self_attn.v_proj", (narrow, HIDDEN)),
            ("self_attn.o_proj", (HIDDEN, HIDDEN)),
            ("mlp.gate_proj", (INTERMEDIATE, HIDDEN)),
            ("mlp.up_proj", (INTERMEDIATE, HIDDEN)),
            ("mlp.down_proj", (HIDDEN, INTERMEDIATE)),
        ):
            yield f"model.layers.{layer}.{name}.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)


def _safetensors(size: int) -> bytes:
    """The weights in safetensors' format: length of the header, header as JSON, tensors one after the other."""
    dice = random.Random(SEED)  # noqa: S311 -- weights are no secret
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, shape in _tensors(size):
        values = [1.0] * HIDDEN if len(shape) == 1 else (dice.gauss(0, DEVIATION) for _ in range(shape[0] * shape[1]))
        begin = len(body)
        body += array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, len(body)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)
