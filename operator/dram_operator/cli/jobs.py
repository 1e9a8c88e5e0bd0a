"""`kubectl dram get|status|watch|report`: the story of a DistillationJob."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from dram_operator.adapters.resources import DISTILLATION_JOBS
from dram_operator.api.distillation_job import DistillationJob
from dram_operator.cli.cluster import Cluster, Failure, on_cluster
from dram_operator.cli.following import Story, follow
from dram_operator.cli.names import job_names
from dram_operator.cli.output import Form, output_option, read_as, show_machine
from dram_operator.cli.report import fetch_report, kept_report
from dram_operator.local.runner import exit_code_of
from dram_operator.local.show import changed
from dram_operator.show.jobs import heading, job_story, jobs_table, stage_line, summary_of
from dram_operator.show.words import console

one_job = click.argument("name", metavar="JOB", shell_complete=job_names)


@click.command()
@click.argument("names", metavar="[JOB]…", nargs=-1, shell_complete=job_names)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Jobs of every namespace.")
@output_option
@on_cluster
async def get(cluster: Cluster, names: tuple[str, ...], everywhere: bool, form: Form | None) -> None:
    """List DistillationJobs, one a line: all of the namespace, or those that are named."""
    if names and everywhere:
        raise click.UsageError("a name belongs to one namespace: name it with -n instead of -A")
    if names:
        found = [await cluster.read(DISTILLATION_JOBS, name) for name in names]
    else:
        found = await cluster.listing(DISTILLATION_JOBS, everywhere=everywhere)
    if form:
        show_machine({"apiVersion": "v1", "kind": "List", "items": found}, form)
    elif found:
        jobs = [read_as(DistillationJob, obj) for obj in found]
        console().print(jobs_table(jobs, datetime.now(UTC), namespaces=everywhere))
    else:
        where = "the cluster" if everywhere else f"namespace {cluster.namespace}"
        click.echo(f"There is no DistillationJob in {where}.", err=True)


@click.command()
@one_job
@output_option
@on_cluster
async def status(cluster: Cluster, name: str, form: Form | None) -> None:
    """Tell the story of JOB: stages, progress, gates, variants, results."""
    obj = await cluster.read(DISTILLATION_JOBS, name)
    if form:
        show_machine(obj, form)
    else:
        console().print(job_story(read_as(DistillationJob, obj), datetime.now(UTC)))


@click.command()
@one_job
@output_option
@on_cluster
async def watch(cluster: Cluster, name: str, form: Form | None) -> int | None:
    """Follow JOB until it has ended. On a pipe: a line a change; with -o json an object a line.

    Exit codes: 0 succeeded; 3 a gate failed; 4 failed otherwise; 130 interrupted.
    """
    story = Story(lambda obj: read_as(DistillationJob, obj), job_story, _news, _ended)
    return await follow(cluster.changes(DISTILLATION_JOBS, name), story, form)


@click.command()
@one_job
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), help="Write it to a file.")
@click.option("--open", "show", is_flag=True, help="Open it in a browser.")
@click.option("--endpoint", metavar="URL", help="The S3 server, where the spec does not say.")
@click.option("--region", help="Region of the bucket, where the spec does not say.")
@on_cluster
async def report(
    cluster: Cluster, name: str, save: Path | None, show: bool, endpoint: str | None, region: str | None
) -> None:
    """Say where the HTML report of JOB lies, save it, or open it.

    It is read from the object store with your own credentials, as the AWS SDK finds them: no Secret of the cluster is read.
    """
    job = read_as(DistillationJob, await cluster.read(DISTILLATION_JOBS, name))
    uri = job.status.report_uri
    if uri is None:
        raise Failure(f"{name} has no report yet: it is written when the job has ended (`kubectl dram watch {name}`)")
    if not save and not show:
        click.echo(uri)
        return
    body = fetch_report(job, uri, endpoint, region)
    if save:
        with click.open_file(str(save), "wb") as file:
            file.write(body)
        click.echo(f"{save}: {len(body):,} bytes of {uri}", err=True)
    if show:
        click.launch(str(save) if save and str(save) != "-" else str(kept_report(job, body)))


def _news(before: DistillationJob | None, job: DistillationJob) -> Iterator[str]:

    for stage in changed(before.status if before else type(job.status)(), job.status):
        yield stage_line(stage)
    if before is None or heading(before) != heading(job):
        yield heading(job)


def _ended(job: DistillationJob) -> int | None:
    summary = summary_of(job.status)
    if summary is None or summary.status == "Unknown" or job.status.observed_generation < job.metadata.generation:
        return None
    return exit_code_of(summary)
