"""`dram tryout`: what the chart's servers for trying out need before the operator can use them."""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dram_operator.cli.cluster import Failure
from dram_operator.cli.samples import opened, upload_sample
from dram_operator.errors import OperatorError

if TYPE_CHECKING:
    from dram_operator.settings import Settings


@click.command()
@click.option(
    "--keys",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with root-1.pem, targets.pem, release.pem and operator.pem.",
)
@click.option("--sample", "sample_uri", metavar="s3://BUCKET/PREFIX", help="Put a tiny teacher with its data there.")
def tryout(folder: Path, sample_uri: str | None) -> None:
    """Begin the installation's release repository with keys that are there, and put a sample into its storage.

    What the operator's pod runs first where the chart's `tryout` is on, with the operator's own variables: the
    repository's first root is written where DRAM_RELEASES_ROOT says. What is done already stays as it is. Exit codes:
    0 done; 4 not done, and why: try again.
    """
    from dram_operator.settings import Settings

    try:
        settings = Settings.load()
        if settings.releases_uri is None or settings.releases_root is None:
            raise Failure("there is no release repository in the settings: DRAM_RELEASES_URI is not set")
        settings.releases_root.write_bytes(_begun(settings, settings.releases_uri, folder))
    except OperatorError as error:
        raise Failure(str(error)) from error
    click.echo(f"{settings.releases_uri}: begun; agents pin {settings.releases_root}")
    if sample_uri is not None:
        if settings.storage is None:
            raise Failure("there is no storage to put the sample into: DRAM_STORAGE is not set")
        with opened(settings.storage.model_copy(update={"uri": sample_uri})) as store:
            upload_sample(store)
        click.echo(f"{sample_uri}: a tiny teacher, data and golden questions")


def _begun(settings: "Settings", uri: str, folder: Path) -> bytes:
    from dram_operator.adapters.releases.ceremony import Ceremony
    from dram_operator.adapters.releases.keys import KeyFolder
    from dram_operator.runtime.rollouts.releases import open_bucket

    with tempfile.TemporaryDirectory() as made:
        # A mounted Secret cannot be written; the ceremony keeps roots beside its keys.
        for key in folder.glob("*.pem"):
            shutil.copy(key, made)
        return Ceremony(open_bucket(settings, uri), KeyFolder(Path(made)), lambda: datetime.now(UTC)).ensure()
