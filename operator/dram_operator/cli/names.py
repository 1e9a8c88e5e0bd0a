"""Names of objects, for the shell's completion: whatever fails, completion is silent."""

import asyncio

import click
from click.shell_completion import CompletionItem

from dram_operator.adapters.resources import DISTILLATION_JOBS, EDGE_ROLLOUTS, Resource
from dram_operator.cli.cluster import Failure, opened

PATIENCE_SECONDS = 2.0
"""A person waits with a finger on the tab key."""


def job_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """DistillationJobs whose names start like this."""
    return _names(context, DISTILLATION_JOBS, incomplete)


def rollout_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """EdgeRollouts whose names start like this."""
    return _names(context, EDGE_ROLLOUTS, incomplete)


def _names(context: click.Context, resource: Resource, incomplete: str) -> list[CompletionItem]:
    async def look() -> list[str]:
        given = context.params
        async with opened(given.get("kubeconfig"), given.get("context"), given.get("namespace")) as cluster:
            return [obj["metadata"]["name"] for obj in await cluster.listing(resource)]

    async def look_briefly() -> list[str]:
        return await asyncio.wait_for(look(), PATIENCE_SECONDS)

    try:
        names = asyncio.run(look_briefly())
    except (Failure, TimeoutError):
        return []
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
