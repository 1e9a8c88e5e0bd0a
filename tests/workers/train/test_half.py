"""FP16 with a scaled loss."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workers.train.half_program import SETTINGS
from tests.workers.train.training import Training, write_teacher_and_dataset

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def engines() -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.workers.train.half_program"]
    ran = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("stage", SETTINGS)
def test_the_scale_is_gone_before_gradients_are_clipped_and_used(engines: dict[str, Any], stage: str) -> None:
    want, ours = engines["FP32"], engines[stage]
    assert (want["arithmetic"], ours["arithmetic"]) == ("torch.float32", "torch.float16")
    assert ours["norms"][:2] == pytest.approx(want["norms"][:2], rel=1e-2)
    for (name, values), (want_name, want_values) in zip(ours["before"], want["before"], strict=True):
        assert name == want_name
        assert values == pytest.approx(want_values, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("stage", SETTINGS)
def test_a_gradient_that_overflows_changes_nothing(engines: dict[str, Any], stage: str) -> None:
    assert engines[stage]["norms"][2] == float("inf")
    assert engines[stage]["after"] == engines[stage]["before"]


def test_a_processor_is_told_at_once(tmp_path: Path) -> None:
    training = Training(tmp_path / "run", write_teacher_and_dataset(tmp_path / "inputs"), {"precision": "FP16"})
    attempt = training.run()
    assert attempt.code == 64
    assert (attempt.message["reason"], attempt.message["field"]) == ("PrecisionUnsupported", "spec.training.precision")
    assert "set it to BF16 or FP32" in attempt.message["remedy"]
