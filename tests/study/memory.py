"""The estimate of a training's memory against the peaks of real ones: `python -m tests.study.memory TEACHER`.

TEACHER is a `from_pretrained` folder. Every row trains two steps and takes up to a minute. Prints a Markdown table.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dram_workers.deepspeed_settings import DeepSpeedSettings
from dram_workers.memory import MIB, ModelSize, TrainingSetup, estimate
from dram_workers.train.settings import effective_stage
from tests.models import write_model
from tests.study.peaks import parameters_of, peak_rank_bytes, write_samples
from tests.workers.train.training import Training

SAMPLES = 16


@dataclass(frozen=True)
class Case:
    """One training; every sample has `length` tokens."""

    length: int = 100
    batch_tokens: int = 800
    precision: str = "BF16"
    world: int = 1
    zero_stage: int = 0
    offload: bool = False

    def setup(self) -> TrainingSetup:
        """As the operator would tell it, were a rank alone in its pod."""
        asked = DeepSpeedSettings.model_validate(self.deepspeed())
        # A step of whole samples of one length goes over its tokens by less than a sample: here by nothing.
        return TrainingSetup(
            precision=self.precision,
            zero_stage=effective_stage(asked, self.world),
            offload=self.offload,
            world=self.world,
            batch_tokens=self.batch_tokens - self.length * self.world,
            max_length=self.length,
            max_steps=2,
        )

    def deepspeed(self) -> dict[str, Any]:
        """As in the stage's config."""
        return {"zero_stage": self.zero_stage, "offload": "Optimizer" if self.offload else "None"}

    def training(self, folder: Path, teacher: Path, layers: int) -> Training:
        """The training itself."""
        vocabulary = int(json.loads((teacher / "config.json").read_text())["vocab_size"])
        dataset = write_samples(folder / "dataset", [self.length] * SAMPLES, vocabulary)
        identity = {"layers": layers, "precision": self.precision, "max_steps": 2, "warmup_steps": 0}
        return Training(
            folder,
            {"teacher": teacher, "dataset": dataset},
            identity | {"max_length": self.length, "batch_tokens": self.batch_tokens},
            {"workers": self.world, "deepspeed": self.deepspeed(), "checkpoint_every_steps": 1, "threads": 2},
        )


CASES = (
    Case(),
    Case(precision="FP32"),
    Case(length=512, batch_tokens=2048),
    Case(length=512, batch_tokens=2048, precision="FP32"),
    Case(length=512, batch_tokens=4096),
    Case(world=2, zero_stage=1),
    Case(world=2, zero_stage=2),
    Case(world=2, zero_stage=3),
    Case(zero_stage=1, offload=True),
)


def compare(case: Case, teacher: Path, layers: int) -> tuple[float, float]:
    """Estimated and measured peak of a rank in MiB."""
    config = json.loads((teacher / "config.json").read_text())
    size = ModelSize.of(config, parameters_of(teacher))
    found = estimate(size, size.cut(layers), case.setup())
    with tempfile.TemporaryDirectory() as folder:
        measured = peak_rank_bytes(case.training(Path(folder), teacher, layers))
    return found.total_bytes / MIB, measured / MIB


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Hold the estimate of a training's memory against real ones.")
    parser.add_argument("teacher", type=Path, help="a from_pretrained folder")
    parser.add_argument("--layers", type=int, default=20, help="layers of the student")
    asked = parser.parse_args()
    _tell("| model | precision | tokens x length | ranks, ZeRO | estimated MiB | measured MiB | ratio |")
    _tell("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_model(Path(folder) / "tiny")
        for teacher, layers, case in [(tiny, 2, CASES[0]), *((asked.teacher, asked.layers, case) for case in CASES)]:
            want, got = compare(case, teacher, layers)
            zero = f"{case.world}, {case.zero_stage}{' offload' if case.offload else ''}"
            name = "tiny" if teacher is tiny else f"{layers} layers"
            row = f"| {name} | {case.precision} | {case.batch_tokens} x {case.length} | {zero} "
            _tell(f"{row}| {want:,.0f} | {got:,.0f} | {want / got:.2f} |")


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
