"""One look at a rollout's metrics: every query as of one moment, and closed windows once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache

from dram_operator.adapters.prometheus import Prometheus
from dram_operator.core.rollout.answers import ERRORS, Answer, Sample, Trouble
from dram_operator.core.rollout.looks import MetricLook, WindowLook
from dram_operator.core.rollout.observed import Measured
from dram_operator.core.rollout.presets import Queries

Windows = dict[str, dict[int, Answer]]
"""Answers for closed windows by metric; a look adds to them."""


async def measure(
    endpoint: Prometheus, looks: Iterable[MetricLook], windows: Windows, at: datetime, silent: Trouble | None
) -> tuple[Measured, ...]:
    """A look at every metric; where the server is `silent` nothing is asked and every answer is that."""
    return tuple(await asyncio.gather(*(_measure(endpoint, look, windows, at, silent) for look in looks)))


async def _measure(
    endpoint: Prometheus, look: MetricLook, windows: Windows, at: datetime, silent: Trouble | None
) -> Measured:
    trouble = silent if look.is_askable else Trouble.NOT_ASKED

    async def ask(queries: Queries, moment: datetime) -> Answer:
        return Answer(trouble=trouble) if trouble else await endpoint.look(queries, moment)

    answer = await ask(look.figure, at) if look.figure else Answer(trouble=trouble)
    known = windows.setdefault(look.name, {})
    answers = await asyncio.gather(*(_window(one, ask) for one in look.windows))
    found = dict(zip((one.number for one in look.windows), answers, strict=True))
    known |= {number: one for number, one in found.items() if one.trouble not in ERRORS}
    if trouble:
        found[max([-1, *known, *found]) + 1] = Answer(trouble=trouble)
    return Measured(look.name, at, look.query, answer, tuple(sorted((known | found).items())))


async def _window(window: WindowLook, ask: Callable[[Queries, datetime], Awaitable[Answer]]) -> Answer:
    """Every device's figure in a closed window: nothing but device and number is kept of it."""
    answers = [await ask(queries, window.ends_at) for queries in window.queries]
    trouble = next((answer.trouble for answer in answers if answer.trouble), None)
    if trouble:
        return Answer(trouble=trouble)
    times = [answer.newest for answer in answers]
    samples = (sample for answer in answers for sample in answer.samples)
    return Answer(
        tuple(Sample(_only_device(sample.labels.get("device", "")), sample.value) for sample in samples),
        newest=min((time for time in times if time), default=None) if all(times) else None,
        support=sum(answer.support or 0.0 for answer in answers),
    )


@lru_cache(maxsize=20_000)
def _only_device(device: str) -> Mapping[str, str]:
    """Shared by all windows: there may be hundreds with ten thousand devices each."""
    return {"device": device}
