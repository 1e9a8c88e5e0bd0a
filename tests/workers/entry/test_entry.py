"""A stage from its config to its exit code, in a process of its own as in a pod."""

import inspect
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dram_workers.entry import perform, stage_module
from dram_workers.errors import ExitCode, WorkerReason
from dram_workers.results import Progress
from dram_workers.stages import StageKind
from dram_workers.store.manifest import digest_of
from tests.cluster.s3 import S3Server
from tests.models import support_rows, write_jsonl
from tests.workers.running import a_stage, run_stage, start_stage


def given(**paths: Path) -> dict[str, Any]:
    return {name: {"uri": path.as_uri(), "digest": digest_of(path)} for name, path in paths.items()}


@pytest.fixture
def synthesize(tiny_teacher: Path, tmp_path: Path) -> dict[str, Any]:
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "Hello"}])
    return a_stage("synthesize", {"maxNewTokens": 2}, tmp_path, inputs=given(teacher=tiny_teacher, prompts=prompts))


GOLDEN: list[dict[str, object]] = [{"id": "1", "prompt": "Unseen?"}]


def data_stage(tiny_teacher: Path, tmp_path: Path, golden: list[dict[str, object]] | None = None) -> dict[str, Any]:
    """A stage that is done in a second."""
    (tmp_path / "samples").mkdir(exist_ok=True)
    write_jsonl(tmp_path / "samples/samples.jsonl", support_rows(8))
    golden_file = write_jsonl(tmp_path / "golden.jsonl", golden or GOLDEN)
    return a_stage(
        "data",
        {},
        tmp_path,
        inputs=given(tokenizer=tiny_teacher, samples=tmp_path / "samples"),
        execution=given(golden=golden_file),
    )


def test_a_stage_done_before_is_cached_without_loading_torch(synthesize: dict[str, Any], tmp_path: Path) -> None:
    first = run_stage(synthesize, tmp_path / "run", {"PYTHONPROFILEIMPORTTIME": "1"})
    assert (first.code, first.message.reason) == (ExitCode.DONE, "Completed"), first.log
    assert "| torch\n" in first.log
    second = run_stage(synthesize | {"attempt": 2}, tmp_path / "run", {"PYTHONPROFILEIMPORTTIME": "1"})
    assert (second.code, second.message.reason) == (ExitCode.DONE, "Cached"), second.log
    assert "| torch\n" not in second.log
    assert first.message.result is not None
    assert second.message.result == first.message.result.model_copy(update={"cached": True})


def test_a_leak_fails_the_data_stage_also_when_it_is_cached(tiny_teacher: Path, tmp_path: Path) -> None:
    clean = run_stage(data_stage(tiny_teacher, tmp_path), tmp_path / "run")
    assert clean.code == ExitCode.DONE, clean.log
    leak: list[dict[str, object]] = [{"id": "1", "prompt": str(support_rows(1)[0]["prompt"])}]
    leaky = run_stage(data_stage(tiny_teacher, tmp_path, leak), tmp_path / "run")
    assert (leaky.code, leaky.message.reason) == (ExitCode.BAD_INPUT, WorkerReason.GOLDEN_LEAK), leaky.log
    assert leaky.message.result is None


def test_sigterm_stops_the_stage_and_publishes_nothing(synthesize: dict[str, Any], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"Question {number}"} for number in range(400)])
    synthesize["inputs"] |= given(prompts=tmp_path / "prompts.jsonl")
    progress = tmp_path / "progress"
    os.mkfifo(progress)
    with start_stage(synthesize, tmp_path / "run", {"DRAM_PROGRESS_FILE": str(progress)}) as process:
        with progress.open() as reports:
            report = Progress.model_validate_json(reports.readline())
            process.send_signal(signal.SIGTERM)
            reports.read()
        _, log = process.communicate(timeout=300)
    assert (report.stage, report.attempt) == ("synthesize", 1)
    assert process.returncode == ExitCode.TERMINATED, log
    assert '"reason":"Interrupted"' in (tmp_path / "run/termination-log").read_text()
    assert not (tmp_path / "store/stages").exists()


