"""A job whose training reads the teacher's logits from the cache."""

import hashlib
from typing import Any

from tests.operator.local.tiny import TinyJob


def stage(job: TinyJob, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(stage for stage in job.status()["stages"] if stage["id"] == name)
    return found


def test_a_flipped_bit_in_the_cache_is_found_and_the_shard_written_again(again: TinyJob) -> None:
    cached = (
        again.having("spec.objective", {"teacherLogits": {"mode": "Cached", "topK": 16}})
        .having("spec.training.maxSteps", 3)
        .having("spec.retries", 1)
    )
    first = cached.run()
    assert first.exit_code == 0, first.output
    assert (stage(cached, "teach")["reason"], stage(cached, "train")["reason"]) == ("Completed", "Completed")
    (shard,) = (path for path in (cached.root / "cache/teacher").rglob("*.*") if path.is_file())
    whole = shard.read_bytes()
    logits = stage(cached, "teach")["result"]["outputs"]["logits"]["digest"]

    shard.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    another = cached.having("spec.training.learningRate", 1e-4)
    second = another.run()
    assert second.exit_code == 0, second.output
    # the first attempt wrote the logits, the second found them by name, the third wrote the damaged shard
    assert (stage(another, "teach")["reason"], stage(another, "teach")["attempt"]) == ("Completed", 3)
    assert (stage(another, "train")["reason"], stage(another, "train")["retries"]) == ("Completed", 1)
    assert stage(another, "teach")["result"]["outputs"]["logits"]["digest"] == logits
    assert shard.name.endswith(hashlib.sha256(shard.read_bytes()).hexdigest())
    assert shard.read_bytes() == whole
