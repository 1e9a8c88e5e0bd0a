"""What is asked of a metrics server about devices, one by one or in counts: all of it as of one moment."""

import asyncio
from datetime import datetime, timedelta

from dram_operator.adapters.prometheus import Prometheus
from dram_operator.core.rollout.answers import Answer
from dram_operator.core.rollout.counted import Counts, count_questions
from dram_operator.core.rollout.observed import NOTHING
from dram_operator.core.rollout.telemetry import Memory, Subject, Told, list_selector, questions


async def ask_devices(endpoint: Prometheus, subject: Subject, memory: Memory, at: datetime) -> Told:
    """What devices say of themselves, all of it as of one moment."""
    asked = questions(subject, memory, at)
    seen, healthy, activated, gave_up = await asyncio.gather(
        *(_ask(endpoint, query, at) for query in (asked.seen, asked.healthy, asked.activated, asked.gave_up))
    )
    listed = None
    if memory.is_list_due(at) and not seen.trouble:
        since = at - timedelta(seconds=subject.lookback_seconds)
        listed = await endpoint.series(list_selector(subject), since, at)
    return Told(at, seen, healthy, activated, gave_up, listed)


async def ask_counts(endpoint: Prometheus, subject: Subject, labels: tuple[str, ...], at: datetime) -> Counts:
    """What was recorded of devices that are only counted, all of it as of one moment."""
    asked = count_questions(subject, labels)
    texts = (asked.known, asked.heard, asked.newest, asked.running, asked.states)
    return Counts(at, *(await asyncio.gather(*(_ask(endpoint, query, at) for query in texts))))


async def _ask(endpoint: Prometheus, query: str | None, at: datetime) -> Answer:
    return NOTHING if query is None else await endpoint.query(query, at)
