"""The job with a real model: SmolLM2-135M, shortened to twelve steps, as two variants that llama.cpp quantizes."""

from pathlib import Path

import yaml

from dram_operator.local.teacher import write_teacher
from tests.builders import AJob
from tests.cluster.folders import REPOSITORY
from tests.e2e.story import Story
from tests.e2e.tiny import storage_for

EXAMPLE = REPOSITORY / "examples" / "support-bot"
PROMPTS, GOLDEN = 24, 8
LARGE = {"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}}


def job_for(story: Story, folder: Path) -> AJob:
    """Upload the teacher and a part of the example's data, and give the example's manifest with them."""
    write_teacher(folder / "teacher")
    story.s3.upload("models", "smollm2", folder / "teacher")
    story.s3.upload("models", "prompts.jsonl", _head("prompts.jsonl", PROMPTS, folder))
    story.s3.upload("models", "handbook-golden.jsonl", _head("golden.jsonl", GOLDEN, folder))
    manifest = yaml.safe_load((EXAMPLE / "job.yaml").read_text())
    return (
        AJob(spec=manifest["spec"], metadata=manifest["metadata"])
        .having("spec.teacher.uri", "s3://models/smollm2")
        .having("spec.dataset.synthetic.promptsUri", "s3://models/prompts.jsonl")
        .having("spec.golden", {"uri": "s3://models/handbook-golden.jsonl", "maxTokens": 16})
        # Twelve steps make no good student: quality is what the demo shows. Size and memory still count.
        .having("spec.gates", {"performance": manifest["spec"]["gates"]["performance"]})
        .having("spec.storage", storage_for(story))
        .having("spec.podTemplate", {"resources": {"default": LARGE}})
        .with_training(maxSteps=12, checkpoint={"everySteps": 6})
    )


def _head(name: str, lines: int, folder: Path) -> Path:
    """The first lines of one of the example's files."""
    short = folder / name
    short.write_text("".join((EXAMPLE / name).read_text().splitlines(keepends=True)[:lines]))
    return short
