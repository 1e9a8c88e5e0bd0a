"""A real model on a whole cluster: SmolLM2-135M, shortened to twelve steps, as two variants that llama.cpp quantizes."""

from pathlib import Path

import yaml

from dram_operator.local.teacher import write_teacher
from tests.builders import AJob
from tests.cluster.folders import REPOSITORY
from tests.e2e.story import Story
from tests.e2e.tiny import storage_for

EXAMPLE = REPOSITORY / "examples" / "support-bot"
PROMPTS, GOLDEN = 24, 8


def head(name: str, lines: int, folder: Path) -> Path:
    """The first lines of one of the example's files."""
    short = folder / name
    short.write_text("".join((EXAMPLE / name).read_text().splitlines(keepends=True)[:lines]))
    return short


def test_smollm2_becomes_two_variants(story: Story, tmp_path: Path) -> None:
    write_teacher(tmp_path / "teacher")
    story.s3.upload("models", "smollm2", tmp_path / "teacher")
    story.s3.upload("models", "prompts.jsonl", head("prompts.jsonl", PROMPTS, tmp_path))
    story.s3.upload("models", "handbook-golden.jsonl", head("golden.jsonl", GOLDEN, tmp_path))
    manifest = yaml.safe_load((EXAMPLE / "job.yaml").read_text())
    large = {"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}}
    job = (
        AJob(spec=manifest["spec"], metadata=manifest["metadata"])
        .having("spec.teacher.uri", "s3://models/smollm2")
        .having("spec.dataset.synthetic.promptsUri", "s3://models/prompts.jsonl")
        .having("spec.golden", {"uri": "s3://models/handbook-golden.jsonl", "maxTokens": 16})
        # Twelve steps make no good student: quality is what the demo shows. Size and memory still count.
        .having("spec.gates", {"performance": manifest["spec"]["gates"]["performance"]})
        .having("spec.storage", storage_for(story))
        .having("spec.podTemplate", {"resources": {"default": large}})
        .with_training(maxSteps=12, checkpoint={"everySteps": 6})
    )
    story.apply(job)

    status = story.wait_succeeded(patience_seconds=1000)

    assert {variant["name"] for variant in status["variants"]} == {"gguf-q8-0", "gguf-q4-k-m"}
    sizes = {variant["name"]: variant["sizeBytes"] for variant in status["variants"]}
    assert 0 < sizes["gguf-q4-k-m"] < sizes["gguf-q8-0"]
    assert all(row["verdict"] in {"Pass", "Warn"} for row in status["gates"])
