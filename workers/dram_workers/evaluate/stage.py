"""The evaluation of one subject, from the golden file to `answers.jsonl`, `scores.json` and measures."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dram_workers.context import StageContext, StageOutcome
from dram_workers.data.tokenizer import ChatTokenizer, TemplateRefused
from dram_workers.errors import BadInput, GateInputMissing, WorkerReason
from dram_workers.evaluate.divergence import ENOUGH_ANSWERS, HeldOut, compare, divergence_measures, held_out
from dram_workers.evaluate.embedder import Embedder
from dram_workers.evaluate.scoring import Scored, check_similarity_limit, quality_measures, score_item
from dram_workers.evaluate.subjects import Examined, FileSubject, FloatSubject, Question, check_stopping
from dram_workers.export import exported_file
from dram_workers.golden import FIELD, GoldenItem, read_golden
from dram_workers.llamacpp import LlamaModel, LlamaSession
from dram_workers.results import Measure
from dram_workers.stages import EvaluateConfig, EvaluateIdentity, canonical_json


@dataclass(frozen=True)
class Suite:
    """The golden items as one subject meets them."""

    items: tuple[GoldenItem, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Answered:
    """What a subject said to the whole suite."""

    texts: tuple[str, ...]
    nlls: tuple[float | None, ...]
    """Of the references; None where there is no reference, or the subject gives no likelihoods."""


def evaluate(config: EvaluateConfig, context: StageContext) -> StageOutcome:
    """Examine, score, compare with earlier evaluations, write the evidence."""
    identity = config.identity
    items = read_golden(context.inputs.path("golden"))
    teacher = _earlier(context, "teacherEvaluation") if identity.subject != "Teacher" else None
    references = tuple(item.reference if teacher is None else _row(teacher, item.id)["reference"] for item in items)
    answered, measures = _answer(items, references, context, identity)
    scored, unrelated = _score(items, references, answered, context, identity)
    student = _scores(_earlier(context, "studentEvaluation"), items) if identity.subject == "Variant" else None
    quality = quality_measures(scored, _scores(teacher, items) if teacher else None, student, identity.seed)
    measures = (*quality, *measures)
    folder = _write(context.work / "evaluation", scored, measures, identity, unrelated)
    facts: dict[str, str | int | float | bool] = {"items": len(scored), "runtime": _runtime(identity)}
    if unrelated is not None:
        facts["unrelatedSimilarity"] = round(unrelated, 4)
    return StageOutcome(folders={"evaluation": folder}, measures=measures, facts=facts)


def _answer(
    items: tuple[GoldenItem, ...], references: tuple[str | None, ...], context: StageContext, identity: EvaluateIdentity
) -> tuple[Answered, tuple[Measure, ...]]:
    """The subject's answers, and the measures that need more than answers."""
    if identity.endpoint is not None:
        from dram_workers.evaluate.endpoint import endpoint_answers

        texts = endpoint_answers(identity.endpoint, items, context, identity)
        return Answered(tuple(texts), (None,) * len(items)), ()
    threads = context.execution.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    tokenizer = ChatTokenizer.load(context.inputs.path("student" if identity.subject == "Variant" else "model"))
    suite = _suite(items, references, tokenizer, identity)
    measures: tuple[Measure, ...] = ()
    if identity.subject == "Variant":
        examined, measures = _examine_variant(suite, tokenizer, context, identity, threads)
    else:
        field = f"spec.{identity.subject.lower()}.uri"
        subject = FloatSubject(context.inputs.path("model"), tokenizer.stop_ids, context, field)
        examined = subject.examine(suite.questions)
    texts = [tokenizer.decode(list(one.answer)).strip() for one in examined]
    return Answered(tuple(texts), tuple(one.reference_nll for one in examined)), measures


def _suite(
    items: tuple[GoldenItem, ...],
    references: tuple[str | None, ...],
    tokenizer: ChatTokenizer,
    identity: EvaluateIdentity,
) -> Suite:
    questions = []
    for item, reference in zip(items, references, strict=True):
        try:
            prompt = tokenizer.prompt_ids(item.conversation)
        except TemplateRefused as error:
            raise BadInput(
                WorkerReason.MALFORMED_LINE,
                f"the chat template refuses the golden item {item.id!r}: {error}",
                field=FIELD,
                remedy="bring its turns into the order that the model's chat template asks for",
            ) from error
        forced = tokenizer.encode(reference) if reference else []
        questions.append(Question(prompt, item.max_tokens or identity.max_tokens, forced))
    return Suite(items, tuple(questions))


