"""The data stage as a whole."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dram_workers import data
from dram_workers.context import StageOutcome
from dram_workers.data.dataset import Dataset
from dram_workers.errors import BadInput, Interrupted, WorkerReason
from dram_workers.stages import DataConfig, DataExecution, DataIdentity, Input, JobRef, SourceSpec
from dram_workers.store.manifest import digest_of
from dram_workers.store.stage import publish_result
from tests.models import support_rows, write_jsonl, write_tokenizer
from tests.workers.contexts import a_context, store_settings

KEY = "a" * 64
GOLDEN: list[dict[str, object]] = [{"id": "g1", "prompt": "What is never asked?"}]


class Stage:
    """The stage over files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = {"tokenizer": write_tokenizer(folder / "tokenizer"), "sources": folder / "sources"}
        self.sources: list[SourceSpec] = []
        self.with_golden(GOLDEN)

    def with_source(self, name: str, rows: list[dict[str, object]], weight: float = 1.0) -> "Stage":
        write_jsonl(self.folder / "sources" / str(len(self.sources)) / name, rows)
        self.sources.append(SourceSpec(uri=f"s3://b/{name}", weight=weight))
        return self

    def with_text(self, text: str) -> "Stage":
        folder = self.folder / "sources" / str(len(self.sources))
        folder.mkdir(parents=True)
        (folder / "book.txt").write_text(text)
        self.sources.append(SourceSpec(uri="s3://b/book.txt"))
        return self

    def with_samples(self, rows: list[dict[str, object]]) -> "Stage":
        self.paths["samples"] = write_jsonl(self.folder / "samples" / "samples.jsonl", rows).parent
        return self

    def with_golden(self, rows: list[dict[str, object]]) -> "Stage":
        self.paths["golden"] = write_jsonl(self.folder / "golden.jsonl", rows)
        return self

    def config(self, **identity: object) -> DataConfig:
        return DataConfig(
            stage="data",
            key=KEY,
            job=JobRef(namespace="n", name="j"),
            identity=DataIdentity.model_validate({"sources": tuple(self.sources), **identity}),
            execution=DataExecution(
                store=store_settings(self.folder), golden=Input(uri=self.paths["golden"].as_uri(), digest="")
            ),
        )

    def run(self, attempt: str = "1", **identity: object) -> StageOutcome:
        return data.run(self.config(**identity), a_context(self.folder / attempt, self.paths))


def ids(outcome: StageOutcome) -> tuple[set[str], set[str]]:
    folder = outcome.folders["dataset"]
    return set(Dataset(folder, "train").ids), set(Dataset(folder, "validation").ids)


def test_the_dataset_has_the_form_that_its_identity_describes(tmp_path: Path) -> None:
    outcome = Stage(tmp_path).with_source("a.jsonl", support_rows(40)).run(validation_fraction=0.2)
    folder = outcome.folders["dataset"]
    assert {file.name for file in folder.iterdir()} == {
        "train.safetensors",
        "validation.safetensors",
        "samples.jsonl",
        "prompts.json",
        "facts.json",
    }
    train = Dataset(folder, "train")
    sample = train[3]
    assert [str(array.dtype) for array in (sample.tokens, sample.loss_mask, train.offsets)] == [
        "int32",
        "uint8",
        "int64",
    ]
    assert len(sample.tokens) == len(sample.loss_mask) == train.lengths[3]
    assert sample.tokens[sample.loss_mask.astype(bool)][-1] == 2
    assert len(json.loads((folder / "prompts.json").read_text())) == 40
    assert outcome.facts["trainSamples"] == len(train)
    assert outcome.facts["validationSamples"] == 40 - len(train)


def test_the_same_data_gives_the_same_bytes(tmp_path: Path) -> None:
    stage = Stage(tmp_path).with_source("a.jsonl", support_rows(30)).with_samples(support_rows(10, offset=50))
    first, second = stage.run("1"), stage.run("2")
    assert digest_of(first.folders["dataset"]) == digest_of(second.folders["dataset"])


def test_a_sample_stays_on_its_side_when_the_data_grows(tmp_path: Path) -> None:
    few = Stage(tmp_path / "few").with_source("a.jsonl", support_rows(60)).run(validation_fraction=0.3)
    many = Stage(tmp_path / "many").with_source("a.jsonl", support_rows(200)).run(validation_fraction=0.3)
    few_train, few_held = ids(few)
    many_train, many_held = ids(many)
    assert few_held
    assert few_train <= many_train
    assert few_held <= many_held


