"""What publish leaves in the store, and what it keeps back."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dram_workers.publish import report_key
from dram_workers.stages import Input, JobRef
from dram_workers.store.manifest import digest_of
from tests.workers.publish.finished import SPEC, FinishedRun


def keys(run: FinishedRun, prefix: str) -> list[str]:
    return sorted(info.key for info in run.store.list(prefix))


def manifest(run: FinishedRun, variant: str) -> dict[str, Any]:
    (key,) = (key for key in keys(run, f"artifacts/default/support-bot/{variant}/") if key.endswith("/manifest.json"))
    found: dict[str, Any] = json.loads(run.store.get_bytes(key) or b"")
    return found


def test_a_releasable_variant_lies_under_the_digest_of_its_manifest(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    output = run.publish().pinned["artifact-q8"]
    folder = f"artifacts/default/support-bot/q8/{output.digest.removeprefix('sha256:')}"
    assert output.uri == run.store.uri(folder)
    assert keys(run, f"{folder}/") == [
        f"{folder}/{name}" for name in ("README.md", "manifest.json", "support-bot-Q8_0.gguf")
    ]
    body = run.store.get_bytes(f"{folder}/manifest.json") or b""
    assert f"sha256:{hashlib.sha256(body).hexdigest()}" == output.digest
    for file in json.loads(body)["files"]:
        content = run.store.get_bytes(f"{folder}/{file['path']}") or b""
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])


def test_the_manifest_names_everything_that_went_in(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    run.publish()
    found = manifest(run, "q4")
    assert found["gguf"] == "Q4_K_M"
    assert found["digests"] == {name: given.digest for name, given in run.inputs.items()}
    assert {"resolve", "data", "train", "evaluate-teacher", "evaluate-student", "export-q4"} <= found["recipes"].keys()
    assert not {"export-q8", "evaluate-q8", "bench-q8"} & found["recipes"].keys()
    assert found["seeds"]["train"] == 7
    assert {"python", "gguf", "cpuFlags"} <= found["converter"].keys()
    assert {measure["name"] for measure in found["measures"]} >= {"sizeMiB", "goldenScore", "p95LatencyMs"}
    assert [row["variant"] for row in found["gates"]] == ["q4", "q4"]
    assert (found["licence"], found["runtime"]["name"]) == ("apache-2.0", "llama.cpp")
    assert [(file["path"], file["role"]) for file in found["files"]] == [
        ("support-bot-Q4_K_M.gguf", "model"),
        ("README.md", "card"),
    ]


def test_the_same_inputs_publish_the_same_bytes(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    first = run.publish()
    report = run.report()
    assert run.publish() == first
    assert run.report() == report
    assert len(keys(run, "artifacts/default/support-bot/q8/")) == 3


def test_a_variant_held_back_publishes_nothing_but_the_report(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, releasable={"q8": True, "q4": False})
    outcome = run.publish()
    assert outcome.pinned.keys() == {"artifact-q8", "report"}
    assert not keys(run, "artifacts/default/support-bot/q4/")
    assert "1 of 2 variants may be released" in run.report()


def test_without_a_releasable_variant_there_is_still_a_report(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, releasable={"q8": False, "q4": False})
    outcome = run.publish()
    assert outcome.pinned.keys() == {"report"}
    assert not keys(run, "artifacts/")
    assert "No variant may be released" in run.report()
    assert keys(run, "stages/export/")


def test_a_failed_export_is_named_in_the_report(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, releasable={"q8": True})
    run.publish()
    assert "1 of 2 variants may be released" in run.report()
    assert "<b>q4</b> could not be exported" in run.report()


def test_the_report_is_where_its_output_says(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    output = run.publish().pinned["report"]
    assert output.uri == run.store.uri(report_key(JobRef(namespace="default", name="support-bot")))
    assert output.digest == digest_of(tmp_path / "store/reports/default/support-bot/report.html")


@pytest.mark.parametrize(
    ("licence", "want"),
    [("apache-2.0", "license: apache-2.0"), (None, "license: unknown")],
)
def test_the_card_passes_the_licence_on(tmp_path: Path, licence: str | None, want: str) -> None:
    run = FinishedRun(tmp_path, licence=licence)
    run.publish()
    (key,) = (key for key in keys(run, "artifacts/default/support-bot/q8/") if key.endswith("README.md"))
    card = (run.store.get_bytes(key) or b"").decode()
    assert card.startswith("---\n" + want)
    assert ("clear it before you pass this file on" in card) == (licence is None)
    assert "llama-cli -m support-bot-Q8_0.gguf" in card
    assert "| goldenPassRate | 75.0 % |" in card
    assert run.inputs["train.student"].digest in card


def test_a_student_of_its_own_and_given_sources_are_named_on_the_card(tmp_path: Path) -> None:
    spec = {
        **SPEC,
        "student": {"uri": "hf://example/small"},
        "dataset": {"sources": [{"uri": "s3://models/chats.jsonl"}]},
    }
    run = FinishedRun(tmp_path, spec=spec)
    run.publish()
    (key,) = (key for key in keys(run, "artifacts/default/support-bot/q8/") if key.endswith("README.md"))
    card = (run.store.get_bytes(key) or b"").decode()
    assert "- Student: `hf://example/small`" in card
    assert "- Training data: `s3://models/chats.jsonl`" in card


def test_an_endpoint_is_named_on_the_card_with_what_it_leaves_open(tmp_path: Path) -> None:
    endpoint = {"url": "https://api.example.com/v1", "model": "example-large"}
    spec = {**SPEC, "teacher": {"endpoint": endpoint}, "student": {"uri": "hf://example/small"}}
    run = FinishedRun(tmp_path, spec=spec, licence=None)
    run.publish()
    (key,) = (key for key in keys(run, "artifacts/default/support-bot/q8/") if key.endswith("README.md"))
    card = (run.store.get_bytes(key) or b"").decode()
    assert "base_model: hf://example/small" in card
    assert "`example-large` at https://api.example.com/v1, known by its answers only" in card
    assert "the terms of the endpoint's provider say what its answers may be used for" in card


def test_an_artifact_that_changed_since_it_was_gated_is_not_published(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    given = run.inputs["export-q8.artifact"]
    run.inputs["export-q8.artifact"] = Input(uri=given.uri, digest="sha256:" + "0" * 64)
    with pytest.raises(Exception, match="was pinned when the run started"):
        run.publish()
    assert not keys(run, "artifacts/")


def test_many_variants_still_fit_the_result(tmp_path: Path) -> None:
    exports = [{"name": f"variant-with-a-long-name-no-{number:02}", "gguf": {"type": "Q8_0"}} for number in range(12)]
    names = [str(export["name"]) for export in exports]
    run = FinishedRun(tmp_path, spec={**SPEC, "exports": exports}, releasable=dict.fromkeys(names, True))
    outcome = run.publish()
    assert outcome.pinned["report"].uri
    assert all(outcome.pinned[f"artifact-{name}"].uri is None for name in names)
    digest = outcome.pinned[f"artifact-{names[0]}"].digest.removeprefix("sha256:")
    assert run.store.get_bytes(f"artifacts/default/support-bot/{names[0]}/{digest}/manifest.json")


def test_stages_of_this_run_stay_whatever_their_age(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    before = keys(run, "stages/")
    run.store.put_bytes("stages/data/abandoned/dataset/x", b"")
    run.publish(keepStagesDays=0)
    assert keys(run, "stages/") == before
    assert keys(run, "artifacts/")


def test_nothing_is_pruned_unless_asked(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    run.store.put_bytes("stages/data/abandoned/dataset/x", b"")
    run.publish()
    assert "stages/data/abandoned/dataset/x" in keys(run, "stages/")


def test_another_place_makes_the_same_artifact(tmp_path: Path) -> None:
    digests = {FinishedRun(tmp_path / name).publish().pinned["artifact-q8"].digest for name in ("one", "two")}
    assert len(digests) == 1


def test_what_was_published_stands_until_somebody_touches_it(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    outcome = run.publish()
    assert run.still_stands(outcome)
    (key,) = (key for key in keys(run, "artifacts/default/support-bot/q8/") if key.endswith("/manifest.json"))
    run.store.delete([key])
    assert not run.still_stands(outcome)
    assert run.publish() == outcome
    assert run.still_stands(outcome)


def test_the_report_of_another_run_is_replaced(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    outcome = run.publish()
    run.store.put_bytes("reports/default/support-bot/report.html", b"of a later run")
    assert not run.still_stands(outcome)
