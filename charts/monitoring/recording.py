"""The rules file of recorded counts. `python -m charts.monitoring.recording FILE` writes it."""

import sys
from pathlib import Path

import yaml

from dram_operator.core.rollout.recording import groups

HEAD = """\
# Recording rules for a Prometheus that scrapes many devices, or takes their pushes: they count devices, so that the operator's server needs no series of each.
# Made from operator/dram_operator/core/rollout/recording.py by `make dashboards`; docs/how-to/large-fleets.md says when and how to load it.
"""


def text() -> str:
    """The file."""
    return HEAD + yaml.safe_dump({"groups": groups()}, sort_keys=False, width=160)


def main() -> None:
    """Write it to the path that is the only argument."""
    Path(sys.argv[1]).write_text(text())


if __name__ == "__main__":
    main()
