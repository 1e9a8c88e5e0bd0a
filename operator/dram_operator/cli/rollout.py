"""`kubectl dram rollout`: the story of an EdgeRollout, the levers, and rehearsals without a cluster."""

from collections.abc import Iterator
from datetime import UTC, datetime

import click

from dram_operator.adapters.resources import EDGE_ROLLOUTS
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.cli.cluster import FAILED, REFUSED, Cluster, on_cluster
from dram_operator.cli.devices import devices
from dram_operator.cli.following import Story, follow
from dram_operator.cli.levers import lever
from dram_operator.cli.names import rollout_names
from dram_operator.cli.output import Form, output_option, read_as, show_machine
from dram_operator.cli.rehearsal import plan, simulate
from dram_operator.core.rollout.commands import Verb
from dram_operator.show.rollouts import condition, heading, rollout_story
from dram_operator.show.words import console

NEVER_BY_ITSELF = (RolloutReason.ROLLED_BACK, RolloutReason.QUARANTINED)


@click.group()
def rollout() -> None:
    """Look at EdgeRollouts; approve, promote, abort, retry and undo them; rehearse one without a cluster."""


@rollout.command()
@click.argument("name", shell_complete=rollout_names)
@output_option
@on_cluster
async def status(cluster: Cluster, name: str, form: Form | None) -> None:
    """Tell the story of the rollout NAME: releases, steps, devices, metrics, commands, history."""
    obj = await cluster.read(EDGE_ROLLOUTS, name)
    if form:
        show_machine(obj, form)
    else:
        console().print(rollout_story(read_as(EdgeRollout, obj), datetime.now(UTC)))


@rollout.command()
@click.argument("name", shell_complete=rollout_names)
@click.option("--forever", is_flag=True, help="Go on when the rollout has ended: the next one comes.")
@output_option
@on_cluster
async def watch(cluster: Cluster, name: str, forever: bool, form: Form | None) -> int | None:
    """Follow the rollout NAME until it has ended. On a pipe: a line a change; with -o json an object a line.

    Exit codes: 0 the release is stable; 3 it was rolled back, or is in quarantine; 4 failed otherwise; 130 interrupted.
    """
    story = Story(lambda obj: read_as(EdgeRollout, obj), rollout_story, _news, _ended)
    return await follow(cluster.changes(EDGE_ROLLOUTS, name), story, form, forever=forever)


for _verb in Verb:
    rollout.add_command(lever(_verb))
for _command in (devices, simulate, plan):
    rollout.add_command(_command)


def _news(before: EdgeRollout | None, seen: EdgeRollout) -> Iterator[str]:
    if before is None or heading(before) != heading(seen):
        yield heading(seen)
    old, new = (one.status.step if one else None for one in (before, seen))
    if new and (old is None or (old.shown, old.state, old.devices) != (new.shown, new.state, new.devices)):
        count = new.devices
        yield (
            f"… step {new.shown}: {new.state}: {count.healthy} of {count.expected} healthy, {count.failed} failed, "
            f"{count.offline} offline"
        )
    known = {one.name: one.verdict for one in before.status.analysis} if before else {}
    for metric in seen.status.analysis:
        if known.get(metric.name) != metric.verdict:
            sign = {"Pass": "✓", "Breach": "✗"}.get(metric.verdict, "!")
            yield f"{sign} {metric.name}: {metric.verdict}: {metric.message}"


def _ended(seen: EdgeRollout) -> int | None:
    """None while something is on its way, or waits for somebody who may still come."""
    status = seen.status
    ready = condition(status, RolloutCondition.READY)
    if ready is None or status.observed_generation < seen.metadata.generation:
        return None
    if ready.status == "True":
        return 0
    if status.candidate is None and ready.reason in NEVER_BY_ITSELF:
        return REFUSED
    return FAILED if ready.reason == RolloutReason.SPEC_INVALID else None
