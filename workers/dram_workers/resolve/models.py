"""Looking at a model without loading it: only JSON and the headers of safetensors files are read."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.fetch.located import Located
from dram_workers.memory import ModelSize

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX = "model.safetensors.index.json"
HEADER_LIMIT_BYTES = 100_000_000
"""The format's own limit of a header's length."""
LAYER_NAMES = ("num_hidden_layers", "n_layer", "num_layers")


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is loaded."""

    architecture: str
    layers: int
    vocabulary: int
    """Rows of the embedding, padding included."""
    parameters: int
    licence: str | None
    """As the model's own card or licence file says."""
    size: ModelSize

    def as_facts(self, who: Literal["teacher", "student"] = "teacher") -> dict[str, str | int | float | bool]:
        """Facts of the stage's result, under the names that later stages know."""
        licence = {f"{who}Licence": self.licence} if self.licence else {}
        return {
            "architecture": self.architecture,
            f"{who}Layers": self.layers,
            "vocabulary": self.vocabulary,
            f"{who}Parameters": self.parameters,
            **licence,
        }


def inspect_model(model: Located, field: str) -> ModelFacts:
    """Facts of a causal language model; BadInput when it is none, is pickled or brings its own code."""
    config = _json(model, "config.json", field)
    _check_no_code(model, config, field)
    weights = _check_weights(model, field)
    text = config.get("text_config") or config
    layers = next((text[name] for name in LAYER_NAMES if isinstance(text.get(name), int)), None)
    architecture = next(iter(config.get("architectures") or ()), None)
    if layers is None or architecture is None or not isinstance(text.get("vocab_size"), int):
        raise _unsupported(model, field, "its config.json names no architecture, layers or vocabulary")
    parameters = sum(_parameters(model, name, field) for name in weights)
    return ModelFacts(
        architecture=str(architecture)[:64],
        layers=layers,
        vocabulary=text["vocab_size"],
        parameters=parameters,
        licence=_licence(model),
        size=ModelSize.of(config, parameters),
    )


def check_embedder(model: Located) -> None:
    """A sentence embedder is read by the same rules as any model."""
    field = "spec.golden.embedder"
    _check_no_code(model, _json(model, "config.json", field), field)
    _check_weights(model, field)


def check_layers(teacher: ModelFacts, layers: int | None) -> None:
    """A student cut from the teacher cannot have more layers than the teacher."""
    if layers is not None and layers > teacher.layers:
        raise BadInput(
            WorkerReason.TOO_MANY_LAYERS,
            f"{layers} layers are to be kept and the teacher has {teacher.layers}",
            field="spec.student.fromTeacher.layers",
            remedy=f"Keep {teacher.layers} or fewer.",
        )


def _json(model: Located, name: str, field: str) -> dict[str, Any]:
    body = None if model.is_file else model.read(name)
    try:
        parsed = json.loads(body or b"")
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise BadInput(
            WorkerReason.MODEL_NOT_FOUND,
            f"{model.uri} has no readable {name}, so it is no model folder",
            field=field,
            remedy="Point it to a folder as save_pretrained writes it.",
        )
    return parsed


def _check_no_code(model: Located, config: dict[str, Any], field: str) -> None:
    tokenizer = model.read("tokenizer_config.json")
    for name, settings in (("config.json", config), ("tokenizer_config.json", json.loads(tokenizer or b"{}"))):
        if settings.get("auto_map"):
            raise BadInput(
                WorkerReason.UNSAFE_MODEL,
                f"{model.uri} brings its own code ({name} has auto_map), and code of a model is never run",
                field=field,
                remedy="Use a model of an architecture that transformers knows.",
            )


def _check_weights(model: Located, field: str) -> list[str]:
    """The names of the weight files; all are safetensors and all are there."""
    names = {info.key for info in model.tree.list("")}
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    if not weights:
        pickled = sorted(name for name in names if name.endswith(PICKLED))
        if pickled:
            raise BadInput(
                WorkerReason.UNSAFE_MODEL,
                f"{model.uri} has only pickled weights ({pickled[0]}), which can run code when they are read",
                field=field,
                remedy="Convert it to safetensors: load it where you trust it and save_pretrained(folder).",
            )
        raise _no_weights(model, field, "no .safetensors file is there")
    if INDEX not in names:
        return weights
    shards = sorted(set(_json(model, INDEX, field).get("weight_map", {}).values()))
    missing = [name for name in shards if name not in names]
    if missing:
        raise _no_weights(model, field, f"{INDEX} names {missing[0]}, which is not there")
    return shards


def _parameters(model: Located, name: str, field: str) -> int:
    """Number of elements by a file's header: 8 bytes of length (little-endian), then JSON."""
    length = int.from_bytes(model.tree.get_bytes(name, first=8) or b"", "little")
    body = model.tree.get_bytes(name, first=8 + length) if 0 < length <= HEADER_LIMIT_BYTES else None
    try:
        header = json.loads((body or b"")[8:])
    except ValueError as error:
        raise _no_weights(model, field, f"{name} is not a safetensors file") from error
    return sum(math.prod(tensor["shape"]) for key, tensor in header.items() if key != "__metadata__")


def _licence(model: Located) -> str | None:
    """The licence of a card's front matter, else the first line of a licence file."""
    card = (model.read("README.md") or b"").decode(errors="replace")
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    found = re.search(r"^license(?:_name)?: *['\"]?([^'\"\n]+)", front[1] if front else "", re.MULTILINE)
    if found:
        return found[1].strip()[:64]
    text = (model.read("LICENSE") or b"").decode(errors="replace").strip()
    return text.split("\n")[0].strip()[:64] or None


def _no_weights(model: Located, field: str, why: str) -> BadInput:
    return BadInput(
        WorkerReason.MODEL_NOT_FOUND,
        f"{model.uri}: {why}",
        field=field,
        remedy="Point it to a complete folder as save_pretrained writes it.",
    )


def _unsupported(model: Located, field: str, why: str) -> BadInput:
    return BadInput(
        WorkerReason.UNSUPPORTED_MODEL,
        f"{model.uri} cannot be distilled: {why}",
        field=field,
        remedy="Use a decoder-only language model.",
    )
