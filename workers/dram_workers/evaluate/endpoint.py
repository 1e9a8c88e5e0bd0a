"""The golden suite answered by a teacher behind an endpoint: text for text, and no likelihoods."""

from collections.abc import Sequence
from contextlib import closing

from dram_workers.context import StageContext
from dram_workers.endpoint import FIELD, Asked, Endpoint
from dram_workers.endpoint_model import EndpointModel
from dram_workers.errors import BadInput, WorkerReason
from dram_workers.golden import GoldenItem
from dram_workers.stages import EvaluateIdentity


def endpoint_answers(
    model: EndpointModel, items: Sequence[GoldenItem], context: StageContext, identity: EvaluateIdentity
) -> list[str]:
    """Its likeliest answers; BadInput when one is empty that is to be the reference of all that follows."""
    questions = [
        Asked(item.conversation, item.max_tokens or identity.max_tokens, temperature=0.0, seed=identity.seed)
        for item in items
    ]
    answers: list[str] = []
    concurrency = context.execution.endpoint_concurrency
    with Endpoint(model, context.stopping) as endpoint, closing(endpoint.answers(questions, concurrency)) as replies:
        for item, reply in zip(items, replies, strict=True):
            if not reply.text and item.reference is None:
                raise BadInput(
                    WorkerReason.EMPTY_ANSWER,
                    f"{model.model} answers the golden item {item.id!r} with no text, and the item has no reference",
                    field=f"{FIELD}.model",
                    remedy="raise spec.golden.maxTokens (a model that thinks first needs room for it), give the item a "
                    "reference, or name another model",
                )
            answers.append(reply.text)
            context.reporter.report(len(answers), len(items))
    return answers
