"""`dram run`: a DistillationJob with local processes."""

import time
from pathlib import Path

import click
from rich.console import Console

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.local.manifest import ManifestInvalid, read_job
from dram_operator.local.runner import BAD_MANIFEST, FAILED, OK, Outcome, run_job
from dram_operator.local.show import LiveBar, PlainLines, files_of
from dram_operator.local.workdir import Workdir, WorkdirBusy
from dram_operator.show.jobs import variants_table
from dram_operator.show.words import console as standard_output
from dram_workers.errors import StageError


@click.command()
@click.option(
    "-f",
    "--filename",
    "file",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="The manifest, or - for standard input.",
)
@click.option(
    "--workdir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("dram-runs"),
    show_default=True,
    help="Status, report, logs and (unless spec.storage says otherwise) the store go to WORKDIR/NAME.",
)
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change a field of the manifest.")
@click.option(
    "--map", "mappings", multiple=True, metavar="URI=DIR", help="Read and write what lies below a URI in a folder."
)
def run(file: Path, workdir: Path, changes: tuple[str, ...], mappings: tuple[str, ...]) -> None:
    """Run a DistillationJob on this machine: the cluster's plan and workers, as local processes.

    Exit codes: 0 succeeded; 2 bad manifest; 3 a gate failed; 4 failed otherwise; 130 interrupted. Ctrl-C saves a
    checkpoint and stops; the same command goes on from there.
    """
    try:
        job, mounts = read_job(file, changes), dict(map(_mapping, mappings))
    except ManifestInvalid as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        raise SystemExit(BAD_MANIFEST) from error
    raise SystemExit(run_and_show(job, workdir, mounts))


def run_and_show(job: DistillationJob, parent: Path, mounts: dict[str, str]) -> int:
    """Run the job and tell people about it; returns the exit code."""
    console = standard_output()
    started = time.monotonic()
    try:
        with LiveBar(console) if console.is_terminal else PlainLines(console) as display:
            outcome = run_job(job, parent, mounts, display)
    except (WorkdirBusy, StageError) as error:
        click.echo(str(error), err=True)
        return FAILED
    _conclude(console, outcome, Workdir(parent, job.metadata.name), time.monotonic() - started)
    return outcome.exit_code


def _mapping(text: str) -> tuple[str, str]:
    uri, separator, folder = text.partition("=")
    if not separator or "://" not in uri or not folder:
        raise ManifestInvalid([f"--map {text}: write URI=DIR, e.g. s3://models=./models"])
    return uri, str(Path(folder).expanduser().absolute())


def _conclude(console: Console, outcome: Outcome, workdir: Workdir, seconds: float) -> None:
    console.print()
    if outcome.status.variants:
        console.print(variants_table(outcome.status))
    for file in files_of(outcome.status, workdir.root):
        console.print(f"file    {file}", soft_wrap=True, highlight=False, markup=False)
    for log in workdir.failed_logs(outcome.status):
        console.print(f"log     {log}", soft_wrap=True, highlight=False, markup=False)
    if workdir.report_file.exists():
        console.print(f"report  {workdir.report_file}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"status  {workdir.status_file}", soft_wrap=True, highlight=False, markup=False)
    text = f"{outcome.reason}: {outcome.message}"
    click.echo(f"{text} (ran {seconds:.0f} s)", err=outcome.exit_code != OK)
