"""`python -m docs.site FOLDER`: the pages into FOLDER/source, the site into FOLDER/site."""

import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

from docs.site.staging import stage


def build(folder: Path) -> int:
    """Make FOLDER/site of FOLDER/source; 1 when a page is at fault."""
    where = [
        "-c",
        str(Path(__file__).parent),
        "-d",
        str(folder / "cache"),
        str(folder / "source"),
        str(folder / "site"),
    ]
    return sphinx(["-W", "--keep-going", "-q", "-E", *where])


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    stage(target / "source")
    raise SystemExit(build(target))
