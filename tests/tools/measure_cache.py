"""Compare the gradient from cached logits with the one from all logits, for the table in docs/design/teacher-logits.md.

    python -m tests.tools.measure_cache --teacher FOLDER --data FILE --layers 15 [--targets 512]

FILE is JSON Lines or plain text, as a source of a dataset may be. The student is the teacher with fewer layers.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from dram_workers.data.dataset import Dataset, write_dataset
from dram_workers.data.samples import to_samples
from dram_workers.data.sources import read_source
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.teach.encoding import VALUE_BITS, Encoding
from dram_workers.teach.fidelity import Pair
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.pretrained import load_model
from dram_workers.train.student import cut_from

KEPT = (16, 32, 64, 128)
TEMPERATURES = (1.0, 2.0, 3.0)
BITS = (6, 8, 10, 12)
MAX_LENGTH = 256


def main() -> int:
    """Print the two tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.measure_cache", description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--targets", type=int, default=512)
    asked = parser.parse_args()
    teacher = load_model(asked.teacher, torch.float32, "spec.teacher.uri", attention=SEGMENTS)
    student = cut_from(teacher, asked.layers, SEGMENTS)
    with TemporaryDirectory() as folder:
        dataset = _dataset(Path(folder), asked.data, ChatTokenizer.load(asked.teacher))
        pair = Pair.on(teacher, student, dataset, packed=True, targets=asked.targets)
    for line in _lines(pair, int(teacher.config.vocab_size)):
        print(line, flush=True)  # noqa: T201
    return 0


def _dataset(folder: Path, data: Path, tokenizer: ChatTokenizer) -> Dataset:
    samples = [
        sample
        for record in read_source(data, source=data.name, weight=1.0, field="--data")
        for sample in to_samples(record, tokenizer, max_length=MAX_LENGTH, loss_on_all=False, field="--data")
    ]
    write_dataset(folder, {"train": samples, "validation": []}, {}, {})
    return Dataset(folder, "train")


def _lines(pair: Pair, rows: int) -> Iterator[str]:
    yield f"{len(pair.labels_N)} target tokens"
    yield "| k | T | bytes a token | mass outside | cosine | norm ratio |"
    yield "|---|---|---|---|---|---|"
    for temperature in TEMPERATURES:
        for top_k in KEPT:
            yield _row(pair, Encoding(rows, top_k), temperature)
    yield f"at k=64 and T=1, by bits of a log-probability ({VALUE_BITS} is what the cache has):"
    for bits in BITS:
        yield f"{bits}: {_row(pair, Encoding(rows, 64, bits), 1.0)}"
    yield f"all tokens kept, {VALUE_BITS} bits: {_row(pair, Encoding(rows, rows), 1.0)}"


def _row(pair: Pair, encoding: Encoding, temperature: float) -> str:
    found = pair.agreement(encoding, temperature)
    cells = (encoding.top_k, f"{temperature:g}", encoding.token_bytes, f"{found.mass_outside:.1%}")
    return "| " + " | ".join(map(str, (*cells, f"{found.cosine:.5f}", f"{found.norm_ratio:.4f}"))) + " |"


if __name__ == "__main__":
    sys.exit(main())
