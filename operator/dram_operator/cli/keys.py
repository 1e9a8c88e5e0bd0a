"""`dram keys`: the signing keys of the release repository. Run it where the offline keys are, not on the cluster."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import click

from dram_operator.errors import OperatorError

if TYPE_CHECKING:
    from dram_operator.adapters.releases.ceremony import Ceremony

FAILED = 4

P = ParamSpec("P")


def _now() -> datetime:
    return datetime.now(UTC)


def repository_options(command: Callable[P, None]) -> Callable[P, None]:
    """The options that name the repository's bucket."""
    command = click.option("--ca-file", type=click.Path(path_type=Path), help="Authority of the endpoint, PEM.")(
        command
    )
    command = click.option("--region", help="Region of the bucket.")(command)
    command = click.option("--endpoint", help="URL of the S3 server; absent is AWS.")(command)
    return click.option("--repository", required=True, metavar="s3://BUCKET[/PREFIX]", help="The repository.")(command)


def says_failures(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the operator's errors into one line and exit code 4."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except OperatorError as error:
            click.echo(str(error), err=True)
            raise SystemExit(FAILED) from error

    return run


def _ceremony(
    folder: Path, repository: str, endpoint: str | None, region: str | None, ca_file: Path | None
) -> "Ceremony":
    from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
    from dram_operator.adapters.releases.ceremony import Ceremony
    from dram_operator.adapters.releases.keys import KeyFolder

    return Ceremony(Bucket(BucketSettings(repository, endpoint, region, ca_file)), KeyFolder(folder), _now)


_keys_option = click.option(
    "--keys", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the keys."
)


@click.group()
def keys() -> None:
    """Signing keys of the release repository: root (threshold), targets and release offline, operator online.

    Keys are ed25519 in files of mode 0600. Exit codes: 0 done; 4 not done, and why.
    """


@keys.command()
@_keys_option
@repository_options
@click.option("--root-keys", default=3, show_default=True, help="Number of root keys.")
@click.option("--threshold", default=2, show_default=True, help="Root keys that a new root needs.")
@says_failures
def init(
    folder: Path,
    repository: str,
    endpoint: str | None,
    region: str | None,
    ca_file: Path | None,
    root_keys: int,
    threshold: int,
) -> None:
    """Make all keys and an empty, signed repository."""
    _ceremony(folder, repository, endpoint, region, ca_file).init(root_keys, threshold)
    click.echo(f"{repository}: begun. Agents pin {folder / 'root.json'}; give operator.pem to the operator's Secret")


@keys.command()
@click.argument("role", type=click.Choice(["root", "targets", "release", "operator"]))
@_keys_option
@repository_options
@says_failures
def rotate(
    role: str, folder: Path, repository: str, endpoint: str | None, region: str | None, ca_file: Path | None
) -> None:
    """Replace the key of ROLE; root needs a threshold of its old keys, the others all keys of the folder."""
    _ceremony(folder, repository, endpoint, region, ca_file).rotate(role)
    click.echo(f"{role}: rotated; the old key is kept as *.retired-*.pem")


@keys.command()
@_keys_option
@repository_options
@click.option("--above", default=0, show_default=True, help="A commit that devices have seen: numbers go on above it.")
@says_failures
def recover(
    folder: Path, repository: str, endpoint: str | None, region: str | None, ca_file: Path | None, above: int
) -> None:
    """Sign everything anew: after a crash, a restored or lost bucket, expired offline roles; also once a year."""
    _ceremony(folder, repository, endpoint, region, ca_file).recover(above)
    click.echo(f"{repository}: signed anew")
