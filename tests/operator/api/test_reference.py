"""The reference page."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from dram_operator.api.crd import object_schema
from dram_operator.api.reference import main, meanings, pages
from dram_operator.api.remedies import JOB, NOTHING, ROLLOUT, WORKER
from dram_operator.api.resources import DISTILLATION_JOB, EDGE_ROLLOUT, Resource
from dram_operator.api.rollout_analysis import Preset
from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.api.schema import Schema
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


@pytest.mark.parametrize(
    ("kind", "remedies", "resource"),
    [(Reason, JOB, DISTILLATION_JOB), (WorkerReason, WORKER, DISTILLATION_JOB), (RolloutReason, ROLLOUT, EDGE_ROLLOUT)],
)
def test_every_reason_says_what_to_do_with_fields_that_there_are(
    kind: type[StrEnum], remedies: dict[StrEnum, str], resource: Resource
) -> None:
    assert set(remedies) == set(kind)
    assert [reason for reason in kind if remedies[reason] == NOTHING and reason.value.endswith("Failed")] == []
    named = {field for remedy in remedies.values() for field in re.findall(r"`((?:[a-z]\w+\.)+\w+)(?:: \w+)?`", remedy)}
    assert named
    fields = {name for name in named if not name.startswith("worker.")}
    assert [name for name in sorted(fields) if not reaches(object_schema(resource), name)] == []


def reaches(schema: Schema, path: str) -> bool:
    """Whether there is such a field, counted from the object, from its spec or from below one of the spec's fields."""
    steps = path.split(".")
    starts = [schema, *(one for name, one in schema["properties"].items() if name == "spec")]
    return any(found(start, steps) for start in [*starts, *starts[1]["properties"].values()])


def found(schema: Schema, steps: list[str]) -> bool:
    """Whether the steps lead through the schema."""
    inner = schema.get("items", schema)
    return not steps or (steps[0] in inner.get("properties", {}) and found(inner["properties"][steps[0]], steps[1:]))


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
