"""Models of the hub: the hub's own client against a server that speaks its protocol."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dram_workers.errors import ExitCode, WorkerReason
from dram_workers.store.manifest import digest_of
from tests.models import write_jsonl
from tests.workers.fetch.hub_server import COMMIT, Hub, serve_hub
from tests.workers.running import Ended, a_stage, run_stage

TEACHER = "hf://example/teacher"


@pytest.fixture
def hub(tiny_teacher: Path, tmp_path: Path) -> Iterator[Hub]:
    with serve_hub() as hub:
        shutil.copytree(tiny_teacher, tmp_path / "hub/teacher")
        hub.repositories["example/teacher"] = tmp_path / "hub/teacher"
        yield hub


def resolve(hub: Hub, tmp_path: Path, teacher: str = TEACHER) -> Ended:
    golden = write_jsonl(tmp_path / "golden.jsonl", [{"id": "1", "prompt": "Where is my bill?"}])
    config = a_stage("resolve", {"teacher": teacher, "golden": golden.as_uri()}, tmp_path)
    return run_stage(config, tmp_path / "run", {**hub.environment(), "HF_HOME": str(tmp_path / "hf")})


def test_a_branch_is_pinned_to_its_commit_without_fetching_the_weights(hub: Hub, tmp_path: Path) -> None:
    ended = resolve(hub, tmp_path, f"{TEACHER}@main")
    assert ended.code == ExitCode.DONE, ended.log
    assert ended.message.result is not None
    assert ended.message.result.outputs["teacher"].uri == f"hf://example/teacher@{COMMIT}"
    assert ended.message.result.facts["teacherParameters"] == 180_032
    spans = [span for method, path, span in hub.requests if path.endswith("model.safetensors") and method == "GET"]
    assert len(spans) == 2
    assert None not in spans


def test_a_later_stage_gets_the_very_files_that_were_pinned(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hub/teacher/pytorch_model.bin").write_bytes(b"a pickle beside the safetensors is never fetched")
    (tmp_path / "hub/teacher/modeling_custom.py").write_text("raise SystemExit")
    ended = resolve(hub, tmp_path)
    assert ended.message.result is not None
    teacher = ended.message.result.outputs["teacher"]
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "Hello"}])
    config = a_stage(
        "synthesize",
        {"max_new_tokens": 2},
        tmp_path,
        inputs={
            "teacher": {"uri": teacher.uri, "digest": teacher.digest},
            "prompts": {"uri": prompts.as_uri(), "digest": digest_of(prompts)},
        },
    )
    ended = run_stage(config, tmp_path / "run", {**hub.environment(), "HF_HOME": str(tmp_path / "hf")})
    assert ended.code == ExitCode.DONE, ended.log
    fetched = {Path(path).name for _, path, _ in hub.requests if "/resolve/" in path}
    assert "model.safetensors" in fetched
    assert not fetched & {"pytorch_model.bin", "modeling_custom.py"}


@pytest.mark.parametrize(
    ("teacher", "want_code", "want_text"),
    [
        ("hf://example/nothing", ExitCode.NO_PERMISSION, "no such repository, or this token may not read it"),
        (f"{TEACHER}@no-such-branch", ExitCode.BAD_INPUT, "no such repository or revision"),
        ("hf://not-a-repository", ExitCode.BAD_INPUT, "names no repository"),
    ],
)
def test_a_model_that_is_not_there_is_named(
    hub: Hub, tmp_path: Path, teacher: str, want_code: ExitCode, want_text: str
) -> None:
    ended = resolve(hub, tmp_path, teacher)
    assert (ended.code, ended.message.reason) == (want_code, WorkerReason.MODEL_NOT_FOUND), ended.log
    assert ended.message.field == "spec.teacher.uri"
    assert teacher in ended.message.message
    assert want_text in ended.message.message


def test_a_gated_model_asks_for_a_token(hub: Hub, tmp_path: Path) -> None:
    hub.gated.add("example/teacher")
    ended = resolve(hub, tmp_path)
    assert (ended.code, ended.message.field) == (ExitCode.NO_PERMISSION, "spec.teacher.uri"), ended.log
    assert "HF_TOKEN" in (ended.message.remedy or "")


def test_a_hub_with_server_errors_is_worth_another_attempt(hub: Hub, tmp_path: Path) -> None:
    hub.broken = True
    ended = resolve(hub, tmp_path)
    assert (ended.code, ended.message.reason) == (ExitCode.TRANSIENT, WorkerReason.HUB_UNAVAILABLE), ended.log


def test_a_hub_that_is_down_is_worth_another_attempt(hub: Hub, tmp_path: Path) -> None:
    hub.endpoint = "http://127.0.0.1:9"
    ended = resolve(hub, tmp_path)
    assert (ended.code, ended.message.reason) == (ExitCode.TRANSIENT, WorkerReason.HUB_UNAVAILABLE), ended.log


def test_offline_says_so(hub: Hub, tmp_path: Path) -> None:
    golden = write_jsonl(tmp_path / "golden.jsonl", [{"id": "1", "prompt": "Where is my bill?"}])
    config = a_stage("resolve", {"teacher": TEACHER, "golden": golden.as_uri()}, tmp_path)
    ended = run_stage(config, tmp_path / "run", {**hub.environment(), "HF_HUB_OFFLINE": "1"})
    assert ended.code == ExitCode.BAD_INPUT
    assert "HF_HUB_OFFLINE" in (ended.message.remedy or "")