def test_answers_to_one_prompt_stay_together(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": f"Prompt {number // 4}", "completion": f"Answer {number}"} for number in range(80)
    ]
    outcome = Stage(tmp_path).with_source("a.jsonl", rows).run(validation_fraction=0.4)
    samples = [json.loads(line) for line in (outcome.folders["dataset"] / "samples.jsonl").read_text().splitlines()]
    sides: dict[int, set[str]] = {}
    for sample in samples:
        line = int(sample["place"].rpartition(" ")[2]) - 1
        sides.setdefault(line // 4, set()).add(sample["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert {side for group in sides.values() for side in group} == {"train", "validation"}


def test_conversations_that_begin_alike_are_split_by_how_they_go_on(tmp_path: Path) -> None:
    begin = [{"role": "user", "content": "Copy."}, {"role": "assistant", "content": "Copied."}]
    rows: list[dict[str, object]] = [
        {
            "messages": [
                *begin,
                {"role": "user", "content": str(number)},
                {"role": "assistant", "content": str(number)},
            ]
        }
        for number in range(40)
    ]
    outcome = Stage(tmp_path).with_source("a.jsonl", rows).run(validation_fraction=0.3)
    train, held = ids(outcome)
    assert len(train) > len(held) > 4


def test_a_fraction_of_a_small_dataset_still_holds_one_sample_out(tmp_path: Path) -> None:
    outcome = Stage(tmp_path).with_source("a.jsonl", support_rows(3)).run(validation_fraction=0.01)
    assert outcome.facts["validationSamples"] == 1
    none = Stage(tmp_path / "none").with_source("a.jsonl", support_rows(3)).run(validation_fraction=0)
    assert none.facts["validationSamples"] == 0


def test_duplicates_are_dropped_across_sources(tmp_path: Path) -> None:
    stage = Stage(tmp_path).with_source("a.jsonl", support_rows(5), weight=3).with_samples(support_rows(8))
    outcome = stage.run(validation_fraction=0)
    assert outcome.facts["duplicates"] == 5
    assert outcome.facts["mix"] == "5 from s3://b/a.jsonl, 3 from synthetic"
    assert Dataset(outcome.folders["dataset"], "train").weights == (3.0,) * 5 + (1.0,) * 3


@pytest.mark.parametrize("prompt", ["Question 7: what about my landline?", "question 7 WHAT about   my landline"])
def test_a_golden_prompt_in_the_data_fails_the_stage(tmp_path: Path, prompt: str) -> None:
    stage = Stage(tmp_path).with_source("a.jsonl", support_rows(20)).with_golden([{"id": "g7", "prompt": prompt}])
    with pytest.raises(BadInput, match=r"1 golden prompts .*: g7 \(a\.jsonl, line 8\)") as caught:
        stage.run()
    assert caught.value.reason == WorkerReason.GOLDEN_LEAK
    assert caught.value.field == "spec.golden.uri"


def test_a_golden_prompt_as_a_sentence_of_plain_text_fails_the_stage(tmp_path: Path) -> None:
    stage = Stage(tmp_path).with_text("Some words. What is never asked? An answer.\n")
    with pytest.raises(BadInput, match=r"g1 \(book\.txt\)"):
        stage.run()


def test_a_golden_conversation_leaks_only_by_the_same_questions(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    rows: list[dict[str, object]] = [{"messages": [*talk, {"role": "assistant", "content": "2"}]}]
    Stage(tmp_path / "a").with_source("a.jsonl", rows).with_golden([{"id": "g", "prompt": "Two?"}]).run()
    leaking = Stage(tmp_path / "b").with_source("a.jsonl", rows).with_golden([{"id": "g", "messages": talk}])
    with pytest.raises(BadInput, match="golden prompts"):
        leaking.run()


def test_a_new_golden_file_is_checked_against_a_cached_dataset(tmp_path: Path) -> None:
    stage = Stage(tmp_path).with_source("a.jsonl", support_rows(20))
    outcome = stage.run()
    context = a_context(tmp_path / "cached", stage.paths)
    cached = publish_result(context.store, stage.config(), outcome, started_at=datetime.now(UTC))
    assert data.recheck(stage.config(), context, cached)
    stage.with_golden([{"id": "g3", "prompt": "Question 3: what about my contract?"}])
    with pytest.raises(BadInput, match="g3"):
        data.recheck(stage.config(), a_context(tmp_path / "cached", stage.paths), cached)


def test_an_empty_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no sample is left to train on, of 20 records read") as caught:
        Stage(tmp_path).with_source("a.jsonl", support_rows(20)).run(max_length=16)
    assert caught.value.reason == WorkerReason.EMPTY_DATASET


def test_a_stop_is_obeyed(tmp_path: Path) -> None:
    stage = Stage(tmp_path).with_source("a.jsonl", support_rows(2))
    context = a_context(tmp_path / "1", stage.paths)
    context.stopping.set()
    with pytest.raises(Interrupted):
        data.run(stage.config(), context)
