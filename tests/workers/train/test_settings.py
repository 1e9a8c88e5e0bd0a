"""What a job may say to DeepSpeed, and what Dram says."""

import pytest

from dram_workers.deepspeed_settings import DeepSpeedSettings
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.train.settings import RESERVED, RESERVED_ZERO, check_settings, deepspeed_config, effective_stage


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_a_key_that_dram_owns_is_refused_by_name(key: str) -> None:
    with pytest.raises(BadInput, match=key) as caught:
        check_settings(DeepSpeedSettings(config={key: {}}))
    assert caught.value.reason == WorkerReason.RESERVED_DEEPSPEED_KEY
    assert caught.value.field == f"spec.training.deepspeed.config.{key}"
    assert caught.value.remedy


@pytest.mark.parametrize("key", sorted(RESERVED_ZERO))
def test_so_is_one_inside_zero_optimization(key: str) -> None:
    with pytest.raises(BadInput, match=rf"zero_optimization\.{key}"):
        check_settings(DeepSpeedSettings(config={"zero_optimization": {key: 1}}))


def test_zero_optimization_must_be_a_mapping() -> None:
    with pytest.raises(BadInput, match="must be a mapping"):
        check_settings(DeepSpeedSettings(config={"zero_optimization": True}))


@pytest.mark.parametrize(
    ("stage", "offload", "want_stage"), [(0, "Optimizer", 1), (1, "OptimizerAndParameters", 3), (2, "OptimizerAndParameters", 3)]
)  # fmt: skip
def test_an_offload_needs_its_stage(stage: int, offload: str, want_stage: int) -> None:
    settings = DeepSpeedSettings.model_validate({"zero_stage": stage, "offload": offload})
    with pytest.raises(BadInput, match=f"needs ZeRO stage {want_stage}") as caught:
        check_settings(settings)
    assert caught.value.field == "spec.training.deepspeed.offload"


def test_raw_settings_are_passed_through() -> None:
    raw = {"zero_optimization": {"reduce_bucket_size": 1000}, "wall_clock_breakdown": True}
    settings = DeepSpeedSettings(zero_stage=2, offload="Optimizer", config=raw)
    check_settings(settings)
    config = deepspeed_config(settings, world=2, half=True, gradient_clipping=0.5)
    assert config["wall_clock_breakdown"] is True
    assert config["zero_optimization"] == {
        "stage": 2,
        "reduce_bucket_size": 1000,
        "offload_optimizer": {"device": "cpu"},
    }
    assert config["torch_autocast"]["enabled"] is True
    assert config["gradient_clipping"] == 0.5


@pytest.mark.parametrize(
    ("stage", "offload", "world", "want"),
    [(1, "None", 1, 0), (2, "None", 1, 0), (3, "None", 1, 3), (1, "Optimizer", 1, 1), (1, "None", 2, 1)],
)
def test_a_single_rank_has_nothing_to_spread(stage: int, offload: str, world: int, want: int) -> None:
    settings = DeepSpeedSettings.model_validate({"zero_stage": stage, "offload": offload})
    assert effective_stage(settings, world) == want
