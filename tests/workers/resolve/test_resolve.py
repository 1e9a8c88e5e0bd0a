"""What resolve pins, and what it refuses before any training pod starts."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dram_workers.context import StageContext, StageOutcome
from dram_workers.errors import BadInput, StageError, WorkerReason
from dram_workers.inputs import SOURCES_FILE, FetchedInputs
from dram_workers.resolve import run
from dram_workers.results import Output, StageResult
from dram_workers.stages import STAGE_CONFIG, Execution, Input, ResolveConfig
from dram_workers.store.folder import FolderStore
from dram_workers.store.manifest import digest_of
from tests.models import support_rows, write_jsonl, write_tokenizer
from tests.workers.chat_server import ChatServer
from tests.workers.contexts import a_context
from tests.workers.running import a_stage


@pytest.fixture
def teacher(tiny_teacher: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_teacher, tmp_path / "teacher"))


@pytest.fixture
def given(teacher: Path, tmp_path: Path) -> dict[str, Any]:
    """A job in which everything is right."""
    golden = write_jsonl(tmp_path / "golden.jsonl", [{"id": str(n), "prompt": f"Question {n}?"} for n in range(30)])
    data = write_jsonl(tmp_path / "support.jsonl", support_rows(3))
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "Hello"}])
    return {
        "teacher": teacher.as_uri(),
        "layers": 2,
        "golden": golden.as_uri(),
        "sources": [{"uri": data.as_uri()}],
        "prompts": prompts.as_uri(),
        "needs": [{"field": "spec.gates.quality.minGoldenPassRate", "limit": 0.9, "items": 29}],
    }


def resolve(identity: dict[str, Any], tmp_path: Path, **execution: Any) -> StageOutcome:
    config = STAGE_CONFIG.validate_python(a_stage("resolve", identity, tmp_path, execution=execution))
    assert isinstance(config, ResolveConfig)
    context: StageContext = a_context(tmp_path, {}, config.execution)
    shutil.rmtree(context.work)
    context.work.mkdir()
    return run(config, context)


def refusal(identity: dict[str, Any], tmp_path: Path, **execution: Any) -> StageError:
    with pytest.raises(StageError) as caught:
        resolve(identity, tmp_path, **execution)
    assert caught.value.remedy
    assert not list((tmp_path / "store").rglob("*.json"))
    return caught.value


def test_everything_is_pinned(given: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    outcome = resolve(given, tmp_path)
    assert outcome.pinned["teacher"] == Output(uri=teacher.as_uri(), digest=digest_of(teacher))
    assert outcome.pinned.keys() == {"teacher", "embedder"}
    assert outcome.folders.keys() == {"tokenizer", "golden", "sources", "prompts"}
    assert outcome.facts == {
        "architecture": "LlamaForCausalLM",
        "teacherLayers": 4,
        "teacherParameters": 180_032,
        "vocabulary": 500,
        "goldenItems": 30,
    }


def test_later_stages_find_what_was_resolved(given: dict[str, Any], tmp_path: Path) -> None:
    outcome = resolve(given, tmp_path)
    inputs = {name: Input(uri=path.as_uri(), digest=digest_of(path)) for name, path in outcome.folders.items()}
    inputs |= {name: Input(uri=out.uri or "", digest=out.digest) for name, out in outcome.pinned.items()}
    execution = Execution.model_validate(a_stage("resolve", given, tmp_path)["execution"])
    fetched = FetchedInputs(inputs, execution, tmp_path / "later")
    assert fetched.path("golden").name == "golden.jsonl"
    assert (fetched.path("sources") / "0" / "support.jsonl").read_bytes() == (tmp_path / "support.jsonl").read_bytes()
    assert (fetched.path("tokenizer") / "tokenizer.json").is_file()
    assert (fetched.path("embedder") / "model.safetensors").is_file()


def test_a_source_that_changed_since_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    sources = resolve(given, tmp_path).folders["sources"]
    write_jsonl(tmp_path / "support.jsonl", support_rows(4))
    execution = Execution.model_validate(a_stage("resolve", given, tmp_path)["execution"])
    inputs = {"sources": Input(uri=sources.as_uri(), digest=digest_of(sources))}
    with pytest.raises(BadInput) as caught:
        FetchedInputs(inputs, execution, tmp_path / "later").path("sources")
    assert (caught.value.reason, caught.value.field) == (WorkerReason.DIGEST_MISMATCH, "spec.dataset.sources[0].uri")


def test_the_licence_of_the_teacher_is_inherited(given: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    (teacher / "README.md").write_text(
        "---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\nlicense: not this one\n"
    )
    assert resolve(given, tmp_path).facts["teacherLicence"] == "apache-2.0"


def test_the_result_fits_its_message_also_with_long_uris(given: dict[str, Any], tmp_path: Path) -> None:
    outcome = resolve(given, tmp_path)
    long = "hf://" + "o" * 120 + "/" + "n" * 130 + "@" + "c" * 40
    pinned = {name: Output(digest="sha256:" + "0" * 64, uri=long) for name in ("teacher", "student", "embedder")}
    folders = dict.fromkeys(outcome.folders, Output(digest="sha256:" + "0" * 64, path="tokenizer/" + "0" * 12))
    facts = {**outcome.facts, "teacherLicence": "l" * 40}
    result = StageResult(key="0" * 64, outputs=pinned | folders, facts=facts)
    assert len(result.model_dump_json(exclude_none=True, exclude_defaults=True)) <= 2048


def test_a_shared_tokenizer_with_another_padding_is_accepted(
    given: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    student = Path(shutil.copytree(teacher, tmp_path / "student"))
    tokenizer = json.loads((student / "tokenizer.json").read_text())
    tokenizer["padding"] = {
        "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }  # fmt: skip
    tokenizer["model"]["merges"] = [" ".join(merge) for merge in tokenizer["model"]["merges"]]
    (student / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**config, "vocab_size": 512}))
    outcome = resolve({**given, "student": student.as_uri(), "layers": None}, tmp_path)
    assert outcome.pinned["student"].digest == digest_of(student)


def _edit_tokenizer(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(student: Path) -> None:
        tokenizer = json.loads((student / "tokenizer.json").read_text())
        change(tokenizer)
        (student / "tokenizer.json").write_text(json.dumps(tokenizer))

    return edit


@pytest.mark.parametrize(
    ("change", "want_part"),
    [
        (lambda student: write_tokenizer(student, vocabulary=400), "vocabulary, merges (500 and 400 entries)"),
        (_edit_tokenizer(lambda tokenizer: tokenizer["model"]["merges"].pop()), "merges"),
        (_edit_tokenizer(lambda tokenizer: tokenizer.update(normalizer={"type": "NFC"})), "normaliser"),
        (_edit_tokenizer(lambda tokenizer: tokenizer["pre_tokenizer"]["pretokenizers"].pop(0)), "pre-tokenizer"),
        (_edit_tokenizer(lambda tokenizer: tokenizer["added_tokens"].pop()), "special tokens"),
        (_edit_tokenizer(lambda tokenizer: tokenizer["model"].update(byte_fallback=True)), "model"),
    ],
)
def test_a_tokenizer_that_differs_by_content_is_refused(
    given: dict[str, Any], teacher: Path, tmp_path: Path, change: Callable[[Path], object], want_part: str
) -> None:
    student = Path(shutil.copytree(teacher, tmp_path / "student"))
    change(student)
    error = refusal({**given, "student": student.as_uri(), "layers": None}, tmp_path)
    assert (error.reason, error.field) == (WorkerReason.TOKENIZER_MISMATCH, "spec.student.uri")
    assert f"differ in {want_part}" in error.message
    assert "Sequence mode" in str(error.remedy)


def test_text_takes_any_two_tokenizers_and_the_students_is_kept(
    given: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    student = write_tokenizer(Path(shutil.copytree(teacher, tmp_path / "student")), vocabulary=400)
    outcome = resolve({**given, "mode": "Sequence", "student": student.as_uri(), "layers": None}, tmp_path)
    kept = (outcome.folders["tokenizer"] / "tokenizer.json").read_bytes()
    assert kept == (student / "tokenizer.json").read_bytes() != (teacher / "tokenizer.json").read_bytes()
    (student / "tokenizer.json").unlink()
    error = refusal({**given, "mode": "Sequence", "student": student.as_uri(), "layers": None}, tmp_path)
    assert error.field == "spec.student.uri"


def test_an_endpoint_is_asked_one_question_before_anything_runs(
    given: dict[str, Any], teacher: Path, tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = {**given, "mode": "Sequence", "teacher": None, "student": teacher.as_uri(), "layers": None}
    identity["endpoint"] = chat_server.model().model_dump()
    outcome = resolve(identity, tmp_path)
    assert outcome.pinned.keys() == {"student", "embedder"}
    assert outcome.facts["studentParameters"] == 180_032
    assert len(chat_server.requests) == 1
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    error = refusal(identity, tmp_path)
    assert (error.reason, error.field) == (WorkerReason.ENDPOINT_DENIED, "spec.teacher.endpoint.secretRef")


def _pickle_only(teacher: Path) -> None:
    (teacher / "model.safetensors").rename(teacher / "pytorch_model.bin")


def _edit_config(**changes: Any) -> Callable[[Path], object]:
    def edit(teacher: Path) -> None:
        config = json.loads((teacher / "config.json").read_text())
        (teacher / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


def _broken_index(teacher: Path) -> None:
    (teacher / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002-of-00002.safetensors"}}')


@pytest.mark.parametrize(
    ("change", "want_reason", "want_text"),
    [
        (shutil.rmtree, WorkerReason.MODEL_NOT_FOUND, "does not exist"),
        (lambda teacher: (teacher / "config.json").unlink(), WorkerReason.MODEL_NOT_FOUND, "no readable config.json"),
        (
            lambda teacher: (teacher / "model.safetensors").unlink(),
            WorkerReason.MODEL_NOT_FOUND,
            "no .safetensors file",
        ),
        (
            lambda teacher: (teacher / "model.safetensors").write_text("not weights"),
            WorkerReason.MODEL_NOT_FOUND,
            "not a safetensors file",
        ),
        (_broken_index, WorkerReason.MODEL_NOT_FOUND, "names model-00002-of-00002.safetensors, which is not there"),
        (_pickle_only, WorkerReason.UNSAFE_MODEL, "only pickled weights (pytorch_model.bin)"),
        (_edit_config(auto_map={"AutoModel": "m.M"}), WorkerReason.UNSAFE_MODEL, "brings its own code"),
        (_edit_config(architectures=None), WorkerReason.UNSUPPORTED_MODEL, "names no architecture"),
    ],
)
def test_a_teacher_that_cannot_be_used_is_refused(
    given: dict[str, Any],
    teacher: Path,
    tmp_path: Path,
    change: Callable[[Path], object],
    want_reason: WorkerReason,
    want_text: str,
) -> None:
    change(teacher)
    error = refusal(given, tmp_path)
    assert (error.reason, error.field) == (want_reason, "spec.teacher.uri")
    assert want_text in error.message


@pytest.mark.parametrize(
    ("changes", "want_reason", "want_field", "want_text"),
    [
        ({"layers": 5}, WorkerReason.TOO_MANY_LAYERS, "spec.student.fromTeacher.layers", "the teacher has 4"),
        ({"golden": "file:///nowhere.jsonl"}, WorkerReason.SOURCE_NOT_FOUND, "spec.golden.uri", "does not exist"),
        (
            {"sources": [{"uri": "file:///nowhere.jsonl"}]},
            WorkerReason.SOURCE_NOT_FOUND,
            "spec.dataset.sources[0].uri",
            "does not exist",
        ),
        (
            {"prompts": "file:///nowhere.jsonl"},
            WorkerReason.SOURCE_NOT_FOUND,
            "spec.dataset.synthetic.promptsUri",
            "does not exist",
        ),
        ({"embedder": "file:///nowhere"}, WorkerReason.MODEL_NOT_FOUND, "spec.golden.embedder", "does not exist"),
        (
            {"needs": [{"field": "spec.gates.quality.minGoldenPassRate", "limit": 0.98, "items": 149}]},
            WorkerReason.GOLDEN_TOO_FEW_ITEMS,
            "spec.gates.quality.minGoldenPassRate",
            "0.98 takes 149 golden items to prove even when all pass, and golden.jsonl has 30",
        ),
    ],
)
def test_what_a_job_lacks_is_named(
    given: dict[str, Any],
    tmp_path: Path,
    changes: dict[str, Any],
    want_reason: WorkerReason,
    want_field: str,
    want_text: str,
) -> None:
    error = refusal({**given, **changes}, tmp_path)
    assert (error.reason, error.field) == (want_reason, want_field)
    assert want_text in error.message


def test_a_limit_in_reach_is_offered(given: dict[str, Any], tmp_path: Path) -> None:
    needs = [{"field": "spec.gates.quality.minGoldenPassRate", "limit": 0.98, "items": 149}]
    assert "Add 119 items" in str(refusal({**given, "needs": needs}, tmp_path).remedy)
    assert "0.904" in str(refusal({**given, "needs": needs}, tmp_path).remedy)


def a_training(limit_mib: float, **changes: Any) -> dict[str, Any]:
    return {"batchTokens": 256, "maxLength": 64, "maxSteps": 10, "limitBytes": int(limit_mib * 2**20)} | changes


def test_weights_that_no_training_pod_can_hold_are_refused_with_the_numbers(
    given: dict[str, Any], tmp_path: Path
) -> None:
    error = refusal(given, tmp_path, training=a_training(1))
    assert (error.reason, error.field) == (
        WorkerReason.MEMORY_LIMIT_TOO_LOW,
        "spec.podTemplate.resources.train.limits.memory",
    )
    assert re.search(r"may use 1 MiB and needs \d+ MiB for .* alone, about \d+ MiB in all", error.message)
    assert "zeroStage" in str(error.remedy)


def test_a_limit_below_the_expected_peak_is_warned_of(given: dict[str, Any], tmp_path: Path) -> None:
    warning = resolve(given, tmp_path, training=a_training(300)).warning
    assert re.search(r"may use 300 MiB and is expected to need up to \d+ MiB \(.*runtime 590 MiB", warning)
    assert "batchTokens" in warning


@pytest.mark.parametrize("training", [None, a_training(100_000), {"batchTokens": 256, "maxLength": 64}])
def test_enough_memory_or_an_unknown_limit_needs_no_word(
    given: dict[str, Any], tmp_path: Path, training: dict[str, Any] | None
) -> None:
    assert resolve(given, tmp_path, training=training).warning == ""


def test_a_prompt_file_without_a_prompt_is_empty(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("\n")
    assert refusal(given, tmp_path).reason is WorkerReason.EMPTY_DATASET


def test_a_folder_of_other_files_is_no_source(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/cat.png").write_bytes(b"")
    error = refusal({**given, "sources": [{"uri": (tmp_path / "pictures").as_uri()}]}, tmp_path)
    assert "holds no .jsonl or .txt file" in error.message


def test_a_store_that_forgets_to_be_conditional_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    class Forgetful(FolderStore):
        """What a server does that ignores the header of a conditional write."""

        def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
            return super().put_bytes(key, body)

    config = STAGE_CONFIG.validate_python(a_stage("resolve", given, tmp_path))
    assert isinstance(config, ResolveConfig)
    context = replace(a_context(tmp_path, {}, config.execution), store=Forgetful(tmp_path / "store"))
    with pytest.raises(BadInput, match="written only once"):
        run(config, context)


def test_nothing_is_left_of_the_probe(given: dict[str, Any], tmp_path: Path) -> None:
    resolve(given, tmp_path)
    assert not list(FolderStore(tmp_path / "store").list(""))


def test_the_list_of_sources_is_what_inputs_read(given: dict[str, Any], tmp_path: Path) -> None:
    rows = json.loads((resolve(given, tmp_path).folders["sources"] / SOURCES_FILE).read_text())
    assert [Input.model_validate(row).uri for row in rows] == [(tmp_path / "support.jsonl").as_uri()]
