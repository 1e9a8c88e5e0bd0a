"""Publishing a stage's result once, whoever else tries."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dram_workers.context import StageOutcome
from dram_workers.errors import BadInput
from dram_workers.results import Measure, Output, StageResult
from dram_workers.stages import STAGE_CONFIG, Input, StageConfig
from dram_workers.store.manifest import digest_of
from dram_workers.store.objects import ObjectStore
from dram_workers.store.stage import find_result, publish_result, read_manifest

STARTED = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
KEY = "k" * 64


def a_config(**changes: object) -> StageConfig:
    execution = {"store": {"uri": "file:///unused"}, "golden": {"uri": "file:///golden", "digest": "sha256:0"}}
    config = {"kind": "data", "stage": "data", "key": KEY, "job": {"namespace": "ns", "name": "job"}, "identity": {}}
    return STAGE_CONFIG.validate_python({**config, "execution": execution, **changes})


def an_outcome(folder: Path, text: str = "tokens") -> StageOutcome:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.safetensors").write_text(text)
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "facts.json").write_text("{}")
    return StageOutcome(folders={"dataset": folder}, measures=(Measure(name="samples", value=3),), facts={"samples": 3})


def publish(store: ObjectStore, config: StageConfig, outcome: StageOutcome) -> StageResult:
    return publish_result(store, config, outcome, started_at=STARTED)


def test_nothing_is_found_before_the_manifest_is_written(store: ObjectStore) -> None:
    store.put_bytes(f"stages/data/{KEY}/dataset/0123/train.safetensors", b"half")
    assert find_result(store, a_config()) is None


def test_a_published_result_is_found_again_as_cached(store: ObjectStore, tmp_path: Path) -> None:
    result = publish(store, a_config(), an_outcome(tmp_path / "out"))
    assert find_result(store, a_config()) == result.model_copy(update={"cached": True})
    assert result.outputs["dataset"].digest == digest_of(tmp_path / "out")
    assert (result.measures[0].value, result.facts) == (3, {"samples": 3})


def test_the_manifest_names_every_file_and_what_it_came_from(store: ObjectStore, tmp_path: Path) -> None:
    inputs = {"tokenizer": Input(uri="file:///t", digest="sha256:1")}
    config = a_config(identity={"seed": 7}, inputs=inputs, attempt=2)
    path = publish(store, config, an_outcome(tmp_path / "out")).outputs["dataset"].path
    manifest = read_manifest(store, config.kind, KEY)
    assert manifest is not None
    assert [file.path for file in manifest.files] == [f"{path}/sub/facts.json", f"{path}/train.safetensors"]
    listed = {info.key for info in store.list("stages/")}
    assert listed == {
        f"stages/data/{KEY}/{name}" for name in [*(file.path for file in manifest.files), "manifest.json"]
    }
    assert (manifest.inputs, manifest.attempt, manifest.identity["seed"]) == ({"tokenizer": "sha256:1"}, 2, 7)
    assert manifest.started_at == "2026-05-01T12:00:00Z"
    assert {"python", "dram", "cpu"} <= manifest.toolchain.keys()


def test_the_second_attempt_gets_the_result_of_the_first(store: ObjectStore, tmp_path: Path) -> None:
    first = publish(store, a_config(), an_outcome(tmp_path / "one", "the first bytes"))
    second = publish(store, a_config(attempt=2), an_outcome(tmp_path / "two", "other bytes"))
    assert second == first


def test_a_late_attempt_leaves_the_files_of_the_winner_alone(store: ObjectStore, tmp_path: Path) -> None:
    first = publish(store, a_config(), an_outcome(tmp_path / "one", "the first bytes"))
    publish(store, a_config(attempt=2), an_outcome(tmp_path / "two", "other bytes"))
    folder = f"stages/data/{KEY}/{first.outputs['dataset'].path}"
    for info in list(store.list(f"{folder}/")):
        store.get_file(info.key, tmp_path / "down" / info.key.removeprefix(f"{folder}/"))
    assert digest_of(tmp_path / "down") == first.outputs["dataset"].digest


def test_a_pinned_output_points_elsewhere(store: ObjectStore) -> None:
    pinned = Output(digest="sha256:9", uri="s3://models/teacher")
    result = publish(store, a_config(), StageOutcome(pinned={"teacher": pinned}))
    assert result.outputs == {"teacher": pinned}


def test_a_resolved_result_is_filed_under_what_was_found(store: ObjectStore) -> None:
    config = STAGE_CONFIG.validate_python(
        {
            "kind": "resolve",
            "stage": "resolve",
            "key": KEY,
            "job": {"namespace": "ns", "name": "job"},
            "identity": {"teacher": "hf://a/b", "golden": "s3://c/d"},
            "execution": {"store": {"uri": "file:///unused"}},
        }
    )
    keys = [
        publish(store, config, StageOutcome(pinned={"teacher": Output(digest=digest, uri="hf://a/b@c")})).key
        for digest in ("sha256:1", "sha256:2", "sha256:1")
    ]
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
    assert KEY not in keys


def test_an_output_of_one_file_keeps_its_name(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    output = publish(store, a_config(), StageOutcome(folders={"artifact": tmp_path / "model.gguf"})).outputs["artifact"]
    assert store.get_bytes(f"stages/data/{KEY}/{output.path}/model.gguf") == b"GGUF"


def test_a_result_too_long_for_its_message_is_a_fault_and_publishes_nothing(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="2048 are allowed"):
        publish(store, a_config(), StageOutcome(facts={f"fact{number}": "x" * 100 for number in range(30)}))
    assert find_result(store, a_config()) is None


def test_a_manifest_of_another_version_says_what_to_delete(store: ObjectStore) -> None:
    store.put_bytes(f"stages/data/{KEY}/manifest.json", json.dumps({"from": "the future"}).encode())
    with pytest.raises(BadInput) as caught:
        find_result(store, a_config())
    assert f"stages/data/{KEY}" in str(caught.value.remedy)
