"""Equal budgets, compared: `python -m tests.study.quality` (or `make study`).

Every recipe trains on the support-bot example with the same tokens; each is repeated with several seeds. A run that is
finished is kept in build/study/results.json and not done again; build/study/quality.md holds the table.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.cli.demo import BUCKET, EXAMPLE
from dram_operator.core.configs import Results
from dram_operator.local.manifest import ManifestInvalid, read_job
from dram_workers.intervals import mean_bounds
from dram_workers.stages import StageKind
from tests.study.recipes import RECIPES
from tests.study.stages import Laboratory, StageFailed

FOLDER = Path(__file__).parents[2] / "build" / "study"
HELD_OUT = 0.15
"""Of the samples: enough targets for a divergence, where the example itself keeps one in twenty."""


@dataclass(frozen=True)
class Finding:
    """What one finished run showed. `recipe`, `seed` and `steps` name it."""

    recipe: str
    seed: int
    steps: int
    validation_kl: float
    """KL(teacher || student) on held-out targets at temperature 1, in nats a token."""
    validation_ce: float
    golden_score: float
    golden_pass_rate: float
    tokens: int
    train_seconds: float | None
    """Of the training loop; none where it was found in the store."""

    @property
    def name(self) -> tuple[str, int, int]:
        """What no other run has."""
        return self.recipe, self.seed, self.steps


def job_of(recipe: str, seed: int, steps: int) -> DistillationJob:
    """The example's manifest for one run; raises ManifestInvalid where this version lacks a field of the recipe."""
    settings = [f"spec.training.seed={seed}", f"spec.training.maxSteps={steps}"]
    settings.append(f"spec.training.warmupSteps={min(5, steps)}")
    settings.append(f"spec.dataset.validationFraction={HELD_OUT}")
    return read_job(EXAMPLE / "job.yaml", [*settings, *RECIPES[recipe].settings()])


def examine(laboratory: Laboratory, recipe: str, seed: int, steps: int) -> Finding:
    """Train, evaluate and measure one run."""
    # torch is needed for no other part of this module
    from tests.study.divergence import held_out

    results = laboratory.train_and_evaluate(job_of(recipe, seed, steps))
    folders = {
        name: _folder(laboratory, results, stage, name)
        for stage, name in (("resolve", "teacher"), ("train", "student"), ("data", "dataset"))
    }
    distance = held_out(folders["teacher"], folders["student"], folders["dataset"])
    scores = {measure.name: measure.value for measure in results["evaluate-student"].measures}
    facts = results["train"].facts
    return Finding(
        recipe=recipe,
        seed=seed,
        steps=steps,
        validation_kl=distance.divergence,
        validation_ce=distance.cross_entropy,
        golden_score=scores["goldenScore"],
        golden_pass_rate=scores["goldenPassRate"],
        tokens=int(facts["tokens"]),
        train_seconds=float(facts["seconds"]) if "seconds" in facts else None,
    )


def _folder(laboratory: Laboratory, results: Results, stage: str, output: str) -> Path:
    found = results[stage]
    return laboratory.folder(found.outputs[output], found.key, StageKind(stage))


def table(findings: Iterable[Finding], steps: int) -> str:
    """The findings of one budget as Markdown: means over seeds with one-sided 95 % bounds by Student's t."""
    lines = ["| Recipe | Seeds | Validation KL | Validation CE | Golden score | Golden pass rate | Tokens |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    chosen = [finding for finding in findings if finding.steps == steps]
    for name, recipe in RECIPES.items():
        runs = [finding for finding in chosen if finding.recipe == name]
        if runs:
            columns = (
                [run.validation_kl for run in runs],
                [run.validation_ce for run in runs],
                [run.golden_score for run in runs],
                [run.golden_pass_rate for run in runs],
            )
            tokens = sum(run.tokens for run in runs) / len(runs)
            cells = " | ".join(_cell(values) for values in columns)
            lines.append(f"| {recipe.title} | {len(runs)} | {cells} | {tokens:,.0f} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    low, high = mean_bounds(values)
    mean = f"{sum(values) / len(values):.3f}"
    return mean if low is None or high is None else f"{mean} [{low:.3f}, {high:.3f}]"


def read(file: Path) -> list[Finding]:
    """The runs that are finished."""
    return [Finding(**row) for row in json.loads(file.read_bytes())] if file.exists() else []


def write(file: Path, findings: Sequence[Finding]) -> None:
    """Replace the file at once: a study that is killed loses only its last run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    incoming = file.with_name(f".{file.name}.incoming")
    incoming.write_text(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    incoming.replace(file)


def _laboratory(folder: Path) -> Laboratory:
    """The study's folder, with SmolLM2 as the teacher."""
    folder = folder.absolute()
    teacher = folder / "teacher"
    if not teacher.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "dram_operator.local.teacher", str(teacher)], check=True)
    return Laboratory(folder, {f"{BUCKET}/teacher": str(teacher), f"{BUCKET}/data": str(EXAMPLE)})


def study(folder: Path, names: Sequence[str], seeds: Sequence[int], steps: int) -> list[Finding]:
    """Do what is not done yet, seed by seed, so that every recipe has a figure early."""
    for name in names:
        job_of(name, 0, steps)
    file = folder / "results.json"
    findings = read(file)
    done = {finding.name for finding in findings}
    left = [(name, seed) for seed in seeds for name in names if (name, seed, steps) not in done]
    laboratory = _laboratory(folder) if left else None
    for name, seed in left:
        assert laboratory is not None
        started = time.monotonic()
        findings.append(examine(laboratory, name, seed, steps))
        write(file, findings)
        laboratory.forget_checkpoints()
        _tell(f"{name}, seed {seed}: {findings[-1]} ({time.monotonic() - started:.0f} s)")
    (folder / "quality.md").write_text(table(findings, steps))
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 2 for a recipe that this version does not offer, 4 when a stage fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.study.quality", description="Compare recipes at equal budgets."
    )
    parser.add_argument(
        "--recipes", default=",".join(RECIPES), help="names, separated by commas (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps of 800 tokens (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results go (default: build/study)")
    asked = parser.parse_args(arguments)
    names = [name for name in asked.recipes.split(",") if name]
    if unknown := sorted(set(names) - set(RECIPES)):
        _tell(f"no such recipe: {', '.join(unknown)}; there are {', '.join(RECIPES)}")
        return 2
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        findings = study(asked.folder, names, range(asked.seeds), asked.steps)
    except ManifestInvalid as error:
        _tell(str(error))
        return 2
    except StageFailed as error:
        _tell(str(error))
        return 4
    _tell(table(findings, asked.steps))
    return 0


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
