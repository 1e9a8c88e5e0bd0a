"""The job that is small enough to run again and again: a random teacher of four layers, sixty steps, two ranks."""

from pathlib import Path

from tests.builders import AJob, a_job
from tests.cluster.s3 import S3Server
from tests.e2e.story import Story
from tests.models import ModelShape, support_rows, write_jsonl, write_model

SMALL = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}}
STEPS, EVERY = 60, 6
NAME = "tiny"


def upload(store: S3Server, folder: Path) -> None:
    """Put the teacher, 64 training samples and 8 golden items into the bucket `models`."""
    store.upload("models", "tiny", write_model(folder / "tiny", ModelShape()))
    store.upload("models", "support.jsonl", write_jsonl(folder / "support.jsonl", support_rows(64)))
    golden = [
        {"id": f"g{n}", "prompt": row["prompt"], "maxTokens": 8} for n, row in enumerate(support_rows(8, offset=900))
    ]
    store.upload("models", "golden.jsonl", write_jsonl(folder / "golden.jsonl", golden))


def storage_for(story: Story) -> dict[str, object]:
    """`spec.storage` with the story's own prefix."""
    return {
        "uri": f"s3://dram/{story.namespace}",
        "endpoint": story.s3.endpoint,
        "region": story.s3.region,
        "pathStyle": True,
        "secretRef": {"name": "s3"},
    }


def job_for(story: Story) -> AJob:
    """The tiny job, stored below the story's own prefix."""
    return (
        a_job()
        .having("spec.teacher", {"uri": "s3://models/tiny"})
        .having("spec.dataset", {"sources": [{"uri": "s3://models/support.jsonl"}], "maxLength": 64})
        .having("spec.golden", {"uri": "s3://models/golden.jsonl", "maxTokens": 8})
        .having("spec.storage", storage_for(story))
        .having("spec.podTemplate", {"resources": {"default": SMALL}})
        .with_training(
            workers=2, precision="FP32", maxSteps=STEPS, batchTokens=512, checkpoint={"everySteps": EVERY}, seed=7
        )
    )