@pytest.mark.parametrize("text", ["no json", "{}", '{"kind": "synthesize", "from": "another version"}'])
def test_a_config_that_does_not_parse_is_final(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    message, code = perform(StageKind.SYNTHESIZE, tmp_path / "config.json")
    assert (code, message.reason) == (ExitCode.BAD_INPUT, WorkerReason.CONFIG_INVALID)


def test_the_config_of_another_kind_is_final(tmp_path: Path, synthesize: dict[str, Any]) -> None:
    ended = run_stage(synthesize | {"kind": "resolve"}, tmp_path / "run")
    assert (ended.code, ended.message.reason) == (ExitCode.BAD_INPUT, WorkerReason.CONFIG_INVALID), ended.log


def test_a_store_that_is_down_is_worth_another_attempt(synthesize: dict[str, Any], tmp_path: Path) -> None:
    synthesize["execution"]["store"] = {"uri": "s3://dram/p", "endpoint": "http://127.0.0.1:9", "pathStyle": True}
    ended = run_stage(synthesize, tmp_path / "run", {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    assert (ended.code, ended.message.reason) == (ExitCode.TRANSIENT, WorkerReason.STORAGE_UNAVAILABLE), ended.log
    assert ended.message.field == "spec.storage.endpoint"


def test_wrong_credentials_are_no_permission(synthesize: dict[str, Any], tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.bucket("entry-tests")
    synthesize["execution"]["store"] = {"uri": bucket, "endpoint": s3_server.endpoint, "pathStyle": True}
    ended = run_stage(synthesize, tmp_path / "run", {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert (ended.code, ended.message.reason) == (ExitCode.NO_PERMISSION, WorkerReason.STORAGE_DENIED), ended.log


def test_a_result_in_a_bucket_is_found_by_the_next_attempt(
    tiny_teacher: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    config = data_stage(tiny_teacher, tmp_path)
    uri = f"{s3_server.bucket('entry-tests')}/{tmp_path.name}"
    config["execution"]["store"] = {"uri": uri, "endpoint": s3_server.endpoint, "pathStyle": True}
    reasons = [run_stage(config, tmp_path / "run", s3_server.owner.environment()).message.reason for _ in range(2)]
    assert reasons == ["Completed", "Cached"]


def test_an_input_that_is_missing_is_final_and_publishes_nothing(synthesize: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").unlink()
    ended = run_stage(synthesize, tmp_path / "run")
    assert (ended.code, ended.message.reason) == (ExitCode.BAD_INPUT, WorkerReason.SOURCE_NOT_FOUND), ended.log
    assert ended.message.field == "spec.dataset.synthetic.promptsUri"
    assert not (tmp_path / "store/stages").exists()


def test_a_fault_of_ours_says_so_and_leaves_its_traceback(synthesize: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "not-a-folder").write_text("")
    synthesize["execution"]["scratch"] = str(tmp_path / "not-a-folder")
    ended = run_stage(synthesize, tmp_path / "run")
    assert (ended.code, ended.message.reason) == (ExitCode.FAULT, WorkerReason.INTERNAL)
    assert "NotADirectoryError" in ended.message.message
    assert "Traceback" in ended.log


def test_a_termination_file_that_cannot_be_written_changes_nothing(tiny_teacher: Path, tmp_path: Path) -> None:
    config = data_stage(tiny_teacher, tmp_path)
    with start_stage(config, tmp_path / "run", {"DRAM_TERMINATION_LOG": "/dev/full"}) as process:
        _, log = process.communicate(timeout=300)
    assert process.returncode == ExitCode.DONE, log
    assert "termination message" in log


@pytest.mark.parametrize("kind", StageKind)
def test_every_kind_offers_what_the_entry_calls(kind: StageKind) -> None:
    module = stage_module(kind)
    inspect.signature(module.run).bind("config", "context")
    if hasattr(module, "recheck"):
        inspect.signature(module.recheck).bind("config", "context", "cached")
