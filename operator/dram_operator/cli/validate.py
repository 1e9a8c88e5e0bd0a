"""`dram validate`: what the API server would say to a manifest, said here."""

from pathlib import Path
from typing import Any

import click

from dram_operator.api.distillation_job import GROUP
from dram_operator.api.manifests import ManifestError, load_manifests
from dram_operator.api.offline import check
from dram_operator.api.resources import RESOURCES

INVALID = 2
"""Exit code for a bad manifest."""


@click.command()
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="A manifest, or - for standard input; may be given several times.",
)
@click.option("--local", is_flag=True, help="Allow what only `dram run` can read: file:// URIs and plain paths.")
def validate(files: tuple[Path, ...], local: bool) -> None:
    """Check manifests by the CRD's schema and rules, without a cluster."""
    problems = [problem for file in files for problem in _problems(file, local)]
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise SystemExit(INVALID)


def _problems(file: Path, local: bool) -> list[str]:
    """Every problem of a file; says on standard output which manifests have none."""
    try:
        manifests = [manifest for manifest in load_manifests(file) if _is_dram(manifest)]
    except ManifestError as error:
        return [str(error)]
    if not manifests:
        return [f"{file}: holds no object of {GROUP}"]
    found: list[str] = []
    for manifest in manifests:
        place = f"{file} ({_name(manifest)})" if len(manifests) > 1 else str(file)
        problems = check(manifest, local=local)
        found += [f"{place}: {problem}" for problem in problems]
        if not problems:
            click.echo(f"{file}: {manifest['kind']} {_name(manifest)} is valid")
    return found


def _is_dram(manifest: dict[str, Any]) -> bool:
    """Whether it is ours to check: a file may hold Secrets and others beside."""
    version, kind = str(manifest.get("apiVersion", "")), str(manifest.get("kind", ""))
    return (
        not (version and kind) or kind in {resource.kind for resource in RESOURCES} or version.startswith(f"{GROUP}/")
    )


def _name(manifest: dict[str, Any]) -> str:
    metadata = manifest.get("metadata")
    return str(metadata.get("name", "?")) if isinstance(metadata, dict) else "?"
