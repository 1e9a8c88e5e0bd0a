"""`dram release`: releasing artifacts where the operator holds no release key."""

from datetime import UTC, datetime
from pathlib import Path

import click

from dram_operator.cli.keys import repository_options, says_failures


@click.group()
def release() -> None:
    """Release artifacts that lie in the repository's bucket."""


@release.command()
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST…")
@click.option("--key", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The release key, PEM.")
@click.option("--root", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The pinned root.json.")
@click.option("--withdraw", is_flag=True, help="Take these artifacts out of what may be released.")
@repository_options
@says_failures
def sign(
    digests: tuple[str, ...],
    key: Path,
    root: Path,
    withdraw: bool,
    repository: str,
    endpoint: str | None,
    region: str | None,
    ca_file: Path | None,
) -> None:
    """Sign uploaded artifacts by the SHA-256 of their manifests; the operator publishes the signature next.

    Every file is read back and hashed first. Exit codes: 0 done; 4 not done, and why.
    """
    from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
    from dram_operator.adapters.releases.keys import load_key
    from dram_operator.adapters.releases.signing import ReleaseSigner

    bucket = Bucket(BucketSettings(repository, endpoint, region, ca_file))
    signer = ReleaseSigner(bucket, root.read_bytes(), load_key(key), lambda: datetime.now(UTC))
    plain = [digest.removeprefix("sha256:") for digest in digests]
    version = signer.sign((), plain) if withdraw else signer.sign(plain)
    click.echo(f"{repository}: version {version} of the artifacts is signed")