def _examine_variant(
    suite: Suite, tokenizer: ChatTokenizer, context: StageContext, identity: EvaluateIdentity, threads: int
) -> tuple[list[Examined], tuple[Measure, ...]]:
    samples = held_out(context.inputs.path("dataset"), identity.divergence_tokens)
    if len(samples) < ENOUGH_ANSWERS:
        samples += [_as_held_out(question) for question in suite.questions if question.reference]
    longest = max(
        *(len(question.prompt) + max(question.max_tokens, len(question.reference)) for question in suite.questions),
        *(len(sample.tokens) for sample in samples),
    )
    with LlamaModel(exported_file(context.inputs.path("artifact"))) as model:
        _check_prompts(suite, tokenizer, model)
        examined = FileSubject(model, context, threads, longest + 1).examine(suite.questions)
        student = FloatSubject(context.inputs.path("student"), tokenizer.stop_ids, context, "spec.student.uri")
        with LlamaSession(model, context_tokens=longest + 1, threads=threads) as session:
            answers = []
            for sample in samples:
                check_stopping(context)
                session.rewind(0)
                answers.append(compare(student, session, sample))
    return examined, tuple(divergence_measures(answers, identity.seed))


def _as_held_out(question: Question) -> HeldOut:
    tokens = (*question.prompt, *question.reference)
    return HeldOut(tokens, len(question.prompt), (True,) * len(question.reference))


def _check_prompts(suite: Suite, tokenizer: ChatTokenizer, model: LlamaModel) -> None:
    """The file must read the very prompts of the suite as the student's tokenizer does."""
    for item, question in zip(suite.items, suite.questions, strict=True):
        text = tokenizer.render(item.conversation, generate=True)
        if tokenizer.encode(text) != model.tokenize(text):
            raise BadInput(
                WorkerReason.CONVERSION_UNPROVEN,
                f"the exported file reads the prompt of golden item {item.id!r} as other tokens than the student does",
                field="spec.exports",
                remedy="use a student with a supported tokenizer",
            )
        if max([*question.prompt, *question.reference]) >= model.vocabulary:
            raise BadInput(WorkerReason.CONVERSION_UNPROVEN, f"the file has only {model.vocabulary} tokens")


def _score(
    items: tuple[GoldenItem, ...],
    given: tuple[str | None, ...],
    answered: Answered,
    context: StageContext,
    identity: EvaluateIdentity,
) -> tuple[list[Scored], float | None]:
    """Decide every item; where no reference is given, the answer itself is it, so that the teacher sets it for others."""
    answers = answered.texts
    references = [answer if known is None else known for known, answer in zip(given, answers, strict=True)]
    embedder = Embedder(context.inputs.path("embedder"))
    references_NE, answers_NE = embedder.embed(references), embedder.embed(answers)
    unrelated = check_similarity_limit(references_NE, references, items, identity)
    scored = []
    for at, item in enumerate(items):
        same = references[at].strip() == answers[at]
        similarity = 1.0 if same else float(references_NE[at] @ answers_NE[at])
        scored.append(score_item(item, references[at], answers[at], similarity, answered.nlls[at], identity))
    return scored, unrelated


def _earlier(context: StageContext, name: str) -> dict[str, dict[str, Any]]:
    """The answers of an earlier evaluation, by item id."""
    path = context.inputs.path(name) / "answers.jsonl"
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {row["id"]: row for row in rows}


def _row(rows: dict[str, dict[str, Any]], item: str) -> dict[str, Any]:
    if item not in rows:
        raise GateInputMissing(
            WorkerReason.SOURCE_NOT_FOUND,
            f"an earlier evaluation has no answer to the golden item {item!r}",
            field=FIELD,
            remedy="start a new run",
        )
    return rows[item]


def _scores(rows: dict[str, dict[str, Any]], items: tuple[GoldenItem, ...]) -> list[float]:
    return [float(_row(rows, item.id)["score"]) for item in items]


def _runtime(identity: EvaluateIdentity) -> str:
    if identity.endpoint is not None:
        return f"{identity.endpoint.model} at {identity.endpoint.url}"[:256]
    if identity.subject != "Variant":
        return f"torch {torch.__version__} float32"
    from importlib.metadata import version

    return f"llama.cpp (xllamacpp {version('xllamacpp')})"


def _write(
    folder: Path,
    scored: Sequence[Scored],
    measures: Sequence[Measure],
    identity: EvaluateIdentity,
    unrelated: float | None,
) -> Path:
    folder.mkdir(parents=True)
    lines = (canonical_json(item.row()).decode() + "\n" for item in scored)
    (folder / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    scores = {
        "subject": identity.subject,
        "variant": identity.variant,
        "minSimilarity": identity.min_similarity,
        "maxReferenceNll": identity.max_reference_nll,
        "unrelatedSimilarity": unrelated,
        "failedChecks": dict(_failures(scored)),
        "measures": [measure.model_dump(mode="json", exclude_none=True) for measure in measures],
    }
    (folder / "scores.json").write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def _failures(scored: Sequence[Scored]) -> Iterator[tuple[str, int]]:
    for check in sorted({check for item in scored for check in item.failed}):
        yield check, sum(check in item.failed for item in scored)
