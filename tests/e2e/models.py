"""Good and bad builds of a model, each bad in a way that really happens, as folders that `spec.artifact.uri` names."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import urllib3
from mypy_boto3_s3 import S3Client

from dram_agent.child import Child, RuntimeSettings
from tests.e2e.fleet import CONTEXT_TOKENS, PARALLEL
from tests.models import ModelShape, write_model
from tests.workers.export.exporting import exported

GOLDEN_QUESTIONS = ("What about my bill?", "Where is my router?")
GOLDEN_TOKENS = 8
ANYTHING = "(?s).*"
SLOW = ModelShape(layers=56, hidden=512, intermediate=1536, heads=8, key_value_heads=4)
"""Some eighty times the weights of the tiny model: an answer takes as many times as long."""
Q8_BLOCK_BYTES, Q8_SCALE_BYTES = 34, 2
"""A block of Q8_0: a scale in half precision, then 32 weights of one byte."""


@dataclass(frozen=True)
class Source:
    """An artifact in the store, as `spec.artifact` names it."""

    uri: str
    sha256: str
    storage: dict[str, object] | None = None
    """None takes the installation's."""

    @property
    def spec(self) -> dict[str, object]:
        """`spec.artifact`."""
        named: dict[str, object] = {"uri": self.uri, "sha256": self.sha256}
        return named | ({"storage": self.storage} if self.storage else {})


def put(client: S3Client, prefix: str, name: str, model: bytes) -> Source:
    """Store a model as an artifact; the name is a file in it, so that equal models are different releases."""
    files = {"model.gguf": (model, "model"), "note.txt": (name.encode(), "card")}
    entries = [
        {"path": path, "sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "role": role}
        for path, (body, role) in files.items()
    ]
    manifest = json.dumps({"formatVersion": 1, "files": entries}, sort_keys=True).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    for path, body in [*((path, body) for path, (body, _) in files.items()), ("manifest.json", manifest)]:
        client.put_object(Bucket="dram", Key=f"{prefix}/{name}/{path}", Body=body)
    return Source(f"s3://dram/{prefix}/{name}", digest)


def noisy(model: bytes, folder: Path) -> bytes:
    """The same model after a quantization that lost every weight but its block's size."""
    from gguf import GGMLQuantizationType, GGUFReader

    path = folder / "noisy.gguf"
    path.write_bytes(model)
    dice = np.random.default_rng(7)
    reader = GGUFReader(path, "r+")
    for tensor in reader.tensors:
        if tensor.tensor_type is GGMLQuantizationType.Q8_0:
            blocks = tensor.data.reshape(-1, Q8_BLOCK_BYTES)
            blocks[:, Q8_SCALE_BYTES:] = dice.permuted(blocks[:, Q8_SCALE_BYTES:], axis=1)
    reader.data.flush()
    return path.read_bytes()


def truncated(model: bytes) -> bytes:
    """A file whose end is missing: no runtime loads it."""
    return model[: len(model) // 2]


def slow(folder: Path) -> bytes:
    """A model with far more layers than the device has time for."""
    return exported(folder, write_model(folder / "slow", SLOW), "Q8_0").read_bytes()


def golden_for(model: bytes, folder: Path) -> str:
    """A golden file with two of this model's own answers, and as many questions that any answer will do for."""
    exact = answers(model, folder)
    lines = [
        {"id": f"exact-{number}", "prompt": question, "exact": answer, "maxTokens": GOLDEN_TOKENS}
        for number, (question, answer) in enumerate(exact.items())
    ]
    lines += [
        {"id": f"any-{number}", "prompt": question, "regex": ANYTHING, "maxTokens": GOLDEN_TOKENS}
        for number, question in enumerate(GOLDEN_QUESTIONS)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def answers(model: bytes, folder: Path) -> dict[str, str]:
    """What the runtime of the devices answers to the golden questions with this model."""
    path = folder / "asked.gguf"
    path.write_bytes(model)
    child = Child(path, "asked", RuntimeSettings(CONTEXT_TOKENS, PARALLEL, threads=1))
    try:
        url = child.wait_ready()
        return {question: _answer(url, question) for question in GOLDEN_QUESTIONS}
    finally:
        child.end()


def _answer(url: str, question: str) -> str:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": GOLDEN_TOKENS, "temperature": 0}
    answer = urllib3.request("POST", f"{url}/v1/chat/completions", json=body, headers={"Connection": "close"})
    return str(answer.json()["choices"][0]["message"]["content"])
