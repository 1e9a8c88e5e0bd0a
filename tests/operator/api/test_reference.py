"""The reference page."""

from enum import StrEnum
from pathlib import Path

import pytest

from dram_operator.api.reference import main, meanings, pages
from dram_operator.api.rollout_analysis import Preset
from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.api.status import ConditionType, Reason, StageState
from dram_workers.errors import WorkerReason

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def test_the_pages_are_what_the_code_says() -> None:
    assert {name: (REFERENCE / name).read_text() for name in pages()} == pages(), "run `make docs`"


def test_they_are_written_into_the_folder_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["reference", str(tmp_path / "new")])
    main()
    assert {file.name: file.read_text() for file in (tmp_path / "new").iterdir()} == pages()


@pytest.mark.parametrize("kind", [ConditionType, Reason, WorkerReason, Preset, RolloutCondition, RolloutReason])
def test_every_condition_and_reason_says_what_it_means(kind: type[StrEnum]) -> None:
    assert [name for name, meaning in meanings(kind).items() if not meaning] == []


def test_a_member_without_a_docstring_has_no_meaning() -> None:
    assert meanings(StageState)["Pending"] == ""
    assert meanings(StageState)["Skipped"].startswith("Not needed")


@pytest.mark.parametrize(
    "row",
    [
        "| `zeroStage` | `0`, `1`, `2`, `3` | `1` | ZeRO stage:",
        "| `weight` | number above 0 to 1,000 | `1.0` | How often",
        "| `betas` | list of number from 0 below 1, at most 2 | `[0.9, 0.95]` |",
        "| `config` | free-form object |  | Raw DeepSpeed settings",
        "| `requests` | map of quantity |  | What the scheduler reserves",
        "| `uri` | string, at most 256 characters |  | Where the teacher lies",
        "| `packing` | boolean | `true` |",
        "| `spec.student` | set exactly one of uri",
        "## spec.podTemplate.envFromSecrets[]",
        "| `TokenizerMismatch` | Teacher and student tokenizers differ",
    ],
)
def test_a_reader_finds(row: str) -> None:
    assert row in pages()["distillation-job.md"]


@pytest.mark.parametrize(
    "row",
    [
        "`kind: EdgeRollout`, short name `er`",
        "| `percent` | string, at most 9 characters |  | Share of the known devices",
        "| `max` | quantity |  | Largest good value",
        "| `FallbackRatio` | Share of requests that the cloud had to serve",
        "| `spec.strategy.steps` | the last step must take every device",
        "| `AwaitingSignature` | The artifact waits to be signed",
        "| Gate | The metrics in a word",
    ],
)
def test_a_reader_of_rollouts_finds(row: str) -> None:
    assert row in pages()["edge-rollout.md"]
