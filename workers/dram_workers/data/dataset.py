"""The dataset's folder: token ids, loss masks and what a reader must know about each sample. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from dram_workers.data.samples import Sample
from dram_workers.stages import canonical_json

Split = Literal["train", "validation"]

SAMPLES = "samples.jsonl"
PROMPTS = "prompts.json"
FACTS = "facts.json"


@dataclass(frozen=True)
class Sequence:
    """One sample as arrays over its N tokens."""

    tokens: NDArray[np.int32]
    loss_mask: NDArray[np.uint8]


class Dataset:
    """One split, read from disk sample by sample."""

    def __init__(self, folder: Path, split: Split) -> None:
        rows = [json.loads(line) for line in (folder / SAMPLES).read_text(encoding="utf-8").splitlines()]
        chosen = [row for row in rows if row["split"] == split]
        self.ids: tuple[str, ...] = tuple(row["id"] for row in chosen)
        self.weights: tuple[float, ...] = tuple(row["weight"] for row in chosen)
        self._file = safe_open(folder / f"{split}.safetensors", framework="numpy")
        self.offsets: NDArray[np.int64] = self._file.get_tensor("offsets")  # type: ignore[no-untyped-call]
        self._tokens = self._file.get_slice("tokens")  # type: ignore[no-untyped-call]
        self._loss_mask = self._file.get_slice("loss_mask")  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample."""
        return np.diff(self.offsets)

    @property
    def highest_token(self) -> int:
        """The largest token id."""
        return int(self._tokens[:].max(initial=0))

    def __getitem__(self, index: int) -> Sequence:
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return Sequence(self._tokens[start:end], self._loss_mask[start:end])


def write_dataset(
    folder: Path,
    splits: dict[Split, list[Sample]],
    prompts: dict[str, str],
    facts: dict[str, object],
) -> None:
    """Write the folder that `DataIdentity` describes; the same samples give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / SAMPLES).open("wb") as file:
        for split, samples in splits.items():
            save_file(_arrays(samples), folder / f"{split}.safetensors")
            for sample in samples:
                row = {
                    "id": sample.id,
                    "split": split,
                    "source": sample.record.source,
                    "weight": sample.record.weight,
                    "place": sample.record.place,
                    "tokens": len(sample.tokens),
                    "targets": sum(sample.loss_mask),
                }
                file.write(canonical_json(row) + b"\n")
    (folder / PROMPTS).write_bytes(canonical_json(prompts))
    (folder / FACTS).write_bytes(canonical_json(facts))


def _arrays(samples: list[Sample]) -> dict[str, NDArray[np.generic]]:
    lengths = [len(sample.tokens) for sample in samples]
    return {
        "tokens": np.fromiter((token for sample in samples for token in sample.tokens), np.int32),
        "loss_mask": np.fromiter((flag for sample in samples for flag in sample.loss_mask), np.uint8),
        "offsets": np.cumsum([0, *lengths], dtype=np.int64),
    }
